"""Graphs read forward: derivatives along one direction or several, beside values that are known. No vector–Jacobian
product is used, so that gradients made of those can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from refimpl.truth.graph import Node, apply, first_largest, share

Slope = Any  # an array of the base algebra; None where it is 0
Reading = Callable[..., Slope]


def _of_what_varies(reading: Reading) -> Reading:
    """None where no input varies."""

    @wraps(reading)
    def read(self: DualAlgebra, node: Node, *slopes: Slope) -> Slope:
        return None if all(slope is None for slope in slopes) else reading(self, node, *slopes)

    return read


def _linear(rule: str) -> Reading:
    """A primitive that is linear in its input."""

    def read(self: DualAlgebra, node: Node, a: Slope) -> Slope:
        return getattr(self.base, rule)(node, a)

    return _of_what_varies(read)


def _bilinear(rule: str) -> Reading:
    """A primitive that is linear in each of two inputs."""

    def read(self: DualAlgebra, node: Node, a: Slope, b: Slope) -> Slope:
        run = getattr(self.base, rule)
        first, second = (self.values[before] for before in node.inputs)
        parts = [run(node, first, b)] if b is not None else []
        parts += [run(node, a, second)] if a is not None else []
        return np.asarray(sum(parts[1:], parts[0]))

    return _of_what_varies(read)


@dataclass
class DualAlgebra:
    """The derivative part of dual numbers over another algebra, in which `values` have been read. `along`: how the
    given numbers vary, by name; the others do not.
    """

    base: Any
    values: Mapping[Node, Any]
    along: Mapping[str, Slope]

    def given(self, node: Node) -> Slope:
        return self.along.get(node.static)

    def _nothing(self, node: Node, *slopes: Slope) -> Slope:
        return None

    constant, first_largest = _nothing, _nothing
    scale, sum = _linear("scale"), _linear("sum")
    cast, about = _linear("cast"), _linear("about")
    gather, scatter_add = _linear("gather"), _linear("scatter_add")
    reshape, transpose, broadcast = _linear("reshape"), _linear("transpose"), _linear("broadcast")
    mul, contract = _bilinear("mul"), _bilinear("contract")

    def add(self, node: Node, a: Slope, b: Slope) -> Slope:
        return b if a is None else a if b is None else np.asarray(a + b)

    @_of_what_varies
    def select(self, node: Node, a: Slope, b: Slope) -> Slope:
        return np.where(node.static, a if a is not None else b * 0, b if b is not None else a * 0)

    @_of_what_varies
    def div(self, node: Node, a: Slope, b: Slope) -> Slope:
        away = None if b is None else -self.values[node] * b
        return np.asarray(self.add(node, a, away) / self.values[node.inputs[1]])

    @_of_what_varies
    def apply(self, node: Node, a: Slope) -> Slope:
        function, times = node.static
        before = node.inputs[0]
        return np.asarray(self.base.apply(apply(function, before, times + 1), self.values[before]) * a)

    @_of_what_varies
    def softmax(self, node: Node, a: Slope, total: Slope) -> Slope:
        away = None if total is None else -total
        return self.values[node] * self.add(node, a, away)

    @_of_what_varies
    def log_sum_exp(self, node: Node, a: Slope) -> Slope:
        before = node.inputs[0]
        shares = self.base.softmax(share(before, node), self.values[before], self.values[node])
        return _total(shares * a)

    @_of_what_varies
    def normalise(self, node: Node, a: Slope, inverse: Slope, mean: Slope = None) -> Slope:
        factor, shifted = self.values[node.inputs[1]], self.add(node, a, None if mean is None else -mean)
        of_factor = None if inverse is None else self.values[node] / factor * inverse
        return self.add(node, None if shifted is None else shifted * factor, of_factor)

    @_of_what_varies
    def inverse_deviation(self, node: Node, a: Slope) -> Slope:
        value, before = self.values[node], self.values[node.inputs[0]]
        n = node.inputs[0].shape[-1]
        away = before - _total(before) / n if node.static[1] else before
        return value * value * value * (_total(away * a) / -n)

    @_of_what_varies
    def max(self, node: Node, a: Slope) -> Slope:
        before = node.inputs[0]
        chosen = self.base.first_largest(first_largest(before, node.static), self.values[before])
        return self.base.sum(node, chosen * a)


def _total(row: Slope) -> Slope:
    return np.sum(row, axis=-1, keepdims=True)
