"""The elementwise functions that graphs apply: formulas on power series, and what holds at their kinks.

An `Elementwise` is data: pieces between kinks, each a formula from a series z + ε of balls to a series, from whose
coefficients come the values and all derivatives; none is written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import flint
import numpy as np

from refimpl.network.functions import (
    ACTIVATIONS,
    ELEMENTARY,
    EXPONENTIAL,
    Ball,
    Formula,
    Scale,
    Series,
    own_slope,
    own_value,
)


@dataclass(frozen=True)
class Elementwise:
    """A function of one number.

    `pieces` are the formulas between the `kinks`, left to right; at a kink itself the left one holds, or `at_kink`.
    `parameters` are what the formulas take. The function is defined `above` a number only.
    """

    name: str
    pieces: tuple[Formula, ...]
    kinks: tuple[float, ...] = ()
    at_kink: Formula | None = None
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)
    above: float = -math.inf
    value_ulps: float = 0.0
    slope_ulps: float = 0.0
    value_scale: Scale = own_value
    slope_scale: Scale = own_slope
    smooth_library: bool = False

    def series(self, z: Series) -> tuple[Series, bool]:
        """The function of the series z + ε, and whether it is certain on which side of every kink z lies."""
        if not self.kinks:
            return self.pieces[0](z, self.parameters), True
        pieces = [lambda piece=piece: piece(z, self.parameters) for piece in self.pieces]
        at_kink = self.at_kink
        return _on_pieces(pieces, z[0], self.kinks, None if at_kink is None else lambda: at_kink(z, self.parameters))


def _on_pieces(
    pieces: Sequence[Callable[[], Series]], where: Ball, kinks: Sequence[float], at_kink: Callable[[], Series] | None
) -> tuple[Series, bool]:
    """The value of the piece that the ball `where` lies in, and whether that is certain."""
    first = len(kinks)
    for index, kink in enumerate(kinks):
        if where < kink:
            return pieces[index](), True
        if where == kink:
            return (at_kink or pieces[index])(), True
        if not where > kink:
            first = index
            break
    if first == len(kinks):
        return pieces[-1](), True
    ends = zip((-math.inf, *kinks), (*kinks, math.inf), pieces, strict=True)
    touched = [piece() for left, right, piece in ends if not (where < left or where > right)]
    if at_kink is not None:
        touched.append(at_kink())
    return _hull(touched), False


def _hull(series: Sequence[Series]) -> Series:
    hull = series[0]
    for other in series[1:]:
        length = max(hull.prec, other.prec)
        hull = flint.arb_series([hull[i].union(other[i]) for i in range(length)], length)
    return hull


@cache
def activation(name: str, parameters: tuple[tuple[str, float], ...] = ()) -> Elementwise:
    """An elementwise activation of the catalogue."""
    entry = ACTIVATIONS[name]
    return Elementwise(
        name, entry.pieces, entry.kinks, None, dict(parameters), -math.inf, entry.value_ulps, entry.slope_ulps,
        entry.value_scale, entry.slope_scale, entry.smooth_library,
    )  # fmt: skip


def huber(delta: float) -> Elementwise:
    """½r² where |r| ≤ δ, else δ(|r| − ½δ)."""

    def far(r: Series, p: Mapping[str, float]) -> Series:
        bound = flint.arb(p["delta"])
        return bound * r - bound * bound / 2

    pieces = (lambda r, p: far(-r, p), lambda r, p: r * r / 2, far)
    return Elementwise(
        "huber", pieces, (-delta, delta), None, {"delta": delta}, value_ulps=8.0, slope_ulps=2.0,
        value_scale=lambda at, p: at.value + p["delta"] * np.minimum(at.slope, p["delta"]),
    )  # fmt: skip


# of a loss, which may be the square of a norm
SQUARE = Elementwise("square", (lambda r, p: r * r,), value_ulps=4.0, slope_ulps=1.0)
ABSOLUTE = Elementwise("absolute", (lambda r, p: -r, lambda r, p: r), (0.0,), lambda r, p: r * 0)
AT_ZERO = Elementwise("at zero", (lambda z, p: z * 0,) * 2, (0.0,), lambda z, p: z * 0 + 1)
LOGARITHM = Elementwise(
    "log", (lambda z, p: z.log(),), above=0.0, value_ulps=ELEMENTARY, slope_ulps=2.0, smooth_library=True
)
SOFTPLUS = activation("softplus")
# of binary cross-entropy, which may be (1 − y) s − log σ(s), with the derivative (1 − y) − σ(−s)
LOGISTIC = replace(
    SOFTPLUS,
    name="logistic",
    value_scale=lambda at, p: SOFTPLUS.value_scale(at, p) + 2 / SOFTPLUS.value_ulps * at.magnitude,
    slope_scale=lambda at, p: SOFTPLUS.slope_scale(at, p) + 4 / SOFTPLUS.slope_ulps,
)


# --------------------------------------------------------------------------------------------------------------
# What definitions are written with. A square root and its reciprocal are granted what CUDA's are: 2 ulp.

ROOT = 4.0


def _library(name: str, formula: Formula, value_ulps: float, slope_ulps: float, **more: Any) -> Elementwise:
    return Elementwise(name, (formula,), value_ulps=value_ulps, slope_ulps=slope_ulps, smooth_library=True, **more)


def _erf_slope(at: Any, p: Mapping[str, float]) -> Any:
    return at.slope * (1 + 2 * at.magnitude**2 / ERF_SLOPE_ULPS)  # e^(−z²), whose exponent is rounded


ERF_SLOPE_ULPS = EXPONENTIAL + 4.0
EXP = _library("exp", lambda z, p: z.exp(), EXPONENTIAL, EXPONENTIAL)
# the derivative may be expm1(z) + 1
EXPM1 = _library(
    "expm1", lambda z, p: z.exp() - 1, ELEMENTARY, ELEMENTARY + 1, slope_scale=lambda at, p: at.slope + at.value
)
LOG1P = _library("log1p", lambda z, p: (1 + z).log(), ELEMENTARY, 3.0, above=-1.0)
SIN = _library("sin", lambda z, p: z.sin(), ELEMENTARY, ELEMENTARY)
COS = _library("cos", lambda z, p: z.cos(), ELEMENTARY, ELEMENTARY)
ERF = _library("erf", lambda z, p: z.erf(), ELEMENTARY, ERF_SLOPE_ULPS, slope_scale=_erf_slope)
SQRT = _library("sqrt", lambda z, p: z.sqrt(), ROOT, ROOT + 2, above=0.0)
RSQRT = _library("rsqrt", lambda z, p: z.rsqrt(), ROOT + 1, 3 * (ROOT + 1) + 3, above=0.0)
SIGN = Elementwise("sign", (lambda z, p: z * 0 - 1, lambda z, p: z * 0 + 1), (0.0,), lambda z, p: z * 0)
# 1 where z > 0, where z ≥ 0, and of two numbers that are equal half of each
POSITIVE, NOT_NEGATIVE, LARGER = (
    Elementwise(name, (lambda z, p: z * 0, lambda z, p: z * 0 + 1), (0.0,), at_zero)
    for name, at_zero in (
        ("positive", lambda z, p: z * 0),
        ("not negative", lambda z, p: z * 0 + 1),
        ("larger", lambda z, p: z * 0 + flint.arb(0.5)),
    )
)


@cache
def power(exponent: float) -> Elementwise:
    """z^p: of a whole number p by products or as a library has it, of another p for z > 0."""
    whole = exponent == int(exponent)
    ulps = 2 * ELEMENTARY + abs(exponent)

    def formula(z: Series, p: Mapping[str, float]) -> Series:
        return z ** int(exponent) if whole else (z.log() * flint.arb(exponent)).exp()

    return _library(f"power {exponent:g}", formula, ulps, ulps + 1, above=-math.inf if whole else 0.0)
