"""No miss: known mistakes, planted in one equation at one layer of the hand-derived backprop, each FAIL in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import judge, network, problem

from refimpl.agreement import Judge
from refimpl.equations import EQUATIONS, Equations
from refimpl.report import FAIL, PASS
from refimpl.sampling import Problem
from refimpl_numpy import NumpyBackend
from refimpl_numpy.functions import ACTIVATION_SLOPES

DEPTH = 3


class Planting:
    """One problem, its right intermediate values, and the rows of a backend with a mistake planted at one layer."""

    def __init__(self, p: Problem) -> None:
        self.p, self.judge = p, Judge(p.spec, judge(p).batch)
        self.values = NumpyBackend().intermediates_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
        self.values["a1"] = p.x.reshape(len(p.x), -1)

    def verdict(self, layer: int, **wrong: Callable[..., Any]) -> str:
        equations = [EQUATIONS] * self.p.spec.depth
        equations[layer - 1] = replace(EQUATIONS, **wrong)
        rows = self.judge.rows(NumpyBackend(equations))
        return FAIL if any(row.verdict == FAIL for row in rows) else PASS

    def slope(self, layer: int, at: str) -> np.ndarray:
        activation = self.p.spec.layers[layer - 2].activation
        return ACTIVATION_SLOPES[activation.name](self.values[f"{at}{layer}"], **activation.kwargs)


def plantings(activation: str = "sigmoid", loss: str = "squared_error", reduction: str = "mean") -> Iterator[Planting]:
    """Square layers, so that a transposed W fits everywhere, and N ≠ n."""
    yield from (
        Planting(problem(network((3, 3, 3, 3), [activation] * DEPTH, loss, reduction), n=5, seed=seed))
        for seed in range(3)
    )


def at_every_layer(fault: Callable[[Planting, int], dict[str, Callable[..., Any]] | None], **kwargs: str) -> None:
    planted = 0
    for planting in plantings(**kwargs):
        for layer in range(1, DEPTH + 1):
            wrong = fault(planting, layer)
            if wrong:
                planted += 1
                assert planting.verdict(layer, **wrong) == FAIL, f"layer {layer}, seed {planting.p.seed}"
    assert planted


def test_the_right_equations_pass() -> None:
    for planting in plantings():
        assert planting.verdict(1) == PASS


def scaled(name: str, factor: float) -> dict[str, Callable[..., Any]]:
    right = getattr(EQUATIONS, name)
    return {name: lambda *args: factor * right(*args)}


@pytest.mark.parametrize("equation", ["weight_gradient", "bias_gradient"])
@pytest.mark.parametrize(
    ("mistake", "factor"),
    [("sign", -1.0), ("factor 2", 2.0), ("half", 0.5), ("no division by N", 5.0), ("division by N twice", 0.2)],
)
def test_scaled_gradients_fail(equation: str, mistake: str, factor: float) -> None:
    at_every_layer(lambda planting, layer: scaled(equation, factor))


@pytest.mark.parametrize(
    ("mistake", "factor"), [("sign", -1.0), ("factor 2", 2.0), ("no division by N", 5.0), ("division by N twice", 0.2)]
)
def test_scaled_error_signals_fail(mistake: str, factor: float) -> None:
    at_every_layer(
        lambda planting, layer: (
            scaled("output_error" if layer == DEPTH else "hidden_error", factor) if layer > 1 else None
        )
    )


def test_untransposed_W_in_the_propagation_fails() -> None:
    def fault(planting: Planting, layer: int) -> dict[str, Callable[..., Any]] | None:
        return {"hidden_error": lambda W, delta, z, a, vjp: vjp(z, a, delta @ W.T)} if layer > 1 else None

    at_every_layer(fault)


def test_a_dropped_slope_fails() -> None:
    def fault(planting: Planting, layer: int) -> dict[str, Callable[..., Any]] | None:
        if layer == DEPTH:
            return {"output_error": lambda dC_ds, z, a, vjp: dC_ds}
        return {"hidden_error": lambda W, delta, z, a, vjp: delta @ W} if layer > 1 else None

    at_every_layer(fault)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus", "gelu", "silu", "elu", "softsign"])
def test_the_slope_at_a_instead_of_z_fails(activation: str) -> None:
    def fault(planting: Planting, layer: int) -> dict[str, Callable[..., Any]] | None:
        if layer == DEPTH:
            return {"output_error": lambda dC_ds, z, a, vjp: vjp(a, a, dC_ds)}
        return {"hidden_error": lambda W, delta, z, a, vjp: vjp(a, a, delta @ W)} if layer > 1 else None

    at_every_layer(fault, activation=activation)


def test_an_averaged_bias_gradient_fails() -> None:
    at_every_layer(lambda planting, layer: {"bias_gradient": lambda delta: delta.mean(axis=0)})


def test_only_the_last_sample_fails() -> None:
    at_every_layer(lambda planting, layer: {"weight_gradient": lambda delta, a: delta[-1:].T @ a[-1:]})
    at_every_layer(lambda planting, layer: {"bias_gradient": lambda delta: delta[-1]})


def test_z_instead_of_a_in_the_weight_gradient_fails() -> None:
    def fault(planting: Planting, layer: int) -> dict[str, Callable[..., Any]] | None:
        return {"weight_gradient": lambda delta, a: delta.T @ planting.values[f"z{layer}"]} if layer > 1 else None

    at_every_layer(fault)


def test_a_W_updated_before_propagating_fails() -> None:
    def fault(planting: Planting, layer: int) -> dict[str, Callable[..., Any]] | None:
        step = 0.1 * planting.judge.truth.grads[f"W{layer}"].mid
        return {"hidden_error": lambda W, delta, z, a, vjp: vjp(z, a, delta @ (W - step))} if layer > 1 else None

    at_every_layer(fault)


def test_a_diagonal_softmax_jacobian_fails() -> None:
    def diagonal(z: Any, a: Any, dC_da: Any) -> Any:
        return dC_da * a * (1 - a)

    def fault(planting: Planting, layer: int) -> dict[str, Callable[..., Any]] | None:
        if layer == DEPTH:
            return {"output_error": lambda dC_ds, z, a, vjp: diagonal(z, a, dC_ds)}
        return {"hidden_error": lambda W, delta, z, a, vjp: diagonal(z, a, delta @ W)} if layer > 1 else None

    at_every_layer(fault, activation="softmax")


def test_a_mistake_at_one_layer_leaves_the_layers_after_it_right() -> None:
    planting = next(plantings())
    equations = [EQUATIONS, Equations(weight_gradient=lambda delta, a: -delta.T @ a), EQUATIONS]
    verdicts = {row.quantity: row.verdict for row in planting.judge.rows(NumpyBackend(equations))}
    assert verdicts == {"loss": PASS, "W1": PASS, "b1": PASS, "W2": FAIL, "b2": PASS, "W3": PASS, "b3": PASS}
