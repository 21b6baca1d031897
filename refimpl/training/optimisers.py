"""The update rules by which parameters move, and the schedules of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from refimpl.backend.training import Coefficients, UpdateRule


def _descend(theta: Any, g: Any, buffers: tuple[Any, ...], c: Coefficients) -> tuple[Any, tuple[Any, ...]]:
    return theta - c[0] * g, ()


def _momentum(theta: Any, g: Any, buffers: tuple[Any, ...], c: Coefficients) -> tuple[Any, tuple[Any, ...]]:
    velocity = c[1] * buffers[0] + g
    return theta - c[0] * velocity, (velocity,)


def _nesterov(theta: Any, g: Any, buffers: tuple[Any, ...], c: Coefficients) -> tuple[Any, tuple[Any, ...]]:
    velocity = c[1] * buffers[0] + g
    return theta - c[0] * (g + c[1] * velocity), (velocity,)


def _adam(theta: Any, g: Any, buffers: tuple[Any, ...], c: Coefficients) -> tuple[Any, tuple[Any, ...]]:
    rate, beta1, rest1, beta2, rest2, correction1, correction2, epsilon = c
    mean = beta1 * buffers[0] + rest1 * g
    square = beta2 * buffers[1] + rest2 * (g * g)
    return theta - rate * ((mean * correction1) / ((square * correction2) ** 0.5 + epsilon)), (mean, square)


def _adam_coefficients(step: int, rate: float, parameters: Mapping[str, float]) -> tuple[float, ...]:
    beta1, beta2 = parameters["beta1"], parameters["beta2"]
    corrections = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    return rate, beta1, 1 - beta1, beta2, 1 - beta2, *corrections, parameters["epsilon"]


def _momentum_coefficients(step: int, rate: float, parameters: Mapping[str, float]) -> tuple[float, ...]:
    return rate, parameters["momentum"]


UPDATE_RULES: dict[str, UpdateRule] = {
    rule.name: rule
    for rule in (
        UpdateRule(
            "gradient_descent", {}, (), lambda step, rate, parameters: (rate,), _descend,
            r"\theta \leftarrow \theta - \varepsilon\,\nabla C",
        ),
        # B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964
        UpdateRule(
            "momentum", {"momentum": 0.9}, ("velocity",), _momentum_coefficients, _momentum,
            r"v \leftarrow \mu v + \nabla C,\quad \theta \leftarrow \theta - \varepsilon v",
        ),
        # I. Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013
        UpdateRule(
            "nesterov", {"momentum": 0.9}, ("velocity",), _momentum_coefficients, _nesterov,
            r"v \leftarrow \mu v + \nabla C,\quad \theta \leftarrow \theta - \varepsilon(\nabla C + \mu v)",
        ),
        # D. Kingma & J. Ba, "Adam: a method for stochastic optimization", 2015, Algorithm 1
        UpdateRule(
            "adam", {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}, ("mean", "square"), _adam_coefficients, _adam,
            r"m \leftarrow \beta_1 m + (1-\beta_1)\nabla C,\quad v \leftarrow \beta_2 v + (1-\beta_2)(\nabla C)^2,\quad"
            r"\theta \leftarrow \theta - \varepsilon\,\frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)}+\epsilon}",
        ),
    )
}  # fmt: skip


# The learning rate: ε times a factor that depends on the number of steps done before


def _step(done: int, parameters: Mapping[str, float]) -> float:
    return parameters["factor"] ** (done // max(int(parameters["every"]), 1))


def _exponential(done: int, parameters: Mapping[str, float]) -> float:
    return parameters["decay"] ** done


def _cosine(done: int, parameters: Mapping[str, float]) -> float:
    # I. Loshchilov & F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, without restarts
    part = min(done / max(parameters["steps"], 1), 1.0)
    return parameters["final"] + (1 - parameters["final"]) * (1 + math.cos(math.pi * part)) / 2


Schedule = Callable[[int, Mapping[str, float]], float]
SCHEDULES: dict[str, tuple[Mapping[str, float], Schedule]] = {
    "constant": ({}, lambda done, parameters: 1.0),
    "step": ({"every": 1000.0, "factor": 0.5}, _step),
    "exponential": ({"decay": 0.999}, _exponential),
    "cosine": ({"steps": 1000.0, "final": 0.0}, _cosine),
}
