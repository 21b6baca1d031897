"""A network placed on JAX's device, run by programs that are compiled once for a spec and the shapes of a batch.

Gradient descent is one program too: `lax.fori_loop` over the steps, with the parameters' memory donated to it, so
that a whole run costs one dispatch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax import lax
from numpy.typing import NDArray

from refimpl import NetworkSpec
from refimpl.backend import InModes
from refimpl_jax.network import cost, forward, targets

Array = NDArray[Any]
Leaves = tuple[jax.Array, ...]  # of the parameters, in their order
COMPILED = 64  # compiled programs kept


def leaves_of(spec: NetworkSpec, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is named after the parameters, in their order."""
    return tuple(arrays[name] for name in spec.parameter_shapes)


def named(spec: NetworkSpec, leaves: Leaves) -> dict[str, Array]:
    """The inverse of `leaves_of`, as NumPy arrays."""
    return {name: np.array(leaf) for name, leaf in zip(spec.parameter_shapes, leaves, strict=True)}


def loss_of(spec: NetworkSpec, dtype: str, leaves: Leaves, x: jax.Array, y: jax.Array) -> jax.Array:
    """The loss ()."""
    params = dict(zip(spec.parameter_shapes, leaves, strict=True))
    return cost(spec, forward(spec, params, x).a[-1], targets(spec, y, dtype))


@lru_cache(maxsize=COMPILED)
def compiled_loss(spec: NetworkSpec, dtype: str) -> Callable[[Leaves, jax.Array, jax.Array], jax.Array]:
    """(leaves, x, y) → the loss."""
    return jax.jit(partial(loss_of, spec, dtype))


@lru_cache(maxsize=COMPILED)
def compiled_gradients(spec: NetworkSpec, dtype: str, inputs: bool = False) -> Callable[..., tuple[jax.Array, Any]]:
    """(leaves, x, y) → the loss and the gradients; with `inputs` a pair of them and of that of x."""
    return jax.jit(jax.value_and_grad(partial(loss_of, spec, dtype), argnums=(0, 1) if inputs else 0))


@lru_cache(maxsize=COMPILED)
def compiled_step(spec: NetworkSpec, dtype: str) -> Callable[..., Leaves]:
    """(leaves, x, y, learning rate) → the leaves after a step of gradient descent. Those given are used up."""
    gradients = jax.grad(partial(loss_of, spec, dtype))

    def step(leaves: Leaves, x: jax.Array, y: jax.Array, learning_rate: jax.Array) -> Leaves:
        found = gradients(leaves, x, y)
        return tuple(leaf - learning_rate * gradient for leaf, gradient in zip(leaves, found, strict=True))

    return jax.jit(step, donate_argnums=0)


@lru_cache(maxsize=COMPILED)
def compiled_descent(spec: NetworkSpec, dtype: str) -> Callable[..., Leaves]:
    """(leaves, x, y, learning rate, steps) → the leaves after so many steps. Those given are used up."""
    step = compiled_step(spec, dtype)

    def descend(leaves: Leaves, x: jax.Array, y: jax.Array, learning_rate: jax.Array, steps: jax.Array) -> Leaves:
        return lax.fori_loop(0, steps, lambda _, moving: step(moving, x, y, learning_rate), leaves)

    return jax.jit(descend, donate_argnums=0)


class PlacedNetwork(InModes):
    """A network with parameters and a batch of its own on a device, ready to be run inside `with`."""

    def __init__(
        self,
        spec: NetworkSpec,
        params: Mapping[str, Array],
        x: Array,
        y: Array,
        learning_rate: float,
        modes: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.spec, self.dtype, self.modes = spec, x.dtype.name, modes
        with modes():
            # copies: the parameters' memory is given away
            self.leaves: Leaves = tuple(map(jax.numpy.array, leaves_of(spec, params)))
            self.x, self.y = jax.device_put(x), jax.device_put(y)
            self.learning_rate = jax.device_put(np.asarray(learning_rate, x.dtype))
        self._loss, self._gradients = compiled_loss(spec, self.dtype), compiled_gradients(spec, self.dtype)
        self._step, self._descend = compiled_step(spec, self.dtype), compiled_descent(spec, self.dtype)

    def loss(self) -> jax.Array:
        """The loss (), by the forward pass alone."""
        return self._loss(self.leaves, self.x, self.y)

    def gradients(self) -> tuple[jax.Array, Leaves]:
        """The loss () and the gradients in the parameters' order."""
        return self._gradients(self.leaves, self.x, self.y)

    def descend(self, steps: int) -> Leaves:
        """The parameters after `steps` more steps of gradient descent, all updated at once."""
        given = self.leaves, self.x, self.y, self.learning_rate
        self.leaves = self._step(*given) if steps == 1 else self._descend(*given, np.int32(steps))
        return self.leaves

    def wait(self, result: Any) -> None:
        """Return when `result` has been computed."""
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]

    def answer(self) -> tuple[float, dict[str, Array]]:
        """`gradients` as numbers and NumPy arrays."""
        loss, gradients = self.gradients()
        return float(loss), named(self.spec, gradients)

    def parameters(self) -> dict[str, Array]:
        """The parameters as NumPy arrays."""
        return named(self.spec, self.leaves)
