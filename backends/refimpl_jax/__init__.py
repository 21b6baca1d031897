"""refimpl's JAX backend: the forward pass of a spec, differentiated by `jax.value_and_grad` under `jax.jit`, on the
CPU or a CUDA device.

float64 is enabled for the call alone, and matrix products run at the highest precision. XLA flushes subnormal numbers
to zero on the CPU: that is declared (`JaxBackend.arithmetic`), so that this backend is judged by the arithmetic it has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from refimpl import NetworkSpec
from refimpl.backend import (
    ARITHMETICS,
    FLUSHING,
    Arithmetic,
    ForwardFunction,
    GradientFunction,
    IntermediatesFunction,
    UpdateRule,
    named_intermediates,
)
from refimpl_jax.network import cost, forward, targets
from refimpl_jax.placed import COMPILED, PlacedNetwork, compiled_gradients, leaves_of, named
from refimpl_jax.training import Training, compiled_forward

Array = NDArray[Any]


class JaxBackend:
    """Gradients by jax.value_and_grad under jit, float64 and float32, "cpu" and "cuda"."""

    name = "jax"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32, on the CPU and on a CUDA device that is there."""
        if dtype not in ARITHMETICS:
            return f"dtype {dtype}: use float64 or float32"
        if device not in ("cpu", "cuda"):
            return f"device {device}: use cpu or cuda"
        try:
            jax.devices(device)
        except RuntimeError:
            return f"device {device}: this JAX sees none"
        return True

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        """IEEE arithmetic, but that subnormal numbers are flushed on the CPU."""
        return FLUSHING[dtype] if device == "cpu" else ARITHMETICS[dtype]

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b)."""
        compiled = compiled_gradients(spec, dtype)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            with _scope(dtype, device):
                loss, grads = compiled(leaves_of(spec, params), x, y)
                return float(loss), named(spec, grads)

        return gradients

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""
        compiled = compiled_gradients(spec, dtype, inputs=True)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            with _scope(dtype, device):
                loss, (grads, x_grad) = compiled(leaves_of(spec, params), x, y)
                return float(loss), {**named(spec, grads), "x": np.array(x_grad)}

        return gradients

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> IntermediatesFunction:
        """(params, x, y) → z2, a2, delta2, z3 …, each (N, n_l)."""
        compiled = _intermediates(spec, dtype)

        def intermediates(params: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
            with _scope(dtype, device):
                shifts = [np.zeros((len(x), layer.size), dtype) for layer in spec.layers]
                deltas, known = compiled(shifts, dict(params), x, y)
            parts = ([np.array(each) for each in part] for part in (*known, deltas))
            return named_intermediates(*parts)

        return intermediates

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, *, device: str, learning_rate: float
    ) -> PlacedNetwork:
        """The network over arrays of its own on the device, in x's dtype, ready to be run."""
        return PlacedNetwork(spec, params, x, y, learning_rate, partial(_scope, x.dtype.name, device))

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> ForwardFunction:
        """(params, x) → the outputs (N, n_out)."""
        compiled = compiled_forward(spec)

        def outputs(params: Mapping[str, Array], x: Array) -> Array:
            with _scope(dtype, device):
                return np.array(compiled(leaves_of(spec, params), x))

        return outputs

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> Training:
        """The network in training, over arrays of its own on the device."""
        return Training(spec, state, x, y, rule, partial(_scope, x.dtype.name, device))


@lru_cache(maxsize=COMPILED)
def _intermediates(spec: NetworkSpec, dtype: str) -> Callable[..., Any]:
    def loss(
        shifts: list[jax.Array], params: dict[str, jax.Array], x: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Any]:
        known = forward(spec, params, x, shifts)
        return cost(spec, known.a[-1], targets(spec, y, dtype)), (known.z, known.a[1:])

    return jax.jit(jax.grad(loss, has_aux=True))


@contextmanager
def _scope(dtype: str, device: str) -> Iterator[None]:
    """float64 where asked for, IEEE float32 in matrix products, and the device, for this call alone; a caller's
    guards are for the caller's code.
    """
    with (
        jax.enable_x64(dtype == "float64"),
        jax.default_matmul_precision("highest"),
        jax.default_device(jax.devices(device)[0]),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
    ):
        yield


backend = JaxBackend()


def __getattr__(name: str) -> JaxBackend:
    if name == "native":
        warnings.warn("refimpl_jax:native is what refimpl_jax:backend is now", FutureWarning, stacklevel=2)
        return backend
    raise AttributeError(f"module 'refimpl_jax' has no attribute {name!r}")
