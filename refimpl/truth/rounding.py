"""Graphs read over error bounds: `RoundingAlgebra`, pairs mid ± err. `err` bounds how far an implementation that
computes these primitives in a declared arithmetic, each by any usual formula and in any order of summation, may lie
from `mid`.

Model
-----
Every +, −, ×, / and fused multiply-add returns the exact result times (1 + ε), |ε| ≤ u, or the exact result plus at
most half the smallest subnormal number (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed. 2002,
eqs. 2.4 and 2.8); an arithmetic that flushes loses up to the smallest normal number instead, of inputs too. A sum of n
terms in any order is off by at most γ_n Σ|t|, γ_n = nu/(1 − nu) (§3.1). `own_…` state what a primitive itself
rounds, on the magnitudes that an implementation holds (|mid| + err); the methods of the algebra's rules add how the
errors of the inputs come out, terms of second order kept. Factors such as 1/N may stand anywhere: `contract` and `sum`
grant two roundings for them, and what is divided by N last must not overflow until then (`parts`).

With mids that are certified this is the worst-case bound of a tolerance; with mids computed in float64, and float64's
arithmetic, it is a certificate at the speed of BLAS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.network.arithmetic import Arithmetic
from refimpl.network.functions import ELEMENTARY, EXPONENTIAL, FLUSH_FACTOR, SMALLEST, Interval
from refimpl.truth.balls import rows_over
from refimpl.truth.convolution import FastConvolutions
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import Node, summed
from refimpl.truth.numbers import contracted
from refimpl.truth.suprema import Local, suprema

Real = NDArray[np.float64]
Bounded = tuple[Real, Real]
Mids = Callable[..., Real]
Derivatives = Callable[[Node, Elementwise, Real], Real]
TRUNCATED_TO = 2.0**-24  # half of what cutting to float32 loses
LIFT = 900  # bits, by which errors below 2^-LIFT are lifted
FEW = 4.0  # roundings that any function may be made of


class Terms(tuple[Real, Real]):
    """The pair of a sum of n terms, whose magnitudes are `magnitude` in all, and which is `granted` so many roundings
    more than it needs.
    """

    n: int
    magnitude: Real
    granted: int

    def __new__(cls, pair: Bounded, n: int, magnitude: Real, granted: int = 0) -> Terms:
        """Of the pair."""
        made = super().__new__(cls, pair)
        made.n, made.magnitude, made.granted = n, magnitude, granted
        return made

    def with_pair(self, pair: Bounded) -> Terms:
        """Another pair of the same sum."""
        return Terms(pair, self.n, self.magnitude, self.granted)

    @classmethod
    def of(cls, pair: Bounded) -> Terms:
        """The pair itself, or as one term."""
        return pair if isinstance(pair, Terms) else cls(pair, 1, _held(pair))


class Slope(tuple[Real, Real]):
    """The pair of a derivative of a library's function: what underflows in a product with a part of it is multiplied by
    `after` at most.
    """

    after: Real

    def __new__(cls, pair: Bounded, after: Real) -> Slope:
        """Of the pair."""
        made = super().__new__(cls, pair)
        made.after = after
        return made

    def with_pair(self, pair: Bounded) -> Slope:
        """Another pair of the same derivative."""
        return Slope(pair, self.after)


@dataclass
class RoundingAlgebra:
    """Values are pairs (mid, err) of arrays. `mids(node, *mids of its inputs)` are the numbers that errors are bounded
    around, right but for `mids_roundoff`; `errors` how far the given numbers themselves may be off, by name;
    `derivatives` a function and two derivatives at such numbers, where they are known.

    With `across_kinks`, a kink within err may have been taken from its other side; `near_kinks` says whether that makes
    a difference anywhere. `saturated` says whether a derivative is nothing beside the terms that cancel in it; where
    `relative`, all derivatives are held to a relative accuracy instead.
    """

    arithmetic: Arithmetic
    mids: Mids
    errors: Mapping[str, Real] = field(default_factory=dict)
    derivatives: Derivatives | None = None
    across_kinks: bool = False
    parts: int = 1
    mids_roundoff: float = 0.0
    near_kinks: bool = False
    relative: bool = False
    saturated: bool = False
    locals: dict[tuple[Node, Elementwise], Local] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arithmetic = self.arithmetic
        self.u, self.tiny = arithmetic.unit_roundoff + self.mids_roundoff, arithmetic.smallest_normal
        self.summing = self.u
        if arithmetic.truncated:  # tensor cores: other sums are in float32
            self.summing = min(self.u, TRUNCATED_TO)
        elif arithmetic.accumulation is not None:
            self.summing = arithmetic.accumulation + self.mids_roundoff
        self.more_bits = self.summing < self.u  # within an operation than are stored
        self.library, self.exponential = (
            self.u + ulps * self.summing if self.more_bits else ulps * self.u for ulps in (ELEMENTARY, EXPONENTIAL)
        )
        self.eta = self.tiny if arithmetic.flushes_subnormals else arithmetic.smallest_subnormal
        self.fast = FastConvolutions(arithmetic, self.u, self.summing)

    # Numbers that are handed in

    def given(self, node: Node) -> Bounded:
        mid = self.mids(node)
        return mid, self._flushed(mid) + self.errors.get(node.static, 0.0)

    def constant(self, node: Node) -> Bounded:
        mid = self.mids(node)
        return mid, self._flushed(mid)

    # Arithmetic

    def add(self, node: Node, a: Bounded, b: Bounded) -> Bounded:
        mid, err = self.mids(node, a[0], b[0]), a[1] + b[1]
        left, right = Terms.of(a), Terms.of(b)
        own = np.where((left.magnitude == 0) | (right.magnitude == 0), 0.0, self.u * (np.abs(mid) + err))
        if left.n + right.n > 2:  # in any order, the terms of one among those of the other
            for one, other in ((left, right), (right, left)):
                own = own + self._gamma(max(other.n - one.granted, 0)) * one.magnitude
        if self.arithmetic.flushes_subnormals:
            own = own + np.minimum(np.abs(mid) + err, self.tiny)
        magnitude = left.magnitude + right.magnitude
        return Terms(self._made(mid, err + own, magnitude), left.n + right.n, magnitude)

    def mul(self, node: Node, a: Bounded, b: Bounded) -> Bounded:
        mid = self.mids(node, a[0], b[0])
        err = _not_lost(np.abs(a[0]) * b[1] + a[1] * _held(b), mid, a, b)
        held = np.abs(mid) + err
        own = np.where(_exact_factor(a) | _exact_factor(b), 0.0, self.u) * held
        lost, largest = np.asarray(self.eta), np.zeros(())
        for one, factor, other in zip(node.inputs, (a, b), (b, a), strict=True):
            if isinstance(factor, Slope):
                lost = lost * factor.after
            if one.rule == "softmax":  # a (d − Σ a d), whose differences are formed before
                largest = 2 * _held(other).max(axis=-1, keepdims=True)
        return self._made(mid, err + own + np.minimum(held, lost), largest)

    def div(self, node: Node, a: Bounded, b: Bounded) -> Bounded:
        mid = self.mids(node, a[0], b[0])
        smallest = np.abs(b[0]) - b[1]
        err = _not_lost(np.where(smallest > 0, (a[1] + np.abs(mid) * b[1]) / smallest, np.inf), mid, a)
        held = np.abs(mid) + err
        return self._made(mid, err + self.u * held + self._underflow(held, 1))

    def scale(self, node: Node, a: Bounded) -> Bounded:
        mid, factor = self.mids(node, a[0]), abs(float(node.static))
        err = _not_lost(factor * a[1], mid, a, (np.asarray(factor), np.zeros(())))
        held = np.abs(mid) + err
        exact = math.frexp(factor)[0] == 0.5  # a power of two
        own = self._underflow(held, 1) * (factor != 1) if exact else 2 * self.u * held + self._underflow(held, 2)
        return self._made(mid, err + own)

    def contract(self, node: Node, a: Bounded, b: Bounded) -> Terms:
        mid, subscripts = self.mids(node, a[0], b[0]), node.static
        held_a, held_b = _held(a), _held(b)
        terms = contracted(subscripts, held_a, held_b)
        n = summed(node)
        err = self._of_products(n + 2) * terms + self._product_underflow(subscripts, terms, 2 * n + 2, held_a, held_b)
        err = err + _lifted(lambda off: contracted(subscripts, off, held_b), a[1])
        err = err + _lifted(lambda off: contracted(subscripts, np.abs(a[0]), off), b[1])
        err = err + self.fast.contracted(node, held_a, held_b)
        return Terms(self._made(mid, err + self._result(mid, err), terms), n, terms, 2)

    def sum(self, node: Node, a: Bounded) -> Bounded:
        mid, held = self.mids(node, a[0]), rows_over(_held(a), node.static)
        terms, n = held.sum(axis=-1).reshape(mid.shape), (held != 0).sum(axis=-1).reshape(mid.shape)
        own = self._of_sums(held, 1)[..., 0].reshape(mid.shape) * terms + np.minimum(terms, (n + 1) * self.eta)
        err = a[1].sum(axis=node.static, keepdims=True) + np.where(n > 1, own, 0.0)
        err = err + np.where(n > 1, self._result(mid, err), 0.0)
        return Terms(self._made(mid, err, terms), held.shape[-1], terms, 1)

    def scatter_add(self, node: Node, a: Bounded) -> Bounded:
        mid, places = self.mids(node, a[0]), node.static.ravel() + 1

        def collected(values: Real) -> Real:
            return np.asarray(np.bincount(places, values.ravel(), node.size + 1)[1:].reshape(node.shape), np.float64)

        held = _held(a)
        terms = collected(held)
        own = self._of_collected(held.ravel(), places, node.size + 1)[1:].reshape(node.shape) * terms
        if self.arithmetic.flushes_subnormals:
            own = own + np.minimum(terms, collected(np.ones(a[0].shape)) * self.tiny)
        err = collected(a[1]) + own + self.fast.added_up(node, terms)
        return self._made(mid, err + self._result(mid, err), terms)

    def cast(self, node: Node, a: Bounded) -> Bounded:
        mid, to, held = self.mids(node, a[0]), node.static, _held(a)
        lost = to.smallest_normal if to.flushes_subnormals else to.smallest_subnormal / 2
        exact = (a[1] == 0) & representable(a[0], to)
        err = a[1] + np.where(exact, 0.0, (to.unit_roundoff + self.u) * held + np.minimum(held, lost))
        return self._made(mid, np.where(held < to.largest, err, np.inf))

    def about(self, node: Node, a: Bounded) -> Bounded:
        off, order = node.static
        return self.mids(node, a[0]), a[1] + off * _held(a) if order else a[1]

    # Functions

    def apply(self, node: Node, a: Bounded) -> Bounded:
        function, times = node.static
        mid = self.mids(node, a[0])
        local = self._local(node.inputs[0], function, a)
        at = Interval(a[0] - a[1], a[0] + a[1], local.value, local.slope)
        flush = FLUSH_FACTOR * (1 + at.magnitude) * self.tiny if function.smooth_library else 2 * self.eta
        parameter = self.eta if any(0 < abs(p) < self.tiny for p in function.parameters.values()) else 0.0
        if times == 0:
            scale = function.value_scale(at, function.parameters)
            own = self._of_function(function.value_ulps) * scale + np.minimum(scale, flush) + parameter * at.magnitude
            return self._made(mid, local.slope * a[1] + own, local.value)
        if times > 1:
            raise ValueError(f"no rounding is stated for derivative {times} of {function.name}")
        scale = local.slope if self.relative else function.slope_scale(at, function.parameters)
        rounded = self._of_function(function.slope_ulps) * scale
        self.saturated |= bool((rounded > local.slope).any())
        own = rounded + np.minimum(scale, flush) + parameter
        err = local.curvature * a[1] + own
        if local.jump.any():
            self.near_kinks = True
            err = err + local.jump if self.across_kinks else err
        if not function.smooth_library:
            return self._made(mid, err)
        after = FLUSH_FACTOR * (1 + at.magnitude) ** 3 * max((1.0, *function.parameters.values()))
        return Slope(self._made(mid, err), after)

    def softmax(self, node: Node, a: Bounded, total: Bounded) -> Bounded:
        mid = self.mids(node, a[0], total[0])
        away = np.where(node.static, np.abs(a[0] - total[0]), 0.0)
        # directly, or as the exponential of log-softmax, whose exponent is rounded twice
        rounded = self.u * (2 * away + 2) + self.library
        factor = np.expm1(a[1] + total[1] + rounded)
        held = np.maximum(mid, SMALLEST)
        err = np.where(np.isfinite(a[1] + total[1]), np.minimum(held * factor, 1.0), np.inf)
        return self._made(mid, np.where(node.static, err + np.minimum(held, self.tiny), 0.0))

    def log_sum_exp(self, node: Node, a: Bounded) -> Bounded:
        mid, n = self.mids(node, a[0]), a[0].shape[-1]
        share = np.where(node.static, np.exp(np.minimum(a[0] - mid, 0.0)), 0.0)
        largest = np.where(node.static, a[0], -np.inf).max(axis=-1, keepdims=True)
        # log Σ s e^(±err) in place of log Σ s
        err = np.log1p((share * np.expm1(np.minimum(a[1], 700.0))).sum(axis=-1, keepdims=True))
        away = (share * np.abs(a[0] - largest)).sum(axis=-1, keepdims=True)
        own = self.u * (2 * np.abs(mid) + away) + self.library * (1 + math.log(n)) + self.exponential
        return self._made(mid, err + own + self._of_sums(share, 2))

    def normalise(self, node: Node, a: Bounded, inverse: Bounded, *mean: Bounded) -> Bounded:
        mid = self.mids(node, a[0], inverse[0], *(one[0] for one in mean))
        centre, centre_err = (sum(one[part] for one in mean) for part in (0, 1))
        err = (a[1] + centre_err) * _held(inverse) + np.abs(a[0] - centre) * inverse[1]
        held = np.abs(mid) + err
        # as (a − μ) r, or as a r − μ r
        apart = self.u * (_held(a) + np.abs(centre) + centre_err) * _held(inverse) if mean else 0.0
        return self._made(mid, err + apart + 2 * self.u * held + self._underflow(held, 2))

    def inverse_deviation(self, node: Node, a: Bounded) -> Bounded:
        """By √(σ² + ε), which is off by the share q of itself where a − μ is (|‖v‖ − ‖w‖| ≤ ‖v − w‖), and by its own
        rounding, in two passes or by Welford's (Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance",
        American Statistician 37, 1983: n κ u).
        """
        mid, held, err, (epsilon, centred) = self.mids(node, a[0]), _held(a), a[1], node.static
        centre = a[0].mean(axis=-1, keepdims=True) if centred else np.zeros(())
        if centred:
            mean_err = a[1].mean(axis=-1, keepdims=True) + self._of_sums(held, 1) * held.mean(axis=-1, keepdims=True)
            err = err + mean_err + self.u * (held + np.abs(centre) + mean_err)
        squares, q = np.square(held), np.sqrt(np.square(err).mean(axis=-1, keepdims=True)) * mid
        kappa = np.sqrt(squares.mean(axis=-1, keepdims=True) + epsilon) * mid
        own = np.maximum(self._of_sums(squares, 4), self._of_sums(np.square(a[0] - centre), 4)) * kappa
        if self.arithmetic.one_pass_variance and centred:  # n + 1 roundings of E[x²], and twice as many of μ²
            own = 3 * self._of_sums(squares, 1) * np.square(kappa)
            own = np.where(own < 1, own / (1 - own), np.inf)
        relative = own / 2 + self.library + 2 * self.u
        return self._made(mid, np.where(q < 1, mid * (q + relative) / (1 - q), np.inf))

    # What chooses and what moves

    def max(self, node: Node, a: Bounded) -> Bounded:
        return self.mids(node, a[0]), a[1].max(axis=node.static, keepdims=True)

    def first_largest(self, node: Node, a: Bounded) -> Bounded:
        mid = self.mids(node, a[0])
        lowest = np.where(mid > 0, a[0] - a[1], -np.inf).max(axis=node.static, keepdims=True)
        close = a[0] + a[1] >= lowest
        doubtful = close & (close.sum(axis=node.static, keepdims=True) > 1)
        self.near_kinks |= bool(doubtful.any())
        return mid, np.where(doubtful & self.across_kinks, 1.0, 0.0)

    def select(self, node: Node, a: Bounded, b: Bounded) -> Bounded:
        return self.mids(node, a[0], b[0]), np.where(node.static, a[1], b[1])

    def gather(self, node: Node, a: Bounded) -> Bounded:
        self.fast.gathered(node, a)
        return self.mids(node, a[0]), np.append(a[1].ravel(), 0.0)[node.static]

    def reshape(self, node: Node, a: Bounded) -> Bounded:
        return self.mids(node, a[0]), a[1].reshape(node.shape)

    def transpose(self, node: Node, a: Bounded) -> Bounded:
        return self.mids(node, a[0]), a[1].transpose(node.static)

    def broadcast(self, node: Node, a: Bounded) -> Bounded:
        return self.mids(node, a[0]), np.broadcast_to(a[1], node.shape)

    # Small statements

    def _rate(self, n: NDArray[Any]) -> Real:
        """n roundings within a sum, one after another in the worst case."""
        product = n * self.summing
        return np.where(product < 1, product / (1 - product), np.inf)

    def _gamma(self, n: Any) -> Real:
        """By what share of Σ|t| a sum of n terms t rounds."""
        counts, block = np.asarray(n, dtype=np.float64), self.arithmetic.block
        if block:
            counts = np.minimum(counts, block + np.ceil(np.log2(np.maximum(counts / block, 1.0))))
        return self._rate(counts)

    def _result(self, mid: Real, err: Real) -> Real:
        """What rounding a sum at its end loses, where it was accumulated with more bits."""
        return self.u * (np.abs(mid) + err) if self.more_bits else np.zeros(())

    def _of_function(self, ulps: float) -> float:
        """The roundings of a function: one of those of a library's, and a few others, where it has more bits within."""
        if not self.more_bits:
            return ulps * self.u
        return max(min(ulps, FEW), ulps + 1 - ELEMENTARY) * self.u + ulps * self.summing

    def _of_products(self, n: int) -> Real:
        """The same of a sum of n products."""
        arithmetic = self.arithmetic
        if not arithmetic.truncated:
            return self._gamma(n)
        blocks = math.ceil(n / arithmetic.truncated)
        cut = (n + 2 * blocks) * (arithmetic.accumulation or 0.0) + blocks * 2 * TRUNCATED_TO
        return np.asarray(cut / (1 - cut) if cut < 1 else math.inf)

    def _of_sums(self, terms: Real, more: int) -> Real:
        """By what share of Σ the sums of such terms ≥ 0 over the last axis, which stays with length 1, round; with so
        many roundings more.
        """
        return self._gamma((terms != 0).sum(axis=-1, keepdims=True) + more)

    def _of_collected(self, terms: Real, places: NDArray[np.intp], size: int) -> Real:
        """The same of the sums of those terms that have the same place."""
        return self._gamma(np.bincount(places, minlength=size))

    def _underflow(self, terms: Real, count: int) -> Real:
        # a product that underflows loses at most itself
        return np.minimum(terms, count * self.eta)

    def _product_underflow(self, subscripts: str, terms: Real, count: int, a: Real, b: Real) -> Real:
        """`_underflow` of a contraction, whose own float64 evaluation may have underflowed."""
        low = terms < 2.0**-960
        if self.eta == 0 or not low.any():
            return self._underflow(terms, count)
        some = contracted(subscripts, (a > 0).astype(np.float64), (b > 0).astype(np.float64))
        return np.where(low, np.minimum(some, 1.0) * (count * self.eta), self._underflow(terms, count))

    def _flushed(self, mid: Real) -> Real:
        if not self.arithmetic.flushes_subnormals:
            return np.zeros(mid.shape)
        return np.where(np.abs(mid) < self.tiny, np.abs(mid), 0.0)

    def _made(self, mid: Real, err: Real, magnitude: Real | float = 0.0) -> Bounded:
        """With the float64 evaluation of the bound itself; unbounded where the arithmetic may overflow."""
        largest = np.maximum(magnitude, np.abs(mid) + err)
        err = err * (1 + 2.0**-40)
        # what is not a number is not below it
        if largest.max(initial=0.0) * self.parts < self.arithmetic.largest:
            return mid, err
        return mid, np.where(largest * self.parts < self.arithmetic.largest, err, np.inf)

    def _local(self, where: Node, function: Elementwise, a: Bounded) -> Local:
        if (where, function) not in self.locals:
            known = self.derivatives(where, function, a[0]) if self.derivatives else None
            self.locals[where, function] = suprema(function, *a, known)
        return self.locals[where, function]


def unbounded(err: Real) -> Real:
    """What is not a number, 0 · inf and the like, is unbounded."""
    return np.where(np.isnan(err), np.inf, err)


def representable(numbers: Real, arithmetic: Arithmetic) -> NDArray[np.bool_]:
    """Which are among an arithmetic's normal numbers, or 0."""
    if arithmetic.unit_roundoff == 0:
        return np.ones(numbers.shape, dtype=bool)
    digits = np.frexp(numbers)[0] / arithmetic.unit_roundoff
    return np.asarray((digits == np.rint(digits)) & ((numbers == 0) | (np.abs(numbers) >= arithmetic.smallest_normal)))


def _lifted(product: Callable[[Real], Real], err: Real) -> Real:
    """A product with errors; those of 2⁻¹⁰⁷⁴ would make BLAS a hundred times slower."""
    largest = err.max(initial=0.0)
    if largest == 0:
        return np.zeros(())
    return np.ldexp(product(np.ldexp(err, LIFT)), -LIFT) if largest < 2.0**-LIFT else product(err)


def _held(a: Bounded) -> Real:
    """The largest magnitude that an implementation may hold."""
    return np.abs(a[0]) + a[1]


def _not_lost(err: Real, mid: Real, *factors: Bounded) -> Real:
    """A product that is below float64's range is not 0, unless a factor is."""
    lost = (err == 0) & (mid == 0)
    if not lost.any():
        return err
    return np.where(lost & reduce(np.logical_and, [_held(factor) > 0 for factor in factors]), SMALLEST, err)


def _exact_factor(a: Bounded) -> NDArray[np.bool_]:
    """Where a factor is a known power of two, so that the product is exact."""
    return np.asarray((a[1] == 0) & (np.abs(np.frexp(a[0])[0]) == 0.5))
