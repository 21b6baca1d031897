"""What a good user writes in JAX: `jit(value_and_grad(loss))` over a dictionary of parameters, `jax.nn`'s functions,
and a jitted step in a Python loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refimpl import NetworkSpec
from refimpl.backend import FLUSHING, Arithmetic, InModes
from refimpl_peers.placed import Peer

ACTIVATIONS: dict[str, Any] = {
    "identity": lambda z: z,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
}


def squared_error(s: Any, y: Any) -> Any:
    return jnp.sum((s - y) ** 2) / (2 * len(y))


def cross_entropy(s: Any, y: Any) -> Any:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(s), y[:, None], axis=1))


LOSSES: dict[str, Any] = {"squared_error": squared_error, "cross_entropy": cross_entropy}


class JaxJit(Peer):
    """jit(value_and_grad)."""

    name = "jax jit"
    activations, losses = frozenset(ACTIVATIONS), frozenset(LOSSES)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        try:
            jax.devices(device)
        except RuntimeError:
            return "this JAX sees no such device"
        return super().supports(spec, dtype=dtype, device=device)

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        return FLUSHING[dtype]

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> PlacedJit:
        return PlacedJit(spec, params, x, y, device, learning_rate)


class PlacedJit(InModes):
    """The compiled functions, the parameters and the batch on the device."""

    def __init__(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, device: str, learning_rate: float
    ) -> None:
        def loss(params: Any, x: Any, y: Any) -> Any:
            a = x
            for layer, own in zip(spec.layers, spec.by_layer(params), strict=True):
                z = a @ own["W"].T
                a = ACTIVATIONS[layer.activation.name](z + own["b"] if layer.bias else z)
            return LOSSES[spec.loss.name](a, y)

        def step(params: Any, x: Any, y: Any) -> Any:
            grads = jax.grad(loss)(params, x, y)
            return jax.tree.map(lambda p, g: p - learning_rate * g, params, grads)

        self.dtype, self.device = x.dtype.name, jax.devices(device)[0]
        self._loss, self._gradients, self._step = jax.jit(loss), jax.jit(jax.value_and_grad(loss)), jax.jit(step)
        with self:
            self.params = {name: jnp.array(params[name]) for name in spec.parameter_shapes}
            self.x, self.y = jnp.array(x.reshape(len(x), -1)), jnp.array(y)

    @contextmanager
    def modes(self) -> Iterator[None]:
        precision = None if self.device.platform == "cpu" else "highest"
        x64 = jax.enable_x64(self.dtype == "float64")
        with x64, jax.default_device(self.device), jax.default_matmul_precision(precision):
            yield

    def loss(self) -> Any:
        return self._loss(self.params, self.x, self.y)

    def gradients(self) -> Any:
        return self._gradients(self.params, self.x, self.y)

    def descend(self, steps: int) -> Any:
        for _ in range(steps):
            self.params = self._step(self.params, self.x, self.y)
        return self.params

    def wait(self, result: Any) -> None:
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]

    def answer(self) -> tuple[float, dict[str, Any]]:
        loss, grads = self.gradients()
        return float(loss), {name: np.array(grads[name]) for name in self.params}

    def parameters(self) -> dict[str, Any]:
        return {name: np.array(array) for name, array in self.params.items()}


backend = JaxJit()
