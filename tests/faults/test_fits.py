"""What few numbers explain is named, with the number, in a single case and over a whole run: one finding, one line."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from networks import diagnosed, judge, network, problem, sampled
from planted import report
from wrong_implementations import RIGHT, WRONG, Implementation, scaled

from refimpl.conformance.vectors import Suite, load
from refimpl.faults.fits import FITS
from refimpl.faults.fits.factors import equal_to
from refimpl.judge.report import FAIL
from refimpl.network.functions import ACTIVATIONS

CASES = load().cases
FACTORS: dict[str, Any] = {
    "-1": lambda n, outputs: -1, "1/3": lambda n, outputs: 1 / 3, "1/2": lambda n, outputs: 0.5,
    "2": lambda n, outputs: 2, "3": lambda n, outputs: 3, "4": lambda n, outputs: 4, "10": lambda n, outputs: 10,
    "N": lambda n, outputs: n, "1/N": lambda n, outputs: 1 / n, "n_out": lambda n, outputs: outputs,
    "65536": lambda n, outputs: 65536,
}  # fmt: skip
PLACES = {"all": "everything_scaled", "gradients": "gradients_scaled", "loss": "loss_scaled", "first": "", "last": ""}
# which of the catalogue's own names say the same of the whole run
NAMES = {"-1": ("wrong_sign", "loss_wrong_sign"), "2": ("accumulated_twice",)}


def some(count: int, seed: int = 1) -> Suite:
    """Cases of all sorts, half of them the plainest."""
    basic = [case for case in CASES if case.flags[0] == "Basic"]
    others = [case for case in CASES if case.flags[0] != "Basic"]
    rng = random.Random(seed)
    return Suite.of([*rng.sample(basic, count // 2), *rng.sample(others, count // 2)])


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("place", PLACES)
def test_a_factor_in_one_case_is_one_finding(place: str, factor: str, outputs: int) -> None:
    p = problem(network((4, 3, outputs), ["tanh", "identity"]), 4)
    run = Implementation(place, scaled(FACTORS[factor], place)).gradient_function(p.spec, dtype="float64", device="cpu")
    (found,) = diagnosed(judge(p), run(p.params, p.x, p.y))
    number = FACTORS[factor](4, outputs)
    causes = [cause for explanation in found.explanations for cause in explanation if cause.fault.name in FITS]
    assert causes, found.text
    assert all(cause.parameter == pytest.approx(number, rel=1e-9) for cause in causes)
    where = {"first": 1, "last": 2}.get(place, 0)
    assert all(cause.layer == where for cause in causes)
    if PLACES[place]:
        assert causes[0].fault.name == PLACES[place]
    if factor in ("N", "n_out", "1/N"):
        assert factor in " ".join(causes[0].readings)


SOME = {("1/2", "gradients"), ("N", "last"), ("4", "all")}
RUNS = [
    (factor, place) if (factor, place) in SOME else pytest.param(factor, place, marks=pytest.mark.soak)
    for factor in FACTORS
    for place in PLACES
]


@pytest.mark.parametrize(("factor", "place"), RUNS)
def test_a_factor_over_a_whole_run_is_one_line(factor: str, place: str) -> None:
    found = report(Implementation(place, scaled(FACTORS[factor], place)), some(24))
    (cause,) = [cause for cause in found.causes() if cause.verdict == FAIL]
    reading = factor.replace("-", "−")
    names = [name for name in cause.faults if name.endswith(f"× {reading}")]
    assert names or set(cause.faults) & set(NAMES.get(factor, ())), cause.text


def where(said: str) -> Suite:
    """Cases in which what is named can be seen."""
    seen = next((name for name in ACTIVATIONS if f" {name}, " in said or said.endswith(f" {name}")), "")
    hidden = [case for case in CASES if any(layer.activation.name == seen for layer in case.spec.layers[:-1])]
    of_loss = [case for case in CASES if case.spec.loss.name in ("huber", "squared_error")]
    known = {"identity", "sigmoid", "tanh", "relu"}
    logits = [
        case for case in CASES
        if case.spec.loss.name == "cross_entropy" and {layer.activation.name for layer in case.spec.layers} <= known
    ]  # fmt: skip
    gelu = [case for case in CASES if any("gelu" in layer.activation.name for layer in case.spec.layers)]
    chosen = (
        hidden if seen
        else of_loss if said.startswith("cost_gradient")
        else logits if "logarithm" in said
        else gelu if "gelu" in said
        else []
    )  # fmt: skip
    if said.startswith("equal"):
        return Suite.of([*some(24).cases, *(case for case in CASES if case.flags[0] == "EqualParameters")])
    return Suite.of(random.Random(1).sample(chosen, 24)) if chosen else some(24)


FEW = ("batches of two", "decay over N", "clipped to a norm", "bfloat16", "no slope far out", "log(p + 1e-7)", "TF32")


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.soak) for n in WRONG])
def test_what_is_wrong_throughout_is_named_in_one_line(name: str) -> None:
    wrong, said = WRONG[name]
    found = report(wrong, where(said))
    first, *others = found.causes()
    assert any(name.startswith(said) for name in first.faults), [cause.text for cause in found.causes()]
    assert sum(len(cause.cases) for cause in others) <= 0.2 * len(found.wrong), [cause.text for cause in others]


@pytest.mark.parametrize("seed", sampled(20, default=3))
def test_noise_is_no_factor(seed: int) -> None:
    p = problem(network((4, 3, 2), ["tanh", "identity"]), 4, seed)
    loss, grads = RIGHT.gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    rng = np.random.default_rng(seed)
    for size in (1e-9, 1e-6, 1e-3, 0.1):
        noisy = {name: grad * (1 + size * rng.standard_normal(grad.shape)) for name, grad in grads.items()}
        assert not any(found.known for found in diagnosed(judge(p), (loss, noisy), pairs=False))


def test_what_a_factor_equals_is_told_where_it_is_not_1() -> None:
    def names(*arguments: Any) -> list[str]:
        return [name for name, _ in equal_to(*arguments)]

    assert names(4.0, 1e-12, 4, 2) == ["4", "N"]
    assert names(1 / 7, 1e-12, 7, 1) == ["1/7", "1/N", "1/(N n_out)"]
    assert names(1.234, 1e-12, 4, 2) == []
    assert names(-37.0, 1e-12, 37, 2) == ["-37", "−N"]


def test_of_every_array_it_is_said_what_is_wrong() -> None:
    p = problem(network((4, 3, 3, 2), ["sigmoid", "tanh", "identity"]))
    loss, grads = RIGHT.gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    wrong = {**grads, "b2": 0 * grads["b2"], "W2": 4 * grads["W2"], "b1": grads["b1"] + np.arange(3)}
    (found,) = diagnosed(judge(p), (loss, wrong))
    assert not found.known
    assert "W1, b3, W3: right; W2: the right one times 4; b2: zero everywhere; b1: " in found.text
    assert found.to_dict()["by_array"] == found.by_array
