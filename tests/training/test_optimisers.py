"""The update rules against torch.optim and optax, step by step; schedules and limits against their definitions."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refimpl import backend as backends
from refimpl import examples
from refimpl.backend import CHANGE, DIVERGED, GRADIENT_NORM, TARGET_LOSS, Limits, norm_of, reached
from refimpl.training.gradient_trainer import GradientTrainer, initial_state, trainer
from refimpl.training.optimisers import SCHEDULES, UPDATE_RULES

STEPS = 50
OTHERS: dict[str, dict[str, float]] = {
    "gradient_descent": {},
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.8},
    "adam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
}
TORCH: dict[str, Any] = {
    "gradient_descent": lambda p, **k: torch.optim.SGD(p, lr=1.0),
    "momentum": lambda p, momentum: torch.optim.SGD(p, lr=1.0, momentum=momentum),
    "nesterov": lambda p, momentum: torch.optim.SGD(p, lr=1.0, momentum=momentum, nesterov=True),
    "adam": lambda p, beta1, beta2, epsilon: torch.optim.Adam(p, lr=1.0, betas=(beta1, beta2), eps=epsilon),
}
OPTAX: dict[str, Any] = {
    "gradient_descent": lambda rate, **k: optax.sgd(rate),
    "momentum": lambda rate, momentum: optax.sgd(rate, momentum),
    "nesterov": lambda rate, momentum: optax.sgd(rate, momentum, nesterov=True),
    "adam": lambda rate, beta1, beta2, epsilon: optax.adam(rate, beta1, beta2, epsilon),
}


def gradients() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(7) * 10.0 ** rng.integers(-6, 3, 7) for _ in range(STEPS)]


def rates() -> list[float]:
    return [0.1 / (1 + step / 10) for step in range(STEPS)]


def ours(name: str, parameters: dict[str, float]) -> list[np.ndarray]:
    rule, theta = UPDATE_RULES[name], np.linspace(-1, 1, 7)
    buffers = tuple(np.zeros(7) for _ in rule.buffers)
    course = []
    for step, (g, rate) in enumerate(zip(gradients(), rates(), strict=True), start=1):
        theta, buffers = rule.update(theta, g, buffers, rule.coefficients(step, rate, parameters))
        course.append(theta)
    return course


@pytest.mark.parametrize("name", UPDATE_RULES)
@pytest.mark.parametrize("usual", [True, False])
def test_every_step_is_torch_optims_and_optaxs(name: str, usual: bool) -> None:
    parameters = dict(UPDATE_RULES[name].parameters) if usual else OTHERS[name]
    theta = torch.linspace(-1, 1, 7, dtype=torch.float64).requires_grad_()
    optimiser = TORCH[name]([theta], **parameters)
    with jax.enable_x64(True):
        other = jax.numpy.linspace(-1, 1, 7)
        # the rate multiplies last in optax, so that one of its own kind is the rate 1
        transformation = OPTAX[name](1.0, **parameters)
        state = transformation.init(other)
        for own, g, rate in zip(ours(name, parameters), gradients(), rates(), strict=True):
            theta.grad = torch.from_numpy(g)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            updates, state = transformation.update(jax.numpy.asarray(g), state, other)
            other = optax.apply_updates(other, jax.tree.map(lambda u, rate=rate: rate * u, updates))
            np.testing.assert_allclose(own, theta.detach().numpy(), rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(own, np.asarray(other), rtol=1e-12, atol=1e-14)


def test_all_gradients_come_from_the_same_parameters() -> None:
    """One step moves every parameter by −ε of its gradient at the parameters before."""
    spec = examples.article()
    x, y = examples.article_batch()
    params = spec.init(3)
    rule = UPDATE_RULES["gradient_descent"]
    _, before = backends.value_and_grad(spec, params, x, y)
    for name in ("numpy", "torch", "jax"):
        with trainer(backends.load(name), spec, initial_state(spec, params, rule), x, y, rule, "cpu") as training:
            training.run(None, np.array([[0.5]]), Limits(), math.inf)
            after = training.state()
        for key, gradient in before.items():
            np.testing.assert_allclose(after[key], params[key] - 0.5 * gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "parameters", "wanted"),
    [
        ("constant", {}, {0: 1.0, 10**6: 1.0}),
        ("step", {"every": 3.0, "factor": 0.5}, {0: 1.0, 2: 1.0, 3: 0.5, 8: 0.25, 9: 0.125}),
        ("exponential", {"decay": 0.5}, {0: 1.0, 1: 0.5, 4: 0.0625}),
        ("cosine", {"steps": 4.0, "final": 0.2}, {0: 1.0, 2: 0.6, 4: 0.2, 100: 0.2}),
    ],
)
def test_schedules(name: str, parameters: dict[str, float], wanted: dict[int, float]) -> None:
    for done, factor in wanted.items():
        assert SCHEDULES[name][1](done, parameters) == pytest.approx(factor, rel=1e-15)


@given(
    st.floats(-10, 10), st.floats(0, 10), st.floats(-10, 10),
    st.tuples(*[st.floats(-10, 10) for _ in range(3)]), st.floats(-10, 20),
)  # fmt: skip
def test_limits(loss: float, norm: float, previous: float, three: tuple[float, float, float], bound: float) -> None:
    found = reached(loss, norm, previous, Limits(*three, bound))
    if loss > bound:
        assert found == DIVERGED
        return
    assert bool(found & TARGET_LOSS) == (loss <= three[0])
    assert bool(found & GRADIENT_NORM) == (norm <= three[1])
    assert bool(found & CHANGE) == (abs(loss - previous) <= three[2])


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_has_diverged(loss: float, norm: float) -> None:
    assert reached(loss, norm, math.inf, Limits(target_loss=math.inf, gradient_norm=math.inf)) == DIVERGED


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
@pytest.mark.parametrize(
    ("limits", "wanted", "steps"),
    [
        (lambda losses, norms: Limits(), 0, 12),
        (lambda losses, norms: Limits(target_loss=losses[5]), TARGET_LOSS, 5),
        (lambda losses, norms: Limits(gradient_norm=norms[7]), GRADIENT_NORM, 7),
        (lambda losses, norms: Limits(change=(losses[8] - losses[9]) * 1.0001), CHANGE, 9),
        (lambda losses, norms: Limits(target_loss=losses[6], gradient_norm=norms[6]), TARGET_LOSS + GRADIENT_NORM, 6),
        (lambda losses, norms: Limits(bound=losses[0] / 2), DIVERGED, 0),
    ],
)
def test_every_backend_stops_at_the_same_step(name: str, limits: Any, wanted: int, steps: int) -> None:
    spec, rule = examples.article(), UPDATE_RULES["gradient_descent"]
    x, y = examples.article_batch(seed=1)
    state = initial_state(spec, spec.init(1), rule)
    coefficients = np.full((12, 1), 0.05)
    free = GradientTrainer(backends.load("numpy"), spec, state, x, y, rule, "cpu").run(
        None, coefficients, Limits(), math.inf
    )
    slack = 1 + 1e-9  # between backends
    bounds = limits(free.losses * slack, free.norms * slack)
    with trainer(backends.load(name), spec, state, x, y, rule, "cpu") as training:
        leg = training.run(None, coefficients, bounds, math.inf)
        assert (leg.reached, leg.steps) == (wanted, steps)
        np.testing.assert_allclose(leg.losses, free.losses[: len(leg.losses)], rtol=1e-10)
        np.testing.assert_allclose(leg.norms, free.norms[: len(leg.norms)], rtol=1e-10)
        loss, norm = training.measure(x, y)
        if wanted and wanted != DIVERGED:
            assert loss == pytest.approx(free.losses[steps], rel=1e-10)
            assert norm == pytest.approx(free.norms[steps], rel=1e-10)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_divergence_keeps_the_parameters_before_the_last_update(name: str) -> None:
    spec, rule = examples.article(), UPDATE_RULES["gradient_descent"]
    x, y = examples.article_batch(seed=1)
    state = initial_state(spec, spec.init(1), rule)
    with trainer(backends.load(name), spec, state, x, y, rule, "cpu") as training:
        leg = training.run(None, np.full((400, 1), 1e6), Limits(), math.inf)
        assert leg.reached == DIVERGED
        assert 1 < leg.steps < 400
        assert not math.isfinite(leg.losses[-1]) or not math.isfinite(leg.norms[-1])
        assert all(np.isfinite(array).all() for array in training.state().values())
        assert training.measure(x, y) == pytest.approx((leg.losses[-2], leg.norms[-2]), rel=1e-9)


def test_norms_neither_overflow_nor_underflow() -> None:
    assert norm_of([np.array([3e200, 0.0]), np.array([[4e200]])]) == pytest.approx(5e200)
    assert norm_of([np.array([3e-200]), np.array([[4e-200]])]) == pytest.approx(5e-200)
    assert norm_of([np.array([0.0])]) == 0
    assert math.isnan(norm_of([np.array([1.0, math.nan])]))
    assert norm_of([np.array([1.0, -math.inf])]) == math.inf
    assert norm_of([np.array([3e30], np.float32), np.array([4e30], np.float32)]) == pytest.approx(5e30, rel=1e-6)
