"""The recursion read over error bounds: right equations give the truth, and every correct answer lies within."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import DTYPES, judge, network, problem

from refimpl.equations import EQUATIONS
from refimpl.faults import prediction
from refimpl.faults.prediction import Bounded, Reader, Recursion
from refimpl.judge.judge import Judge
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.random_problems import random_problem
from refimpl.truth.graph import Node
from refimpl.truth.graph import given as node
from refimpl_numpy import NumpyBackend


def right(p: Any, j: Judge, dtype: str) -> dict[str, Bounded]:
    equations = [EQUATIONS] * p.spec.depth
    recursion = Recursion(j.batch.targets(p.spec.n_out))
    before = recursion.forward(p.spec, equations)
    ends = {"loss": recursion.cost(p.spec, before, equations), **dict(recursion.backward(p.spec, before, equations))}
    reader = Reader(ARITHMETICS[dtype], {**j.batch.params, "x": j.batch.x})
    with np.errstate(all="ignore"):
        return {name: reader(end) for name, end in ends.items()}


@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_the_truth_and_the_hand_derived_answer_lie_within_the_bounds(index: int, dtype: str) -> None:
    p = random_problem(31, index, dtype)
    j = judge(p)
    outcome = right(p, j, dtype)
    loss, grads = NumpyBackend().gradient_function(p.spec, dtype=dtype, device="cpu")(p.params, p.x, p.y)
    for name, balls in {"loss": j.truth.loss, **{key: j.truth.grads[key] for key in grads}}.items():
        bounded = outcome[name]
        answer = np.asarray(loss if name == "loss" else grads[name], dtype=np.float64)
        finite = np.isfinite(bounded.err)
        assert (np.abs(bounded.mid - balls.mid) <= bounded.err + balls.rad)[finite].all(), f"{name}, truth, {p.index}"
        assert (np.abs(bounded.mid - answer) <= bounded.err)[finite].all(), f"{name}, answer, {p.index}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bounds_are_of_the_size_of_the_tolerance(dtype: str) -> None:
    p = problem(network((4, 3, 3, 2), ["sigmoid", "tanh", "identity"]), dtype=dtype)
    j = judge(p)
    tolerance = j.tolerance(ARITHMETICS[dtype]).worst_case
    for name, bounded in right(p, j, dtype).items():
        ratio = bounded.err / tolerance[name]
        assert 0.5 < np.median(ratio) < 4, f"{name}: {np.median(ratio)}"


FLOAT32 = ARITHMETICS["float32"]
EXACT = Arithmetic("exact", 0.0, 0.0, 0.0, np.inf)


def bounded(
    operation: Any, a: np.ndarray, b: np.ndarray, err: float = 0.0, arithmetic: Arithmetic = FLOAT32
) -> Bounded:
    """An operation on a ± err and b ± err."""
    nodes = node("a", a.shape), node("b", b.shape)
    values = {one: (array.astype(float), np.full(array.shape, err)) for one, array in zip(nodes, (a, b), strict=True)}
    return Reader(arithmetic, {})(operation(*nodes), values)


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
    "mean over samples": lambda a, b: (a * b).sum(axis=0) / len(a),
    "column by column": lambda a, b: (a - b).T.reshape(5, 7),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_covers_float32_and_perturbed_operands(name: str, rng: np.random.Generator) -> None:
    operation = OPERATIONS[name]
    a, b = (rng.standard_normal((5, 7)).astype(np.float32) for _ in range(2))
    exact = bounded(operation, a, b)
    assert (np.abs(exact.mid - operation(a, b)) <= exact.err).all()
    assert exact.err.max() <= 1e-4 * np.abs(exact.mid).max()
    off = 1e-3
    loose = bounded(operation, a, b, off)
    for _ in range(20):
        moved = [array + off * rng.uniform(-1, 1, array.shape) for array in (a, b)]
        assert (np.abs(loose.mid - operation(*moved)) <= loose.err).all()


def test_an_operation_without_rounding_errors_would_be_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (rng.standard_normal((5, 7)).astype(np.float32) for _ in range(2))
    monkeypatch.setattr(prediction, "FLOAT64_ROUNDOFF", 0.0)
    too_good = bounded(OPERATIONS["a @ b.T"], a, b, arithmetic=EXACT)
    assert not (np.abs(too_good.mid - a @ b.T) <= too_good.err).all()


def test_a_divisor_that_may_be_zero_bounds_nothing() -> None:
    assert np.isinf(bounded(lambda a, b: a / b, np.array([1.0]), np.array([0.5]), 0.6).err).all()


def test_an_array_on_the_left_leaves_the_operation_to_the_node() -> None:
    product = np.ones((2, 2)) @ node("a", (2, 2))
    assert isinstance(product, Node)
    read = Reader(FLOAT32, {"a": np.array([[1.0, 2.0], [3.0, 4.0]])})(product)
    assert read.mid.tolist() == [[4.0, 6.0], [4.0, 6.0]]


def test_what_was_read_is_read_again_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations on the same arrays are done once, up to a number of elements: that changes nothing."""
    p = problem(network((4, 3, 3, 2), ["gelu", "softmax", "identity"]))
    j = judge(p)
    once = right(p, j, "float64")
    monkeypatch.setattr(prediction, "ROOM", 0)
    for name, again in right(p, j, "float64").items():
        assert np.array_equal(once[name], again), name
