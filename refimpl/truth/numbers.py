"""Graphs read over float64 numbers, at the speed of NumPy and BLAS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.truth.balls import as_matrices, rows_over
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import Node
from refimpl.truth.precision import working_precision

Real = NDArray[np.float64]
BITS = 64
MANY_BITS = 2200  # for a formula that forms 1 + e^z, at z near the logarithm of the smallest number
ENOUGH_BITS = 55


@dataclass
class NumberAlgebra:
    """Values are float64 arrays; `known` are the given numbers by name. A function of the catalogue is its formula,
    evaluated to the last digit.
    """

    known: Mapping[str, Real]
    _series: dict[tuple[Node, Elementwise, int], list[Any]] = field(default_factory=dict)

    def given(self, node: Node) -> Real:
        return np.asarray(self.known[node.static], dtype=np.float64).reshape(node.shape)

    def constant(self, node: Node) -> Real:
        return np.asarray(node.static)

    def add(self, node: Node, a: Real, b: Real) -> Real:
        return np.asarray(a + b)

    def mul(self, node: Node, a: Real, b: Real) -> Real:
        return np.asarray(a * b)

    def div(self, node: Node, a: Real, b: Real) -> Real:
        return np.asarray(a / b)

    def scale(self, node: Node, a: Real) -> Real:
        return np.asarray(a * node.static.numerator / node.static.denominator)

    def contract(self, node: Node, a: Real, b: Real) -> Real:
        return contracted(node.static, a, b)

    def apply(self, node: Node, a: Real) -> Real:
        function, times = node.static
        values = [coefficient(function, number, times) for number in a.ravel().tolist()]
        return np.array(values, dtype=np.float64).reshape(node.shape)

    def softmax(self, node: Node, a: Real) -> Real:
        exponentials = np.exp(a - a.max(axis=-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))

    def log_sum_exp(self, node: Node, a: Real) -> Real:
        largest = a.max(axis=-1, keepdims=True)
        return np.asarray(largest + np.log(np.exp(a - largest).sum(axis=-1, keepdims=True)))

    def normalise(self, node: Node, a: Real) -> Real:
        centre, inverse = _moments(node, a)
        return np.asarray((a - centre) * inverse)

    def inverse_deviation(self, node: Node, a: Real) -> Real:
        return _moments(node, a)[1]

    def sum(self, node: Node, a: Real) -> Real:
        return np.asarray(a.sum(axis=node.static, keepdims=True))

    def max(self, node: Node, a: Real) -> Real:
        return np.asarray(a.max(axis=node.static, keepdims=True))

    def first_largest(self, node: Node, a: Real) -> Real:
        chosen = np.zeros(a.size)
        places = rows_over(np.arange(a.size).reshape(a.shape), node.static)
        chosen[np.take_along_axis(places, rows_over(a, node.static).argmax(axis=1)[:, None], axis=1)] = 1.0
        return chosen.reshape(a.shape)

    def select(self, node: Node, a: Real, b: Real) -> Real:
        return np.where(node.static, a, b)

    def gather(self, node: Node, a: Real) -> Real:
        return np.append(a.ravel(), 0.0)[node.static]

    def scatter_add(self, node: Node, a: Real) -> Real:
        sums = np.bincount(node.static.ravel() + 1, a.ravel(), node.size + 1)
        return sums[1:].reshape(node.shape)

    def reshape(self, node: Node, a: Real) -> Real:
        return a.reshape(node.shape)

    def transpose(self, node: Node, a: Real) -> Real:
        return a.transpose(node.static)

    def broadcast(self, node: Node, a: Real) -> Real:
        return np.broadcast_to(a, node.shape)


def contracted(subscripts: str, a: Real, b: Real) -> Real:
    """The contraction by matrix products."""
    left, right, placed = as_matrices(subscripts, a, b)
    return placed(left @ right)


def coefficient(function: Elementwise, number: float, times: int) -> float:
    """A derivative of a function of the catalogue at a number, correctly rounded but for a few last bits."""
    if not math.isfinite(number):
        return math.nan
    at = flint.arb_series([number, 1], times + 1)
    for bits in (BITS, MANY_BITS):
        with working_precision(bits):
            found = function.series(at)[0][times] * math.factorial(times)
            if found.rel_accuracy_bits() > ENOUGH_BITS:
                break
    return float(found.mid())


def _moments(node: Node, a: Real) -> tuple[Real | float, Real]:
    epsilon, centred = node.static
    centre = a.mean(axis=-1, keepdims=True) if centred else 0.0
    return centre, np.asarray(1 / np.sqrt(np.square(a - centre).mean(axis=-1, keepdims=True) + epsilon))
