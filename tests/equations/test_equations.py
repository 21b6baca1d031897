"""The equations against the derivation's own index form, one function at a time, and the order in which the
NumPy backend runs them.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import BACKENDS, network, problem

from refimpl import backend as backends
from refimpl.equations import EQUATIONS, Equations, dense
from refimpl.formats.errors import BackendError
from refimpl_numpy import NumpyBackend

DERIVED = Path(__file__).resolve().parents[2] / "docs" / "equations.md"
N, IN, OUT = 5, 3, 4


@pytest.fixture
def layer(rng: np.random.Generator) -> dict[str, Any]:
    """Small integers, N ≠ in ≠ out: sums are exact in any order, and a transposed product does not fit."""
    shapes = {"a": (N, IN), "W": (OUT, IN), "b": (OUT,), "z": (N, OUT), "delta": (N, OUT), "dC_da": (N, OUT)}
    return {name: rng.integers(-4, 5, shape).astype(np.float64) for name, shape in shapes.items()}


def by_index(shape: tuple[int, ...], element: Callable[..., float]) -> list[Any]:
    return np.array([element(*index) for index in np.ndindex(shape)]).reshape(shape).tolist()


def test_E1_weighted_input(layer: dict[str, Any]) -> None:
    a, W, b = layer["a"], layer["W"], layer["b"]
    without = by_index((N, OUT), lambda n, j: sum(W[j, k] * a[n, k] for k in range(IN)))
    assert dense.weighted_input(a, W, None).tolist() == without
    assert dense.weighted_input(a, W, b).tolist() == by_index((N, OUT), lambda n, j: without[n][j] + b[j])


def test_E2_activation(layer: dict[str, Any]) -> None:
    assert dense.activation(layer["z"], lambda z: z * z).tolist() == by_index(
        (N, OUT), lambda n, j: layer["z"][n, j] ** 2
    )


@pytest.mark.parametrize(
    "losses", [np.array([1.0, 2.0, 6.0, 3.0]), np.array([[0.5, 0.5], [1.0, 1.0], [2.0, 4.0], [3.0, 0.0]])]
)
def test_E3_cost_is_the_sum_or_its_mean_over_samples_not_outputs(losses: Any) -> None:
    assert dense.cost(losses, "sum") == 12
    assert dense.cost(losses, "mean") == 3


def test_E3_the_gradient_of_the_cost_divides_by_N_once(layer: dict[str, Any]) -> None:
    assert dense.cost_gradient(layer["delta"], "sum").tolist() == layer["delta"].tolist()
    assert dense.cost_gradient(layer["delta"], "mean").tolist() == (layer["delta"] / N).tolist()


def test_B1_output_error_gives_the_vjp_z_a_and_dC_ds_in_this_order(layer: dict[str, Any]) -> None:
    z, a, dC_ds = layer["z"], layer["z"] + 100, layer["dC_da"]
    assert (
        dense.output_error(dC_ds, z, a, lambda z, a, dC_da: z + 10 * a + 1000 * dC_da).tolist()
        == (z + 10 * a + 1000 * dC_ds).tolist()
    )


def test_B2_hidden_error(layer: dict[str, Any]) -> None:
    W, delta, z = layer["W"], layer["delta"], layer["a"]
    a = z + 100
    dC_da = by_index((N, IN), lambda n, k: sum(delta[n, j] * W[j, k] for j in range(OUT)))
    found = dense.hidden_error(W, delta, z, a, lambda z, a, dC_da: z + 10 * a + 1000 * dC_da)
    assert found.tolist() == (z + 10 * a + 1000 * np.array(dC_da)).tolist()


def test_B3_weight_gradient(layer: dict[str, Any]) -> None:
    a, delta = layer["a"], layer["delta"]
    assert dense.weight_gradient(delta, a).tolist() == by_index(
        (OUT, IN), lambda j, k: sum(delta[n, j] * a[n, k] for n in range(N))
    )


def test_B4_bias_gradient(layer: dict[str, Any]) -> None:
    assert dense.bias_gradient(layer["delta"]).tolist() == by_index(
        (OUT,), lambda j: sum(layer["delta"][n, j] for n in range(N))
    )


def test_B5_input_gradient(layer: dict[str, Any]) -> None:
    W, delta = layer["W"], layer["delta"]
    assert dense.input_gradient(delta, W).tolist() == by_index(
        (N, IN), lambda n, k: sum(delta[n, j] * W[j, k] for j in range(OUT))
    )


def test_the_worked_example_of_the_article() -> None:
    """∂C/∂w²_22 = ∂C/∂a³_2 · f'(z³_2) · a²_2 with ∂C/∂a³_2 = ∂C/∂s · w³_12, on 4-2-2-1 and one sample."""
    p = problem(network((4, 2, 2, 1), ["sigmoid", "sigmoid", "identity"]), n=1)
    values = NumpyBackend().intermediates_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    _, grads = NumpyBackend().gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    dC_ds, slope = values["a4"][0, 0] - p.y[0, 0], np.exp(-values["z3"][0, 1]) / (1 + np.exp(-values["z3"][0, 1])) ** 2
    expected = dC_ds * p.params["W3"][0, 1] * slope * values["a2"][0, 1]
    assert grads["W2"][1, 1] == pytest.approx(expected, rel=1e-14)


def test_every_equation_is_an_entry_and_cites_its_number() -> None:
    functions = {
        name: value
        for name, value in vars(dense).items()
        if inspect.isfunction(value) and value.__module__ == dense.__name__
    }
    assert [field.name for field in fields(Equations)] == list(functions)
    for name, function in functions.items():
        assert getattr(EQUATIONS, name) is function
        assert (function.__doc__ or "").startswith(("(E", "(B")), name
    text = DERIVED.read_text()
    assert all(f"({(function.__doc__ or '')[1:3]})" in text for function in functions.values())


def test_the_equations_import_nothing_but_types() -> None:
    """No framework, no autodiff, no backend: printed, the file is complete."""
    tree = ast.parse(inspect.getsource(dense))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "collections.abc", "dataclasses", "typing", "numpy.typing"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


def recorded(spec: Any, p: Any, run: str) -> list[tuple[int, str]]:
    """(layer, equation) in the order in which the backend runs them."""
    calls: list[tuple[int, str]] = []

    def noting(number: int, name: str) -> Callable[..., Any]:
        right = getattr(EQUATIONS, name)
        return lambda *args: (calls.append((number, name)), right(*args))[1]

    noted = [
        Equations(**{field.name: noting(number, field.name) for field in fields(Equations)})
        for number in range(1, spec.depth + 1)
    ]
    getattr(NumpyBackend(noted), run)(spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    return calls


def test_the_backward_pass_runs_from_the_output_to_the_input() -> None:
    p = problem(network((3, 2, 2), ["tanh", "identity"]))
    forward = [(1, "weighted_input"), (1, "activation"), (2, "weighted_input"), (2, "activation")]
    backward = [
        (2, "cost_gradient"),
        (2, "output_error"),
        (2, "weight_gradient"),
        (2, "bias_gradient"),
        (2, "hidden_error"),
        (1, "weight_gradient"),
        (1, "bias_gradient"),
    ]
    assert recorded(p.spec, p, "gradient_function") == [*forward, *backward, (2, "cost")]
    assert recorded(p.spec, p, "input_gradient_function")[-1] == (1, "input_gradient")


def test_a_layer_without_bias_has_no_bias_gradient() -> None:
    p = problem(network((3, 2, 2), ["tanh", "identity"], bias=False))
    assert not [name for _, name in recorded(p.spec, p, "gradient_function") if name == "bias_gradient"]


@pytest.mark.parametrize(
    ("wrong", "factor"),
    [(lambda slopes, reduction: slopes, N), (lambda slopes, reduction: slopes / len(slopes) ** 2, 1 / N)],
    ids=["forgotten", "repeated"],
)
def test_a_forgotten_or_repeated_division_by_N_scales_every_gradient(wrong: Callable[..., Any], factor: float) -> None:
    p = problem(network((3, 2, 2), ["tanh", "identity"]), n=N)
    planted = NumpyBackend([EQUATIONS, replace(EQUATIONS, cost_gradient=wrong)])
    loss, grads = planted.gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    right_loss, right = NumpyBackend().gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
    assert loss == right_loss
    for name, grad in grads.items():
        assert grad == pytest.approx(factor * right[name], rel=1e-13)


def test_equations_must_be_one_a_layer() -> None:
    p = problem(network((3, 2, 2), ["tanh", "identity"]))
    for run in ("gradient_function", "input_gradient_function", "intermediates_function"):
        with pytest.raises(BackendError, match="equations has 1 entries; the network has 2 layers"):
            getattr(NumpyBackend([EQUATIONS]), run)(p.spec, dtype="float64", device="cpu")


def test_the_gradients_come_in_the_order_of_the_parameters() -> None:
    p = problem(network((3, 2, 2), ["tanh", "identity"]))
    for name in BACKENDS:
        _, grads = backends.load(name).gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
        assert list(grads) == list(p.spec.parameter_shapes)
