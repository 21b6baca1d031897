"""Graphs read over float64 numbers, at the speed of NumPy and BLAS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from refimpl.network.functions import Series
from refimpl.truth.balls import as_matrices, number, rows_over
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
    evaluated to the last digit; `evaluated` keeps what that was.
    """

    known: Mapping[str, Real]
    evaluated: dict[tuple[Node, Elementwise], Real] = field(default_factory=dict)

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

    def _itself(self, node: Node, a: Real) -> Real:
        return a

    cast, about = _itself, _itself

    def apply(self, node: Node, a: Real) -> Real:
        function, times = node.static
        return self.derivatives(node.inputs[0], function, a, times)[times]

    def derivatives(self, where: Node, function: Elementwise, a: Real, times: int = 2) -> Real:
        """(times + 1 or more, *shape): the function and its derivatives of the numbers at a node."""
        found = self.evaluated.get((where, function))
        if found is None or len(found) <= times:
            times = max(times, 2)
            with working_precision(BITS):
                rows = [derivatives(function, number, times) for number in a.ravel().tolist()]
            found = np.array(rows, dtype=np.float64).reshape(a.size, times + 1).T.reshape(times + 1, *a.shape)
            self.evaluated[where, function] = found
        return found

    def softmax(self, node: Node, a: Real, total: Real) -> Real:
        return np.where(node.static, np.exp(np.minimum(a - total, 0.0)), 0.0)

    def log_sum_exp(self, node: Node, a: Real) -> Real:
        a = np.where(node.static, a, -np.inf)
        largest = a.max(axis=-1, keepdims=True)
        return np.asarray(largest + np.log(np.exp(a - largest).sum(axis=-1, keepdims=True)))

    def normalise(self, node: Node, a: Real, inverse: Real, *mean: Real) -> Real:
        return np.asarray((a - sum(mean)) * inverse)

    def inverse_deviation(self, node: Node, a: Real) -> Real:
        epsilon, centred = node.static
        away = a - a.mean(axis=-1, keepdims=True) if centred else a
        return np.asarray(1 / np.sqrt(np.square(away).mean(axis=-1, keepdims=True) + epsilon))

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
        return np.asarray(sums[1:].reshape(node.shape), dtype=np.float64)

    def reshape(self, node: Node, a: Real) -> Real:
        return a.reshape(node.shape)

    def transpose(self, node: Node, a: Real) -> Real:
        return a.transpose(node.static)

    def broadcast(self, node: Node, a: Real) -> Real:
        return np.broadcast_to(a, node.shape)


def blas_in_one_thread() -> AbstractContextManager[Any]:
    """The sums of BLAS depend on the number of threads."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def contracted(subscripts: str, a: Real, b: Real) -> Real:
    """The contraction by matrix products."""
    left, right, placed = as_matrices(subscripts, a, b)
    return placed(left @ right)


def derivatives(function: Elementwise, at: float, times: int) -> list[float]:
    """A function of the catalogue and its derivatives at a number, right but for a few last bits."""
    if not math.isfinite(at):
        return [math.nan] * (times + 1)
    series = precisely(lambda z: function.series(z)[0], at, times)
    return [number(series[index]) * math.factorial(index) for index in range(times + 1)]


def precisely(formula: Callable[[Series], Series], number: float, times: int = 1) -> Series:
    """The series of a formula at a number, to the full precision of float64, also where the formula loses digits; at
    the working precision where that suffices.
    """
    at = flint.arb_series([number, 1], times + 1)
    series = formula(at)
    if min(series[index].rel_accuracy_bits() for index in range(times + 1)) > ENOUGH_BITS:
        return series
    with working_precision(MANY_BITS):
        return formula(at)
