"""One step of training: the update rules, learning-rate schedules, and the limits that end a run at a step.

An update rule is written once, with operators that NumPy's, PyTorch's and JAX's arrays share, and is pure: all
gradients come from the same parameters, then all parameters are replaced (the article writes the updates one after
the other, which is not gradient descent). What a rule needs of the number of the step is computed in float64 on the
host, a row of coefficients a step, so that every backend multiplies by the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Coefficients = Any  # a row of floats, or an array of the framework
Update = Callable[[Any, Any, tuple[Any, ...], Coefficients], tuple[Any, tuple[Any, ...]]]


@dataclass(frozen=True, eq=False)
class UpdateRule:
    """How a parameter moves.

    `parameters`: name to default. `buffers`: arrays of the parameter's shape that it keeps from step to step, zeros
    at first. `coefficients(step, rate, parameters)`: what step `step` ≥ 1 multiplies by. `update(parameter, gradient,
    buffers, coefficients)`: the new parameter and buffers.
    """

    name: str
    parameters: Mapping[str, float]
    buffers: tuple[str, ...]
    coefficients: Callable[[int, float, Mapping[str, float]], tuple[float, ...]]
    update: Update
    formula: str


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


# What ends a run at a step

TARGET_LOSS, GRADIENT_NORM, CHANGE, DIVERGED = 1, 2, 4, 8  # added up where several hold at once


class Limits(NamedTuple):
    """Bounds that are looked at before every step: the loss at most `target_loss`, the 2-norm of the gradient at most
    `gradient_norm`, the loss within `change` of the step before; and divergence, the loss above `bound`. The defaults
    never hold but for a loss or gradient that is not finite.
    """

    target_loss: float = -math.inf
    gradient_norm: float = -math.inf
    change: float = -math.inf
    bound: float = math.inf


def reached(loss: float, norm: float, previous: float, limits: Limits) -> int:
    """Which of the limits hold, as a sum; `previous` is the loss of the step before, infinite at the first."""
    if not (math.isfinite(loss) and math.isfinite(norm)) or loss > limits.bound:
        return DIVERGED
    found = TARGET_LOSS if loss <= limits.target_loss else 0
    found += GRADIENT_NORM if norm <= limits.gradient_norm else 0
    return found + (CHANGE if abs(loss - previous) <= limits.change else 0)


class Leg(NamedTuple):
    """Steps done in one go: `losses` and `norms`, one a step done, and one more where a limit ended it; `reached`
    says which.
    """

    losses: Array
    norms: Array
    reached: int

    @property
    def steps(self) -> int:
        """The number of updates that were made."""
        return len(self.losses) - (1 if self.reached else 0)


def norm_of(gradients: Sequence[Array]) -> float:
    """The 2-norm of all elements, without overflow or underflow on the way."""
    largest = max((float(np.max(np.abs(g), initial=0.0)) for g in gradients), default=0.0)
    if not math.isfinite(largest) or largest == 0:
        return largest
    return largest * math.sqrt(sum(float(np.square(g / largest, dtype=np.float64).sum()) for g in gradients))
