"""Gradients that were clipped: every element at ± a number, or all of them scaled to a norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.fit import fit
from refimpl.faults.mistaken import WHOLE
from refimpl.faults.observed import Observed
from refimpl.faults.plants import each_gradient, times

REMEDY = "Clip in the optimiser, if at all: what is returned is the gradient."
Array = NDArray[Any]


def _to_norm(array: Array, norm: float) -> Array:
    return array * min(1.0, norm / max(float(np.linalg.norm(array)), 1e-300))


CLIPPED = fit(
    "gradients_clipped", "Every element of the gradients is clipped to at most this much.", REMEDY,
    each_gradient(lambda array, limit: np.clip(array, -limit, limit)), "limit", 1.0,
)  # fmt: skip
BY_NORM = fit(
    "gradients_clipped_by_norm", "The gradients together are scaled to at most this norm.", REMEDY,
    each_gradient(_to_norm), "norm", 1.0,
)  # fmt: skip
EACH_BY_NORM = fit(
    "each_gradient_clipped_by_norm", "Each gradient is scaled to at most this norm.", REMEDY,
    each_gradient(_to_norm), "norm", 1.0,
)  # fmt: skip
CLIPPINGS = (CLIPPED, BY_NORM, EACH_BY_NORM)


def clipped(case: Observed) -> list[Causes]:
    """The clippings that explain every gradient."""
    return [(cause,) for cause in _found(case)]


def _found(case: Observed) -> Iterator[Cause]:
    answers, truths = ({name: find(name) for name in case.names} for find in (case.answer.__getitem__, case.truth))
    limit = max(float(np.abs(answers[name]).max()) for name in case.wrong)
    if limit > 0:
        at_limit = sum(
            int(((np.abs(answers[name]) == limit) & (np.abs(truths[name]) > limit + 2 * case.tight[name])).sum())
            for name in case.wrong
        )
        clips = {name: np.clip(truths[name], -limit, limit) for name in case.names}
        if at_limit >= (1 if _chosen(limit) else 3) and all(_near(case, name, clips[name]) for name in case.names):
            yield Cause(CLIPPED, WHOLE, limit, (f"± {limit:.6g}",))
    norms = {name: float(np.linalg.norm(array)) for name, array in truths.items()}
    together, answered = (float(np.sqrt(sum(np.square(a).sum() for a in of.values()))) for of in (truths, answers))
    if 0 < answered < together and _chosen(answered):
        norm = float(f"{answered:.2g}")
        if all(_near(case, name, truths[name] * (norm / together)) for name in case.names):
            own = replace(BY_NORM, plant=times("W", "b", by=lambda m: norm / together))
            yield Cause(own, WHOLE, norm, (f"{norm:.2g}",))
    lengths = {float(np.linalg.norm(answers[name])) for name in case.wrong}
    norm = float(f"{max(lengths):.2g}")
    if norm > 0 and all(abs(length - norm) <= 1e-5 * norm and _chosen(length) for length in lengths):
        shares = {name: min(1.0, norm / norms[name]) if norms[name] else 1.0 for name in case.names}
        if all(_near(case, name, truths[name] * shares[name]) for name in case.names):
            yield Cause(EACH_BY_NORM, WHOLE, norm, (f"{norm:.2g}",))


def _chosen(number: float) -> bool:
    """Whether it has as few digits as numbers that people choose, but for rounding."""
    return abs(number - float(f"{number:.2g}")) <= 1e-6 * abs(number)


def _near(case: Observed, name: str, wanted: Array) -> bool:
    bound = 3 * case.tight[name] + 8 * case.arithmetic.unit_roundoff * np.abs(wanted)
    return bool((np.abs(case.answer[name] - wanted) <= bound).all())
