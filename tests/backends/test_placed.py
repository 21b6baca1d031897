"""Networks placed on a device: every backend's forms give the certified gradient and descend alike."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from networks import judge, network, problem, verdicts

import refimpl_jax
import refimpl_numpy
import refimpl_torch
from refimpl import examples
from refimpl.backend import PlacingBackend, value_and_grad
from refimpl.judge.report import FAIL, PASS
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import random_problem
from refimpl_jax.placed import compiled_gradients

BACKENDS: dict[str, Any] = {
    "numpy": refimpl_numpy.backend, "torch": refimpl_torch.backend, "jax": refimpl_jax.backend,
    "torch-compiled": refimpl_torch.compiled,
}  # fmt: skip
EAGER = ["numpy", "torch", "jax"]
ALL = [*EAGER, pytest.param("torch-compiled", marks=pytest.mark.compiled)]


def place(name: str, p: Any, learning_rate: float = 0.1) -> Any:
    return BACKENDS[name].place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=learning_rate)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_placed_network_gives_the_certified_gradient_again_and_again(name: str, dtype: str) -> None:
    p = problem(examples.article(), 4, dtype=dtype)
    assert isinstance(BACKENDS[name], PlacingBackend)
    with place(name, p) as placed:
        for _ in range(2):
            answer = placed.answer()
            placed.wait(placed.loss())
            assert float(placed.loss()) == pytest.approx(answer[0], rel=1e-6)
            assert set(verdicts(judge(p).judge_answer(name, answer)).values()) == {PASS}
            assert all(array.dtype == dtype for array in answer[1].values())


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, count in (("numpy", 20), ("torch", 20), ("jax", 4)) for i in range(count)]
)
def test_random_networks_are_placed_rightly(name: str, index: int) -> None:
    p = random_problem(7, index, "float64")
    with place(name, p) as placed:
        judged = judge(p).judge_answer(name, placed.answer())
        assert FAIL not in verdicts(judged).values()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_s_leaner_forward_pass_has_every_activation(activation: str) -> None:
    """What JAX runs when it is placed is the program that the suite judges."""
    p = problem(network([3, 4, 2], [activation, "identity"]), 5)
    with place("torch", p) as placed:
        assert set(verdicts(judge(p).judge_answer("torch", placed.answer())).values()) == {PASS}


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_placed_loss_is_that_of_the_gradients(loss: str, reduction: str, name: str) -> None:
    last = "softmax" if loss == "negative_log_likelihood" else "identity"
    p = problem(network([3, 4, 2], ["tanh", last], loss, reduction), 5)
    with place(name, p) as placed:
        answer = placed.answer()
        assert set(verdicts(judge(p).judge_answer(name, answer)).values()) == {PASS}
        assert placed.loss().item() == pytest.approx(answer[0], rel=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_gradient_descent_is_the_same_in_every_form(name: str) -> None:
    p = problem(network([3, 4, 2], ["tanh", "identity"], "cross_entropy"), 6)
    params = {key: array.copy() for key, array in p.params.items()}
    with place(name, p, 0.2) as placed:
        for steps in (1, 7):
            placed.wait(placed.descend(steps))
        after = placed.parameters()
    for _ in range(8):
        _, grads = value_and_grad(p.spec, params, p.x, p.y)
        params = {key: params[key] - 0.2 * grads[key] for key in params}
    for key, array in after.items():
        assert np.allclose(array, params[key], rtol=1e-11, atol=1e-13)
        assert not np.allclose(array, p.params[key], rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_what_a_network_was_placed_with_is_not_touched(name: str) -> None:
    p = problem(examples.article(), 3)
    kept = {key: array.copy() for key, array in p.params.items()}
    with place(name, p) as placed:
        placed.wait(placed.descend(3))
    assert all((kept[key] == p.params[key]).all() for key in kept)


def test_jax_compiles_once_for_a_spec_and_shapes() -> None:
    p = problem(network([5, 3, 2], ["silu", "identity"]), 4)
    program: Any = compiled_gradients(p.spec, "float64")
    for _ in range(2):
        with place("jax", p) as placed:
            placed.answer()
            placed.answer()
        value_and_grad(p.spec, p.params, p.x, p.y, backend=refimpl_jax.backend)
    assert program is compiled_gradients(p.spec, "float64")
    assert program._cache_size() <= 2  # arrays of JAX's and of NumPy's


def test_jax_gives_the_parameters_memory_away() -> None:
    p = problem(examples.article(), 4)
    with place("jax", p) as placed:
        before = placed.leaves
        jax.block_until_ready(placed.descend(2))  # type: ignore[no-untyped-call]
        assert all(leaf.is_deleted() for leaf in before)


@pytest.mark.compiled
def test_more_networks_can_be_compiled_than_torch_keeps_programs_for_one_function() -> None:
    for size in range(2, 12):
        p = problem(network([3, size, 2], ["tanh", "identity"]), 2)
        with place("torch-compiled", p) as placed:
            assert set(verdicts(judge(p).judge_answer("torch-compiled", placed.answer())).values()) == {PASS}


@pytest.mark.compiled
def test_many_parameters_are_compiled_as_they_are() -> None:
    p = problem(network([64, 70, 3], ["relu", "identity"]), 4)
    with place("torch-compiled", p) as placed:
        assert not placed.flat
        assert set(verdicts(judge(p).judge_answer("torch-compiled", placed.answer())).values()) == {PASS}
        placed.wait(placed.descend(2))
        assert set(placed.parameters()) == set(p.params)
