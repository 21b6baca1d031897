"""Which difference quotient of the loss a wrong answer is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.catalogue.numbers import are_short, are_single
from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.differences import DIFFERENCES, ONE_SIDED
from refimpl.faults.mistaken import WHOLE, moved
from refimpl.faults.prediction import Bounded
from refimpl.truth.graph import constant

if TYPE_CHECKING:
    from refimpl.faults.search import Search

CHANCE = 2.0**-40  # below which a trace is taken to be no accident
# what people choose: one digit, and the roots of the machine epsilon
STEPS = (*(float(f"{digit}e-{k}") for k in range(2, 13) for digit in (5, 3, 2, 1)), 2.0**-26, 2.0 ** -(52 ** (1 / 3)))
CLEAR = 0.01  # the share of a difference that its tolerance may have
NEARLY = 0.1  # how far a difference quotient may be off, of the largest element
FARTHER = 3.0  # than the nearest of equal widths, above which another is not meant
ENOUGH = 6  # numbers, which are not all multiples of five places by accident
MAX_QUOTIENTS = 400  # parameters up to which difference quotients are recomputed

Array = NDArray[Any]


def quotients(search: Search, decisive: bool = False) -> list[Causes]:
    """Difference quotients of the loss, over one of the usual steps: those whose numbers are multiples of the loss's
    last place over the width, which those of any wider one may be too; or, where what it leaves out is `decisive`,
    those that say so.
    """
    case = search.case
    if case.spec.n_parameters > MAX_QUOTIENTS or not _resembles(search):
        return []
    loss = float(search.known[search.cost][0])
    steps = sorted(
        ((step * (1 if fault is ONE_SIDED else 2), step, fault) for fault in DIFFERENCES for step in STEPS),
        key=lambda item: item[0], reverse=decisive,
    )  # fmt: skip
    found: list[tuple[float, Causes]] = []
    widest = math.inf
    for width, step, fault in steps:
        if width > (1 + 2.0**-40) * widest or not (decisive or _bears_trace(search, width, loss)):
            continue
        off = _off(search, step, fault is ONE_SIDED, decisive)
        if off is not None:
            found.append((off, (Cause(fault, WHOLE, step, (f"step {step:.3g}",)),)))
            widest = width if not decisive else widest
    least = min((off for off, _ in found), default=0.0)
    widths = [causes[0].parameter or 0.0 for _, causes in found]
    if decisive and found and max(widths) > FARTHER * min(widths):  # what is left out grows with the step
        return []
    return [causes for off, causes in found if off <= FARTHER * least + math.ulp(loss)]


def _resembles(search: Search) -> bool:
    """Whether the answer is the right gradient but for small errors everywhere."""
    for name, answer in search.case.answer.items():
        truth = search.case.truth(name)
        if answer.shape != truth.shape or np.abs(answer - truth).max() > NEARLY * np.abs(truth).max():
            return False
    return True


def _off(search: Search, step: float, one_sided: bool, decisive: bool) -> float | None:
    """How far the answer is from these quotients, as a difference of losses: the root of the mean square. None where it
    does not lie within their errors, or, with `decisive`, these are not small beside what is wrong.
    """
    case = search.case
    centre = Bounded(*search.known[search.cost])
    misses = {name: case.miss(name) for name in sorted(case.names, key=lambda name: name not in case.wrong)}
    squares: list[float] = []

    def within(name: str, index: tuple[int, ...]) -> float | None:
        """The error of a quotient that the answer lies within."""
        quotient, error = _quotient(search, name, index, step, one_sided, centre)
        off = abs(float(case.answer[name][index]) - quotient)
        squares.append((off * step * (1 if one_sided else 2)) ** 2)
        return error if off <= error else None

    # the elements that say most first: nearly every step is ruled out by one of them
    for name, (at, distance) in misses.items():
        error = within(name, at)
        if error is None or (decisive and name in case.wrong and error > CLEAR * distance):
            return None
    others = ((name, index) for name, (at, _) in misses.items() for index in np.ndindex(case.answer[name].shape))
    if not all(within(name, index) is not None for name, index in others if index != misses[name][0]):
        return None
    return math.sqrt(sum(squares) / len(squares))


def _bears_trace(search: Search, width: float, loss: float) -> bool:
    """Whether the answer's numbers are multiples of the loss's last place over the width, by no accident. Where
    the right ones are too, or the answer's are coarser, that says nothing.
    """
    case = search.case
    answer, truth = (
        np.concatenate([np.ravel(of(name)) for name in case.names]) for of in (case.answer.__getitem__, case.truth)
    )
    if np.count_nonzero(answer) < ENOUGH:
        return False
    smallest = max(abs(loss) - width * np.abs(answer).max(), 0.0)  # of the losses that were subtracted
    spacing = np.spacing(np.asarray(smallest, dtype=case.dtype)).astype(np.float64)
    place = float(max(spacing, case.arithmetic.smallest_subnormal))
    scale = width / place
    grain = _float32_grain(answer) * scale
    accident, usual = (_log_chance(array * scale, case.dtype, grain) for array in (answer, truth))
    return accident < math.log(CHANCE) <= usual and not _coarse(search, scale)


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


def _float32_grain(numbers: Array) -> Array:
    """What all of these are multiples of if they are float32's; 0 where they are not."""
    single = are_single(numbers)
    return np.abs(np.spacing(numbers.astype(np.float32))).astype(np.float64) if single else np.zeros_like(numbers)


def _log_chance(ratios: Array, dtype: str, grain: Array) -> float:
    """How likely numbers are to be this near whole ones by accident, multiples of a grain; infinite where one is not
    near any.
    """
    sizes = np.abs(ratios[ratios != 0])
    spread = np.maximum(np.maximum(sizes * 8 * float(np.finfo(dtype).eps), 2.0**-40), grain[ratios != 0] / 2)
    told = spread <= 0.25
    off = told & ((np.abs(sizes - np.rint(sizes)) > spread) | (sizes < 0.5))  # a quotient is nothing or a whole place
    return math.inf if off.any() else float(np.log(2 * spread[told]).sum())
