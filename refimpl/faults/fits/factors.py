"""What few numbers explain, whatever line of code they come from: `factors`.

A factor on every gradient, on those of a layer, on the error signal from a layer down or at every layer, on all W or
all b, on an array. Where one number does, no more are tried. It is fitted to the element that says most, and counts
where others bear it out; a factor that has a name (−1, ½, 3, 10, N, 1/n_out …) needs fewer of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.fit import ACCIDENT, CLEAR, CONFIRMATIONS, fit
from refimpl.faults.mistaken import WHOLE, Fault, Plant
from refimpl.faults.observed import Observed
from refimpl.faults.plants import times

ROUNDING = 64  # unit roundoffs
SMALL = 12  # numerators and denominators of factors that have a name

Array = NDArray[Any]
REMEDY = (
    "Look for what is multiplied or divided once too often or too rarely: 1/N, 1/n_out, a 2 or ½, a sign, the rate, "
    "the number of processes."
)


def _factor(name: str, explanation: str, plant: Plant) -> Fault:
    return fit(name, explanation, REMEDY, plant, "factor", 3.0)


EVERYTHING = _factor(
    "everything_scaled", "The loss and every gradient are the right ones times a number.", times("both")
)
GRADIENTS = _factor("gradients_scaled", "These gradients are the right ones times a number.", times("W", "b"))
WEIGHTS = _factor("weight_gradients_scaled", "The gradients of W are the right ones times a number.", times("W"))
BIASES = _factor("bias_gradients_scaled", "The gradients of b are the right ones times a number.", times("b"))
PROPAGATED = _factor(
    "error_signal_scaled", "The error signal is times a number from this layer down, and so are all gradients there.",
    times("delta"),
)  # fmt: skip
EVERY_LAYER = _factor(
    "error_signal_scaled_at_every_layer",
    "The error signal is multiplied by a number at every layer that it is propagated through.",
    times("every delta"),
)
LOSS = _factor("loss_scaled", "The loss is the right one times a number.", times("loss"))
FACTORS = (EVERYTHING, GRADIENTS, WEIGHTS, BIASES, PROPAGATED, EVERY_LAYER, LOSS)


@dataclass(frozen=True)
class Scaled:
    """An array that is the right one times a factor, which is known to a relative `slack`. `shares`: of every element,
    the tolerance as a share of what the factor changes, which is how likely a wrong number is to be within it.
    """

    factor: float
    slack: float
    shares: tuple[float, ...]


def scaled(answer: Array, truth: Array, bound: Array, u: float) -> Scaled | None:
    """An array beside the right one, with the bound on how far right ones are from it. None where it is no multiple, or
    all of it is 0.
    """
    if answer.shape != truth.shape or not truth.any() or not np.isfinite(answer).all():
        return None
    bound = 2 * bound + 4 * u * np.abs(truth)
    at = np.unravel_index(int(np.argmax(np.abs(truth) / np.maximum(bound, np.finfo(float).tiny))), truth.shape)
    factor = float(answer[at] / truth[at]) if truth[at] else 0.0
    if abs(factor) <= ROUNDING * u or not math.isfinite(factor):  # it is zero, but for rounding
        return None
    tolerance = abs(factor) * bound
    if not (np.abs(answer - factor * truth) <= tolerance).all():
        return None
    with np.errstate(all="ignore"):
        shares = np.nan_to_num(tolerance / (abs(factor - 1) * np.abs(truth)), nan=1.0, posinf=1.0)
    slack = float(tolerance[at] / abs(answer[at]))
    if slack > CLEAR:  # it would be nearly any number
        return None
    return Scaled(factor, slack, tuple(np.minimum(shares, 1.0).ravel().tolist()))


def factors(case: Observed) -> list[Causes]:
    """The factors that explain every wrong gradient: with one number, in all places that it may be in; else several."""
    found = {name: _of(case, name) for name in case.wrong}
    if not all(found.values()):
        return []
    wrong = {name: one for name, one in found.items() if one}
    return list(_with_one(case, wrong)) or _with_several(case, wrong)


def _of(case: Observed, name: str) -> Scaled | None:
    return scaled(case.answer[name], case.truth(name), case.tight[name], case.arithmetic.unit_roundoff)


def _with_one(case: Observed, wrong: Mapping[str, Scaled]) -> Iterator[Causes]:
    depth, sharing = case.spec.depth, _one_factor(case, wrong.values())
    layer = {name: int(name[1:]) for name in case.names}
    if sharing is None:
        yield from _at_every_layer(case, wrong, layer)
        return

    def holds(chosen: Callable[[str], bool]) -> bool:
        """Whether the wrong arrays are those chosen, but for arrays on which the factor does not show."""
        return all(chosen(name) for name in wrong) and all(
            name in wrong or not chosen(name) or _unmoved(case, name, sharing[0]) for name in case.names
        )

    def cause(fault: Fault, at: int) -> Causes:
        return (_cause(case, fault, at, sharing),)

    if holds(lambda name: True):
        everything = case.loss_wrong and _loss_is(case, *sharing)
        case.loss_explained |= everything
        yield cause(EVERYTHING if everything else GRADIENTS, WHOLE)
        return
    yield from (cause(GRADIENTS, at) for at in range(1, depth + 1) if holds(lambda name, at=at: layer[name] == at))  # type: ignore[misc]
    yield from (cause(PROPAGATED, at) for at in range(1, depth) if holds(lambda name, at=at: layer[name] <= at))  # type: ignore[misc]
    for fault, kind in ((WEIGHTS, "W"), (BIASES, "b")):
        if holds(lambda name, kind=kind: name[0] == kind):  # type: ignore[misc]
            yield cause(fault, WHOLE)
        elif len(wrong) == 1 and next(iter(wrong))[0] == kind:
            yield cause(fault, layer[next(iter(wrong))])


def _at_every_layer(case: Observed, wrong: Mapping[str, Scaled], layer: Mapping[str, int]) -> Iterator[Causes]:
    """Where the error signal is multiplied again at every layer: c, c², c³ …"""
    depth = case.spec.depth
    first = _one_factor(case, [one for name, one in wrong.items() if layer[name] == depth - 1])
    if depth < 3 or first is None:
        return
    factor, slack, readings = first
    for name in case.names:
        power = depth - layer[name]
        one = wrong.get(name)
        if one is None and power and not _unmoved(case, name, factor**power):
            return
        if one and not abs(one.factor / factor**power - 1) <= one.slack + power * slack:
            return
    yield (_cause(case, EVERY_LAYER, WHOLE, (factor, slack, readings)),)


def _with_several(case: Observed, wrong: Mapping[str, Scaled]) -> list[Causes]:
    """A factor for each layer, or for each array of it where they differ."""
    causes: list[Cause] = []
    for number in range(case.spec.depth, 0, -1):
        own = {name: one for name, one in wrong.items() if int(name[1:]) == number}
        both = _one_factor(case, own.values()) if len(own) == 2 else None
        if both:
            causes.append(_cause(case, GRADIENTS, number, both))
            continue
        for name, one in own.items():
            alone = _one_factor(case, [one])
            if alone is None:
                return []
            causes.append(_cause(case, WEIGHTS if name[0] == "W" else BIASES, number, alone))
    return [tuple(causes)] if causes else []


Factor = tuple[float, float, tuple[str, ...]]  # the factor, its relative slack, and what it equals


def _one_factor(case: Observed, arrays: Iterable[Scaled]) -> Factor | None:
    """The factor that all share, where that is no accident."""
    every = sorted(arrays, key=lambda one: one.slack)
    if not every or not all(abs(one.factor / every[0].factor - 1) <= one.slack + every[0].slack for one in every):
        return None
    factor, slack = every[0].factor, every[0].slack
    shares = sorted(share for one in every for share in one.shares)
    readings = equal_to(factor, slack, case.n, case.spec.n_out)
    clear = sum(share <= CLEAR for share in shares)
    chance = math.prod(shares[1 : 2 * CONFIRMATIONS])
    if readings:
        factor = readings[0][1]
        chance *= min(1.0, 4 * len(_named_factors()) * slack)
    elif clear < CONFIRMATIONS:
        return None
    if not clear or chance > ACCIDENT:
        return None
    return factor, slack, tuple(text for text, _ in readings)


def _unmoved(case: Observed, name: str, factor: float) -> bool:
    """Whether an array that is right is so times the factor too, as where all of it is 0."""
    truth = case.truth(name)
    return bool((abs(factor - 1) * np.abs(truth) <= (1 + abs(factor)) * case.tight[name]).all())


def _loss_is(case: Observed, factor: float, slack: float, readings: tuple[str, ...]) -> bool:
    one = _of_loss(case)
    return one is not None and abs(one.factor / factor - 1) <= slack + one.slack


def _of_loss(case: Observed) -> Scaled | None:
    if math.isnan(case.loss_number):
        return None
    return scaled(
        np.asarray(case.loss_number), case.judge.truth.loss.mid, case.tight["loss"], case.arithmetic.unit_roundoff
    )


def loss_factor(case: Observed) -> list[Causes]:
    """The factor on a wrong loss, where it has a name: any number is some factor."""
    one = _of_loss(case)
    found = _one_factor(case, [one]) if one else None
    return [(_cause(case, LOSS, WHOLE, found),)] if found else []


def _cause(case: Observed, fault: Fault, layer: int, factor: Factor) -> Cause:
    number, _, readings = factor
    return Cause(fault, layer, number, tuple(f"× {text}" for text in readings or (_shown(number),)))


def _shown(number: float) -> str:
    return f"(1 {number - 1:+.1e})" if f"{number:.4g}" == "1" else f"{number:.4g}"


def equal_to(factor: float, slack: float, n: int, outputs: int) -> list[tuple[str, float]]:
    """What a factor equals, in words and exactly: first a number that has a name, then N and the like where they are
    not 1 here.
    """
    sizes = {
        "N": n, "1/N": 1 / n, "N/(N − 1)": n / (n - 1) if n > 1 else 1.0,
        "n_out": outputs, "1/n_out": 1 / outputs, "2/n_out": 2 / outputs, "N n_out": n * outputs,
        "1/(N n_out)": 1 / (n * outputs),
    }  # fmt: skip
    known = [*_named_factors().items(), *((name, float(size)) for name, size in sizes.items() if size not in (0, 1))]
    found: list[tuple[str, float]] = []
    for sign, word in ((1.0, ""), (-1.0, "−")):
        found += [(f"{word}{name}", sign * value) for name, value in known if _equal(factor, sign * value, slack)]
    if found and not any(name.lstrip("−") in _named_factors() for name, _ in found):
        found.insert(0, (f"{factor:.6g}", found[0][1]))
    return [(name, value) for name, value in found if value != 1]


def _equal(factor: float, value: float, slack: float) -> bool:
    return abs(factor - value) <= (slack + 2.0**-50) * abs(value)


@cache
def _named_factors() -> Mapping[str, float]:
    """Small fractions and powers of 2 and 10, simplest first."""
    fractions = {Fraction(p, q) for p in range(1, SMALL + 1) for q in range(1, SMALL + 1)}
    fractions |= {Fraction(2) ** k for k in range(-32, 33)} | {Fraction(10) ** k for k in range(-12, 13)}
    simplest = sorted(fractions, key=lambda one: one.numerator * one.denominator)
    return {str(one): float(one) for one in simplest}
