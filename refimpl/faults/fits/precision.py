"""Right numbers that were rounded: to decimals or digits, as printing does, or to a shorter format."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.catalogue.numbers import are_short
from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.fit import CONFIRMATIONS, fit
from refimpl.faults.mistaken import WHOLE, Plant
from refimpl.faults.observed import Observed
from refimpl.faults.plants import each_gradient

FORMATS: Mapping[str, int] = {"bfloat16": 8, "float16": 11, "float32": 24}  # bits of the significand
MOST = 12  # decimals or digits
Array = NDArray[Any]


def _rounded(change: Callable[[Array, int], Array], names: Collection[str] | None = None) -> Plant:
    return each_gradient(lambda values, number: change(values, int(number)), names)


def to_decimals(values: Array, places: int) -> Array:
    """As text with so many decimals, and back."""
    return np.vectorize(lambda value: float(f"{value:.{places}f}"), otypes=[np.float64])(values)


def to_digits(values: Array, digits: int) -> Array:
    """As text with so many significant digits, and back."""
    return np.vectorize(lambda value: float(f"{value:.{digits}g}"), otypes=[np.float64])(values)


def to_bits(values: Array, bits: int) -> Array:
    """To so many bits of significand, to nearest."""
    significand, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(significand, bits)), exponent - bits)


REMEDY = "Print numbers so that they read back exactly (%.17g), and keep them in the dtype that is asked for."
DECIMALS = fit(
    "rounded_to_decimals", "The numbers are right, but rounded to so many decimals.", REMEDY, _rounded(to_decimals),
    "decimals", 4,
)  # fmt: skip
DIGITS = fit(
    "rounded_to_digits", "The numbers are right, but rounded to so many significant digits.", REMEDY,
    _rounded(to_digits), "digits", 7,
)  # fmt: skip
SHORT = fit(
    "rounded_to_format", "The numbers are right, but rounded to a shorter format.", REMEDY, _rounded(to_bits), "bits", 8
)
UPDATE = fit(
    "recovered_from_update", "The numbers are right but for the roundings of parameters that were updated: they are "
    "(before − after) / rate.",
    'Return the gradients, or declare conventions {"learning_rate": …} and return the parameters.',
    _rounded(lambda values, number: values), "rate", 0.01,
)  # fmt: skip
PRECISIONS = (DECIMALS, DIGITS, SHORT, UPDATE)
RATES = (*(float(f"{digit}e-{k}") for k in range(6) for digit in (5, 3, 2, 1)), *(2.0**-k for k in range(1, 12)))
CHANCE = 2.0**-40  # below which a trace is no accident


def rounded(case: Observed) -> list[Causes]:
    """The roundings, of which the wrong numbers bear the trace and the right ones do not, that explain every wrong
    gradient.
    """
    return [(cause,) for cause in _found(case)]


def _found(case: Observed) -> Iterator[Cause]:
    answer = np.concatenate([case.answer[name].ravel() for name in case.wrong])
    truth = np.concatenate([case.truth(name).ravel() for name in case.wrong])
    bound = np.concatenate([case.tight[name].ravel() for name in case.wrong])

    def holds(change: Callable[[Array, int], Array], number: int, label: str) -> bool:
        """Whether these are numbers so rounded, as the right ones would be, which are not."""
        if not (change(answer, number) == answer).all():
            return False
        near = np.abs(answer - truth) <= bound + _half_a_unit(change, number, truth)
        telling = (change(truth, number) != truth) & ~np.array([are_short(np.array([value])) for value in answer])
        return bool(near.all() and telling.sum() >= (1 if label in case.trusted else CONFIRMATIONS))

    for fault, change in ((DECIMALS, to_decimals), (DIGITS, to_digits)):
        number = next((number for number in range(1, MOST + 1) if (change(answer, number) == answer).all()), 0)
        own = replace(fault, plant=_rounded(change, case.wrong))
        cause = Cause(own, WHOLE, float(number), (f"{number}",))
        if number and holds(change, number, cause.labels[0]):
            case.loss_explained |= _loss_is(case, change, number)
            yield cause
    for name, bits in FORMATS.items():
        if (to_bits(answer, bits) == answer).all():
            wide = np.abs(to_bits(truth, bits) - truth) > 2 * bound
            near = (to_bits(truth - bound, bits) <= answer) & (answer <= to_bits(truth + bound, bits))
            own = replace(SHORT, plant=_rounded(to_bits, case.wrong))
            cause = Cause(own, WHOLE, float(bits), (name,))
            enough = 1 if cause.labels[0] in case.trusted else CONFIRMATIONS
            if case.dtype != name and near.all() and wide.sum() >= enough:
                case.loss_explained |= _loss_is(case, to_bits, bits)
                yield cause
            return


def recovered(case: Observed) -> list[Causes]:
    """The rates of an update that the numbers were recovered from: over each they are multiples of the last place of
    their parameters.
    """
    causes = ((Cause(UPDATE, WHOLE, rate, (f"rate {rate:g}",)),) for rate in sorted(RATES))
    return list(islice((causes for causes in causes if _bears_trace(case, causes[0])), 1))


def _bears_trace(case: Observed, cause: Cause) -> bool:
    rate, chance = cause.parameter or 1.0, 0.0
    for name in case.names:
        answer, truth, before = case.answer[name], case.truth(name), case.params[name].astype(np.float64)
        smallest = np.minimum(np.abs(before), np.abs(before - rate * truth))
        place = np.spacing(smallest.astype(case.dtype)).astype(np.float64)
        if (np.abs(answer - truth) > case.tight[name] + 2 * place / rate).any():
            return False
        for values, sign in ((answer, 1.0), (truth, -1.0)):
            ratio = np.abs(values * rate / place)
            spread = np.maximum(ratio * 8 * case.arithmetic.unit_roundoff, 2.0**-30)
            told = (spread < 0.1) & (ratio > 0)
            near = told & (np.abs(ratio - np.rint(ratio)) <= spread)
            if sign > 0 and (told & ~near).any():
                return False
            chance += sign * float(np.log(2 * spread[near]).sum())
    return chance < math.log(1e-3 if cause.labels[0] in case.trusted else CHANCE)


def _loss_is(case: Observed, change: Callable[[Array, int], Array], number: int) -> bool:
    """Whether a wrong loss is the right one, so rounded."""
    truth, bound = case.judge.truth.loss.mid, case.bounds.worst_case["loss"]
    return case.loss_wrong and case.loss_number in {float(change(truth + by, number)) for by in (-bound, 0, bound)}


def _half_a_unit(change: Callable[[Array, int], Array], number: int, truth: Array) -> Array:
    """Of the last place that is kept."""
    if change is to_decimals:
        return np.full(truth.shape, 0.5 * 10.0**-number)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(np.abs(truth)))
    return np.where(truth != 0, 0.5 * 10.0 ** (exponent - number + 1), 0.0)
