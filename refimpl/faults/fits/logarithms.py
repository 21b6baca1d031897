"""A small number beside a probability: added to it before the logarithm, or what it is clipped at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.fit import CLEAR, fit
from refimpl.faults.mistaken import WHOLE, Mistaken, Plant, like
from refimpl.faults.observed import Observed

USUAL = (*(10.0**-k for k in range(3, 17)), 2.0**-52, 2.0**-23)
Array = NDArray[Any]
Slope = Callable[[str, Array, Array, float], tuple[Array, Array]]  # (loss, s, y, ε) → ∂ℓ/∂s and ℓ, by output


def _probabilities(loss: str, s: Array) -> Array:
    if loss == "negative_log_likelihood":
        return s
    if loss == "binary_cross_entropy":
        return np.asarray(1 / (1 + np.exp(-s)))
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _added(loss: str, s: Array, y: Array, number: float) -> tuple[Array, Array]:
    p = _probabilities(loss, s)
    losses = -y * np.log(p + number)
    if loss == "negative_log_likelihood":
        return -y / (p + number), losses
    if loss == "binary_cross_entropy":
        losses = losses - (1 - y) * np.log(1 - p + number)
        return p * (1 - p) * ((1 - y) / (1 - p + number) - y / (p + number)), losses
    share = y * p / (p + number)
    return p * share.sum(axis=1, keepdims=True) - share, losses


def _clipped(loss: str, s: Array, y: Array, number: float) -> tuple[Array, Array]:
    p = np.clip(_probabilities(loss, s), number, 1 - number)
    losses = -y * np.log(p) - (1 - y) * np.log(1 - p) * (loss == "binary_cross_entropy")
    return (-y / p if loss == "negative_log_likelihood" else p - y), losses


def _planted(slope: Slope) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        share = 1 / m.spec.divisor(m.n)

        def output_error(right: Callable[..., Any]) -> Callable[..., Any]:
            def changed(dC_ds: Any, z: Any, a: Any, vjp: Any) -> Any:
                return right(like(dC_ds, share * slope(m.spec.loss.name, a, m.y, parameter)[0]), z, a, vjp)

            return changed

        m.change(m.spec.depth, "output_error", output_error)

    return plant


REMEDY = "From logits, by log-sum-exp or log1p, neither is needed; the loss here has none."
ADDED = fit(
    "number_added_in_logarithm",
    "The gradient is that of log(p + ε), not of log p.",
    REMEDY,
    _planted(_added),
    "ε",
    1e-7,
)
CLIPPED = fit(
    "probabilities_clipped", "The probabilities are clipped to [ε, 1 − ε].", REMEDY, _planted(_clipped), "ε", 1e-7
)
LOGARITHMS = (ADDED, CLIPPED)
SLOPES: tuple[tuple[Any, Slope], ...] = ((ADDED, _added), (CLIPPED, _clipped))
LOSSES = ("negative_log_likelihood", "binary_cross_entropy", "cross_entropy")


def logarithms(case: Observed) -> list[Causes]:
    """The numbers, of those that are usual, that explain every wrong gradient."""
    if case.spec.loss.name not in LOSSES:
        return []
    found: list[Causes] = [(cause,) for cause in _found(case)]
    return found if len(found) <= len(SLOPES) else []  # any number would do


def _found(case: Observed) -> Iterator[Cause]:
    for fault, slope in SLOPES:
        for number in USUAL:
            grads = case.run(fault, number)[1]
            if all(case.close_to(name, case.answer[name], grads[name]) for name in case.names) and all(
                _decisive(case, name, grads[name]) for name in case.wrong
            ):
                case.loss_explained |= _loss_is(case, slope, number)
                yield Cause(fault, WHOLE, number, (f"{number:.3g}",))


def _decisive(case: Observed, name: str, grad: Array) -> bool:
    at, distance = case.miss(name)
    return bool(case.tight[name][at] <= CLEAR * distance and abs(grad[at] - case.truth(name)[at]) > 0.5 * distance)


def _loss_is(case: Observed, slope: Slope, number: float) -> bool:
    """Whether a wrong loss has it too."""
    s = case.judge.truth.values[f"a{case.spec.depth + 1}"].mid
    losses = slope(case.spec.loss.name, s, case.y, number)[1]
    loss = losses.sum() / case.spec.divisor(case.n)
    return bool(case.loss_wrong and np.isclose(case.loss_number, loss, rtol=1e-6, atol=0))
