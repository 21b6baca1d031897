"""The floor: the matrix products of forward and backward pass alone, of matrices of the same shapes and through the
same BLAS, on a GPU through cuBLAS. No implementation that multiplies matrices is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from refimpl import NetworkSpec
from refimpl.backend import InModes


class Floor:
    """A contender that computes no gradient."""

    name = "floor"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        return True if device in ("cpu", "cuda") else "cpu or cuda"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        raise NotImplementedError("the floor has no gradient; it is measured, not checked")

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> PlacedFloor:
        rng = np.random.default_rng(0)
        n = len(x)
        a = [rng.standard_normal((n, size)).astype(x.dtype) for size in spec.sizes]
        deltas = [rng.standard_normal((n, size)).astype(x.dtype) for size in spec.sizes[1:]]
        W = [np.array(own["W"]) for own in spec.by_layer(params)]
        return PlacedFloor(a, deltas, W) if device == "cpu" else _on_gpu(a, deltas, W)


class PlacedFloor(InModes):
    """`out[...] = left @ right` for every product, over memory that is there already."""

    def __init__(self, a: list[Any], deltas: list[Any], W: list[Any]) -> None:
        self.forward = [(a[i], w.T, np.empty_like(deltas[i])) for i, w in enumerate(W)]
        self.backward = [(delta.T, a[i], np.empty_like(W[i])) for i, delta in enumerate(deltas)]
        self.backward += [(deltas[i], w, np.empty_like(a[i])) for i, w in enumerate(W) if i > 0]
        self.multiply: Callable[..., Any] = np.dot

    def loss(self) -> None:
        multiply = self.multiply
        for left, right, out in self.forward:
            multiply(left, right, out=out)

    def gradients(self) -> None:
        self.loss()
        multiply = self.multiply
        for left, right, out in self.backward:
            multiply(left, right, out=out)

    def descend(self, steps: int) -> None:
        for _ in range(steps):
            self.gradients()

    def wait(self, result: Any) -> None:
        return None

    def answer(self) -> tuple[float, dict[str, Any]]:
        raise NotImplementedError("the floor has no gradient")

    def parameters(self) -> dict[str, Any]:
        raise NotImplementedError("the floor has no parameters")


def _on_gpu(a: list[Any], deltas: list[Any], W: list[Any]) -> PlacedFloor:
    import torch

    class OnGpu(PlacedFloor):
        """With cuBLAS, in IEEE float32."""

        @staticmethod
        @contextmanager
        def modes() -> Iterator[None]:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            yield
            torch.set_float32_matmul_precision(before)

        def wait(self, result: Any) -> None:
            torch.cuda.synchronize()

    floor = OnGpu(a, deltas, W)
    floor.multiply = torch.mm
    for products in (floor.forward, floor.backward):
        products[:] = [tuple(torch.as_tensor(array, device="cuda") for array in product) for product in products]  # type: ignore[misc]
    return floor


backend = Floor()
