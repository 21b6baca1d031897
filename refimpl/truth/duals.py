"""Graphs read over dual numbers, forward: values, and their derivatives along one direction. No vector–Jacobian product
is used, so that gradients made of those can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refimpl.truth.graph import Node, apply, first_largest, inverse_deviation, normalise, softmax

Dual = tuple[Any, Any]
Reading = Callable[..., Dual]


def _linear(rule: str) -> Reading:
    """A primitive that is linear in all its inputs together."""

    def read(self: DualAlgebra, node: Node, *inputs: Dual) -> Dual:
        run = getattr(self.base, rule)
        values, slopes = zip(*inputs, strict=True)
        return run(node, *values), run(node, *slopes)

    return read


def _bilinear(rule: str) -> Reading:
    """A primitive that is linear in each of two inputs."""

    def read(self: DualAlgebra, node: Node, a: Dual, b: Dual) -> Dual:
        run = getattr(self.base, rule)
        return run(node, a[0], b[0]), np.asarray(run(node, a[0], b[1]) + run(node, a[1], b[0]))

    return read


@dataclass
class DualAlgebra:
    """Pairs (value, derivative) of arrays of another algebra. `along`: how the given numbers vary, by name."""

    base: Any
    along: Mapping[str, Any]

    def given(self, node: Node) -> Dual:
        value = self.base.given(node)
        return value, self.along[node.static] if node.static in self.along else _nothing(value)

    def constant(self, node: Node) -> Dual:
        value = self.base.constant(node)
        return value, _nothing(value)

    add, scale, sum, select = _linear("add"), _linear("scale"), _linear("sum"), _linear("select")
    gather, scatter_add = _linear("gather"), _linear("scatter_add")
    reshape, transpose, broadcast = _linear("reshape"), _linear("transpose"), _linear("broadcast")
    mul, contract = _bilinear("mul"), _bilinear("contract")

    def div(self, node: Node, a: Dual, b: Dual) -> Dual:
        value = self.base.div(node, a[0], b[0])
        return value, np.asarray((a[1] - value * b[1]) / b[0])

    def apply(self, node: Node, a: Dual) -> Dual:
        function, times = node.static
        slope = self.base.apply(apply(function, node.inputs[0], times + 1), a[0])
        return self.base.apply(node, a[0]), np.asarray(slope * a[1])

    def softmax(self, node: Node, a: Dual) -> Dual:
        value = self.base.softmax(node, a[0])
        return value, value * (a[1] - _total(value * a[1]))

    def log_sum_exp(self, node: Node, a: Dual) -> Dual:
        share = self.base.softmax(softmax(node.inputs[0]), a[0])
        return self.base.log_sum_exp(node, a[0]), _total(share * a[1])

    def normalise(self, node: Node, a: Dual) -> Dual:
        value, n = self.base.normalise(node, a[0]), node.shape[-1]
        factor = self.base.inverse_deviation(inverse_deviation(node.inputs[0], *node.static), a[0])
        shifted = a[1] - _total(a[1]) / n if node.static[1] else a[1]
        return value, factor * (shifted - value * (_total(value * a[1]) / n))

    def inverse_deviation(self, node: Node, a: Dual) -> Dual:
        value = self.base.inverse_deviation(node, a[0])
        unit = self.base.normalise(normalise(node.inputs[0], *node.static), a[0])
        return value, value * value * (_total(unit * a[1]) / -unit.shape[-1])

    def max(self, node: Node, a: Dual) -> Dual:
        chosen = self.base.first_largest(first_largest(node.inputs[0], node.static), a[0])
        return self.base.max(node, a[0]), np.sum(chosen * a[1], axis=node.static, keepdims=True)

    def first_largest(self, node: Node, a: Dual) -> Dual:
        value = self.base.first_largest(node, a[0])
        return value, _nothing(value)


def _nothing(value: Any) -> Any:
    return np.asarray(value * 0)  # of no axes it would be no array


def _total(row: Any) -> Any:
    return np.sum(row, axis=-1, keepdims=True)
