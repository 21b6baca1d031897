"""What a function does over balls: the suprema of its values and derivatives, from its series over them, or by Taylor's
theorem from what it does in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.network.functions import SMALLEST, Ball, Formula, Series
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.precision import working_precision

Real = NDArray[np.float64]
Suprema = tuple[float, float, float, float, float]
SUPREMA_BITS = 64  # the balls that suprema are taken over are far wider
UNBOUNDED: Suprema = (math.inf,) * 5
STRETCHES = 16  # that numbers are sorted into, with one bound on the third derivative each
SMOOTH = 2.0**-8  # of f': by how much it may change for Taylor's theorem to say enough


@dataclass(frozen=True)
class Local:
    """What a function does over z ± err: |f| ≤ value, |f'| ≤ slope over every piece touched, |f''| ≤ curvature over the
    one that z is on; `jump`: by how much f' may differ on the other side of a kink; `turn`: by how much f'' changes.
    """

    value: Real
    slope: Real
    curvature: Real
    jump: Real
    turn: Real

    @classmethod
    def of(cls, rows: Sequence[Suprema], shape: tuple[int, ...]) -> Local:
        """From those of each number, in C order."""
        return cls(*(np.reshape(column, shape) for column in zip(*rows, strict=True)))

    def but(self, where: NDArray[np.bool_], few: Local) -> Local:
        """With those of `few` at some places."""
        found = Local(**{name: part.copy() for name, part in vars(self).items()})
        for name, part in vars(found).items():
            part[where] = getattr(few, name)
        return found


def suprema(function: Elementwise, mid: Real, err: Real, known: Real | None = None) -> Local:
    """The suprema of a function and its derivatives over mid ± err. `known`: (3, *shape), the numbers next to f, f' and
    f'' of mid, by which they are found sooner.
    """
    radius = err + 2.0**-53 * np.abs(mid) * (err > 0)
    if known is None or mid.size <= STRETCHES:
        return _over_each(function, mid, radius)
    value, slope, curvature = np.abs(known) * (1 + 2.0**-50)
    turn = np.where(radius > 0, radius * _third(function, mid, radius), 0.0)
    curvature = curvature + turn
    slope = slope + radius * curvature
    vague = ~(np.isfinite(turn) & (radius * curvature <= SMOOTH * slope))
    found = Local(value + radius * slope, slope, curvature, np.zeros(mid.shape), turn)
    return found.but(vague, _over_each(function, mid[vague], radius[vague])) if vague.any() else found


def _over_each(function: Elementwise, mid: Real, radius: Real) -> Local:
    """From the series over each ball."""
    pieces = [lambda z, piece=piece: piece(z, function.parameters) for piece in function.pieces]
    rows = []
    with working_precision(SUPREMA_BITS):
        for m, r in zip(mid.ravel().tolist(), radius.ravel().tolist(), strict=True):
            if not (math.isfinite(m) and math.isfinite(r)):
                rows.append(UNBOUNDED)
                continue
            ball = flint.arb(m, r)
            rows.append(over_ball(pieces, function.kinks, flint.arb_series([ball, 1], 3), ball))
    return Local.of(rows, mid.shape)


def over_ball(pieces: Sequence[Any], kinks: Sequence[float], argument: Series, where: Ball) -> Suprema:
    """(|f|, |f'|, |f''|, jump, turn) of `pieces` on the series `argument`, its piece decided by the ball `where`.
    A derivative at a kink itself lies between those of its sides.
    """
    try:
        true = sum([where.mid() > kink for kink in kinks])
        own = pieces[true](argument)
        value, slope, curvature = _upper(own[0]), _upper(own[1]), 2.0 * _upper(own[2])
        jump = 0.0
        for index, kink in enumerate(kinks):
            if where.is_exact() or where < kink or where > kink:
                continue
            for other in (pieces[index](argument), pieces[index + 1](argument)):
                value, slope = max(value, _upper(other[0])), max(slope, _upper(other[1]))
                jump = max(jump, _upper(other[1] - own[1]))
    except (ValueError, ZeroDivisionError):
        return UNBOUNDED
    found = (value, slope, curvature, jump, 4.0 * float(own[2].rad()))
    return found if all(map(math.isfinite, found)) else UNBOUNDED


def _third(function: Elementwise, mid: Real, radius: Real) -> Real:
    """The supremum of |f'''| over stretches that each ball lies in; inf where one touches a kink, or is wide."""
    found = np.full(mid.shape, np.inf)
    low, high = mid - radius, mid + radius
    ends = (-math.inf, *function.kinks, math.inf)
    for piece, left, right in zip(function.pieces, ends[:-1], ends[1:], strict=True):
        here = (low > left) & (high < right) & np.isfinite(low) & np.isfinite(high)
        if not here.any():
            continue
        grid = np.linspace(low[here].min(), high[here].max(), STRETCHES + 1)
        with working_precision(SUPREMA_BITS):
            stretches = np.array([_over_stretch(piece, function, *pair) for pair in pairwise(grid)])
        first, last = (np.clip(np.searchsorted(grid, end[here]) - 1, 0, STRETCHES - 1) for end in (low, high))
        found[here] = np.where(last <= first + 1, np.maximum(stretches[first], stretches[last]), np.inf)
    return found


def _over_stretch(piece: Formula, function: Elementwise, low: float, high: float) -> float:
    middle = low / 2 + high / 2
    radius = (high - middle) * (1 + 2.0**-20) + 2.0**-50 * abs(middle)
    try:
        series = piece(flint.arb_series([flint.arb(middle, radius), 1], 4), function.parameters)
    except (ValueError, ZeroDivisionError):
        return math.inf
    found = 6.0 * _upper(series[3])
    return found if math.isfinite(found) else math.inf


def _upper(ball: Ball) -> float:
    """The largest magnitude; not 0 where that is only below float64's range."""
    return float(ball.abs_upper()) or (0.0 if ball == 0 else SMALLEST)
