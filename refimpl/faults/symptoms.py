"""What about a wrong quantity is wrong, in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.observed import Observed
from refimpl.judge.report import apart
from refimpl.judge.submission import Unusable

ROUNDING = 64  # unit roundoffs
LISTED = 6
FAR = 40.0  # z from which a formula may overflow, or lose all digits
OVERFLOWS = (709.78, 88.72, 745.13, 103.97)  # where exp(z) does, and exp(−z) is 0, in float64 and in float32
Array = NDArray[Any]


def symptom(case: Observed) -> tuple[str, str]:
    """The first wrong quantity in backward order, and what about it is wrong."""
    name = case.wrong[0]
    if name in case.refused:
        return name, case.refused[name]
    answer, truth = case.answer[name], case.truth(name)
    others = _list([other for other in case.names if other not in case.wrong])
    found = of_array(case, name, answer, truth)
    return name, f"{found}; {others} {'are' if ',' in others else 'is'} right" if others else found


def by_array(case: Observed) -> str:
    """What is to be said of every gradient, where more than one is wrong: what is right, and what of the others is
    wrong.
    """
    if len(case.wrong) < 2:
        return ""
    said = {"right": [name for name in reversed(case.names) if name not in case.wrong]}
    for name in case.wrong:
        what = case.refused.get(name) or of_array(case, name, case.answer[name], case.truth(name))
        said.setdefault(what.removeprefix("is "), []).append(name)
    return "; ".join(f"{_list(names)}: {what}" for what, names in said.items() if names)


def _list(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (" …" if len(names) > LISTED else "")


def of_array(case: Observed, name: str, answer: Array, truth: Array) -> str:
    """What is wrong with one array."""
    bad = int((~np.isfinite(answer)).sum())
    if bad:
        kind = "NaN" if np.isnan(answer).any() else "infinite"
        return f"is {kind} in {bad} of {answer.size} elements{_beyond(case, name, answer)}"
    if answer.shape != truth.shape:
        turned = answer.T.shape == truth.shape and case.close(name, answer.T)
        return f"has shape {answer.shape} in place of {truth.shape}" + (", and is transposed" if turned else "")
    if not answer.any():
        return "is zero everywhere"
    if np.abs(answer).max() <= ROUNDING * case.arithmetic.unit_roundoff * np.abs(truth).max():
        return "is zero everywhere, but for rounding"
    close = case.near(name, answer)
    return _pattern(case, name, answer, truth, close)


def _beyond(case: Observed, name: str, answer: Array) -> str:
    """Beyond which z of its layer an array is not finite, where all such units are and no other."""
    found = case.judge.truth.values.get(f"z{int(name[1:]) + 1}")
    if found is None or found.mid.shape[1:] != answer.shape[:1]:
        return ""
    lost = ~np.isfinite(answer).reshape(len(answer), -1).all(axis=1)
    for sign, word in ((1.0, ">"), (-1.0, "<")):
        farthest = (sign * found.mid).max(axis=0)
        low, high = farthest[~lost].max(initial=0.0), farthest[lost].min(initial=np.inf)
        if low < high and high > FAR:
            known = next((number for number in OVERFLOWS if low <= number <= high), high)
            return f", where z {word} {sign * known:.5g}"
    return ""


def _pattern(case: Observed, name: str, answer: Array, truth: Array, close: NDArray[np.bool_]) -> str:
    if close.all():
        wrong, bound = answer != truth, case.tight[name]
        if name in case.exact:
            return f"is rounded in {int(wrong.sum())} of {close.size} elements, where the right ones need no rounding"
        ratio = (np.abs(answer - truth) / np.maximum(bound, case.arithmetic.smallest_subnormal)).max()
        return f"is off by up to {ratio:.2g} times what roundings come to"
    ratio = case.ratio(name, answer, truth)
    if ratio is not None:
        return f"is the right one times {named_ratio(ratio, case.n, case.spec.n_out)}"
    if (~close).sum() == 1 < close.size:
        return f"is wrong in 1 of {close.size} elements, {name}[{_first(~close)}]"
    if answer.ndim == 2:
        if answer.shape[0] == answer.shape[1] and case.close(name, answer.T):
            return "is transposed"
        for axis, word in ((1, "row"), (0, "column")):
            zero = np.asarray(~answer.any(axis=axis) & truth.any(axis=axis))
            if zero.any() and close[(slice(None), ~zero) if axis == 0 else ~zero].all():
                return f"is zero in {_places(word, zero)}, the rest right"
            wrong = np.asarray(~close.all(axis=axis))
            if 0 < wrong.sum() < wrong.size:
                return f"is wrong in {_places(word, wrong)} only"
        if case.n > 1 and _rank_one(answer) and not _rank_one(truth):
            return "has rank one, as from a single sample"
    if case.close_to(name, np.abs(answer), np.abs(truth)):
        return f"has the wrong sign in {int((answer * truth < 0).sum())} of {answer.size} elements"
    if 0 < (~close).sum() < close.size:
        return f"is wrong in {int((~close).sum())} of {close.size} elements, first {name}[{_first(~close)}]"
    distance = np.abs(answer - truth).max() / max(np.abs(truth).max(), case.arithmetic.smallest_normal)
    small = case.dtype == "float64" and 2.0**-27 <= distance <= 2.0**-20
    size = ", of the size of float32's rounding errors" if small else ""
    return f"is right in no element; the largest error is {distance:.1e} times the largest element{size}"


def loss_symptom(case: Observed) -> str:
    """What is wrong with the loss."""
    if isinstance(case.loss, Unusable):
        return case.loss.reason
    try:
        value = float(case.loss)
    except (TypeError, ValueError):
        return "is not a number"
    truth = float(case.judge.truth.loss.mid)
    if not math.isfinite(value) or truth == 0:
        return f"is {value:g}; it should be {truth:g}"
    if math.isclose(value, truth, rel_tol=1e-5):
        return "is {}; it should be {}".format(*apart(value, truth))
    return f"is {value:.9g}, {named_ratio(value / truth, case.n, case.spec.n_out)} times {truth:.9g}"


def _rank_one(array: Array) -> bool:
    """Whether every element is what the row and the column of the largest one make it, to rounding."""
    if min(array.shape) < 2 or not array.any():
        return False
    i, j = np.unravel_index(int(np.argmax(np.abs(array))), array.shape)
    outer = np.outer(array[:, j] / array[i, j], array[i])
    return bool((np.abs(outer - array) <= 1e-10 * np.abs(array)).all())


def named_ratio(ratio: float, n: int, outputs: int) -> str:
    """A factor, and what it equals here."""
    for value, name in ((n, "N"), (1 / n, "1/N"), (outputs, "n_out"), (1 / outputs, "1/n_out")):
        if value not in (1, 2, 0.5) and math.isclose(ratio, value, rel_tol=1e-6):
            return f"{ratio:.6g} = {name}"
    return f"(1 {ratio - 1:+.1e})" if f"{ratio:.6g}" == "1" else f"{ratio:.6g}"


def _places(word: str, flags: NDArray[np.bool_]) -> str:
    indices = [str(int(i) + 1) for i in np.flatnonzero(flags)]
    return f"{word}{'s' if len(indices) > 1 else ''} {', '.join(indices[:5])}{' …' if len(indices) > 5 else ''}"


def _first(flags: NDArray[np.bool_]) -> str:
    return ",".join(str(int(i) + 1) for i in np.argwhere(flags)[0])
