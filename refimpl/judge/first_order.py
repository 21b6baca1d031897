"""How rounding errors come out of a graph to first order: Σ over nodes of ∂output/∂node × the node's own rounding.

`TangentAlgebra` reads a graph over numbers with K tangents each: at every node the tangents of the inputs are carried
on, and the node's own rounding (:mod:`refimpl.truth.rounding`) joins them, times the numbers of `draws`. With one unit
vector a rounding these tangents are all sensitivities; with Gaussian draws their mean square estimates the 2-norm
√Σ(∂output/∂node · rounding)², with Cauchy draws the median of their magnitudes the 1-norm Σ|∂output/∂node| · rounding
(Indyk, "Stable distributions, pseudorandom generators, embeddings, and data stream computation", J. ACM 53, 2006).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.truth.graph import Node, apply, first_largest, inverse_deviation, normalise, softmax
from refimpl.truth.numbers import contracted

Real = NDArray[np.float64]
Tangent = Real | None  # (K, *shape); None where it is 0
Value = tuple[Real, Tangent]
Draws = Callable[[Node, Real], Tangent]


@dataclass
class TangentAlgebra:
    """Values are pairs (mid, tangents). `numbers(node, *mids)` makes mids; `draws(node, mid, mids of the inputs)` the
    tangents (K, *shape) of the node's own rounding, or None.
    """

    numbers: Any
    draws: Callable[..., Tangent]
    count: int

    def _made(self, node: Node, inputs: tuple[Value, ...], tangent: Tangent) -> Value:
        mids = [mid for mid, _ in inputs]
        mid = getattr(self.numbers, node.rule)(node, *mids)
        return mid, _sum(tangent, self.draws(node, mid, *mids))

    def given(self, node: Node) -> Value:
        return self._made(node, (), None)

    constant = given

    def add(self, node: Node, a: Value, b: Value) -> Value:
        return self._made(node, (a, b), _sum(a[1], b[1]))

    def mul(self, node: Node, a: Value, b: Value) -> Value:
        return self._made(node, (a, b), _sum(_times(b[0], a[1]), _times(a[0], b[1])))

    def div(self, node: Node, a: Value, b: Value) -> Value:
        share = -a[0] / (b[0] * b[0])
        return self._made(node, (a, b), _sum(_times(1 / b[0], a[1]), _times(share, b[1])))

    def scale(self, node: Node, a: Value) -> Value:
        return self._made(node, (a,), _times(np.asarray(float(node.static)), a[1]))

    def contract(self, node: Node, a: Value, b: Value) -> Value:
        left, out = node.static.split("->")
        first, second = left.split(",")
        tangent = None if a[1] is None else contracted(f"Z{first},{second}->Z{out}", a[1], b[0])
        other = None if b[1] is None else contracted(f"{first},Z{second}->Z{out}", a[0], b[1])
        return self._made(node, (a, b), _sum(tangent, other))

    def apply(self, node: Node, a: Value) -> Value:
        function, times = node.static
        if a[1] is None:
            return self._made(node, (a,), None)
        slope = self.numbers.apply(apply(function, node.inputs[0], times + 1), a[0])
        return self._made(node, (a,), slope * a[1])

    def softmax(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        share = self.numbers.softmax(node, a[0])
        return self._made(node, (a,), share * (a[1] - _total(share * a[1])))

    def log_sum_exp(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        share = self.numbers.softmax(softmax(node.inputs[0]), a[0])
        return self._made(node, (a,), _total(share * a[1]))

    def normalise(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        value, n = self.numbers.normalise(node, a[0]), node.shape[-1]
        factor = self.numbers.inverse_deviation(inverse_deviation(node.inputs[0], *node.static), a[0])
        shifted = a[1] - _total(a[1]) / n if node.static[1] else a[1]
        return self._made(node, (a,), factor * (shifted - value * (_total(value * a[1]) / n)))

    def inverse_deviation(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        value = self.numbers.inverse_deviation(node, a[0])
        unit = self.numbers.normalise(normalise(node.inputs[0], *node.static), a[0])
        return self._made(node, (a,), value * value * (_total(unit * a[1]) / -unit.shape[-1]))

    def sum(self, node: Node, a: Value) -> Value:
        axes = tuple(axis + 1 for axis in node.static)
        return self._made(node, (a,), None if a[1] is None else a[1].sum(axis=axes, keepdims=True))

    def max(self, node: Node, a: Value) -> Value:
        chosen = self.numbers.first_largest(first_largest(node.inputs[0], node.static), a[0])
        axes = tuple(axis + 1 for axis in node.static)
        return self._made(node, (a,), None if a[1] is None else (chosen * a[1]).sum(axis=axes, keepdims=True))

    def first_largest(self, node: Node, a: Value) -> Value:
        return self._made(node, (a,), None)

    def select(self, node: Node, a: Value, b: Value) -> Value:
        return self._made(node, (a, b), _sum(_times(node.static, a[1]), _times(~node.static, b[1])))

    def gather(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        flat = np.concatenate([a[1].reshape(self.count, -1), np.zeros((self.count, 1))], axis=1)
        return self._made(node, (a,), flat[:, node.static])

    def scatter_add(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        return self._made(node, (a,), np.stack([self.numbers.scatter_add(node, tangent) for tangent in a[1]]))

    def reshape(self, node: Node, a: Value) -> Value:
        return self._made(node, (a,), None if a[1] is None else a[1].reshape(self.count, *node.shape))

    def transpose(self, node: Node, a: Value) -> Value:
        axes = (0, *(axis + 1 for axis in node.static))
        return self._made(node, (a,), None if a[1] is None else a[1].transpose(axes))

    def broadcast(self, node: Node, a: Value) -> Value:
        if a[1] is None:
            return self._made(node, (a,), None)
        new = (1,) * (node.ndim - a[0].ndim)
        wide = a[1].reshape(self.count, *new, *a[0].shape)
        return self._made(node, (a,), np.broadcast_to(wide, (self.count, *node.shape)))


def _sum(a: Tangent, b: Tangent) -> Tangent:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _times(factor: Real, tangent: Tangent) -> Tangent:
    return None if tangent is None else factor * tangent


def _total(row: Real) -> Real:
    return np.asarray(row.sum(axis=-1, keepdims=True))


