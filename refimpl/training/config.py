"""How a network is trained: `TrainingConfig`, all that decides a run but the network, the data and the backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from refimpl.backend.training import Limits, UpdateRule
from refimpl.formats.errors import DataError
from refimpl.formats.validation import OneOf, refusing
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.parameters import SCHEMES
from refimpl.training.optimisers import SCHEDULES, UPDATE_RULES

LIMITS = (
    "max_epochs", "max_steps", "target_loss", "gradient_norm", "change", "patience", "max_loss", "report_every",
)  # fmt: skip
BELOW_ONE = ("momentum", "beta1", "beta2")

Count = Annotated[int, Field(strict=True, ge=1, le=10**12)]
Steps = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Size = Annotated[Number, Field(ge=0)]
Numbers = Mapping[str, Size]


@refusing(DataError)
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingConfig:
    """What decides a run.

    Parameters
    ----------
    update, update_parameters : the rule by which parameters move, a name of `UPDATE_RULES`, and its parameters.
    learning_rate : ε.
    schedule, schedule_parameters : how ε changes with the number of steps, a name of `SCHEDULES`.
    batch_size : samples a step, drawn without replacement in an order anew each epoch; None: all of them.
    seed : of the initial values and of the order of the samples.
    scheme : of the initial values, a name of `refimpl.network.parameters.SCHEMES`.
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

    update: Annotated[str, OneOf(tuple(UPDATE_RULES))] = "gradient_descent"
    update_parameters: Numbers = field(default_factory=dict)
    learning_rate: Size = 0.1
    schedule: Annotated[str, OneOf(tuple(SCHEDULES))] = "constant"
    schedule_parameters: Numbers = field(default_factory=dict)
    batch_size: Count | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    scheme: Annotated[str, OneOf(tuple(SCHEMES))] = "glorot_uniform"
    dtype: Annotated[str, OneOf(tuple(ARITHMETICS))] = "float64"
    max_epochs: Steps = 1000
    max_steps: Steps | None = None
    target_loss: Number | None = None
    gradient_norm: Size | None = None
    change: Size | None = None
    patience: Count | None = None
    max_loss: Size | None = None
    report_every: Count | None = None

    @model_validator(mode="after")
    def _with_defaults(self) -> TrainingConfig:
        defaults = {"update": UPDATE_RULES[self.update].parameters, "schedule": SCHEDULES[self.schedule][0]}
        for what, known in defaults.items():
            name, given = getattr(self, what), getattr(self, f"{what}_parameters")
            for key, value in given.items():
                if key not in known:
                    raise ValueError(f"{what}: {name} has no parameter {key!r}; it has: {', '.join(known) or 'none'}")
                if key in BELOW_ONE and value >= 1:
                    raise ValueError(f"{what}: {key} of {name} must be a number ≥ 0 and < 1, got {value!r}")
            filled = {key: float(given.get(key, default)) for key, default in known.items()}
            object.__setattr__(self, f"{what}_parameters", filled)
        return self

    @property
    def rule(self) -> UpdateRule:
        """The update rule."""
        return UPDATE_RULES[self.update]

    @property
    def limits(self) -> Limits:
        """What is looked at before every step where all samples are used at once."""
        given = {"target_loss": self.target_loss, "gradient_norm": self.gradient_norm, "change": self.change}
        limits = {**given, "bound": self.max_loss}
        return Limits(**{name: limit for name, limit in limits.items() if limit is not None})

    def coefficients(self, done: int) -> tuple[float, ...]:
        """What the update of the step after `done` steps multiplies by."""
        factor = SCHEDULES[self.schedule][1](done, self.schedule_parameters)
        return self.rule.coefficients(done + 1, self.learning_rate * factor, self.update_parameters)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data, by which a run is told from another."""
        return asdict(self)
