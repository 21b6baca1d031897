"""What a function does over balls: the suprema of its values and derivatives, from its series over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.network.functions import SMALLEST, Ball, Series
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.precision import working_precision

Real = NDArray[np.float64]
Suprema = tuple[float, float, float, float, float, float]
SUPREMA_BITS = 64  # the balls that suprema are taken over are far wider
UNBOUNDED: Suprema = (*(math.inf,) * 5, math.nan)


@dataclass(frozen=True)
class Local:
    """What a function does over z ± err: |f| ≤ value, |f'| ≤ slope over every piece touched, |f''| ≤ curvature over the
    one that z is on; `jump`: by how much f' may differ on the other side of a kink; `bend`, `turn`: what f'' is about
    in the middle, and by how much it changes.
    """

    value: Real
    slope: Real
    curvature: Real
    jump: Real
    turn: Real
    bend: Real

    @classmethod
    def of(cls, rows: Sequence[Suprema], shape: tuple[int, ...]) -> Local:
        """From those of each number, in C order."""
        return cls(*(np.reshape(column, shape) for column in zip(*rows, strict=True)))


def suprema(function: Elementwise, mid: Real, err: Real) -> Local:
    """The suprema of a function and its derivatives over mid ± err, from its series over those balls."""
    radius = err + 2.0**-53 * np.abs(mid) * (err > 0)
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
    """(|f|, |f'|, |f''|, jump, turn, bend) of `pieces` on the series `argument`, its piece decided by the ball `where`.
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
    found = (value, slope, curvature, jump, 4.0 * float(own[2].rad()), 2.0 * float(own[2].mid()))
    return found if all(map(math.isfinite, found)) else UNBOUNDED


def _upper(ball: Ball) -> float:
    """The largest magnitude; not 0 where that is only below float64's range."""
    return float(ball.abs_upper()) or (0.0 if ball == 0 else SMALLEST)
