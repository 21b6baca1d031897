"""refimpl's PyTorch backend: the forward pass of a spec, differentiated by `torch.autograd`, on the CPU or a CUDA device.

Arithmetic is IEEE float64 or float32: TF32 and other shortcuts are off during a call and restored after it. No other global state is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from refimpl.spec import NetworkSpec
from refimpl_torch.network import cost, forward, targets

Array = NDArray[Any]
Answer = tuple[float, dict[str, Array]]
DTYPES = {"float64": torch.float64, "float32": torch.float32}


class TorchBackend:
    """Gradients by torch autograd, float64 and float32, "cpu" and "cuda"."""

    name = "torch"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32, on the CPU and on a CUDA device that is there."""
        if dtype not in DTYPES:
            return f"dtype {dtype}: use float64 or float32"
        if device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
            return f"device {device}: this PyTorch sees no CUDA device"
        return True if device.partition(":")[0] in ("cpu", "cuda") else f"device {device}: use cpu or cuda"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b)."""

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with _autograd():
                leaves = _leaves(spec, params, device)
                known = forward(spec, leaves, _tensor(x, device))
                loss = cost(spec, known.a[-1], targets(spec, _tensor(y, device), DTYPES[dtype]))
                return loss.item(), _gradients(loss, leaves)

        return gradients

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with _autograd():
                leaves = {**_leaves(spec, params, device), "x": _tensor(x, device).requires_grad_()}
                known = forward(spec, leaves, leaves["x"])
                loss = cost(spec, known.a[-1], targets(spec, _tensor(y, device), DTYPES[dtype]))
                return loss.item(), _gradients(loss, leaves)

        return gradients

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Callable[[Mapping[str, Array], Array, Array], dict[str, Array]]:
        """(params, x, y) → z2, a2, delta2, z3 …, each (N, n_l)."""

        def intermediates(params: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
            with _autograd():
                known = forward(spec, _leaves(spec, params, device), _tensor(x, device))
                loss = cost(spec, known.a[-1], targets(spec, _tensor(y, device), DTYPES[dtype]))
                deltas = torch.autograd.grad(loss, known.z)
            values: dict[str, Array] = {}
            for layer, (z, a, delta) in enumerate(zip(known.z, known.a[1:], deltas, strict=True), start=2):
                values |= {f"z{layer}": _numpy(z), f"a{layer}": _numpy(a), f"delta{layer}": _numpy(delta)}
            return values

        return intermediates


def _gradients(loss: torch.Tensor, leaves: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {name: _numpy(gradient) for name, gradient in zip(leaves, gradients, strict=True)}


def _leaves(spec: NetworkSpec, params: Mapping[str, Array], device: str) -> dict[str, torch.Tensor]:
    return {name: _tensor(params[name], device).requires_grad_() for name in spec.parameter_shapes}


def _tensor(array: Array, device: str) -> torch.Tensor:
    # a copy: the caller's memory may be read-only, and must not be shared with a graph
    return torch.tensor(np.ascontiguousarray(array).reshape(array.shape), device=device)


def _numpy(tensor: torch.Tensor) -> Array:
    return np.array(tensor.detach().cpu().numpy())


@contextmanager
def _autograd() -> Iterator[None]:
    """Gradients on, whatever the caller's mode, and IEEE arithmetic in matrix products."""
    precision = torch.get_float32_matmul_precision()
    cuda = torch.backends.cuda.matmul
    tf32 = cuda.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if cuda.allow_tf32 != tf32:
            cuda.allow_tf32 = tf32


backend = TorchBackend()
