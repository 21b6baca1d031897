"""A network placed on JAX's device, run by programs that are compiled once for a spec and the shapes of a batch.

Gradient descent is one program too: `lax.fori_loop` over the steps, with the parameters' memory donated to it, so
that a whole run costs one dispatch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax import lax
from numpy.typing import NDArray

from refimpl.spec import NetworkSpec
from refimpl_jax.network import cost, forward, targets
from refimpl_jax.own_functions import ACTIVATIONS, own_cost

Array = NDArray[Any]
Leaves = tuple[jax.Array, ...]  # of the parameters, in their order
COMPILED = 64  # compiled programs kept


def loss_of(
    spec: NetworkSpec, dtype: str, own: bool, params: Mapping[str, jax.Array], x: jax.Array, y: jax.Array
) -> jax.Array:
    """The loss (); `own`: by JAX's own functions."""
    if own:
        return own_cost(spec, forward(spec, params, x, [], ACTIVATIONS).a[-1], y, dtype)
    return cost(spec, forward(spec, params, x, []).a[-1], targets(spec, y, dtype))


def _of_leaves(spec: NetworkSpec, dtype: str, own: bool) -> Callable[[Leaves, jax.Array, jax.Array], jax.Array]:
    names = tuple(spec.parameter_shapes)

    def loss(leaves: Leaves, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss_of(spec, dtype, own, dict(zip(names, leaves, strict=True)), x, y)

    return loss


@lru_cache(maxsize=COMPILED)
def compiled_loss(spec: NetworkSpec, dtype: str, own: bool) -> Callable[[Leaves, jax.Array, jax.Array], jax.Array]:
    """(leaves, x, y) → the loss."""
    return jax.jit(_of_leaves(spec, dtype, own))


@lru_cache(maxsize=COMPILED)
def compiled_gradients(spec: NetworkSpec, dtype: str, own: bool) -> Callable[..., tuple[jax.Array, Leaves]]:
    """(leaves, x, y) → the loss and the gradients."""
    return jax.jit(jax.value_and_grad(_of_leaves(spec, dtype, own)))


@lru_cache(maxsize=COMPILED)
def compiled_descent(spec: NetworkSpec, dtype: str, own: bool) -> Callable[..., Leaves]:
    """(leaves, x, y, learning rate, steps) → the leaves after so many steps. Those given are used up."""
    gradients = jax.grad(_of_leaves(spec, dtype, own))

    def descend(leaves: Leaves, x: jax.Array, y: jax.Array, learning_rate: jax.Array, steps: jax.Array) -> Leaves:
        def step(_: int, leaves: Leaves) -> Leaves:
            found = gradients(leaves, x, y)
            return tuple(leaf - learning_rate * gradient for leaf, gradient in zip(leaves, found, strict=True))

        return lax.fori_loop(0, steps, step, leaves)

    return jax.jit(descend, donate_argnums=0)


class PlacedNetwork:
    """A network with parameters and a batch of its own on a device, ready to be run inside `with`, which sets JAX's
    modes and puts them back.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        params: Mapping[str, Array],
        x: Array,
        y: Array,
        learning_rate: float,
        modes: Callable[[], AbstractContextManager[None]],
        own: bool,
    ) -> None:
        self.spec, self.dtype, self.modes = spec, x.dtype.name, modes
        self.entered = ExitStack()
        with modes():
            # copies: the parameters' memory is given away
            self.leaves: Leaves = tuple(jax.numpy.array(params[name]) for name in spec.parameter_shapes)
            self.x, self.y = jax.device_put(x), jax.device_put(y)
            self.learning_rate = jax.device_put(np.asarray(learning_rate, x.dtype))
        self._loss = compiled_loss(spec, self.dtype, own)
        self._gradients = compiled_gradients(spec, self.dtype, own)
        self._descend = compiled_descent(spec, self.dtype, own)

    def __enter__(self) -> PlacedNetwork:
        self.entered.enter_context(self.modes())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entered.close()

    def loss(self) -> jax.Array:
        """The loss (), by the forward pass alone."""
        return self._loss(self.leaves, self.x, self.y)

    def gradients(self) -> tuple[jax.Array, Leaves]:
        """The loss () and the gradients in the parameters' order."""
        return self._gradients(self.leaves, self.x, self.y)

    def descend(self, steps: int) -> Leaves:
        """The parameters after `steps` more steps of gradient descent, all updated at once."""
        self.leaves = self._descend(self.leaves, self.x, self.y, self.learning_rate, np.int32(steps))
        return self.leaves

    def wait(self, result: Any) -> None:
        """Return when `result` has been computed."""
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]

    def answer(self) -> tuple[float, dict[str, Array]]:
        """`gradients` as numbers and NumPy arrays."""
        loss, gradients = self.gradients()
        return float(loss), {
            name: np.array(gradient) for name, gradient in zip(self.spec.parameter_shapes, gradients, strict=True)
        }

    def parameters(self) -> dict[str, Array]:
        """The parameters as NumPy arrays."""
        return {name: np.array(leaf) for name, leaf in zip(self.spec.parameter_shapes, self.leaves, strict=True)}
