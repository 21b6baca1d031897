"""Rounding errors through a graph, many side by side.

`Tangents` carries K directions at once; at every node its own rounding joins them, times numbers that are drawn. With
one unit vector a rounding these are all sensitivities ∂output/∂node × rounding; with Gaussian draws their mean square
estimates the 2-norm, with Cauchy draws a moment of their magnitudes the 1-norm. `Displaced` computes the graph K times
with such roundings added, to all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.truth.duals import DualAlgebra
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import PRIMITIVES, Node
from refimpl.truth.numbers import BITS, NumberAlgebra, contracted, derivatives
from refimpl.truth.precision import working_precision

Real = NDArray[np.float64]
Tangent = Real | None  # (K, *shape); None where it is 0
Draws = Callable[[Node], Tangent]
GRID = 256  # numbers between which a function is interpolated


class SideBySide(NumberAlgebra):
    """The primitives, but for functions, on K arrays side by side, (K, *shape)."""

    def contract(self, node: Node, a: Real, b: Real) -> Real:
        left, out = node.static.split("->")
        first, second = left.split(",")
        first, second = first.rjust(a.ndim, "Z"), second.rjust(b.ndim, "Z")
        return contracted(f"{first},{second}->Z{out}", a, b)

    def sum(self, node: Node, a: Real) -> Real:
        return np.asarray(a.sum(axis=tuple(axis + 1 for axis in node.static), keepdims=True))

    def max(self, node: Node, a: Real) -> Real:
        return np.asarray(a.max(axis=tuple(axis + 1 for axis in node.static), keepdims=True))

    def first_largest(self, node: Node, a: Real) -> Real:
        return np.stack([super(SideBySide, self).first_largest(node, one) for one in a])

    def gather(self, node: Node, a: Real) -> Real:
        flat = a.reshape(len(a), -1)
        return np.concatenate([flat, np.zeros((len(a), 1))], axis=1)[:, node.static]

    def scatter_add(self, node: Node, a: Real) -> Real:
        return np.stack([super(SideBySide, self).scatter_add(node, one) for one in a])

    def reshape(self, node: Node, a: Real) -> Real:
        return a.reshape(len(a), *node.shape)

    def transpose(self, node: Node, a: Real) -> Real:
        return a.transpose(0, *(axis + 1 for axis in node.static))

    def broadcast(self, node: Node, a: Real) -> Real:
        new = (1,) * (node.ndim - node.inputs[0].ndim)
        return np.broadcast_to(a.reshape(len(a), *new, *node.inputs[0].shape), (len(a), *node.shape))


class Tangents(DualAlgebra):
    """`draws(node)` are the tangents of the node's own rounding."""

    def __init__(self, numbers: SideBySide, values: Mapping[Node, Real], draws: Draws) -> None:
        super().__init__(numbers, values, {})
        self.draws = draws


class Displaced(SideBySide):
    """A graph whose nodes are displaced by `draws(node)`, from their `values` on: (K, *shape) of what that reaches. A
    function with kinks stays on the piece that it is on.
    """

    def __init__(self, numbers: NumberAlgebra, values: Mapping[Node, Real], draws: Draws) -> None:
        super().__init__(numbers.known, numbers.evaluated)
        self.values, self.draws = values, draws

    def apply(self, node: Node, a: Real) -> Real:
        (function, times), where = node.static, self.values[node.inputs[0]]
        found = np.empty_like(a)
        on = np.searchsorted(function.kinks, where)
        for number, piece in enumerate(function.pieces):
            here = on == number
            if here.any():
                found[:, here] = interpolated(replace(function, pieces=(piece,), kinks=()), times, a[:, here])
        return found


def interpolated(function: Elementwise, times: int, at: Real) -> Real:
    """That derivative of a smooth function at many numbers, by cubics through it and its slope on a grid, which is fine
    near 0.
    """
    ends = np.arcsinh([at.min(), at.max()], dtype=np.float64)
    grid = np.sinh(np.linspace(ends[0], ends[1] + 2.0**-20, GRID + 1))
    with working_precision(BITS):
        rows = np.array([derivatives(function, number, times + 1)[times:] for number in grid.tolist()])
    value, slope, knots = rows[:, 0].astype(at.dtype), rows[:, 1].astype(at.dtype), grid.astype(at.dtype)
    left = np.clip(np.searchsorted(knots, at) - 1, 0, GRID - 1)
    step, rise = np.diff(knots)[left], np.diff(value)[left]
    t = (at - knots[left]) / step
    first, last = slope[left] * step - rise, rise - slope[left + 1] * step
    return np.asarray(value[left] + t * (rise + (1 - t) * (first * (1 - t) + last * t)))


def _and_its_own(rule: str) -> Any:
    def read(self: Tangents, node: Node, *tangents: Tangent) -> Tangent:
        return DualAlgebra.add(self, node, getattr(DualAlgebra, rule)(self, node, *tangents), self.draws(node))

    return read


def _and_displaced(rule: str) -> Any:
    displaced = getattr(Displaced, rule)

    def read(self: Displaced, node: Node, *inputs: Real) -> Real:
        if all(a.ndim == one.ndim for a, one in zip(inputs, node.inputs, strict=True)):
            made, own = self.values[node], self.draws(node)
        else:
            made, own = displaced(self, node, *inputs), self.draws(node)
        return made if own is None else np.asarray(made + own)

    return read


for _rule in PRIMITIVES:
    setattr(Tangents, _rule, _and_its_own(_rule))
    setattr(Displaced, _rule, _and_displaced(_rule))
