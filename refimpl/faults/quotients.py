"""Which difference quotient of the loss a wrong answer is."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.catalogue import FAULTS
from refimpl.faults.catalogue.numbers import are_short
from refimpl.faults.findings import Cause, Causes
from refimpl.faults.mistaken import WHOLE, Mistaken, moved
from refimpl.faults.prediction import Bounded
from refimpl.truth.graph import constant

if TYPE_CHECKING:
    from refimpl.faults.search import Search

CHANCE = 2.0**-40  # below which a trace is taken to be no accident
STEPS = (*(10.0**-k for k in range(1, 13)), 2.0**-26, 2.0 ** -(52 ** (1 / 3)))
CLEAR = 0.01  # the share of a difference that its tolerance may have
NEARLY = 0.1  # how far a difference quotient may be off, of the largest element
MAX_QUOTIENTS = 400  # parameters up to which difference quotients are recomputed

Array = NDArray[Any]


def quotients(search: Search) -> list[Causes]:
    """Difference quotients of the loss, over one of the usual steps."""
    case = search.case
    if case.spec.n_parameters > MAX_QUOTIENTS or not _resembles(search):
        return []
    found: list[Causes] = []
    for fault in (fault for fault in FAULTS.values() if fault.quotient):
        planted = Mistaken.right(case.spec, case.y)
        fault.plant(planted, WHOLE, fault.example)
        steps = (s for s in STEPS if _is_quotient(search, s, planted.one_sided))
        found += [(Cause(fault, WHOLE, step),) for step in islice(steps, 1)]
    return found


def _resembles(search: Search) -> bool:
    """Whether the answer is the right gradient but for small errors everywhere."""
    for name, answer in search.case.answer.items():
        truth = search.case.truth(name)
        if answer.shape != truth.shape or np.abs(answer - truth).max() > NEARLY * np.abs(truth).max():
            return False
    return True


def _is_quotient(search: Search, step: float, one_sided: bool) -> bool:
    case = search.case
    centre = Bounded(*search.known[search.cost])
    misses = {name: case.miss(name) for name in case.names}

    def within(name: str, index: tuple[int, ...]) -> float | None:
        """The error of a quotient that the answer lies within."""
        quotient, error = _quotient(search, name, index, step, one_sided, centre)
        return error if abs(float(case.answer[name][index]) - quotient) <= error else None

    # the elements that say most first: nearly every step is ruled out by them
    errors = {name: within(name, at) for name, (at, _) in misses.items()}
    if None in errors.values():
        return False
    decisive = all((errors[name] or 0.0) <= CLEAR * misses[name][1] for name in case.wrong)
    if not (decisive or _bears_trace(search, step if one_sided else 2 * step, float(centre.mid))):
        return False
    others = ((name, index) for name, (at, _) in misses.items() for index in np.ndindex(case.answer[name].shape))
    return all(within(name, index) is not None for name, index in others if index != misses[name][0])


def _bears_trace(search: Search, width: float, loss: float) -> bool:
    """Whether the answer's numbers are multiples of the loss's last place over the width, by no accident. Where
    the right ones are too, or the answer's are coarser, that says nothing.
    """
    case = search.case
    spacing = np.spacing(np.asarray(abs(loss), dtype=case.dtype)).astype(np.float64)
    place = float(max(spacing / 2, case.arithmetic.smallest_subnormal))

    def log_chance(array: Array) -> float:
        numbers = array.ravel().tolist()
        return sum(math.log(_chance_of_multiple(number * width, place, case.dtype)) for number in numbers)

    accident = sum(log_chance(case.answer[name]) for name in case.names)
    usual = sum(log_chance(case.truth(name)) for name in case.names)
    return accident < math.log(CHANCE) <= usual and not _coarse(search, width / place)


def _coarse(search: Search, scale: float) -> bool:
    """Whether the answer's numbers are multiples of anything small: rounded to a short format, as bfloat16 and
    float16 are, or to a grid.
    """
    numbers = np.concatenate([search.case.answer[name].ravel() for name in search.case.names])
    return are_short(numbers) or bool((np.rint(numbers * scale) % 8 == 0).all())


def _quotient(
    search: Search, name: str, index: tuple[int, ...], step: float, one_sided: bool, centre: Bounded
) -> tuple[float, float]:
    up = _loss(search, name, index, step)
    down = centre if one_sided else _loss(search, name, index, -step)
    width = step if one_sided else 2 * step
    quotient = float(up.mid - down.mid) / width
    error = float(up.err + down.err) / width + 4 * search.case.arithmetic.unit_roundoff * abs(quotient)
    return quotient, error


def _loss(search: Search, name: str, index: tuple[int, ...], by: float) -> Bounded:
    """The loss with one element of a parameter moved."""
    array = moved(search.case.params, name, index, by)[name]
    return search.reader(search.cost, {search.forward.params[name]: search.reader(constant(array))})


def _chance_of_multiple(value: float, place: float, dtype: str) -> float:
    """How likely a number is to be this near a multiple of `place` by accident; 1 where it is not near one."""
    ratio = abs(value) / place
    if 0 < ratio < 0.5:  # a quotient is nothing or that much
        return 1.0 / CHANCE
    spread = max(ratio * 8 * float(np.finfo(dtype).eps), 2.0**-40)
    if spread > 0.25 or value == 0:
        return 1.0
    return 2 * spread if abs(ratio - round(ratio)) <= spread else 1.0 / CHANCE
