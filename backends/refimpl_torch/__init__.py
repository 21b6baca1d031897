"""refimpl's PyTorch backend: the forward pass of a spec, differentiated by `torch.autograd`, on the CPU or a CUDA
device. `compiled` runs the same under `torch.compile`; ask for it as ``refimpl_torch:compiled``.

Arithmetic is IEEE float64 or float32: TF32, bfloat16 and autocast are off during a call and restored after it, and
gradients are on, whatever the caller's mode. No other global state is touched.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from refimpl import NetworkSpec
from refimpl.backend import (
    ForwardFunction,
    GradientFunction,
    IntermediatesFunction,
    UpdateRule,
    named_intermediates,
)
from refimpl_torch.arrays import array, named, tensor
from refimpl_torch.network import cost, forward, targets
from refimpl_torch.placed import PlacedNetwork, loss_of
from refimpl_torch.training import Training

Array = NDArray[Any]


class TorchBackend:
    """Gradients by torch autograd, float64 and float32, "cpu" and "cuda"."""

    def __init__(self, name: str = "torch", compiled: bool = False) -> None:
        self.name, self.compiled = name, compiled

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32, on the CPU and on a CUDA device that is there."""
        if dtype not in ("float64", "float32"):
            return f"dtype {dtype}: use float64 or float32"
        if device not in ("cpu", "cuda"):
            return f"device {device}: use cpu or cuda"
        there = device == "cpu" or torch.cuda.is_available()
        return there or f"device {device}: this PyTorch sees no CUDA device"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b)."""

        def compiled(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            with self.place(spec, params, x, y, device=device, learning_rate=0.0) as placed:
                return placed.answer()

        return compiled if self.compiled else _gradients(spec, device)

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""
        return _gradients(spec, device, inputs=True)

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> IntermediatesFunction:
        """(params, x, y) → z2, a2, delta2, z3 …, each (N, n_l)."""

        def intermediates(params: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
            with _autograd(device):
                known = forward(spec, _leaves(spec, params, device), tensor(x, device))
                s = known.a[-1]
                loss = cost(spec, s, targets(spec, tensor(y, device), s.dtype))
                deltas = torch.autograd.grad(loss, known.z)
            parts = (list(map(array, part)) for part in (known.z, known.a[1:], deltas))
            return named_intermediates(*parts)

        return intermediates

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, *, device: str, learning_rate: float
    ) -> PlacedNetwork:
        """The network over tensors of its own on the device, in x's dtype, ready to be run."""
        there = {name: tensor(params[name], device) for name in spec.parameter_shapes}
        batch, modes = (tensor(x, device), tensor(y, device)), partial(_autograd, device, not self.compiled)
        return PlacedNetwork(spec, there, *batch, learning_rate, modes, self.compiled)

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> ForwardFunction:
        """(params, x) → the outputs (N, n_out)."""

        def outputs(params: Mapping[str, Array], x: Array) -> Array:
            with _autograd(device, enabled=False):
                return array(forward(spec, _leaves(spec, params, device), tensor(x, device)).a[-1])

        return outputs

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> Training:
        """The network in training, over tensors of its own on the device."""
        return Training(spec, state, x, y, rule, device, partial(_autograd, device))


def _gradients(spec: NetworkSpec, device: str, inputs: bool = False) -> GradientFunction:
    def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
        with _autograd(device):
            leaves, there = _leaves(spec, params, device), tensor(x, device)
            if inputs:
                leaves["x"] = there.requires_grad_()
            loss = loss_of(spec, leaves, there, tensor(y, device))
            return loss.item(), named(leaves, torch.autograd.grad(loss, list(leaves.values())))

    return gradients


def _leaves(spec: NetworkSpec, params: Mapping[str, Array], device: str) -> dict[str, torch.Tensor]:
    return {name: tensor(params[name], device).requires_grad_() for name in spec.parameter_shapes}


@contextmanager
def _autograd(device: str, enabled: bool = True) -> Iterator[None]:
    """Gradients on or off, and every operation in the dtype of its operands, whatever the caller's modes."""
    with _ieee(), torch.autocast(device, enabled=False), torch.inference_mode(False), torch.set_grad_enabled(enabled):
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
compiled = TorchBackend("torch-compiled", compiled=True)


def __getattr__(name: str) -> TorchBackend:
    if name == "native":
        warnings.warn("refimpl_torch:native is what refimpl_torch:backend is now", FutureWarning, stacklevel=2)
        return backend
    raise AttributeError(f"module 'refimpl_torch' has no attribute {name!r}")
