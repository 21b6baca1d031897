"""Arrays that carry their rounding errors: right equations give the truth, and every correct answer lies within."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DTYPES, judge, network, problem

from refimpl.equations import EQUATIONS
from refimpl.judge.judge import Judge
from refimpl.judge.rounding import Bounded, Functions, Pass, forward, propagate
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.random_problems import random_problem
from refimpl_numpy import NumpyBackend


def right(p: Any, j: Judge, dtype: str) -> Pass:
    equations, functions = [EQUATIONS] * p.spec.depth, Functions(ARITHMETICS[dtype])
    known = forward(p.spec, j.batch.params, j.batch.x, j.batch.targets(p.spec.n_out), equations, functions)
    return propagate(p.spec, known, equations, functions)


@settings(max_examples=60)
@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_the_truth_and_the_hand_derived_answer_lie_within_the_bounds(index: int, dtype: str) -> None:
    p = random_problem(31, index, dtype)
    j = judge(p)
    outcome = right(p, j, dtype)
    loss, grads = NumpyBackend().gradient_function(p.spec, dtype=dtype, device="cpu")(p.params, p.x, p.y)
    for name, balls in {"loss": j.truth.loss, **{key: j.truth.grads[key] for key in grads}}.items():
        bounded = outcome.loss if name == "loss" else outcome.grads[name]
        answer = np.asarray(loss if name == "loss" else grads[name], dtype=np.float64)
        finite = np.isfinite(bounded.err)
        assert (np.abs(bounded.mid - balls.mid) <= bounded.err + balls.rad)[finite].all(), f"{name}, truth, {p.index}"
        assert (np.abs(bounded.mid - answer) <= bounded.err)[finite].all(), f"{name}, answer, {p.index}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bounds_are_of_the_size_of_the_tolerance(dtype: str) -> None:
    p = problem(network((4, 3, 3, 2), ["sigmoid", "tanh", "identity"]), dtype=dtype)
    j = judge(p)
    tolerance = j.tolerance(ARITHMETICS[dtype]).worst_case
    outcome = right(p, j, dtype)
    for name, bounded in outcome.grads.items():
        ratio = bounded.err / tolerance[name]
        assert 0.5 < np.median(ratio) < 4, f"{name}: {np.median(ratio)}"


def bounded(values: Any, err: float = 0.0, u: float = 2.0**-24) -> Bounded:
    mid = np.asarray(values, dtype=np.float64)
    return Bounded(mid, np.full(mid.shape, err), u, 2.0**-149)


OPERATIONS = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a @ b.T": lambda a, b: a @ b.T,
    "sum over samples": lambda a, b: (a * b).sum(axis=0),
    "sum over everything": lambda a, b: (a * b).sum(),
    "1 - a": lambda a, b: 1.0 - a,
    "-a[-1:]": lambda a, b: -a[-1:],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_covers_float32_and_perturbed_operands(name: str, rng: np.random.Generator) -> None:
    operation = OPERATIONS[name]
    a, b = (rng.standard_normal((5, 7)).astype(np.float32) for _ in range(2))
    exact = operation(bounded(a), bounded(b))
    assert (np.abs(exact.mid - operation(a, b)) <= exact.err).all()
    assert exact.err.max() <= 1e-4 * np.abs(exact.mid).max()
    off = 1e-3
    loose = operation(bounded(a, off), bounded(b, off))
    for _ in range(20):
        moved = [array + off * rng.uniform(-1, 1, array.shape) for array in (a, b)]
        assert (np.abs(loose.mid - operation(*moved)) <= loose.err).all()


def test_an_operation_without_rounding_errors_would_be_caught(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal((5, 7)).astype(np.float32) for _ in range(2))
    too_good = bounded(a, u=0.0) @ bounded(b, u=0.0).T
    assert not (np.abs(too_good.mid - a @ b.T) <= too_good.err).all()


def test_a_divisor_that_may_be_zero_bounds_nothing() -> None:
    assert np.isinf((bounded([1.0]) / bounded([0.5], 0.6)).err).all()


def test_an_array_on_the_left_leaves_the_operation_to_the_bounded_one() -> None:
    product = np.ones((2, 2)) @ bounded([[1.0, 2.0], [3.0, 4.0]])
    assert isinstance(product, Bounded)
    assert product.mid.tolist() == [[4.0, 6.0], [4.0, 6.0]]
