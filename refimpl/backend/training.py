"""What a backend that trains by its own framework is asked for, and the nouns of that: `Trainer`, `UpdateRule`,
`Limits`, `Leg`; and `StepTrainer`, which most trainers are made from.

An update rule is written once, with operators that NumPy's, PyTorch's and JAX's arrays share, and is pure: all
gradients come from the same parameters, then all parameters are replaced. What a rule needs of the number of the step
is computed in float64 on the host, a row of coefficients a step, so that every backend multiplies by the same numbers.
The rules themselves are in :mod:`refimpl.training.optimisers`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from refimpl.backend.protocols import InModes
from refimpl.network.spec import NetworkSpec

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

    def buffer_names(self, parameter: str) -> tuple[str, ...]:
        """What the buffers of a parameter are called in a trainer's state: "velocity.W1" and the like."""
        return tuple(f"{buffer}.{parameter}" for buffer in self.buffers)


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


class Trainer(Protocol):
    """A network in training, where its framework has it: parameters, the buffers of an update rule, and the training
    data. Calls are made inside `with trainer:`, which sets the framework's modes and puts them back.
    """

    def __enter__(self) -> Any:
        """Set the framework's modes."""
        ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Put them back."""
        ...

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """One step a row of `coefficients`, until a limit is reached; the step at which one is makes no update.

        `batches` (steps, size) are the rows of the training data that each step takes; None: all of them. `previous`
        is the loss of the step before.
        """
        ...

    def revert(self) -> None:
        """Back to the parameters before the last update of the last `run`."""
        ...

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """The loss and the 2-norm of the gradient on a batch."""
        ...

    def outputs(self, x: Array) -> Array:
        """The network's outputs (N, n_out)."""
        ...

    def state(self) -> dict[str, Array]:
        """Copies of the parameters by name, and of the buffers by `UpdateRule.buffer_names`."""
        ...


class StepTrainer(InModes, ABC):
    """A `Trainer` that takes one step at a time: it is told how to differentiate, and the rest is here.

    `params` and `buffers` are by parameter name, x and y the training data, all of them arrays of the framework.
    """

    def __init__(self, spec: NetworkSpec, state: Mapping[str, Any], x: Any, y: Any, rule: UpdateRule) -> None:
        self.spec, self.x, self.y, self.rule = spec, x, y, rule
        self.params = {name: state[name] for name in spec.parameter_shapes}
        self.buffers = {name: tuple(state[key] for key in rule.buffer_names(name)) for name in self.params}
        self.good = self.params

    @abstractmethod
    def gradients(self, x: Any, y: Any) -> tuple[float, float, Mapping[str, Any]]:
        """The loss, the 2-norm of the gradient, and the gradients by name, at `params`."""

    @abstractmethod
    def outputs(self, x: Array) -> Array:
        """As `Trainer.outputs`."""

    def placed(self, array: Array) -> Any:
        """An array of NumPy's as one of the framework's."""
        return array

    def fetched(self, array: Any) -> Array:
        """A copy of an array of the framework's as one of NumPy's."""
        return np.array(array)

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """As `Trainer.run`."""
        losses, norms, found = [], [], 0
        rows = None if batches is None else self.placed(batches)
        self.good = self.params
        for index, row in enumerate(coefficients.tolist()):
            x, y = (self.x, self.y) if rows is None else (self.x[rows[index]], self.y[rows[index]])
            loss, norm, gradients = self.gradients(x, y)
            losses.append(loss)
            norms.append(norm)
            found = reached(loss, norm, previous, limits)
            if found:
                break
            previous = loss
            self._update(gradients, row)
        if found & DIVERGED:
            self.revert()
        return Leg(np.array(losses), np.array(norms), found)

    def _update(self, gradients: Mapping[str, Any], coefficients: Coefficients) -> None:
        self.good, self.params = self.params, dict(self.params)
        for name, value in self.good.items():
            moved = self.rule.update(value, gradients[name], self.buffers[name], coefficients)
            self.params[name], self.buffers[name] = moved

    def revert(self) -> None:
        """As `Trainer.revert`."""
        self.params = self.good

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """As `Trainer.measure`."""
        return self.gradients(self.placed(x), self.placed(y))[:2]

    def state(self) -> dict[str, Array]:
        """As `Trainer.state`."""
        found = {name: self.fetched(value) for name, value in self.params.items()}
        for name, buffers in self.buffers.items():
            found |= dict(zip(self.rule.buffer_names(name), map(self.fetched, buffers), strict=True))
        return found


@runtime_checkable
class TrainingBackend(Protocol):
    """A backend that trains by means of its own framework. Any other trains by its gradient function."""

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> Trainer:
        """A network with `state` (parameters, and buffers where a run goes on) over the training data."""
        ...
