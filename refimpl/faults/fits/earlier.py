"""Gradients that hold what was returned before, and parameters that are one to somebody's code since they are equal."""

from __future__ import annotations

import numpy as np

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.factors import equal_to, scaled
from refimpl.faults.fits.fit import ACCIDENT, CONFIRMATIONS, fit
from refimpl.faults.mistaken import WHOLE, Mistaken
from refimpl.faults.observed import Observed


def _nothing(m: Mistaken, layer: int, parameter: object) -> None:
    """What came before is not in the network."""


ADDED = fit(
    "earlier_gradients_added", "The gradients of the request before are still in these.",
    "Set the gradients to zero before each backward pass; leave momentum to the optimiser.", _nothing, "factor", 1.0,
)  # fmt: skip
RETURNED = fit(
    "earlier_gradients_returned", "What is returned is what the request before was answered with.",
    "Write every array anew for every request.", _nothing, "factor", 1.0,
)  # fmt: skip
MERGED = fit(
    "equal_parameters_merged", "Parameters of equal values are taken for one, which has the sum of their gradients.",
    "Tell parameters apart by name or place, not by their values.", _nothing, "count", 2.0,
)  # fmt: skip
EARLIER = (ADDED, RETURNED, MERGED)


def earlier(case: Observed) -> list[Causes]:
    """What explains every wrong gradient by other arrays."""
    return [(cause,) for cause in (_returned(case), _added(case), _merged(case)) if cause is not None]


def _returned(case: Observed) -> Cause | None:
    same = [name for name in case.wrong if np.array_equal(case.answer[name], case.previous.get(name, ()))]
    telling = sum(np.unique(case.answer[name]).size for name in same if case.answer[name].any())
    enough = 1 if RETURNED.name in case.trusted else CONFIRMATIONS
    return Cause(RETURNED, WHOLE) if same == case.wrong and telling >= enough else None


def _added(case: Observed) -> Cause | None:
    u = case.arithmetic.unit_roundoff
    fitting = {name: case.previous[name] for name in case.names if name in case.previous}
    if not set(case.wrong) <= set(fitting):
        return None
    found = {
        name: scaled(
            case.answer[name] - case.truth(name), fitting[name], case.tight[name] + u * np.abs(case.answer[name]), u
        )
        for name in case.wrong
    }
    every = [one for one in found.values() if one is not None]
    if len(every) < len(case.wrong):
        return None
    best = min(every, key=lambda one: one.slack)
    if not all(abs(one.factor / best.factor - 1) <= one.slack + best.slack for one in every):
        return None
    # where it does not show, the answer is right
    unmoved = (name for name in fitting if name not in case.wrong)
    if any((np.abs(best.factor * fitting[name]) > 3 * case.tight[name]).any() for name in unmoved):
        return None
    missed = np.concatenate([np.abs(best.factor * fitting[name]).ravel() for name in case.wrong])
    bound = np.concatenate([case.tight[name].ravel() for name in case.wrong])
    shares = np.sort(np.minimum(bound / np.maximum(missed, bound + 1e-300), 1.0))
    readings = [text for text, _ in equal_to(best.factor, best.slack, case.n, case.spec.n_out)]
    reading = "once" if abs(best.factor - 1) <= best.slack else f"× {readings[0] if readings else f'{best.factor:.4g}'}"
    cause = Cause(ADDED, WHOLE, best.factor, (reading,))
    sure = shares.size >= CONFIRMATIONS and shares[1 : 2 * CONFIRMATIONS].prod() <= ACCIDENT
    return cause if sure or cause.labels[0] in case.trusted else None


def _merged(case: Observed) -> Cause | None:
    groups: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name in case.names:
        groups.setdefault((case.params[name].shape, case.params[name].tobytes()), []).append(name)
    merged = {name: names for names in groups.values() for name in names if len(names) > 1}
    if not set(case.wrong) <= set(merged):
        return None
    for name in case.wrong:
        total = sum(case.truth(other) for other in merged[name])
        bound = sum(2 * case.tight[other] for other in merged[name]) + 8 * case.arithmetic.unit_roundoff * np.abs(total)
        if (np.abs(case.answer[name] - total) > bound).any():
            return None
    # the gradient of each is that of all
    if any(other not in case.wrong for name in case.wrong for other in merged[name]):
        return None
    names = " and ".join(sorted(merged[case.wrong[0]]))
    return Cause(MERGED, WHOLE, float(len(merged[case.wrong[0]])), ("of equal values",), f"{names}")
