"""The tolerance: tight, sound for other correct implementations, and honest about what it does not know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import BACKENDS, DTYPES, article, judge, network, problem, verdicts

from refimpl import backend as backends
from refimpl.equations import EQUATIONS, Equations
from refimpl.judge.report import FAIL, PASS, UNDETERMINED
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem, random_problem
from refimpl_numpy import NumpyBackend


def test_median_tolerance_on_the_article_is_below_1e_14() -> None:
    """The article's derivation is for one sample: nothing cancels over a batch, and E/|g| is a few dozen roundings."""
    ratios: list[float] = []
    for seed in range(20):
        j = judge(article(1, seed))
        bounds = j.tolerance(ARITHMETICS["float64"]).worst_case
        ratios += [
            ratio
            for name in j.spec.parameter_shapes
            for ratio in (bounds[name] / np.abs(j.truth.grads[name].mid)).ravel()
        ]
    assert np.median(ratios) <= 1e-14


def reordered(rng: np.random.Generator) -> Equations:
    """The same equations with every sum taken in a random order, one term after the other."""

    def product(left: Any, right: Any) -> Any:
        order = rng.permutation(left.shape[1])
        total = np.zeros((left.shape[0], right.shape[1]), left.dtype)
        for k in order:
            total = total + left[:, k : k + 1] * right[k]
        return total

    def biased(a: Any, W: Any, b: Any) -> Any:
        return product(a, W.T) if b is None else product(np.c_[a, np.ones((len(a), 1), a.dtype)], np.r_[W.T, b[None]])

    def bias(delta: Any) -> Any:
        return product(np.ones((1, len(delta)), delta.dtype), delta)[0]

    return replace(
        EQUATIONS,
        weighted_input=biased,
        hidden_error=lambda W, delta, z, a, vjp: vjp(z, a, product(delta, W)),
        weight_gradient=lambda delta, a: product(delta.T, a),
        bias_gradient=bias,
    )


@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_any_order_of_summation_lies_within_the_tolerance(index: int, dtype: str) -> None:
    p = random_problem(17, index, dtype)
    backend = NumpyBackend([reordered(np.random.default_rng(index))] * p.spec.depth)
    failed = [row for row in judge(p).rows(backend, inputs=True) if row.verdict == FAIL]
    assert not failed, (p.index, failed)


@pytest.mark.parametrize("form", ["a(1 − a)", "1 − a²", "e^z − 1"])
def test_textbook_forms_that_cancel_lie_within_the_tolerance(form: str) -> None:
    """They lose digits, but they are no mistake in the backpropagation."""
    activation, vjp = {
        "a(1 − a)": ("sigmoid", lambda z, a, d: d * (a * (1 - a))),
        "1 − a²": ("tanh", lambda z, a, d: d * (1 - a * a)),
        "e^z − 1": ("elu", lambda z, a, d: d * np.where(z > 0, 1, a + 1)),
    }[form]
    equations = Equations(
        output_error=lambda dC_ds, z, a, right: vjp(z, a, dC_ds),
        hidden_error=lambda W, delta, z, a, right: vjp(z, a, delta @ W),
    )
    for seed in range(20):
        p = problem(network((2, 2, 2), [activation] * 2), seed=seed)
        for scale in (0.3, 3.0, 12.0):
            scaled = Problem(p.spec, p.params, p.x * scale, p.y, seed, 0)
            assert FAIL not in verdicts(judge(scaled).rows(NumpyBackend([equations] * 2))).values()


@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_bounds_have_the_shapes_of_what_they_bound_and_are_no_nan(index: int, dtype: str) -> None:
    p = random_problem(23, index, dtype)
    j = judge(p)
    for arithmetic in (ARITHMETICS[dtype], replace(ARITHMETICS[dtype], flushes_subnormals=True)):
        bounds = j.tolerance(arithmetic, inputs=True)
        for name, balls in {"loss": j.truth.loss, **j.truth.grads}.items():
            worst, statistical = bounds.worst_case[name], bounds.statistical[name]
            for form in (worst, statistical):
                assert form.shape == balls.mid.shape
                assert (form >= 0).all()
            assert (bounds.across_kinks[name] >= worst).all()
            assert (bounds.statistical_across[name] >= statistical).all()
            assert (statistical <= worst).all()


def test_float32_bounds_are_wider_by_the_ratio_of_the_roundoffs() -> None:
    p = problem(network((4, 3, 2), ["tanh", "sigmoid"]), dtype="float32")
    j = judge(p)
    wide, narrow = (
        j.tolerance(ARITHMETICS["float32"]).worst_case["W1"],
        j.tolerance(ARITHMETICS["float64"]).worst_case["W1"],
    )
    assert wide / narrow == pytest.approx(2.0**29, rel=1e-3)


def test_the_statistical_form_is_below_the_worst_case_where_chains_are_long() -> None:
    j = judge(problem(network((32,) * 5, ["tanh"] * 4), n=8))
    bounds = j.tolerance(ARITHMETICS["float64"])
    assert np.median(bounds.statistical["W1"] / bounds.worst_case["W1"]) < 0.05


def test_an_exact_network_of_zeros_is_decided() -> None:
    """A dead relu: every gradient is exactly 0, nothing can round, and the tolerance is 0 too."""
    p = problem(network((3, 3, 2), ["relu", "identity"], bias=False))
    p.params["W1"] = -np.abs(p.params["W1"])
    dead = Problem(p.spec, p.params, np.abs(p.x), p.y, 0, 0)
    j = judge(dead)
    assert (j.tolerance(ARITHMETICS["float64"]).worst_case["W1"] == 0).all()
    assert verdicts(j.rows(NumpyBackend()))["W1"] == PASS
    loss, grads = NumpyBackend().gradient_function(p.spec, dtype="float64", device="cpu")(dead.params, dead.x, dead.y)
    grads["W1"] = grads["W1"] + 5e-324
    assert verdicts(j.judge_answer("wrong", (loss, grads)))["W1"] == FAIL


def test_a_probability_that_may_be_zero_is_undetermined() -> None:
    """−y/p with p = e^−200 in float32: p underflows, the truth does not."""
    spec = network((1, 2), ["softmax"], "negative_log_likelihood", "sum", bias=False)
    params = {"W1": np.array([[0.0], [200.0]], "float32")}
    p = Problem(spec, params, np.ones((1, 1), "float32"), np.array([0]), 0, 0)
    assert set(verdicts(judge(p).rows(NumpyBackend())).values()) == {UNDETERMINED}


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_class_is_certain_and_its_zeros_are_decided(dtype: str) -> None:
    """softmax of one number is 1 whatever the number: every gradient before it is exactly 0. What e^(z − log e^z)
    rounds is not wrong, and what is larger is.
    """
    for activations, loss in ((["tanh", "softmax"], "squared_error"), (["tanh", "identity"], "cross_entropy")):
        p = problem(network((3, 2, 1), activations, loss), dtype=dtype)
        j = judge(p)
        answer = NumpyBackend().gradient_function(p.spec, dtype=dtype, device="cpu")(p.params, p.x, p.y)
        assert set(verdicts(j.judge_answer("right", answer)).values()) == {PASS}
        for off, verdict in ((np.finfo(dtype).eps / 8, UNDETERMINED), (1e-4, FAIL)):
            answer[1]["W1"][0, 0] = off
            assert verdicts(j.judge_answer("off", answer))["W1"] == verdict


def test_every_assumption_is_stated() -> None:
    for entry in (*ACTIVATIONS.values(), *LOSSES.values()):
        assert entry.value_ulps >= 0
        assert entry.latex
        assert entry.derivative_latex
        assert entry.definition_text
    polynomial = {"identity", "relu"}
    assert all((entry.value_ulps > 0) == (name not in polynomial) for name, entry in ACTIVATIONS.items())


def test_the_statistical_form_does_not_underflow() -> None:
    rows = judge(random_problem(0, 4441, "float64")).rows(NumpyBackend())
    assert FAIL not in {row.verdict for row in rows}


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_saturated_passes_as_0_would_and_is_counted(backend: str) -> None:
    """tanh' is 2.99e-17 at 20; 1 − a² is 0."""
    p = problem(network((1, 2, 1), ["tanh", "identity"], "squared_error", bias=False), n=1)
    p.params["W1"][:], p.x[:] = [[20.0], [0.3]], 1.0
    rows = {row.quantity: row for row in judge(p).rows(backends.load(backend))}
    assert {row.verdict for row in rows.values()} == {PASS}
    assert {name: row.saturated for name, row in rows.items()} == {"loss": 0, "W1": 1, "W2": 0}
    assert rows["W1"].remark == "1 of 2 saturated: held to the absolute accuracy of f'"
    loss, grads = NumpyBackend().gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    for value, verdict in ((0.0, PASS), (1e-14, FAIL)):
        grads["W1"][0, 0] = value
        assert verdicts(judge(p).judge_answer("mine", (loss, grads)))["W1"] == verdict


def test_the_loss_may_be_the_square_of_a_norm() -> None:
    for seed in range(40):
        p = problem(network((2, 3), ["identity"], "squared_error", "sum", bias=False), n=1 + seed % 3, seed=seed)
        _, grads = NumpyBackend().gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
        by_norm = 0.5 * np.linalg.norm(p.x @ p.params["W1"].T - p.y) ** 2
        assert verdicts(judge(p).judge_answer("norm", (by_norm, grads)))["loss"] == PASS
