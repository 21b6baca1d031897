"""The equations run in ball arithmetic of 200 bits: what a mistaken network computes before any rounding.

`Exact` has the methods of :class:`refimpl.judge.rounding.Functions`, on NumPy arrays of arb balls, so that
:func:`refimpl.judge.rounding.propagate` runs over it. It is how wrong answers and the faults that a case kills are
written down the same on every machine. Not used for the truth, which shares no derivation with the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.network.documents import Function
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.truth.elementwise import activation, lose

Balls = NDArray[Any]  # of flint.arb


class Exact:
    """Activations and losses on arrays of balls."""

    bits = 200

    def exact(self, values: NDArray[Any]) -> Balls:
        """Numbers that are given."""
        return _each(lambda value: flint.arb(float(value)), np.asarray(values))

    def activation(self, function: Function) -> Callable[[Balls], Balls]:
        """f, on (N, n)."""
        entry = ACTIVATIONS[function.name]
        if entry.elementwise:
            return lambda z: _each(lambda zj: _elementwise(function, zj)[0], z)
        return _softmax

    def vjp(self, function: Function) -> Callable[[Balls, Balls, Balls], Balls]:
        """The backward form (z, a, ∂C/∂a) → ∂C/∂z."""
        entry = ACTIVATIONS[function.name]
        if entry.elementwise:
            return lambda z, a, d: d * _each(lambda zj: _elementwise(function, zj)[1], z)
        return lambda z, a, d: a * (d - (a * d).sum(axis=1, keepdims=True))

    def loss(self, function: Function, s: Balls, y: NDArray[np.float64]) -> Balls:
        """The losses, by output, or by sample for a row-wise loss."""
        entry = LOSSES[function.name]
        if entry.elementwise:
            return self._elementwise(function, s, y, 0)
        rows = [
            entry.definition([_series(sj) for sj in row], [flint.arb(float(yj)) for yj in target])[0]  # type: ignore[misc]
            for row, target in zip(s, y, strict=True)
        ]
        return np.array(rows, dtype=object)

    def loss_slope(self, function: Function, s: Balls, y: NDArray[np.float64]) -> Balls:
        """∂/∂s of the losses, before the reduction."""
        if LOSSES[function.name].elementwise:
            return self._elementwise(function, s, y, 1)
        given = self.exact(y)
        return _softmax(s) * given.sum(axis=1, keepdims=True) - given

    def _elementwise(self, function: Function, s: Balls, y: NDArray[np.float64], coefficient: int) -> Balls:
        entry = LOSSES[function.name]
        share = flint.arb(1) / s.shape[1] if entry.averages_outputs else flint.arb(1)
        values = [
            lose(entry, function.kwargs, _series(sj), flint.arb(float(yj)))[0][coefficient] * share
            for sj, yj in zip(s.flat, y.flat, strict=True)
        ]
        return _array(values, s.shape)


def _series(value: Any) -> Any:
    return flint.arb_series([value, 1], 2)


def _elementwise(function: Function, z: Any) -> Any:
    return activation(function.name, tuple(function.kwargs.items())).series(_series(z))[0]


def _each(function: Callable[[Any], Any], array: NDArray[Any]) -> Balls:
    return _array([function(value) for value in array.flat], array.shape)


def _array(values: list[Any], shape: tuple[int, ...]) -> Balls:
    balls = np.empty(len(values), dtype=object)
    balls[:] = values
    return balls.reshape(shape)


def _softmax(z: Balls) -> Balls:
    definition = ACTIVATIONS["softmax"].definition
    rows = [[aj[0] for aj in definition([_series(zj) for zj in row])] for row in z]  # type: ignore[misc]
    return _array([a for row in rows for a in row], z.shape)
