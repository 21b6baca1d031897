"""Arrays that carry a bound on their rounding error: what runs the equations when a mistake has been made in them.

A `Bounded` is mid ± err, element by element: `err` bounds how far an implementation that computes *these* operations
in the declared arithmetic, in any order of summation, may lie from `mid`. It follows the same model as
:mod:`refimpl.judge.tolerance`, but operation by operation (a running error analysis; Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd ed. 2002, §3.3), so that a changed equation brings its own tolerance along. It has the
operators that :mod:`refimpl.equations` uses: ``@ + - * / .T .sum(axis) [] len``.

`Functions` evaluates the catalogue's activations and losses on such arrays; `forward` and `propagate` run
the recursion. What it does not do: certify. `mid` is computed in float64, and `err` covers that too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.equations import Equations
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.documents import Function
from refimpl.network.functions import ACTIVATIONS, ELEMENTARY, LOSSES, Activation, Ball, Interval, Loss, Series
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.elementwise import activation as elementwise
from refimpl.truth.elementwise import lose
from refimpl.truth.numbers import precisely
from refimpl.truth.precision import working_precision
from refimpl.truth.rounding import UNBOUNDED, Local, over_ball

Array = NDArray[Any]
Real = NDArray[np.float64]
FLOAT64_ROUNDOFF = 2.0**-53


@dataclass(frozen=True, eq=False)
class Bounded:
    """mid ± err, two float64 arrays of one shape; `u` is the unit roundoff of the arithmetic, `tiny` what a
    result may lose to underflow.
    """

    mid: Real
    err: Real
    u: float
    tiny: float

    __array_ufunc__ = None  # an ndarray on the left leaves the operation to this class

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both arrays."""
        return self.mid.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.mid.ndim

    @property
    def T(self) -> Bounded:
        """The transpose."""
        return self._like(self.mid.T, self.err.T)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.mid.size

    def __len__(self) -> int:
        return len(self.mid)

    def __getitem__(self, index: Any) -> Bounded:
        return self._like(self.mid[index], self.err[index])

    def reshape(self, *shape: int) -> Bounded:
        """The same elements in another shape."""
        return self._like(self.mid.reshape(*shape), self.err.reshape(*shape))

    def astype(self, dtype: Any) -> Bounded:
        """The array rounded to another dtype; what is computed from it then rounds in the coarser arithmetic."""
        limits = np.finfo(dtype)
        u = max(self.u, float(limits.eps) / 2)
        return Bounded(self.mid, self.err + u * np.abs(self.mid), u, max(self.tiny, float(limits.smallest_normal)))

    def off_by(self, absolute: float, relative: float) -> Bounded:
        """The array, each number moved by at most so much, and rounded again."""
        held = np.abs(self.mid) + self.err
        return self._like(self.mid, self.err + absolute + (relative + 2 * self.u) * held)

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Bounded:
        """The sum, in any order."""
        count = self.mid.size if axis is None else self.mid.shape[axis]
        magnitude = (np.abs(self.mid) + self.err).sum(axis=axis, keepdims=keepdims)
        err = self.err.sum(axis=axis, keepdims=keepdims) + self._gamma(count) * magnitude
        return self._like(self.mid.sum(axis=axis, keepdims=keepdims), err)

    def __matmul__(self, other: Any) -> Bounded:
        return self._matmul(self, self._lift(other))

    def __rmatmul__(self, other: Any) -> Bounded:
        return self._matmul(self._lift(other), self)

    def __add__(self, other: Any) -> Bounded:
        right = self._lift(other)
        mid = self.mid + right.mid
        err = self.err + right.err
        return self._rounded(mid, err, right)

    __radd__ = __add__

    def __neg__(self) -> Bounded:
        return self._like(-self.mid, self.err)

    def __sub__(self, other: Any) -> Bounded:
        return self + (-self._lift(other))

    def __rsub__(self, other: Any) -> Bounded:
        return (-self) + other

    def __mul__(self, other: Any) -> Bounded:
        right = self._lift(other)
        mid = self.mid * right.mid
        err = np.abs(self.mid) * right.err + self.err * np.abs(right.mid) + self.err * right.err
        err = err + np.where((mid != 0) | (err > 0), self.tiny, 0.0)
        return self._rounded(mid, err, right)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Bounded:
        right = self._lift(other)
        mid = self.mid / right.mid
        smallest = np.abs(right.mid) - right.err
        err = np.where(smallest > 0, (self.err + np.abs(mid) * right.err) / np.where(smallest > 0, smallest, 1), np.inf)
        err = err + np.where((mid != 0) | (err > 0), self.tiny, 0.0)
        return self._rounded(mid, err, right)

    def __gt__(self, other: float) -> NDArray[np.bool_]:
        return np.asarray(self.mid > other)

    def at(self, value: float) -> NDArray[np.bool_]:
        """Where the number is `value` in every implementation."""
        return np.asarray((self.mid == value) & (self.err == 0))

    def _like(self, mid: Any, err: Any) -> Bounded:
        return Bounded(np.asarray(mid), np.asarray(err), self.u, self.tiny)

    def _lift(self, other: Any) -> Bounded:
        if isinstance(other, Bounded):
            return other
        mid = np.asarray(other, dtype=np.float64)
        return self._like(mid, np.zeros_like(mid))

    def _rounded(self, mid: Real, err: Real, other: Bounded) -> Bounded:
        u = max(self.u, other.u)
        return Bounded(mid, err + (u + FLOAT64_ROUNDOFF) * (np.abs(mid) + err), u, max(self.tiny, other.tiny))

    def _gamma(self, count: int) -> float:
        product = (count + 2) * (self.u + FLOAT64_ROUNDOFF)
        return product / (1 - product) if product < 1 else np.inf

    @staticmethod
    def _matmul(left: Bounded, right: Bounded) -> Bounded:
        coarser = left if left.u >= right.u else right
        count = left.mid.shape[1]
        held_left, held_right = np.abs(left.mid) + left.err, np.abs(right.mid) + right.err
        terms = held_left @ held_right
        err = left.err @ held_right + np.abs(left.mid) @ right.err
        err = err + coarser._gamma(count) * terms + np.minimum(terms, 2 * count * coarser.tiny)
        return Bounded(left.mid @ right.mid, err, coarser.u, coarser.tiny)


class Functions:
    """The activations and losses on `Bounded` arrays, in one arithmetic; results are kept, since most mistakes
    leave the forward pass as it is.
    """

    bits = 64  # of the balls that f is evaluated in

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self._kept: dict[tuple[Any, ...], tuple[Bounded, Bounded]] = {}

    def exact(self, values: Array) -> Bounded:
        """Numbers that every implementation is given."""
        mid = np.asarray(values, dtype=np.float64)
        flushed = np.abs(mid) < self.arithmetic.smallest_normal if self.arithmetic.flushes_subnormals else False
        err = np.where(flushed, np.abs(mid), 0.0)
        tiny = (
            self.arithmetic.smallest_normal
            if self.arithmetic.flushes_subnormals
            else self.arithmetic.smallest_subnormal
        )
        return Bounded(mid, err, self.arithmetic.unit_roundoff, tiny)

    def activation(self, function: Function) -> Callable[[Bounded], Bounded]:
        """f, on (N, n)."""
        if ACTIVATIONS[function.name].elementwise:
            return lambda z: self._elementwise(function, z)[0]
        return self._softmax

    def vjp(self, function: Function) -> Callable[[Bounded, Bounded, Bounded], Bounded]:
        """The backward form (z, a, ∂C/∂a) → ∂C/∂z."""
        if ACTIVATIONS[function.name].elementwise:
            return lambda z, a, dC_da: dC_da * self._elementwise(function, z)[1]
        return lambda z, a, dC_da: a * (dC_da - (a * dC_da).sum(axis=1, keepdims=True))

    def loss(self, function: Function, s: Bounded, y: Real) -> Bounded:
        """The losses (N, n_out), or (N,) for a row-wise loss."""
        if LOSSES[function.name].elementwise:
            return self._kept_loss(function, s, y)[0]
        largest = s.mid.max(axis=1, keepdims=True)
        log_total = largest + np.log(np.exp(s.mid - largest).sum(axis=1, keepdims=True))
        values = (y * (log_total - s.mid)).sum(axis=1)
        scale = (y * (4 * np.abs(s.mid).max(axis=1, keepdims=True) + 16)).sum(axis=1)
        err = 2 * s.err.max(axis=1) * y.sum(axis=1) + 16 * (s.u + FLOAT64_ROUNDOFF) * scale
        return Bounded(values, err, s.u, s.tiny)

    def loss_slope(self, function: Function, s: Bounded, y: Real) -> Bounded:
        """∂/∂s of the losses (N, n_out), before the reduction."""
        if LOSSES[function.name].elementwise:
            return self._kept_loss(function, s, y)[1]
        mass = y.sum(axis=1, keepdims=True)
        slope = self._softmax(s) * mass - y
        # implementations may take Σy to be 1
        return Bounded(slope.mid, slope.err + np.abs(mass - 1), s.u, s.tiny)

    def _elementwise(self, function: Function, z: Bounded) -> tuple[Bounded, Bounded]:
        key = (function, z.u, z.mid.tobytes(), z.err.tobytes())
        if key not in self._kept:
            self._kept[key] = self._evaluate(ACTIVATIONS[function.name], function.kwargs, z)
        return self._kept[key]

    def _evaluate(self, entry: Activation, kwargs: dict[str, float], z: Bounded) -> tuple[Bounded, Bounded]:
        finite = np.isfinite(z.mid)
        function = elementwise(entry.name, tuple(kwargs.items()))
        series = [precisely(lambda at: function.series(at)[0], m) for m in np.where(finite, z.mid, 0.0).flat]
        value = _mids(series, 0, z.shape, finite)
        slope = _mids(series, 1, z.shape, finite)
        local = activation_suprema(entry, kwargs, _points(z), z.err)
        at = Interval(z.mid - z.err, z.mid + z.err, np.abs(value) + local.slope * z.err, local.slope)
        u = z.u + FLOAT64_ROUNDOFF
        value_err = local.slope * z.err + entry.value_ulps * u * entry.value_scale(at, kwargs)
        slope_err = local.curvature * z.err + local.jump + entry.slope_ulps * u * entry.slope_scale(at, kwargs)
        tiny = 0.0 if not entry.smooth_library else self.arithmetic.smallest_normal
        return (
            Bounded(value, value_err + np.minimum(np.abs(value), tiny), z.u, z.tiny),
            Bounded(slope, slope_err + np.minimum(np.abs(slope), tiny), z.u, z.tiny),
        )

    def _kept_loss(self, function: Function, s: Bounded, y: Real) -> tuple[Bounded, Bounded]:
        key = (function, s.u, s.mid.tobytes(), s.err.tobytes(), y.tobytes())
        if key not in self._kept:
            self._kept[key] = self._elementwise_loss(function, s, y)
        return self._kept[key]

    def _elementwise_loss(self, function: Function, s: Bounded, y: Real) -> tuple[Bounded, Bounded]:
        entry, kwargs = LOSSES[function.name], function.kwargs
        finite = np.isfinite(s.mid)
        share = 1.0 / s.shape[1] if entry.averages_outputs else 1.0
        try:
            series = [
                precisely(partial(_lost, entry, kwargs, flint.arb(t)), m)
                for m, t in zip(np.where(finite, s.mid, 1.0).flat, y.flat, strict=True)
            ]
        except (ValueError, ZeroDivisionError):  # the logarithm of a number that is not positive
            nothing = Bounded(np.full(s.shape, np.nan), np.full(s.shape, np.inf), s.u, s.tiny)
            return nothing, nothing
        local = loss_suprema(entry, kwargs, _points(s), s.err, y)
        at = Interval(s.mid - s.err, s.mid + s.err, local.value, local.slope)
        u = s.u + FLOAT64_ROUNDOFF
        value_err = local.slope * s.err + (entry.value_ulps + 1) * u * entry.value_scale(at, y, kwargs)
        slope_err = local.curvature * s.err + local.jump + (entry.slope_ulps + 3) * u * entry.slope_scale(at, y)
        return (
            Bounded(share * _mids(series, 0, s.shape, finite), share * value_err, s.u, s.tiny),
            Bounded(share * _mids(series, 1, s.shape, finite), share * slope_err, s.u, s.tiny),
        )

    def _softmax(self, z: Bounded) -> Bounded:
        e = np.exp(z.mid - z.mid.max(axis=1, keepdims=True))
        a = e / e.sum(axis=1, keepdims=True)
        factor = softmax_factor(z.mid, a, z.err, z.u + FLOAT64_ROUNDOFF)
        return Bounded(a, a * factor + np.minimum(a, self.arithmetic.smallest_normal), z.u, z.tiny)


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: the parameters and, from the first layer to the last, z and a (x before them), as arrays of the
    kind that it was run on; the losses and their derivatives by s.
    """

    given: Mapping[str, Any]
    z: Sequence[Any]
    a: Sequence[Any]
    losses: Any
    dlosses_ds: Any


@dataclass
class Pass:
    """The outcome of one run of the recursion: the losses' sum or mean, and the gradients by name."""

    loss: Any
    grads: dict[str, Any] = field(default_factory=dict)


def forward(
    spec: NetworkSpec,
    params: Mapping[str, Array],
    x: Array,
    y: Array,
    equations: Sequence[Equations],
    functions: Any,
) -> ForwardPass:
    """The forward pass over `equations`, one a layer, on the arrays that `functions` makes: `Bounded` ones for
    `Functions`.

    x (N, n_in) and y (N, n_out) are plain arrays; so are the parameters.
    """
    with np.errstate(all="ignore"), working_precision(functions.bits):
        given = {name: functions.exact(array) for name, array in params.items()}
        a, z = [functions.exact(x)], []
        for number, (layer, equation) in enumerate(zip(spec.layers, equations, strict=True), start=1):
            z.append(_run(equation.weighted_input, a[-1], given[f"W{number}"], given.get(f"b{number}")))
            a.append(_run(equation.activation, z[-1], functions.activation(layer.activation)))
        losses, slopes = functions.loss(spec.loss, a[-1], y), functions.loss_slope(spec.loss, a[-1], y)
        return ForwardPass(given, z, a, losses, slopes)


def propagate(
    spec: NetworkSpec,
    known: ForwardPass,
    equations: Sequence[Equations],
    functions: Any,
    goes_on: Callable[[str, Any], bool] = lambda name, grad: True,
) -> Pass:
    """The loss, and the backward pass over `equations`, one a layer, from a forward pass over them. It ends with the
    first gradient of which `goes_on(name, gradient)` is false, and lacks those that would have come after it.
    """
    with np.errstate(all="ignore"), working_precision(functions.bits):
        vjps = [functions.vjp(layer.activation) for layer in spec.layers]
        a, z, last = known.a, known.z, equations[-1]
        outcome = Pass(_run(last.cost, known.losses, spec.reduction))
        dC_ds = _run(last.cost_gradient, known.dlosses_ds, spec.reduction)
        delta = _run(last.output_error, dC_ds, z[-1], a[-1], vjps[-1])
        for number in range(spec.depth, 0, -1):
            equation, W = equations[number - 1], known.given[f"W{number}"]
            found = {f"W{number}": _run(equation.weight_gradient, delta, a[number - 1])}
            if spec.layers[number - 1].bias:
                found[f"b{number}"] = _run(equation.bias_gradient, delta)
            outcome.grads |= found
            if not all(itertools.starmap(goes_on, found.items())):
                break
            if number > 1:
                delta = _run(equation.hidden_error, W, delta, z[number - 2], a[number - 1], vjps[number - 2])
        return outcome


def _run(equation: Callable[..., Any], *operands: Any) -> Any:
    """An equation on operands of any kind: the operators are all it needs of them."""
    return equation(*operands)


def _lost(entry: Loss, kwargs: dict[str, float], y: Ball, s: Series) -> Series:
    return lose(entry, kwargs, s, y)[0]


def _points(z: Bounded) -> Balls:
    zeros = np.zeros_like(z.mid)
    return Balls(z.mid, zeros, zeros, zeros)


def _mids(series: Sequence[Any], coefficient: int, shape: tuple[int, ...], finite: NDArray[np.bool_]) -> Real:
    values = np.array([float(s[coefficient].mid()) for s in series]).reshape(shape)
    return np.where(finite, values, np.nan)


def _balls(z: Balls, radius: Real) -> list[Any]:
    """The balls z ± radius; exact where z is and the radius is 0, and None where they are unbounded."""
    total = radius + z.tail_rad
    rows = zip(z.mid.ravel().tolist(), z.tail.ravel().tolist(), total.ravel().tolist(), strict=True)
    return [
        flint.arb(mid, rad) + flint.arb(tail) if math.isfinite(mid) and math.isfinite(rad) else None
        for mid, tail, rad in rows
    ]


def activation_suprema(function: Activation, kwargs: dict[str, float], z: Balls, radius: Real) -> Local:
    """The suprema of an elementwise activation over z ± radius."""
    pieces = [lambda s, piece=piece: piece(s, kwargs) for piece in function.pieces]
    rows = [
        UNBOUNDED if ball is None else over_ball(pieces, function.kinks, flint.arb_series([ball, 1], 3), ball)
        for ball in _balls(z, radius)
    ]
    return Local.of(rows, z.mid.shape)


def loss_suprema(function: Loss, kwargs: dict[str, float], s: Balls, radius: Real, y: Real) -> Local:
    """The suprema of an elementwise loss over s ± radius."""
    rows = []
    for ball, target in zip(_balls(s, radius), y.ravel().tolist(), strict=True):
        if ball is None:
            rows.append(UNBOUNDED)
            continue
        exact = flint.arb(target)
        pieces = [lambda t, piece=piece, exact=exact: piece(t, exact, kwargs) for piece in function.pieces]
        rows.append(over_ball(pieces, function.kinks(kwargs), flint.arb_series([ball, 1], 3), ball - exact))
    return Local.of(rows, s.mid.shape)


def softmax_factor(z: Real, a: Real, radius: Real, u: float) -> Real:
    """By what factor of itself a softmax of z ± radius, all (N, n), may be off in an arithmetic of unit roundoff u."""
    width = z.shape[1]
    if width == 1:  # e⁰/e⁰: exact in any arithmetic
        return np.zeros_like(z)
    largest = z.max(axis=1, keepdims=True)
    log_total = largest + np.log(np.exp(z - largest).sum(axis=1, keepdims=True))
    roundings = 2 * (log_total - z) + 2 * np.abs(log_total) + ELEMENTARY * (2 + math.log(width))
    total = radius + u * roundings
    shrink = np.maximum(np.sum(a * np.expm1(-total), axis=1, keepdims=True), -1.0)
    gamma = (width + 2) * u
    return np.expm1(total - np.log1p(shrink)) * (1 + gamma) + gamma
