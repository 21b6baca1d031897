"""What a backend that trains by its own framework is asked for, and the nouns of that: `Trainer`, `UpdateRule`,
`Limits`, `Leg`.

An update rule is written once, with operators that NumPy's, PyTorch's and JAX's arrays share, and is pure: all
gradients come from the same parameters, then all parameters are replaced. What a rule needs of the number of the step
is computed in float64 on the host, a row of coefficients a step, so that every backend multiplies by the same numbers.
The rules themselves are in :mod:`refimpl.training.optimisers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

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
        """Copies of the parameters by name, and of the buffers: "velocity.W1" and the like."""
        ...


@runtime_checkable
class TrainingBackend(Protocol):
    """A backend that trains by means of its own framework. Any other trains by its gradient function."""

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> Trainer:
        """A network with `state` (parameters, and buffers where a run goes on) over the training data."""
        ...
