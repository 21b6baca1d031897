"""refimpl's PyTorch backend: the forward pass of a spec, differentiated by `torch.autograd`, on the CPU or a CUDA
device. `native` runs PyTorch's own functions in place of ours (``own_functions.py``), `compiled` runs ours under
`torch.compile`; ask for them as ``refimpl_torch:native`` and ``refimpl_torch:compiled``.

Arithmetic is IEEE float64 or float32: TF32, bfloat16 and autocast are off during a call and restored after it, and
gradients are on, whatever the caller's mode. No other global state is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from refimpl.descent import UpdateRule
from refimpl.spec import NetworkSpec
from refimpl_torch.network import cost, forward, targets
from refimpl_torch.running import PlacedNetwork, loss_of
from refimpl_torch.training import Training

Array = NDArray[Any]
Answer = tuple[float, dict[str, Array]]
DTYPES = {"float64": torch.float64, "float32": torch.float32}


class TorchBackend:
    """Gradients by torch autograd, float64 and float32, "cpu" and "cuda"."""

    def __init__(self, name: str = "torch", native: bool = False, compiled: bool = False) -> None:
        self.name, self.native, self.compiled = name, native, compiled

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32, on the CPU and on a CUDA device that is there."""
        if dtype not in DTYPES:
            return f"dtype {dtype}: use float64 or float32"
        if device not in ("cpu", "cuda"):
            return f"device {device}: use cpu or cuda"
        return (
            True
            if device == "cpu" or torch.cuda.is_available()
            else f"device {device}: this PyTorch sees no CUDA device"
        )

    def gradient_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b)."""

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with _autograd(device):
                leaves = _leaves(spec, params, device)
                loss = loss_of(spec, leaves, _tensor(x, device), _tensor(y, device), self.native)
                return loss.item(), _gradients(loss, leaves)

        def compiled(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with self.place(spec, params, x, y, device=device, learning_rate=0.0) as placed:
                return placed.answer()

        return compiled if self.compiled else gradients

    def input_gradient_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with _autograd(device):
                leaves = {**_leaves(spec, params, device), "x": _tensor(x, device).requires_grad_()}
                known = forward(spec, leaves, leaves["x"])
                loss = cost(spec, known.a[-1], targets(spec, _tensor(y, device), DTYPES[dtype]))
                return loss.item(), _gradients(loss, leaves)

        return gradients

    def intermediates_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array, Array], dict[str, Array]]:
        """(params, x, y) → z2, a2, delta2, z3 …, each (N, n_l)."""

        def intermediates(params: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
            with _autograd(device):
                known = forward(spec, _leaves(spec, params, device), _tensor(x, device))
                loss = cost(spec, known.a[-1], targets(spec, _tensor(y, device), DTYPES[dtype]))
                deltas = torch.autograd.grad(loss, known.z)
            values: dict[str, Array] = {}
            for layer, (z, a, delta) in enumerate(zip(known.z, known.a[1:], deltas, strict=True), start=2):
                values |= {f"z{layer}": _numpy(z), f"a{layer}": _numpy(a), f"delta{layer}": _numpy(delta)}
            return values

        return intermediates

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, *, device: str, learning_rate: float
    ) -> PlacedNetwork:
        """The network over tensors of its own on the device, in x's dtype, ready to be run."""
        there = {name: _tensor(params[name], device) for name in spec.parameter_shapes}
        return PlacedNetwork(
            spec, there, _tensor(x, device), _tensor(y, device), learning_rate, partial(_autograd, device),
            self.native, self.compiled,
        )  # fmt: skip

    def forward_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array], Array]:
        """(params, x) → the outputs (N, n_out)."""

        def outputs(params: Mapping[str, Array], x: Array) -> Array:
            with _autograd(device), torch.no_grad():
                there = {name: _tensor(params[name], device) for name in spec.parameter_shapes}
                return _numpy(forward(spec, there, _tensor(x, device)).a[-1])

        return outputs

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> Training:
        """The network in training, over tensors of its own on the device."""
        there = {name: _tensor(array, device) for name, array in state.items()}
        return Training(spec, there, _tensor(x, device), _tensor(y, device), rule, partial(_autograd, device))


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
def _autograd(device: str) -> Iterator[None]:
    """Gradients on, and every operation in the dtype of its operands, whatever the caller's modes."""
    with _ieee(), torch.autocast(device, enabled=False), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _ieee() -> Iterator[None]:
    """float32 matrix products in float32, by both of PyTorch's settings; both are put back, the last one set first.

    The older refuses to be read while the newer (2.9) contradicts it, and writing it writes the newer too.
    """
    with ExitStack() as restored:
        for product in _matrix_products():
            restored.callback(_set_precision, product, product.fp32_precision)
            product.fp32_precision = "ieee"
        restored.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        yield


def _matrix_products() -> list[Any]:
    products: list[Any] = [getattr(library, "matmul", None) for library in (torch.backends.cuda, torch.backends.mkldnn)]
    return [product for product in products if hasattr(product, "fp32_precision")]


def _set_precision(product: Any, precision: str) -> None:
    product.fp32_precision = "none"  # which inherits: to be left so where that is what it was
    if product.fp32_precision != precision:
        product.fp32_precision = precision


backend = TorchBackend()
native = TorchBackend("torch-native", native=True)
compiled = TorchBackend("torch-compiled", compiled=True)
