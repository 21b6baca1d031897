"""Samples that do not all count once: left out, counted twice, averaged in batches of unequal size, or weighted in some
other way. The gradients of the samples alone are summed with the weights of each pattern, times one factor; where none
fits, the weights are found by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.factors import equal_to, scaled
from refimpl.faults.fits.fit import ACCIDENT, CLEAR, CONFIRMATIONS, fit
from refimpl.faults.mistaken import WHOLE, Fault, Mistaken, Plant, like
from refimpl.faults.observed import Observed

NEARLY = 1e-6  # a weight is 0 or 1
MOST = 64  # samples that are told apart
Array = NDArray[Any]
Real = NDArray[np.float64]


def _weighted(pattern: Array, kinds: Collection[str] = "Wb") -> Plant:
    """The samples with these weights (N,), in the gradients of these kinds."""
    column = np.asarray(pattern, dtype=np.float64)[:, None]

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        for number in [layer] if layer else range(1, m.spec.depth + 1):
            for kind, equation in (("W", "weight_gradient"), ("b", "bias_gradient")):
                if kind in kinds:
                    m.change(number, equation, _of_weighted(column))

    return plant


def _of_weighted(column: Array) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda right: lambda delta, *a: right(delta * like(delta, column), *a)


def _fit(name: str, explanation: str, remedy: str, pattern: Sequence[float]) -> Fault:
    """A fault, with the weights of an example of it."""
    return fit(name, explanation, remedy, _weighted(np.array(pattern)), "weight", 1.0)


LEFT_OUT = _fit(
    "samples_left_out", "Some samples do not contribute.",
    "Sum over the whole batch: look for an index or a slice that stops early, and for = in place of +=.", (0.0, 1.0),
)  # fmt: skip
AGAIN = _fit(
    "sample_counted_again", "A sample contributes twice.", "Sum over the batch once; reset what is summed in.",
    (1.0, 2.0),
)  # fmt: skip
BATCHES = _fit(
    "batches_averaged", "The means of batches of unequal size are averaged.",
    "Weigh each batch by its size, or divide the sum over all samples by N.", (0.75, 0.75, 1.5),
)  # fmt: skip
WEIGHTED = _fit(
    "samples_weighted", "The samples contribute by other weights than they should.",
    "Every sample counts once: look for a mask, a weight or a mean over a part of the batch.", (0.5, 2.0),
)  # fmt: skip
SAMPLES = (LEFT_OUT, AGAIN, BATCHES, WEIGHTED)


def weights(case: Observed, any_weights: bool = True) -> list[Causes]:
    """The patterns that explain every wrong gradient: of all layers or of one, of W and b or of one of them; or, where
    `any_weights` may be solved for, these.
    """
    if not (1 if case.trusted else 2) <= case.n <= MOST:
        return []
    each = case.each_sample
    layers, kinds = {int(name[1:]) for name in case.wrong}, {name[0] for name in case.wrong}
    layer = layers.pop() if len(layers) == 1 else WHOLE
    names = [name for name in case.names if name[0] in kinds and layer in (WHOLE, int(name[1:]))]
    found: list[Causes] = [
        (Cause(replace(fault, plant=_weighted(factor * pattern, kinds)), layer, factor, (reading,)),)
        for fault, words, pattern in _patterns(case.n)
        for factor, reading, sure in _times(case, each, names, pattern, words)
        if sure or f"{fault.name} {reading}" in case.trusted
    ]
    if found or not any_weights or 1 in (case.n, case.spec.n_out):  # where they cannot be told from a factor or ∂C/∂s
        return found
    return [
        (Cause(replace(WEIGHTED, plant=_weighted(solved, kinds)), layer, None, (reading,)),)
        for solved, reading in _solved(case, each, names)
    ]


def _patterns(n: int) -> Iterator[tuple[Fault, str, Array]]:
    """Weights (N,), and what they are in words."""
    ones = np.ones(n, np.float64)
    every: Any = np.eye(n)
    places = [(0, "the first"), *((i, f"sample {i + 1}") for i in range(1, n - 1)), (n - 1, "the last")]
    for i, place in places:
        yield LEFT_OUT, f"only {place}", every[i]
        yield LEFT_OUT, f"all but {place}", ones - every[i]
        yield AGAIN, place, ones + every[i]
    for k in range(2, n - 1):
        yield LEFT_OUT, f"only the first {k} of {n}", (np.arange(n) < k) * 1.0
        yield LEFT_OUT, f"only the last {k} of {n}", (np.arange(n) >= n - k) * 1.0
    for size in range(2, n):
        if n % size:
            number = np.arange(n) // size
            yield BATCHES, f"of {size}", n / (number.max() + 1) / np.bincount(number)[number]


def _times(
    case: Observed, each: Mapping[str, Real], names: list[str], pattern: Real, words: str
) -> Iterator[tuple[float, str, bool]]:
    """The factor, and the words for it and for the pattern, where these arrays are that many times the weighted sum;
    and whether that is no accident.
    """
    u = case.arithmetic.unit_roundoff
    found = []
    for name in sorted(names, key=lambda name: -case.answer[name].size):
        wanted = np.tensordot(pattern, each[name], axes=1)
        bound = 2 * case.tight[name] + 4 * u * np.abs(each[name]).sum(axis=0)
        if not wanted.any():
            if (np.abs(case.answer[name]) > bound).any():
                return
            continue
        one = scaled(case.answer[name], wanted, bound, u)
        if one is None:
            return
        found.append((one, wanted, bound, name))
    if not found:  # nothing is left, as it happens
        yield from ((1.0, said, False) for said in (words, f"{words}, as if there were no others"))
        return
    best = min((one for one, *_ in found), key=lambda one: one.slack)
    if not all(abs(one.factor / best.factor - 1) <= one.slack + best.slack for one, *_ in found):
        return
    unit = abs(best.factor - 1) <= best.slack
    equal = equal_to(best.factor, best.slack, case.n, case.spec.n_out)
    if not (unit or equal):
        return
    # how likely it is that a wrong number lies this near by accident: the tolerance as a share of what is missed
    shares = np.sort(
        np.concatenate(
            [
                np.minimum(bound / np.maximum(np.abs(case.answer[name] - case.truth(name)), bound), 1.0).ravel()
                for _, _, bound, name in found
            ]
        )
    )
    tried = 6 * case.n * case.n
    sure = bool((shares <= CLEAR).sum() >= 2 and tried * np.prod(shares[1 : 2 * CONFIRMATIONS]) <= ACCIDENT)
    kept = case.n / pattern.sum() if case.spec.reduction == "mean" else 1.0
    if set(pattern.tolist()) == {0.0, 1.0} and abs(best.factor - kept) <= best.slack * kept:
        yield best.factor, f"{words}, as if there were no others", sure
    yield best.factor, words if unit else f"{words}, × {equal[0][0]}", sure
    for name, _ in () if unit else equal[1:]:
        yield best.factor, f"{words}, × {name}", sure


def _solved(case: Observed, each: Mapping[str, Real], names: list[str]) -> Iterator[tuple[Array, str]]:
    """The weights by least squares, where they are determined and more elements than enough bear them out."""
    u = case.arithmetic.unit_roundoff
    bound = np.concatenate([(2 * case.tight[name] + 4 * u * np.abs(each[name]).sum(axis=0)).ravel() for name in names])
    matrix = np.concatenate([each[name].reshape(case.n, -1) for name in names], axis=1).T
    answer = np.concatenate([case.answer[name].ravel() for name in names])
    use = np.isfinite(bound) & (bound > 0)
    if use.sum() < case.n + CONFIRMATIONS:
        return
    rows, right = matrix[use] / bound[use, None], answer[use] / bound[use]
    found, _, rank, _ = np.linalg.lstsq(rows, right, rcond=2.0**-20)
    usual = min(np.abs(found).max(), np.abs(found - 1).max()) <= NEARLY  # all of them 0, or all 1
    if rank < case.n or usual or not np.isfinite(found).all():
        return
    if (np.abs(matrix @ found - answer) > bound * (1 + np.abs(found).max())).any():
        return
    clear = (np.abs(matrix).max(axis=1) * CLEAR > bound).sum()
    if clear < case.n + CONFIRMATIONS:
        return
    texts = [f"{weight:.3g}" if abs(weight) > 2.0**-20 else "0" for weight in found[:6].tolist()]
    yield found, f"{', '.join(texts)}{' …' if case.n > 6 else ''}"
