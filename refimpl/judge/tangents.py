"""Tangents of rounding errors: ∂output/∂node × the node's own rounding, many side by side.

`Tangents` carries K directions at once through a graph; at every node its own rounding joins them, times numbers that
are drawn. With one unit vector a rounding these are all sensitivities; with Gaussian draws their mean square estimates
the 2-norm of sensitivity × rounding, with Cauchy draws a moment of their magnitudes the 1-norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.truth.duals import DualAlgebra
from refimpl.truth.graph import PRIMITIVES, Node
from refimpl.truth.numbers import NumberAlgebra, contracted

Real = NDArray[np.float64]
Tangent = Real | None  # (K, *shape); None where it is 0
Draws = Callable[[Node], Tangent]


class SideBySide(NumberAlgebra):
    """The linear primitives on K arrays side by side, (K, *shape)."""

    def contract(self, node: Node, a: Real, b: Real) -> Real:
        left, out = node.static.split("->")
        first, second = left.split(",")
        first, second = first.rjust(a.ndim, "Z"), second.rjust(b.ndim, "Z")
        return contracted(f"{first},{second}->Z{out}", a, b)

    def sum(self, node: Node, a: Real) -> Real:
        return np.asarray(a.sum(axis=tuple(axis + 1 for axis in node.static), keepdims=True))

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


def _and_its_own(rule: str) -> Any:
    def read(self: Tangents, node: Node, *tangents: Tangent) -> Tangent:
        return DualAlgebra.add(self, node, getattr(DualAlgebra, rule)(self, node, *tangents), self.draws(node))

    return read


for _rule in PRIMITIVES:
    setattr(Tangents, _rule, _and_its_own(_rule))
