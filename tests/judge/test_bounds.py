"""The bounds of graphs: right evaluations lie within, mistakes in float32 outside, estimates err on the wide side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from networks import judge, network, problem
from programs import ALL, InFloat32, numbers, program
from scipy import stats

from refimpl import value_and_grad
from refimpl.judge import first_order as module
from refimpl.judge.bounds import Tolerance, bounds
from refimpl.judge.first_order import cells
from refimpl.network.arithmetic import ARITHMETICS, PRESETS
from refimpl.network.random_problems import Problem
from refimpl.truth.elementwise import activation
from refimpl.truth.gradients import gradients
from refimpl.truth.graph import apply, given, log_sum_exp, normalise, read
from refimpl.truth.network import network_graph
from refimpl.truth.numbers import NumberAlgebra

FLOAT32, FLOAT64 = ARITHMETICS["float32"], ARITHMETICS["float64"]
Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize("name", list(ALL))
@over(seed=st.integers(0, 10**6))
def test_a_float32_evaluation_lies_within_every_bound(name: str, seed: int) -> None:
    at = {key: array.astype(np.float32).astype(np.float64) for key, array in numbers(seed).items()}
    ends = {str(index): end for index, end in enumerate(program(name))}
    true, off = read(ends.values(), InFloat32(at, seed)), bounds(ends, at, FLOAT32)
    right = read(ends.values(), InFloat32.__base__(at))  # type: ignore[misc]
    for key, end in ends.items():
        error = np.abs(true[end] - right[end])
        assert (error <= off.worst_case[key]).all()
        assert (error <= off.statistical[key]).all()
        assert (off.statistical[key] <= off.worst_case[key]).all()


@pytest.mark.parametrize("name", list(ALL))
def test_estimated_norms_are_no_smaller_than_those_from_all_sensitivities(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = numbers(7)
    ends = {str(index): end for index, end in enumerate(program(name))}
    exact = bounds(ends, at, FLOAT64)
    monkeypatch.setattr(module, "EXACT", 0)
    estimated = bounds(ends, at, FLOAT64, seed=3)
    again = bounds(ends, at, FLOAT64, seed=3)
    for key in ends:
        assert (estimated.statistical[key] >= exact.statistical[key] * (1 - 1e-9)).all()
        assert np.array_equal(estimated.statistical[key], again.statistical[key])


def of_network(sizes: tuple[int, ...], hidden: str, n: int, seed: int = 0) -> tuple[Problem, Tolerance]:
    """A classifier in float32, its parameters, a random batch, and the bounds of its gradients."""
    spec = network(sizes, [hidden] * (len(sizes) - 2) + ["identity"], "cross_entropy")
    params, rng = spec.init(seed, "float32", "he_normal"), np.random.default_rng(seed)
    x, y = rng.standard_normal((n, sizes[0])).astype("float32"), rng.integers(sizes[-1], size=n)
    graph = network_graph(spec, np.eye(sizes[-1])[y])
    names = list(params)
    ends = dict(zip(names, gradients(graph.loss, [graph.inputs[name] for name in names]), strict=True))
    with np.errstate(all="ignore"):
        return Problem(spec, params, x, y, 0, 0), bounds(ends, {**params, "x": x}, FLOAT32, n)


def outside(problem: Problem, found: Tolerance, grads: Arrays) -> int:
    truth = judge(problem).truth.grads
    return sum(int((truth[name].distance(grad) > found.statistical_across[name]).sum()) for name, grad in grads.items())


def fewer_bits(array: np.ndarray, dropped: int) -> np.ndarray:
    """float32 with so many bits less of its significand, to nearest."""
    scale = np.float32(2.0**dropped + 1)
    return (array * scale) - (array * scale - array)


def by_hand(problem: Problem, bits: int) -> Arrays:
    """Backpropagation through relu whose products take factors with `bits` bits less."""
    params, x = problem.params, problem.x

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return fewer_bits(a, bits) @ fewer_bits(b, bits) if bits else a @ b

    z = product(x, params["W1"].T) + params["b1"]
    a = np.maximum(z, 0)
    s = product(a, params["W2"].T) + params["b2"]
    e = np.exp(s - s.max(axis=1, keepdims=True))
    delta = (e / e.sum(axis=1, keepdims=True) - np.eye(s.shape[1], dtype="float32")[problem.y]) / np.float32(len(x))
    before = product(delta, params["W2"]) * (z > 0)
    return {
        "W1": product(before.T, x), "b1": before.sum(axis=0), "W2": product(delta.T, a), "b2": delta.sum(axis=0),
    }  # fmt: skip


@pytest.mark.parametrize(("sizes", "n"), [((64, 32, 16, 10), 32), ((256, 128, 10), 64)])
def test_small_mistakes_in_float32_lie_outside(sizes: tuple[int, ...], n: int) -> None:
    problem, found = of_network(sizes, "tanh", n)
    _, grads = value_and_grad(problem.spec, problem.params, problem.x, problem.y, backend="numpy")
    assert outside(problem, found, grads) == 0
    assert outside(problem, found, {name: grad * np.float32(1 - 1e-4) for name, grad in grads.items()}) > 0
    decayed = {name: grad + np.float32(1e-5) * problem.params[name] for name, grad in grads.items() if name[0] == "W"}
    assert outside(problem, found, decayed) > 0
    _, fewer = value_and_grad(problem.spec, problem.params, problem.x[:-1], problem.y[:-1], backend="numpy")
    short = {"b1": fewer["b1"] * np.float32((n - 1) / n)}
    assert outside(problem, found, short) >= 0.9 * len(short["b1"])


def test_products_in_tf32_or_bfloat16_lie_outside_and_in_float32_within() -> None:
    problem, found = of_network((256, 128, 10), "relu", 64)
    assert outside(problem, found, by_hand(problem, 0)) == 0
    assert outside(problem, found, by_hand(problem, 13)) > 10_000
    assert outside(problem, found, by_hand(problem, 16)) > 10_000


def test_a_sum_of_equal_terms_errs_like_their_number_and_is_granted_that_where_repeats_are_looked_for() -> None:
    """√n is false there: each addition rounds alike."""
    n = 16384
    terms = given("terms", (n,))
    at = {"terms": np.full(n, np.float32(0.1))}
    total = float(np.cumsum(at["terms"], dtype=np.float32)[-1])
    error = abs(total - n * float(np.float32(0.1)))
    plain, looked = (bounds({"sum": terms.sum()}, at, FLOAT32, repeated=repeated) for repeated in (False, True))
    assert error > plain.statistical["sum"]
    assert error <= looked.statistical["sum"] <= looked.worst_case["sum"]


def test_a_plain_loop_in_a_norm_or_a_log_sum_exp_is_far_within_in_every_one_of_many_rows(
    rng: np.random.Generator,
) -> None:
    """An error of a row's sum is all its elements' alike: √n without λ is not enough for it."""
    short = rng.standard_normal((3000, 256)).astype(np.float32)
    x, shifted = given("x", short.shape), short - short.max(axis=1, keepdims=True)

    def loop(terms: np.ndarray) -> np.ndarray:
        return np.cumsum(terms, axis=1, dtype=np.float32)[:, -1:]

    looped = {
        "norm": short / np.sqrt(loop(short * short) / np.float32(256) + np.float32(1e-5)),
        "log_sum_exp": np.log(loop(np.exp(shifted))) + short.max(axis=1, keepdims=True),
    }
    ends = {"norm": normalise(x, 1e-5, centred=False), "log_sum_exp": log_sum_exp(x)}
    at = {"x": short.astype(np.float64)}
    off, right = bounds(ends, at, FLOAT32), read(ends.values(), NumberAlgebra(at))
    for key, end in ends.items():
        assert (np.abs(looped[key] - right[end]) <= 0.35 * off.statistical[key]).all()
        assert (off.statistical[key] <= off.worst_case[key]).all()


def test_terms_that_do_not_repeat_are_granted_no_more_for_having_been_looked_at(rng: np.random.Generator) -> None:
    a, b = given("a", (3, 50)), given("b", (50, 4))
    at: dict[str, Any] = {"a": rng.standard_normal((3, 50)), "b": rng.standard_normal((50, 4))}
    plain, looked = (bounds({"product": a @ b}, at, FLOAT64, repeated=repeated) for repeated in (False, True))
    assert (looked.statistical["product"] <= 1.01 * plain.statistical["product"]).all()


def test_a_kink_within_reach_is_granted_its_jump_and_one_beyond_is_not() -> None:
    z, w = given("z", (3, 2)), given("w", (2,))
    a = apply(activation("relu"), z @ w.reshape(2, 1))
    ends = {"dz": gradients(a.sum(), [z])[0]}
    at = {"z": np.array([[1.0, -1.0], [1.0, -1.0 + 1e-9], [3.0, 1.0]]), "w": np.array([0.1, 0.1])}
    found = bounds(ends, at, FLOAT32)
    assert (found.statistical["dz"] < 1e-7).all()
    assert (found.statistical_across["dz"][:2] >= 0.1).all()
    assert (found.statistical_across["dz"][2] < 1e-7).all()


def test_what_stores_to_one_number_is_one_cell() -> None:
    u = 2.0**-24
    values = np.array([1.0, 1.0 + u / 4, 1.0 + 8 * u, -1.0, 2.0, 0.0])
    cell = cells(values, u)
    assert cell[0] == cell[1]
    assert len(set(cell.tolist())) == 5


def test_confidence_limits_hold() -> None:
    for chance in (1e-3, 1e-17):
        assert stats.chi2.cdf(module._chi_square(chance) * module.DRAWS, module.DRAWS) <= chance
    rng = np.random.default_rng(5)
    means = np.array([np.sqrt(np.abs(rng.standard_cauchy(module.DRAWS))).mean() for _ in range(20000)])
    low = np.sqrt(module._root_moment(0.01))
    assert np.mean(means < low) <= 0.01
    assert 0.5 < low < np.median(means)


def test_a_number_below_float64s_range_beside_a_kink_is_on_either_side() -> None:
    x = given("x", (1,))
    a = apply(activation("leaky_relu", (("negative_slope", 0.5),)), apply(activation("softplus"), x) + given("b", (1,)))
    (db,) = gradients(a.sum(), [a.inputs[0].inputs[1]])
    found = bounds({"db": db}, {"x": np.array([-800.0]), "b": np.zeros(1)}, FLOAT64)
    assert found.statistical_across["db"] >= 0.5
    assert found.across_kinks["db"] >= 0.5


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_draws_carried_in_pieces_say_what_all_at_once_say(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """But for other draws: the estimates of norms from 128 differ by some tenths at most. Of a large end Σ of norms is
    taken.
    """
    p = problem(network((64, 32, 16, 10), ["tanh", "relu", "identity"], "cross_entropy"), n=32, dtype="float32")
    whole = judge(p).tolerance(PRESETS[name]).statistical
    monkeypatch.setattr("refimpl.judge.first_order.AT_ONCE", 2**15)
    for key, bound in judge(p).tolerance(PRESETS[name]).statistical.items():
        some = whole[key] > 0
        assert np.array_equal(bound > 0, some)
        assert 0.7 < np.median(bound[some] / whole[key][some]) < 1.4
