"""A network trained by JAX: the steps between two reports are one compiled loop, `lax.while_loop`, which looks at the
limits itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from refimpl import NetworkSpec
from refimpl.backend import CHANGE, DIVERGED, GRADIENT_NORM, TARGET_LOSS, InModes, Leg, Limits, UpdateRule
from refimpl_jax.network import forward
from refimpl_jax.placed import COMPILED, Leaves, leaves_of, loss_of, named
from refimpl_jax.sharding import on_all, over_rows, weighted_loss

Array = NDArray[Any]


class Carried(NamedTuple):
    """What the loop carries from step to step."""

    step: jax.Array
    leaves: Leaves
    good: Leaves
    buffers: tuple[Leaves, ...]
    previous: jax.Array
    losses: jax.Array
    norms: jax.Array
    reached: jax.Array


def _loss(spec: NetworkSpec, dtype: str, leaves: Leaves, x: jax.Array, y: jax.Array, weights: Any) -> jax.Array:
    if weights is not None:
        return weighted_loss(spec, dtype, leaves, x, y, weights)
    return loss_of(spec, dtype, leaves, x, y)


def _measured(spec: NetworkSpec, dtype: str, leaves: Leaves, x: jax.Array, y: jax.Array, weights: Any) -> Any:
    loss, gradients = jax.value_and_grad(lambda leaves: _loss(spec, dtype, leaves, x, y, weights))(leaves)
    return loss, _norm(gradients), gradients


def _norm(gradients: Leaves) -> jax.Array:
    """The 2-norm of all elements, without overflow or underflow on the way."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(gradient)) for gradient in gradients]))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    total = sum(jnp.sum(jnp.square(gradient / scale)) for gradient in gradients)
    return jnp.where(jnp.isfinite(largest), scale * jnp.sqrt(total), largest)


def _reached(loss: jax.Array, norm: jax.Array, previous: jax.Array, limits: jax.Array) -> jax.Array:
    target_loss, gradient_norm, change, bound = limits
    diverged = ~(jnp.isfinite(loss) & jnp.isfinite(norm)) | (loss > bound)
    found = TARGET_LOSS * (loss <= target_loss) + GRADIENT_NORM * (norm <= gradient_norm)
    found = found + CHANGE * (jnp.abs(loss - previous) <= change)
    return jnp.where(diverged, DIVERGED, found).astype(jnp.int32)


@lru_cache(maxsize=COMPILED)
def compiled_leg(spec: NetworkSpec, dtype: str, rule: UpdateRule, over: str = "") -> Callable[..., Carried]:
    """(leaves, buffers, x, y, batches or None, weights or None, coefficients, limits, previous) → what the loop ends
    with. `over`: the kind of devices that the rows of a batch lie over, if they do.
    """

    def batch(x: jax.Array, rows: jax.Array) -> jax.Array:
        return lax.with_sharding_constraint(x[rows], over_rows(over)) if over else x[rows]  # type: ignore[no-untyped-call]

    def leg(
        leaves: Leaves,
        buffers: tuple[Leaves, ...],
        x: jax.Array,
        y: jax.Array,
        batches: jax.Array | None,
        weights: jax.Array | None,
        coefficients: jax.Array,
        limits: jax.Array,
        previous: jax.Array,
    ) -> Carried:
        steps = len(coefficients)

        def step(carried: Carried) -> Carried:
            i = carried.step
            xs, ys = x, y
            if batches is not None:
                rows = batches[i % len(batches)]
                xs, ys = batch(x, rows), batch(y, rows)
            loss, norm, gradients = _measured(spec, dtype, carried.leaves, xs, ys, weights)
            reached = _reached(loss, norm, carried.previous, limits)
            moved = [
                rule.update(leaf, gradient, kept, coefficients[i])
                for leaf, gradient, kept in zip(carried.leaves, gradients, carried.buffers, strict=True)
            ]

            def chosen(new: Any, old: Any) -> Any:
                return jax.tree.map(lambda a, b: jnp.where(reached == 0, a, b), new, old)

            return Carried(
                i + 1,
                chosen(tuple(leaf for leaf, _ in moved), carried.leaves),
                chosen(carried.leaves, carried.good),
                chosen(tuple(kept for _, kept in moved), carried.buffers),
                loss,
                carried.losses.at[i].set(loss),
                carried.norms.at[i].set(norm),
                reached,
            )

        empty = jnp.zeros(steps, leaves[0].dtype)
        start = Carried(jnp.int32(0), leaves, leaves, buffers, previous, empty, empty, jnp.int32(0))
        return lax.while_loop(lambda carried: (carried.step < steps) & (carried.reached == 0), step, start)

    placement: Any = {"out_shardings": on_all(over)} if over else {}
    return jax.jit(leg, **placement)


@lru_cache(maxsize=COMPILED)
def compiled_measure(spec: NetworkSpec, dtype: str, over: str = "") -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(leaves, x, y, weights or None) → the loss and the norm of the gradient."""
    placement: Any = {"out_shardings": on_all(over)} if over else {}
    return jax.jit(lambda leaves, x, y, weights: _measured(spec, dtype, leaves, x, y, weights)[:2], **placement)


@lru_cache(maxsize=COMPILED)
def compiled_forward(spec: NetworkSpec) -> Callable[..., jax.Array]:
    """(leaves, x) → the outputs."""
    return jax.jit(lambda leaves, x: forward(spec, dict(zip(spec.parameter_shapes, leaves, strict=True)), x).a[-1])


class Training(InModes):
    """A `refimpl.backend.Trainer` on a device."""

    over = ""

    def __init__(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, rule: UpdateRule,
        modes: Callable[[], AbstractContextManager[None]],
    ) -> None:  # fmt: skip
        self.spec, self.dtype, self.rule, self.modes = spec, x.dtype.name, rule, modes
        with modes():
            there = {name: self._placed(array) for name, array in state.items()}
            self.x, self.y = self._placed(x), self._placed(y)
        self.leaves: Leaves = leaves_of(spec, there)
        self.buffers = tuple(tuple(there[key] for key in rule.buffer_names(name)) for name in spec.parameter_shapes)
        self.good = self.leaves

    def _placed(self, array: Array) -> jax.Array:
        return jnp.array(array)

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """As `Trainer.run`."""
        return self._run(batches, None, coefficients, limits, previous)

    def _run(
        self, batches: Array | None, weights: Array | None, coefficients: Array, limits: Limits, previous: float
    ) -> Leg:
        ended = compiled_leg(self.spec, self.dtype, self.rule, self.over)(
            self.leaves, self.buffers, self.x, self.y, batches, weights, coefficients.astype(self.dtype),
            np.array(limits, self.dtype), np.array(previous, self.dtype),
        )  # fmt: skip
        self.leaves, self.good, self.buffers = ended.leaves, ended.good, ended.buffers
        reached, steps = int(ended.reached), int(ended.step)
        if reached & DIVERGED:
            self.revert()
        return Leg(np.array(ended.losses, np.float64)[:steps], np.array(ended.norms, np.float64)[:steps], reached)

    def revert(self) -> None:
        """As `Trainer.revert`."""
        self.leaves = self.good

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """As `Trainer.measure`."""
        loss, norm = compiled_measure(self.spec, self.dtype)(self.leaves, x, y, None)
        return float(loss), float(norm)

    def outputs(self, x: Array) -> Array:
        """As `Trainer.outputs`."""
        return np.array(compiled_forward(self.spec)(self.leaves, x))

    def state(self) -> dict[str, Array]:
        """As `Trainer.state`."""
        found = named(self.spec, self.leaves)
        for name, buffers in zip(self.spec.parameter_shapes, self.buffers, strict=True):
            found |= dict(zip(self.rule.buffer_names(name), map(np.array, buffers), strict=True))
        return found
