"""What a wrong answer takes for f' at every unit, and for ∂C/∂s at every output, as a function of where it is.

The error signals of a layer follow from its own dW and db, δᵀ a = dW, where the activations that came in are
independent. Divided by what is propagated to the layer they are its slopes. Where these are right at some z and wrong
at others, or those of another function, that is said, with what they are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import IntermediatesBackend, able
from refimpl.faults.findings import Cause, Causes, one_between
from refimpl.faults.fits.fit import CLEAR, CONFIRMATIONS, fit
from refimpl.faults.mistaken import WHOLE, Fault, Jacobian, Mistaken, Plant
from refimpl.faults.observed import Observed
from refimpl.network.functions import ACTIVATIONS
from refimpl.truth.elementwise import Elementwise, activation
from refimpl.truth.graph import given
from refimpl.truth.numbers import NumberAlgebra

CONDITION = 1e6  # of the activations that came in, above which error signals do not follow from them
THRESHOLDS = 21  # that are tried in an interval
UNEXPLAINED = 1e-6  # the share of what is wrong that may be left
UNLIKELY = 10  # ways to choose as many places as are wrong, of which one is on one side of a threshold
Array = NDArray[Any]
Real = NDArray[np.float64]

REMEDY = "Compare f' with its formula there; compute it from a, or by a form that does not lose digits far out."


Beyond = Callable[[Any, Any], Any]  # where values are beyond a number


def _above(values: Any, limit: Any) -> Any:
    return values > limit


def _below(values: Any, limit: Any) -> Any:
    return values < limit


def _far(values: Any, limit: Any) -> Any:
    return abs(values) > limit


@dataclass(frozen=True)
class Instead:
    """What is taken for f' or ∂C/∂s where it is wrong: `value`, so many `times` what it should be, and `share` of the
    variable itself; in words.
    """

    words: str
    value: float = 0.0
    times: float = 0.0
    share: float = 0.0

    def of(self, right: Any, variable: Any, by: Any = 1.0) -> Any:
        """It, `by` what is propagated; `right` is so already."""
        return (self.value + self.share * variable) * by + self.times * right


def _beyond_in_slopes(name: str, beyond: Beyond, there: Instead) -> Plant:
    """f' is another where z is beyond the parameter, in every hidden layer of the activation of this name."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        def wrong(vjp: Jacobian) -> Jacobian:
            def slope(z: Any, a: Any, d: Any) -> Any:
                right = vjp(z, a, d)
                return np.where(beyond(z, parameter), there.of(right, z, d), right)

            return slope

        for number, own in enumerate(m.spec.layers[:-1], start=1):
            if name in ("", own.activation.name):
                m.change_vjp(number, wrong)

    return plant


def _another_in_slopes(name: str, other: Elementwise) -> Plant:
    """f' of another function in every hidden layer of the activation of this name."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        for number, own in enumerate(m.spec.layers[:-1], start=1):
            if own.activation.name == name:
                m.change_vjp(number, lambda vjp: lambda z, a, d: d * _derivative(other, z))

    return plant


def _beyond_in_cost(variable: str, beyond: Beyond, there: Instead) -> Plant:
    """∂C/∂s, not yet averaged, is another where the variable is beyond the parameter."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        parts = m.spec.divisor(m.n)

        def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
            def output_error(dC_ds: Any, z: Any, a: Any, vjp: Jacobian) -> Any:
                at = a - m.y if variable == "s − y" else a
                return right(np.where(beyond(at, parameter), there.of(parts * dC_ds, at) / parts, dC_ds), z, a, vjp)

            return output_error

        m.change(m.spec.depth, "output_error", wrong)

    return plant


def _fit(name: str, explanation: str, remedy: str) -> Fault:
    return fit(name, explanation, remedy, _beyond_in_slopes("", _far, Instead("")), "threshold", 3.0)


FAR_OUT = _fit("slope_wrong_far_out", "f'(z) is right at most z, and wrong beyond a number.", REMEDY)
OTHER = _fit(
    "slope_of_another_function", "f' is that of another function.", "Differentiate the activation that is applied."
)
COST = _fit(
    "cost_gradient_wrong_far_out", "∂C/∂s is right at most outputs, and wrong beyond a number.",
    "Compare ∂C/∂s with its formula on both sides: |s − y| has two, and so has a probability that is clipped.",
)  # fmt: skip
SLOPES = (FAR_OUT, OTHER, COST)


@dataclass(frozen=True)
class Points:
    """What a function was taken to be, and what it is, at the same places, each (K,); `err`: how well that is known."""

    at: Mapping[str, Real]
    found: Real
    right: Real
    err: Real

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where it is known well enough to be right or wrong."""
        return np.isfinite(self.found) & (self.err <= CLEAR * np.maximum(np.abs(self.found), np.abs(self.right)))

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Where it is wrong beyond doubt."""
        return self.known & (np.abs(self.found - self.right) * CLEAR > self.err)


def slopes(case: Observed) -> list[Causes]:
    """What all that is wrong with the gradients follows from: the slope of one activation, or ∂C/∂s."""
    found = [cause for cause in _by_points(case) if _gives(case, cause.fault, cause.parameter or 0.0)]
    return [(cause,) for cause in found or _trusted(case)]


def _gives(case: Observed, fault: Fault, threshold: float) -> bool:
    """Whether code with it would give the answer, but for what is not known of the number in it."""
    with np.errstate(all="ignore"):
        grads = case.run(fault, threshold)[1]

    def near(name: str) -> bool:
        answer, truth = case.answer[name], case.truth(name)
        scale = max(np.abs(grads[name]).max() / max(np.abs(truth).max(), case.arithmetic.smallest_normal), 1.0)
        off = np.abs(answer - grads[name]) <= UNEXPLAINED * np.abs(answer - truth).max()
        return bool((off | case.near(name, answer, grads[name], scale)).all())

    return all(near(name) for name in case.names)


def _trusted(case: Observed) -> Iterator[Cause]:
    """What other answers of the same code taught, where it predicts this one."""
    for cause in case.trusted.values():
        if cause.fault.name in (FAR_OUT.name, OTHER.name, COST.name) and cause.fault not in SLOPES:
            for threshold in _chosen(cause):
                if _gives(case, cause.fault, threshold):
                    yield replace(cause, parameter=threshold)
                    break


def _chosen(cause: Cause) -> Iterator[float]:
    """Thresholds that somebody may have chosen, in the interval that is known: those of few digits first."""
    low, high = cause.interval or (cause.parameter or 0.0,) * 2
    found = np.linspace(low, high, THRESHOLDS).tolist()
    short = (float(f"{number:.{digits}g}") for digits in (1, 2) for number in found)
    yield from dict.fromkeys(number for number in (*short, *found) if low <= number <= high)


def _by_points(case: Observed) -> Sequence[Cause]:
    found, cost = _points(case)
    if found is None:
        return []
    bad = [name for name, points in found.items() if points.wrong.any()]
    if cost is not None and cost.wrong.any():
        return [] if bad else list(_beyond(case, COST, "", cost))
    if len(bad) != 1:
        return []
    name, points = bad[0], found[bad[0]]
    return [*_of_another(case, name, points), *_beyond(case, FAR_OUT, name, points)]


def _points(case: Observed) -> tuple[dict[str, Points] | None, Points | None]:
    """The slopes by activation, and ∂C/∂s, as far down as error signals follow from the answer; None where some array
    is wrong in another way too.
    """
    params, x, y = case.judge.batch.copies(case.spec)
    exact = {name: array.astype(np.float64) for name, array in params.items()}
    targets = y if y.ndim == 1 else y.astype(np.float64)
    run = able(IntermediatesBackend).intermediates_function(case.spec, dtype="float64", device="cpu")
    values = run(exact, x.astype(np.float64), targets)
    collected: dict[str, list[Points]] = {}
    cost: Points | None = None
    depth, u = case.spec.depth, case.arithmetic.unit_roundoff
    signal: Array | None = None
    for number in range(depth, 0, -1):
        own = [name for name in (f"W{number}", f"b{number}") if name in case.names]
        came_in = x.reshape(case.n, -1).astype(np.float64) if number == 1 else values[f"a{number}"]
        right = values[f"delta{number + 1}"]
        if not any(name in case.wrong for name in own) and signal is None:
            continue  # as long as nothing is wrong the error signal is the right one
        solved = _signals(case, number, came_in)
        if solved is None:
            return (None, None) if not collected and cost is None else (_joined(collected), cost)
        found, err = solved
        z, layer = values[f"z{number + 1}"], case.spec.layers[number - 1]
        if number == depth:
            if not ACTIVATIONS[layer.activation.name].elementwise:
                return None, None
            f = activation(layer.activation.name, tuple(layer.activation.kwargs.items()))
            s, slope = values[f"a{number + 1}"], _derivative(f, z)
            with np.errstate(all="ignore"):
                scale = case.spec.divisor(case.n) / slope
                off = np.abs(scale) * (err + 16 * u * np.abs(found))
                places = {"s − y": s - case.y, "s": s}
                cost = Points(
                    {name: array.ravel() for name, array in places.items()},
                    (scale * found).ravel(), (scale * right).ravel(), off.ravel(),
                )  # fmt: skip
        elif ACTIVATIONS[layer.activation.name].elementwise and layer.activation.name != "identity":
            before = signal if signal is not None else values[f"delta{number + 2}"]
            arriving = before @ exact[f"W{number + 1}"]
            f = activation(layer.activation.name, tuple(layer.activation.kwargs.items()))
            slope = _derivative(f, z)
            with np.errstate(all="ignore"):
                points = Points(
                    {"z": z.ravel()}, (found / arriving).ravel(), slope.ravel(),
                    (err / np.abs(arriving) + 16 * u * np.abs(slope)).ravel(),
                )  # fmt: skip
            collected.setdefault(layer.activation.name, []).append(points)
        signal = found
    return _joined(collected), cost


def _derivative(function: Elementwise, z: Real) -> Real:
    return NumberAlgebra({}).derivatives(given("z", z.shape), function, z)[1]


def _joined(collected: Mapping[str, list[Points]]) -> dict[str, Points]:
    return {
        name: Points(
            {"z": np.concatenate([one.at["z"] for one in many])},
            *(np.concatenate([getattr(one, part) for one in many]) for part in ("found", "right", "err")),
        )
        for name, many in collected.items()
    }


def _signals(case: Observed, number: int, came_in: Real) -> tuple[Real, Real] | None:
    """δ (N, n) of a layer by its own gradients, and how far it may be off; None where it does not follow from them."""
    bias = f"b{number}" in case.names
    rows = np.concatenate([came_in, np.ones((case.n, 1))], axis=1) if bias else came_in
    grads = [case.answer[f"W{number}"].T, *([case.answer[f"b{number}"][None]] if bias else [])]
    bounds = [case.tight[f"W{number}"].T, *([case.tight[f"b{number}"][None]] if bias else [])]
    wanted, bound = np.concatenate(grads), 2 * np.concatenate(bounds)
    bound = bound + 4 * case.arithmetic.unit_roundoff * np.abs(wanted)
    if not np.isfinite(wanted).all() or rows.shape[1] < case.n or np.linalg.cond(rows) > CONDITION:
        return None
    inverse = np.linalg.pinv(rows.T)
    found = inverse @ wanted
    err = np.abs(inverse) @ bound
    if (np.abs(rows.T @ found - wanted) > bound + np.abs(rows.T) @ err).any():
        return None
    return found, err


def _of_another(case: Observed, name: str, points: Points) -> Iterator[Cause]:
    """The slopes of other functions of the catalogue."""
    telling = points.known
    for other, entry in ACTIVATIONS.items():
        if other == name or not entry.elementwise or other == "identity":
            continue
        defaults = tuple((key, parameter.default) for key, parameter in entry.parameters.items())
        slope = _derivative(activation(other, defaults), points.at["z"])
        near = np.abs(points.found - slope) <= points.err + 16 * case.arithmetic.unit_roundoff * np.abs(slope)
        told = telling & (np.abs(slope - points.right) * CLEAR > points.err)
        planted = replace(OTHER, plant=_another_in_slopes(name, activation(other, defaults)))
        cause = Cause(planted, WHOLE, None, (f"{other} for {name}",))
        enough = 1 if cause.labels[0] in case.trusted else CONFIRMATIONS
        if near[telling].all() and told.sum() >= enough:
            yield cause


def _beyond(case: Observed, fault: Fault, name: str, points: Points) -> Iterator[Cause]:
    """On which side of a number it is wrong, and what it is there."""
    known, wrong = points.known, points.wrong
    right = known & ~wrong
    count, bad = int(known.sum()), int(wrong.sum())
    if not bad or not right.any():
        return
    there = _instead(points, wrong)
    sure = math.comb(count, bad) >= UNLIKELY
    of = f"{name}, " if name else ""
    for variable, at in points.at.items():
        in_place = there.get(variable) or there.get("")
        if in_place is None:
            continue
        sides: tuple[tuple[str, str, Beyond, float, float], ...] = (
            (f"{variable} >", "large", _above, at[right].max(), at[wrong].min()),
            (f"{variable} <", "small", _below, at[wrong].max(), at[right].min()),
            (f"|{variable}| >", "large in magnitude", _far, np.abs(at[right]).max(), np.abs(at[wrong]).min()),
        )
        for sign, word, beyond, low, high in sides:
            if not low < high:
                continue
            plant = _beyond_in_slopes(name, beyond, in_place) if name else _beyond_in_cost(variable, beyond, in_place)
            own = replace(fault, plant=plant)
            detail = f"{of}where {sign} {{}}: it is {in_place.words} there"
            interval = float(low), float(high)
            cause = Cause(own, WHOLE, one_between(*interval), (f"{of}{variable} {word}",), detail, interval)
            if sure or cause.labels[0] in case.trusted:
                yield cause


def _instead(points: Points, wrong: NDArray[np.bool_]) -> dict[str, Instead]:
    """What it is where it is wrong, where that is one thing: whatever it depends on (""), or by the variable."""
    found, err, right = points.found[wrong], points.err[wrong], points.right[wrong]
    for value in (0.0, 1.0, -1.0):
        if (np.abs(found - value) <= err).all():
            return {"": Instead(f"{value:g}", value=value)}
    itself = {
        variable: Instead(variable, share=1.0) for variable, at in points.at.items()
        if (np.abs(found - at[wrong]) <= err + 2.0**-40 * np.abs(found)).all()
    }  # fmt: skip
    if itself:
        return itself
    if len(found) > 1 and np.ptp(found) <= 2 * err.max():
        return {"": Instead(f"{found[0]:.4g}", value=float(np.median(found)))}
    with np.errstate(all="ignore"):
        times, slack = found / right, err / np.abs(right)
    if len(found) > 1 and np.isfinite(times).all() and np.ptp(times) <= 2 * slack.max():
        ratio = float(times[int(np.argmin(slack))])
        return {"": Instead(f"{ratio:.4g} times what it should be", times=ratio)}
    return {}
