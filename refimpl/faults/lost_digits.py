"""Which formula that loses digits or overflows explains a wrong answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.mistaken import WHOLE
from refimpl.faults.prediction import Reader

if TYPE_CHECKING:
    from refimpl.faults.search import Hypothesis, Planted, Search

CLEAR = 0.01  # how likely an accident may be
GRAIN = 0.25  # of a tolerance, below which nearness says nothing: roundings are few, and meet


def losing(search: Search) -> list[Causes]:
    """Those that lose the digits that the answer lacks; of several forms of one, the first. None where an array is
    zero throughout, as it may be for any reason.
    """
    if not all(search.case.answer[name].any() for name in search.case.wrong):
        return []
    tried = [(fault, reader) for fault, reader in search.case.cancelling if not fault.on_loss]
    found: dict[str, Causes] = {}
    for fault, reader in tried:
        causes = (Cause(fault, WHOLE),)
        if fault.name in found or not _loses(search, planted := search.planted(causes), reader):
            continue
        hypothesis = search.predict(causes, planted=planted, reader=reader)
        if hypothesis and hypothesis.is_answer and len(tried) * _coincidence(search, hypothesis) <= CLEAR:
            found[fault.name] = causes
            search.note_loss(planted.loss, reader)
    return list(found.values())


def overflowing(search: Search) -> list[Causes]:
    """The formulas that are not finite just where the answer is not, the rest being as predicted."""
    found: dict[str, Causes] = {}
    for fault in search.case.overflowing:
        causes = (Cause(fault, WHOLE),)
        reader = Reader(search.case.arithmetic, search.case.numbers, dtype=search.case.dtype)
        hypothesis = None if fault.name in found else search.predict(causes, reader=reader)
        if hypothesis and hypothesis.is_answer:
            found[fault.name] = causes
            search.note_loss(hypothesis.planted.loss, reader)
    return list(found.values())


def _loses(search: Search, planted: Planted, reader: Reader) -> bool:
    """Whether a formula gives some activation that no right one does."""
    for layer, _ in planted.changes:
        right, wrong = search.known[search.forward.a[layer]], reader(planted.forward.a[layer], dict(search.known))
        if not (np.abs(wrong.mid - right[0]) <= right[1]).all():
            return True
    return False


def _coincidence(search: Search, hypothesis: Hypothesis) -> float:
    """How likely it is that a wrong answer comes this near to a formula's by accident: its distance from that as a
    share of its distance from the truth. Roundings at one neuron say nothing of those at another, so that the
    shares of the columns of the next W are independent, and are put together by Fisher's method ("Statistical
    Methods for Research Workers", 4th ed. 1932, §21.1).
    """
    if not all(np.isfinite(grad.err).all() for grad in hypothesis.grads.values()):
        return 1.0
    shares: list[float] = []
    nearest, farthest = GRAIN, GRAIN
    columns = {f"W{layer + 1}" for layer, _ in hypothesis.planted.changes}
    for name, grad in hypothesis.grads.items():
        right = search.right[name]
        scale = np.maximum(np.maximum(grad.err, right.err), np.finfo(np.float64).smallest_normal)
        # the float64 roundings of both predictions are much the same
        miss, shift = search.case.answer[name] - search.case.truth(name), grad.mid - right.mid
        near, far = np.abs(miss - shift) / scale, np.abs(miss) / scale
        nearest, farthest = max(nearest, near.max()), max(farthest, far.max())
        telling = (np.abs(shift) > scale).any(axis=0)
        if name in columns and telling.any():
            left = np.maximum(near.max(axis=0), GRAIN) / np.maximum(far.max(axis=0), GRAIN)
            shares += np.minimum(left[telling], 1.0).tolist()
    if not shares:
        return float(nearest / farthest)
    total = -sum(map(math.log, shares))
    if total == 0:
        return 1.0
    return sum(math.exp(k * math.log(total) - total - math.lgamma(k + 1)) for k in range(len(shares)))
