"""How a network is trained: `TrainingConfig`, all that decides a run but the network, the data and the backend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from refimpl.arithmetic import ARITHMETICS
from refimpl.descent import SCHEDULES, UPDATE_RULES, Limits, UpdateRule
from refimpl.errors import DataError
from refimpl.spec import SCHEMES

INTEGERS = {
    "batch_size": (1, 2**31), "seed": (0, 2**63), "max_epochs": (0, 10**12), "max_steps": (0, 10**12),
    "patience": (1, 10**9), "report_every": (1, 10**9),
}  # fmt: skip
POSITIVE = ("learning_rate", "gradient_norm", "change", "max_loss")
OPTIONAL = ("batch_size", "max_steps", "target_loss", "gradient_norm", "change", "patience", "max_loss", "report_every")
LIMITS = (
    "max_epochs", "max_steps", "target_loss", "gradient_norm", "change", "patience", "max_loss", "report_every",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a run.

    Parameters
    ----------
    update, update_parameters : the rule by which parameters move, a name of `UPDATE_RULES`, and its parameters.
    learning_rate : ε.
    schedule, schedule_parameters : how ε changes with the number of steps, a name of `SCHEDULES`.
    batch_size : samples a step, drawn without replacement in an order anew each epoch; None: all of them.
    seed : of the initial values and of the order of the samples.
    scheme : of the initial values, a name of `refimpl.spec.SCHEMES`.
    dtype : float64 or float32.
    max_epochs, max_steps : the end, whichever comes first; an epoch is one pass over the training data.
    target_loss, gradient_norm, change : stop when the loss, the 2-norm of the gradient, or the difference of two
        successive losses is at most this; looked at before every step where all samples are used at once, else at
        every report, over the whole training data.
    patience : stop after so many reports without a lower loss on the held-out data; the best parameters are kept.
    max_loss : a loss above it counts as divergence, as one that is not finite does.
    report_every : epochs between two reports; None: 1, or a two-hundredth of the run where an epoch is one step.

    Raises DataError.
    """

    update: str = "gradient_descent"
    update_parameters: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 0.1
    schedule: str = "constant"
    schedule_parameters: Mapping[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    seed: int = 0
    scheme: str = "glorot_uniform"
    dtype: str = "float64"
    max_epochs: int = 1000
    max_steps: int | None = None
    target_loss: float | None = None
    gradient_norm: float | None = None
    change: float | None = None
    patience: int | None = None
    max_loss: float | None = None
    report_every: int | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("update", UPDATE_RULES), ("schedule", SCHEDULES), ("scheme", SCHEMES), ("dtype", ARITHMETICS),
        ):  # fmt: skip
            _choice(name, getattr(self, name), known)
        for name, (low, high) in INTEGERS.items():
            self._check(name, lambda value, low=low, high=high: _whole(value) and low <= value <= high, f"≥ {low}")
        for name in POSITIVE:
            self._check(name, lambda value: _finite(value) and value >= 0, "a finite number ≥ 0")
        self._check("target_loss", _finite, "a finite number")
        rule, (defaults, _) = UPDATE_RULES[self.update], SCHEDULES[self.schedule]
        object.__setattr__(
            self, "update_parameters", _filled(self.update_parameters, rule.parameters, self.update, "update")
        )
        object.__setattr__(
            self, "schedule_parameters", _filled(self.schedule_parameters, defaults, self.schedule, "schedule")
        )

    def _check(self, name: str, right: Any, wanted: str) -> None:
        value = getattr(self, name)
        if (value is None and name in OPTIONAL) or right(value):
            return
        kind = "an integer " if name in INTEGERS else ""
        raise DataError(f"{name} must be {kind}{wanted}, got {value!r}")

    @property
    def rule(self) -> UpdateRule:
        """The update rule."""
        return UPDATE_RULES[self.update]

    @property
    def limits(self) -> Limits:
        """What is looked at before every step where all samples are used at once."""
        return Limits(
            _or(self.target_loss, -math.inf), _or(self.gradient_norm, -math.inf), _or(self.change, -math.inf),
            _or(self.max_loss, math.inf),
        )  # fmt: skip

    def coefficients(self, done: int) -> tuple[float, ...]:
        """What the update of the step after `done` steps multiplies by."""
        factor = SCHEDULES[self.schedule][1](done, self.schedule_parameters)
        return self.rule.coefficients(done + 1, self.learning_rate * factor, self.update_parameters)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> TrainingConfig:
        """The inverse of `to_dict`. Raises DataError."""
        known = {entry.name for entry in fields(cls)}
        if not isinstance(data, Mapping) or set(data) - known:
            raise DataError(f"the configuration of a run may hold {', '.join(sorted(known))}, and nothing else")
        return cls(**data)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _choice(name: str, value: Any, known: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise DataError(f"{name} must be one of {', '.join(known)}; got {value!r}")


def _filled(given: Any, defaults: Mapping[str, float], name: str, what: str) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise DataError(f"{what}_parameters must be numbers by name, got {given!r}")
    for key, value in given.items():
        if key not in defaults:
            raise DataError(f"{what}: {name} has no parameter {key!r}; it has: {', '.join(defaults) or 'none'}")
        if not _finite(value) or value < 0 or (key in ("momentum", "beta1", "beta2") and value >= 1):
            raise DataError(f"{what}: {key} of {name} must be a number ≥ 0{_below_one(key)}, got {value!r}")
    return {key: float(given.get(key, default)) for key, default in defaults.items()}


def _below_one(key: str) -> str:
    return " and < 1" if key in ("momentum", "beta1", "beta2") else ""
