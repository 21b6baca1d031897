"""Textbook formulas that lose digits or overflow: FAIL as ever, named with the remedy; and nothing else is so named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnosis_measure import other_mistake, other_mistakes, planted_backend
from networks import DTYPES, diagnosed, judge, network, problem, sampled, verdicts

from refimpl.conformance.vectors import load
from refimpl.faults.catalogue import FAULTS
from refimpl.faults.findings import Finding
from refimpl.faults.formulas import CANCELLING, FORMULAS, NAMED
from refimpl.faults.mistaken import WHOLE, Fault, Mistaken
from refimpl.judge.report import FAIL, PASS
from refimpl.network.arithmetic import PRESETS
from refimpl.network.random_problems import Problem
from refimpl_numpy import NumpyBackend

Answer = tuple[float, dict[str, np.ndarray]]
# where log(1 + e^z) has four digits left, and one
FAR = {"float64": -25.0, "float32": -15.0}
TINY = {"float64": 2.0**-30, "float32": 2.0**-16}
HUGE = {"float64": 2000.0, "float32": 300.0}
SUITE = load()
SEEDS = sampled(4, default=1)


def answer(p: Problem, fault: Fault | None = None) -> Answer:
    backend = planted_backend((fault, WHOLE, 0.0)) if fault else NumpyBackend()
    with np.errstate(all="ignore"):
        return backend.gradient_function(p.spec, dtype=str(p.x.dtype), device="cpu")(p.params, p.x, p.y)


def falling(seed: int, dtype: str, activation: str = "softplus") -> Problem:
    """A hidden layer with a neuron or two far to the left."""
    p = problem(network((3, 4, 3, 2), [activation, "silu", "identity"]), 4, seed, dtype)
    p.params["b1"][: 1 + seed % 2] += FAR[dtype]
    return p


def small(seed: int, dtype: str) -> Problem:
    """A hidden layer whose weighted inputs are all near 0."""
    p = problem(network((3, 4, 3, 2), ["tanh", "selu", "identity"]), 4, seed, dtype)
    p.params["W1"] *= TINY[dtype]
    p.params["b1"] *= TINY[dtype]
    return p


def confident(seed: int, dtype: str) -> Problem:
    """Logits that are far on the wrong side."""
    p = problem(network((3, 4, 2), ["tanh", "identity"], "binary_cross_entropy"), 4, seed, dtype)
    p.params["b2"][:] = -FAR[dtype]
    p.y[:] = 0.0
    return p


def large(dtype: str, activation: str, loss: str) -> Problem:
    """An activation, or a loss, whose exponentials overflow."""
    hidden = loss == "squared_error"
    layers = ["softsign", activation, "identity"] if hidden else ["softsign", "tanh", activation]
    p = problem(network((3, 4, 3, 4), layers, loss), 4, 1, dtype)
    p.params["b2" if hidden else "b3"][0] += HUGE[dtype]
    return p


def formulas(name: str) -> list[Fault]:
    return [fault for fault in FORMULAS if fault.name == name]


def named(findings: list[Finding]) -> list[set[str]]:
    return [{cause.fault.name for explanation in finding.explanations for cause in explanation} for finding in findings]


def by_formula(findings: list[Finding]) -> set[str]:
    return set().union(*named(findings)) & {fault.name for fault in FORMULAS}


CASES: list[tuple[str, Callable[[int, str], Problem]]] = [
    ("cancellation_in_softplus", falling),
    ("cancellation_in_tanh", small),
    ("binary_cross_entropy_without_log1p", confident),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "make"), CASES, ids=[name for name, _ in CASES])
def test_a_formula_that_cancels_fails_and_is_named(name: str, make: Any, dtype: str, seed: int) -> None:
    p = make(seed, dtype)
    known = judge(p)
    wrong = "loss" if make is confident else "W2"
    assert verdicts(known.judge_answer("right", answer(p)))[wrong] == PASS
    for fault in (form for form in CANCELLING if form.name == name):
        given = answer(p, fault)
        assert verdicts(known.judge_answer("wrong", given))[wrong] == FAIL
        (found,) = diagnosed(known, given)
        assert named([found]) == [{name}]
        assert found.text.startswith(name)
        assert "expm1" in found.text if "tanh" in name else "Use log1p" in found.text
        assert found.explanations[0][0].layer == WHOLE


OVERFLOWING: list[tuple[str, str, str]] = [
    ("cancellation_in_softplus", "softplus", "squared_error"),
    ("overflow_in_softmax", "identity", "cross_entropy"),
    ("overflow_in_sigmoid", "identity", "binary_cross_entropy"),
    ("binary_cross_entropy_without_log1p", "identity", "binary_cross_entropy"),
]
UNTELLING = [(activation, "squared_error") for activation in ("tanh", "sigmoid", "silu", "softmax")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "activation", "loss"), OVERFLOWING)
def test_a_formula_that_overflows_fails_and_is_named(name: str, activation: str, loss: str, dtype: str) -> None:
    p = large(dtype, activation, loss)
    known, tried = judge(p), 0
    for fault in formulas(name):
        given = answer(p, fault)
        finite = np.isfinite(given[0]) and all(np.isfinite(grad).all() for grad in given[1].values())
        if fault.where(p.spec, 4) and not finite:
            tried += 1
            assert FAIL in verdicts(known.judge_answer("wrong", given)).values()
            assert all(name in found for found in named(diagnosed(known, given)))
    assert tried


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("activation", "loss"), [*UNTELLING, *(case[1:] for case in OVERFLOWING[:3])])
def test_what_is_lost_throughout_is_no_formula_s(activation: str, loss: str, dtype: str) -> None:
    """Where one overflows, gradients are NaN, infinite or zero throughout; the loss too, or not, or not returned."""
    p = large(dtype, activation, loss)
    known, (cost, right) = judge(p), answer(p)
    costs = (cost, None, type(cost)(np.nan), type(cost)(0))
    for value in (np.nan, np.inf, 0.0):
        for lost in (*([name] for name in right), list(right)):
            grads = {**right, **{name: np.full_like(right[name], value) for name in lost}}
            for given in costs if len(lost) > 1 else costs[:1]:
                assert not by_formula(diagnosed(known, (given, grads), pairs=False)), (value, lost, given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", FORMULAS, ids=lambda fault: fault.name)
def test_on_ordinary_numbers_a_formula_is_right(fault: Fault, dtype: str) -> None:
    for loss, last in (
        ("binary_cross_entropy", "identity"),
        ("cross_entropy", "identity"),
        ("squared_error", "softmax"),
    ):
        p = problem(network((3, 4, 4, 4, 3), ["softplus", "tanh", "silu", last], loss), 4, 2, dtype)
        if fault.where(p.spec, 4):
            assert set(verdicts(judge(p).judge_answer("formula", answer(p, fault))).values()) == {PASS}


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("saturated softplus 12", "cancellation_in_softplus"),
        ("saturated softplus 30", "cancellation_in_softplus"),
        ("tiny 2^-20 tanh", "cancellation_in_tanh"),
        ("logit 1000 binary_cross_entropy", "binary_cross_entropy_without_log1p"),
        ("logit 1000 cross_entropy", "overflow_in_softmax"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_suite_s_cases_are_named(case: str, name: str, dtype: str) -> None:
    chosen = SUITE.by_id[case]
    p = Problem(chosen.spec, *chosen.data(dtype), 0, 0)
    findings = named(diagnosed(judge(p), answer(p, next(fault for fault in formulas(name) if fault.where(p.spec, 4)))))
    assert findings
    assert all(found == {name} for found in findings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cancellation_in_softplus", "cancellation_in_tanh"])
def test_a_program_of_another_library_is_named_too(name: str, dtype: str) -> None:
    """With PyTorch's exponential, and the derivative that it finds itself."""
    torch = pytest.importorskip("torch")
    p = falling(3, dtype) if "softplus" in name else small(3, dtype)
    params = {key: torch.from_numpy(array).requires_grad_() for key, array in p.params.items()}
    z = torch.from_numpy(p.x) @ params["W1"].T + params["b1"]
    if "softplus" in name:
        a = torch.log(1 + torch.exp(z))
    else:
        a = (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z))
    f = torch.nn.functional.silu if "softplus" in name else torch.nn.functional.selu
    s = f(a @ params["W2"].T + params["b2"]) @ params["W3"].T + params["b3"]
    loss = 0.5 * ((s - torch.from_numpy(p.y)) ** 2).sum() / len(p.x)
    loss.backward()
    grads = {key: tensor.grad.numpy() for key, tensor in params.items()}
    (found,) = diagnosed(judge(p), (loss.item(), grads))
    assert named([found]) == [{name}]


# --------------------------------------------------------------------------------------------------------------
# What is no formula's


def strangers(rng: np.random.Generator, p: Problem, right: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Small mistakes that no formula makes, and some in the arrays where one shows."""
    u = np.finfo(p.x.dtype).eps / 2

    def little() -> float:
        return float(rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(3 * u), np.log(1e-4))))

    def changed(key: str, at: Any, factor: float) -> dict[str, np.ndarray]:
        array = right[key].copy()
        array[at] *= factor
        return {**right, key: array}

    key = str(rng.choice(list(right)))
    array = right[key]
    neuron = int(np.abs(right["W2"]).max(axis=0).argmin())
    noise = little()
    wrong = {
        "scaled": {name: grad * (1 + little()) for name, grad in right.items()},
        "one array": {**right, key: array * (1 + little())},
        "one element": changed(key, tuple(int(rng.integers(size)) for size in array.shape), 1 + little()),
        "an element of the neuron": changed("W2", (int(rng.integers(3)), neuron), 1 + little()),
        "the neuron": changed("W2", (slice(None), neuron), 1 + little()),
        "the neuron, by far": changed("W2", (slice(None), neuron), float(rng.uniform(0.3, 1.7))),
        "W2": {**right, "W2": right["W2"] * (1 + noise * rng.standard_normal(right["W2"].shape))},
        "noise": {name: grad * (1 + noise * rng.standard_normal(grad.shape)) for name, grad in right.items()},
        "a regulariser": {name: grad + abs(noise) * p.params[name] for name, grad in right.items()},
        "of the size of rounding": {
            **right,
            "W2": right["W2"] + rng.uniform(0.3, 8) * u * np.abs(right["W2"]).max() * rng.standard_normal((3, 4)),
        },
        "no numbers": {**right, "W2": right["W2"] * np.nan},
        "one is no number": changed(key, tuple(int(rng.integers(size)) for size in array.shape), np.nan),
    }
    return {kind: {name: grad.astype(p.x.dtype) for name, grad in grads.items()} for kind, grads in wrong.items()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [falling, small], ids=["softplus", "tanh"])
def test_small_mistakes_where_a_formula_would_show_are_none(make: Any, dtype: str, seed: int) -> None:
    p = make(seed, dtype)
    known, (loss, right) = judge(p), answer(p)
    for kind, grads in strangers(np.random.default_rng(seed), p, right).items():
        assert not by_formula(diagnosed(known, (loss, grads), pairs=False)), kind


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_throughout_are_no_formula_s_where_one_gives_them(dtype: str) -> None:
    p = small(0, dtype)
    p.params["W1"] *= TINY[dtype]
    p.params["b1"] *= TINY[dtype]
    known = judge(p)
    for fault in formulas("cancellation_in_tanh"):
        given = answer(p, fault)
        assert not given[1]["W2"].any()
        (found,) = diagnosed(known, given, pairs=False)
        assert "zero everywhere" in found.symptom
        assert not found.known


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loss_that_is_a_little_wrong_is_no_formula_s(dtype: str, seed: int) -> None:
    p = confident(seed, dtype)
    known, (loss, right) = judge(p), answer(p)
    rng = np.random.default_rng(seed)
    for size in np.exp(rng.uniform(np.log(1e-6), 0, 10)):
        findings = diagnosed(known, (type(loss)(loss * (1 + size)), right))
        assert not any(found.known for found in findings), size


def test_other_mistakes_are_given_no_formula_s_name() -> None:
    for number in range(2 * len(other_mistakes())):
        kind, known, wrong = other_mistake(6, number)
        assert not by_formula(diagnosed(known, (None, wrong), pairs=False)), kind


def test_another_way_to_lose_digits_is_another() -> None:
    """A softplus that adds to e^z, one that is cut off, and one in float32."""
    p = falling(0, "float64")
    known = judge(p)
    for form in (
        lambda z, f: np.log(1 + np.exp(z) + 1e-12),
        lambda z, f: np.logaddexp(np.clip(z, -20, 20), 0.0),
        lambda z, f: np.logaddexp(z.astype(np.float32), np.float32(0)).astype(np.float64),
    ):
        fault = Fault("another", "", "", NAMED["cancellation_in_softplus"].where, _activation_of_the_first(form))
        findings = diagnosed(known, answer(p, fault), pairs=False)
        assert findings
        assert not by_formula(findings)


def _activation_of_the_first(form: Any) -> Any:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.change(1, "activation", lambda right: form)

    return plant


def test_in_an_arithmetic_with_other_roundings_none_is_looked_for() -> None:
    p = falling(1, "float32")
    given = answer(p, FORMULAS[0])
    assert by_formula(diagnosed(judge(p), given, arithmetic=PRESETS["float32"]))
    assert not by_formula(diagnosed(judge(p), given, arithmetic=PRESETS["bfloat16"], pairs=False))


@pytest.mark.parametrize("name", sorted(NAMED.keys() - FAULTS.keys()))
def test_a_formula_says_what_it_is_and_what_to_do(name: str) -> None:
    fault, forms = NAMED[name], formulas(name)
    assert {(form.explanation, form.remedy) for form in forms} == {(fault.explanation, fault.remedy)}
    assert fault.explanation.endswith(".")
    assert fault.remedy.endswith(".")
