"""The verdict on every element of one array, summed up in a `Row`.

PASS          within the worst case and the statistical bound, on the right side of every kink.
FAIL          outside either, whatever side of kinks an implementation is on; or not finite where the truth is.
UNDETERMINED  no bound decides: both exceed the array's largest element (or the smallest normal number where the whole
              array lies below it, where digits are lost anyway), an intermediate value may overflow, or a kink lies
              within the rounding errors and the answer is what it would be on its other side.

Where the truth is 0 throughout, no bound is small beside it; a 0 is a PASS there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.judge.bounds import Tolerance
from refimpl.judge.report import FAIL, PASS, STATISTICAL, UNDETERMINED, WORST_CASE, Row
from refimpl.network.arithmetic import PRESETS
from refimpl.truth.balls import Balls

Array = NDArray[Any]


def largest_element(mid: Array, all_of_a_kind: Mapping[str, Balls]) -> float:
    """What a bound on an array is held against: its largest element, or where it is zero throughout, the largest of
    all arrays of its kind.
    """
    own = float(np.max(np.abs(mid), initial=0.0))
    if own > 0:
        return own
    return max((float(np.max(np.abs(balls.mid), initial=0.0)) for balls in all_of_a_kind.values()), default=0.0)


def refused(name: str, key: str, reason: str, size: int = 1) -> Row:
    """FAIL for something that no number can be compared with."""
    nan = float("nan")
    return Row(
        backend=name, quantity=key, verdict=FAIL, size=size, failed=size, undetermined=0,
        ratio=float("inf"), ulps=float("inf"),
        index=(), value=nan, truth=nan, bound=nan, reason=reason,
    )  # fmt: skip


@np.errstate(all="ignore")  # an answer may hold anything
def judged(name: str, key: str, values: Array, truth: Balls, bounds: Tolerance, dtype: str, largest: float) -> Row:
    """`values` against the truth and the bounds of that key; `largest` as by `largest_element`."""
    bound = np.minimum(bounds.worst_case[key], bounds.statistical[key])
    across = np.minimum(bounds.across_kinks[key], bounds.statistical_across[key])
    distance, slack = truth.distance(values), 2 * truth.tail_rad
    limit = max(largest, bounds.arithmetic.smallest_normal)
    within = distance <= bound + slack
    outside = distance > bounds.across_kinks[key] + slack
    failed = ~(within | (distance <= across + slack) | np.isinf(across))
    passed = ((largest == 0) & (values == 0)) | (within & np.isfinite(bound) & (bound + slack < limit))
    undetermined = ~(passed | failed)
    ratio = np.maximum(distance - slack, 0.0) / bound
    ratio = np.asarray(np.where(np.isnan(ratio), np.where(np.isfinite(values), 0.0, np.inf), ratio))
    # the element to show: the worst among the worst verdict's
    group = failed if failed.any() else undetermined if undetermined.any() else passed
    at = np.unravel_index(int(np.argmax(np.where(group, ratio, -np.inf))), ratio.shape)
    top = np.unravel_index(int(np.argmax(np.abs(truth.mid))), ratio.shape)
    off = np.where(values == truth.mid, np.abs(truth.tail), distance)
    kinked = bool((~within & ~failed & np.isfinite(bound)).any())
    return Row(
        backend=name,
        quantity=key,
        verdict=FAIL if failed.any() else UNDETERMINED if undetermined.any() else PASS,
        size=int(ratio.size),
        failed=int(failed.sum()),
        undetermined=int(undetermined.sum()),
        ratio=float(ratio[at]),
        ulps=float((off / spacing(truth.mid, dtype))[at]),
        index=tuple(int(i) + 1 for i in at),
        value=float(values[at]),
        truth=float(truth.mid[at]),
        bound=float(bound[at]),
        reason=_failure(float(values[at])) if failed.any() else _doubt(bound[undetermined], kinked),
        by="" if not failed.any() else WORST_CASE if outside[at] else bounds.kind,
        saturated=int((passed & (bounds.saturated.get(key, np.zeros(())) > 0) & (bound >= np.abs(truth.mid))).sum()),
        noticed=float((across + slack)[top] / np.abs(truth.mid[top])),
    )


def with_repeats(verdict: Callable[[bool], Row]) -> Row:
    """The verdict by bounds for which terms that repeat, and so round alike, were looked for or not: they are before
    anything is called wrong.
    """
    row = verdict(False)
    return verdict(True) if row.by == STATISTICAL else row


# of formats that NumPy lacks: the distance from 1 to the next number
EPSILON = {"bfloat16": 2 * PRESETS["bfloat16"].unit_roundoff}


def spacing(numbers: Array, dtype: str) -> Array:
    """The distance from each number to the next one of a dtype."""
    magnitudes = np.abs(numbers)
    if dtype not in EPSILON:
        return np.asarray(np.spacing(magnitudes.astype(dtype)))
    return np.asarray(np.ldexp(EPSILON[dtype], np.frexp(magnitudes)[1] - 1))


def _failure(value: float) -> str:
    return "" if np.isfinite(value) else f"{value} where the truth is finite"


def _doubt(bound: Array, kinked: bool) -> str:
    """Why the elements of these bounds are undetermined; "" where there are none."""
    if not bound.size:
        return ""
    if np.isinf(bound).any():
        return "an intermediate value may overflow, or its derivative is unbounded, within the rounding errors"
    if kinked:
        return "a kink lies within the rounding errors"
    return "the tolerance exceeds the largest element"
