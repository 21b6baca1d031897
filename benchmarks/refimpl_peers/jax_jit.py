"""What a good user writes in JAX: `jit(value_and_grad(loss))` over a dictionary of parameters, `jax.nn`'s functions,
and a jitted step in a Python loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refimpl import NetworkSpec
from refimpl.backend import FLUSHING, Arithmetic

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


class JaxJit:
    """jit(value_and_grad)."""

    name = "jax jit"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        if spec.loss.name not in LOSSES or not {layer.activation.name for layer in spec.layers} <= set(ACTIVATIONS):
            return "its activations and losses only"
        if spec.reduction != "mean":
            return "the mean over the batch"
        try:
            jax.devices(device)
        except RuntimeError:
            return "this JAX sees no such device"
        return True

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        return FLUSHING[dtype]

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        def gradients(params: Mapping[str, Any], x: Any, y: Any) -> tuple[float, dict[str, Any]]:
            with self.place(spec, params, x, y, device=device, learning_rate=0.1) as placed:
                return placed.answer()

        return gradients

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> PlacedJit:
        return PlacedJit(spec, params, x, y, device, learning_rate)


class PlacedJit:
    """The compiled functions, the parameters and the batch on the device."""

    def __init__(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, device: str, learning_rate: float
    ) -> None:
        def loss(params: Any, x: Any, y: Any) -> Any:
            a = x
            for number, layer in enumerate(spec.layers, start=1):
                z = a @ params[f"W{number}"].T
                a = ACTIVATIONS[layer.activation.name](z + params[f"b{number}"] if layer.bias else z)
            return LOSSES[spec.loss.name](a, y)

        def step(params: Any, x: Any, y: Any) -> Any:
            grads = jax.grad(loss)(params, x, y)
            return jax.tree.map(lambda p, g: p - learning_rate * g, params, grads)

        self.dtype, self.device = x.dtype.name, jax.devices(device)[0]
        self._loss, self._gradients, self._step = jax.jit(loss), jax.jit(jax.value_and_grad(loss)), jax.jit(step)
        self.entered = ExitStack()
        with self:
            self.params = {name: jnp.array(params[name]) for name in spec.parameter_shapes}
            self.x, self.y = jnp.array(x.reshape(len(x), -1)), jnp.array(y)

    def __enter__(self) -> PlacedJit:
        self.entered.enter_context(jax.enable_x64(self.dtype == "float64"))
        self.entered.enter_context(jax.default_device(self.device))
        if self.device.platform != "cpu":
            self.entered.enter_context(jax.default_matmul_precision("highest"))
        return self

    def __exit__(self, *ignored: object) -> None:
        self.entered.close()

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
