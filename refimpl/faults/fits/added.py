"""Terms that are added to the right gradients, times one number: b, W and b, the signs of W. For W alone see
`regulariser_added` in the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.fit import ACCIDENT, CLEAR, CONFIRMATIONS, fit
from refimpl.faults.mistaken import WHOLE, Mistaken, Plant
from refimpl.faults.observed import Observed

REMEDY = "Leave weight decay out, or to the optimiser: it is not part of this loss."
DIGITS = 2  # of a number that somebody chose
Array = NDArray[Any]
Term = Callable[[Any], Any]


def _planted(**terms: Term) -> Plant:
    """The parameter times what these make of W and of b, added to their gradients."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        for number in [layer] if layer else range(1, m.spec.depth + 1):
            _add(m, number, terms, parameter)

    return plant


def _add(m: Mistaken, layer: int, terms: Mapping[str, Term], strength: Any) -> None:
    seen: dict[str, Any] = {}

    def remembering(right: Callable[..., Any]) -> Callable[..., Any]:
        def weighted_input(a: Any, W: Any, b: Any) -> Any:
            seen.update(W=W, b=b)
            return right(a, W, b)

        return weighted_input

    m.change(layer, "weighted_input", remembering)
    for kind, equation in (("W", "weight_gradient"), ("b", "bias_gradient")):
        if kind in terms:
            m.change(layer, equation, _with(lambda kind=kind: strength * terms[kind](seen[kind])))  # type: ignore[misc]


def _with(term: Callable[[], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda right: lambda *operands: right(*operands) + term()


def _itself(array: Any) -> Any:
    return array


BIASES = fit(
    "bias_decay_added", "A multiple of b is added to its gradient.", REMEDY, _planted(b=_itself), "strength", 0.01
)
BOTH = fit(
    "decay_of_all_added", "A multiple of every W and b is added to its gradient.", REMEDY,
    _planted(W=_itself, b=_itself), "strength", 0.01,
)  # fmt: skip
SIGNS = fit(
    "signs_added", "A multiple of the signs of W is added to its gradient, as for a regulariser λ Σ|W|.", REMEDY,
    _planted(W=np.sign), "strength", 0.01,
)  # fmt: skip
TERMS: Mapping[str, tuple[Any, Mapping[str, Callable[[Array], Array]]]] = {
    BIASES.name: (BIASES, {"b": _itself}),
    BOTH.name: (BOTH, {"W": _itself, "b": _itself}),
    SIGNS.name: (SIGNS, {"W": np.sign}),
}
ADDED = tuple(fault for fault, _ in TERMS.values())


def added(case: Observed) -> list[Causes]:
    """The terms that explain every wrong gradient, over the whole network or at one layer."""
    return list(_found(case))


def _found(case: Observed) -> Iterator[Causes]:
    layers = {int(name[1:]) for name in case.wrong}
    for fault, terms in TERMS.values():
        for layer in (WHOLE, *layers) if len(layers) == 1 and case.spec.depth > 1 else (WHOLE,):
            names = [name for name in case.names if name[0] in terms and layer in (WHOLE, int(name[1:]))]
            if set(case.wrong) <= set(names):
                strength = _strength(case, {name: terms[name[0]](case.params[name]) for name in names})
                if strength is not None:
                    number, readings, sure = strength
                    cause = Cause(fault, layer, number, readings)
                    if sure or set(cause.labels) & case.trusted.keys():
                        yield (cause,)


def _strength(case: Observed, terms: Mapping[str, Array]) -> tuple[float, tuple[str, ...], bool] | None:
    """The number times which the terms are added, what it equals, and whether that is no accident."""
    u = case.arithmetic.unit_roundoff
    miss = {name: case.answer[name] - case.truth(name) for name in terms if case.fits_shape(name)}
    if len(miss) < len(terms):
        return None
    bound = {name: 2 * case.tight[name] + 4 * u * np.abs(case.answer[name]) for name in terms}
    flat = [np.concatenate([part[name].ravel() for name in terms]) for part in (miss, bound, terms)]
    missed, allowed, term = flat
    with np.errstate(all="ignore"):
        at = int(np.argmax(np.nan_to_num(np.abs(term) / allowed, posinf=0.0)))
        strength = float(missed[at] / term[at]) if term[at] else 0.0
    if strength == 0 or not (np.abs(missed - strength * term) <= allowed + 4 * u * np.abs(strength * term)).all():
        return None
    with np.errstate(all="ignore"):
        shares = np.sort(np.nan_to_num(allowed / np.abs(strength * term), nan=1.0, posinf=1.0))
    sure = (shares <= CLEAR).sum() >= CONFIRMATIONS and math.prod(shares[1 : 2 * CONFIRMATIONS].tolist()) <= ACCIDENT
    slack = float(allowed[at] / abs(term[at]))
    readings = [f"{strength:.4g}"]
    readings += [f"{times:.{DIGITS}g}/N" for times in [strength * case.n] if _chosen(times, slack)]
    readings += [f"{share:.{DIGITS}g} N" for share in [strength / case.n] if _chosen(share, slack)]
    return strength, tuple(f"× {reading}" for reading in readings), bool(sure)


def _chosen(number: float, slack: float) -> bool:
    """Whether it has as few digits as numbers that people choose."""
    return abs(number - float(f"{number:.{DIGITS}g}")) <= slack + 2.0**-40 * abs(number)
