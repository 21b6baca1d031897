"""Backends: what one is, finding those that are installed, and asking one for a gradient.

- :mod:`~refimpl.backend.protocols`: `Backend`, and a protocol for each further ability
- :mod:`~refimpl.backend.training`: `Trainer`, and what it is asked for
- :mod:`~refimpl.backend.registry`: `available`, `load`: backends by name
- :mod:`~refimpl.backend.gradients`: `value_and_grad`
- :mod:`~refimpl.backend.functions`: `ArrayLibrary`: functions of a framework's own arrays, differentiated by it
- :mod:`~refimpl.backend.untrusted`: other people's code, called

All that a backend needs of refimpl can be imported from here, from `refimpl` and from `refimpl.equations`.
"""

from refimpl.backend.functions import ArrayLibrary, Cotangent, Derivatives, Numbers, outputs_of, overwritten
from refimpl.backend.gradients import Gradients, value_and_grad
from refimpl.backend.protocols import (
    ArithmeticBackend,
    Backend,
    EquationsBackend,
    ForwardBackend,
    ForwardFunction,
    GradientFunction,
    InModes,
    InputGradientBackend,
    IntermediatesBackend,
    IntermediatesFunction,
    Placed,
    PlacingBackend,
    named_intermediates,
)
from refimpl.backend.registry import GROUP, able, available, check_supported, load, resolve, supported, usable
from refimpl.backend.training import (
    CHANGE,
    DIVERGED,
    GRADIENT_NORM,
    TARGET_LOSS,
    Leg,
    Limits,
    StepTrainer,
    Trainer,
    TrainingBackend,
    UpdateRule,
    norm_of,
    reached,
)
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING, Arithmetic

__all__ = [
    "ARITHMETICS",
    "CHANGE",
    "DIVERGED",
    "FLUSHING",
    "GRADIENT_NORM",
    "GROUP",
    "TARGET_LOSS",
    "Arithmetic",
    "ArithmeticBackend",
    "ArrayLibrary",
    "Backend",
    "Cotangent",
    "Derivatives",
    "EquationsBackend",
    "ForwardBackend",
    "ForwardFunction",
    "GradientFunction",
    "Gradients",
    "InModes",
    "InputGradientBackend",
    "IntermediatesBackend",
    "IntermediatesFunction",
    "Leg",
    "Limits",
    "Numbers",
    "Placed",
    "PlacingBackend",
    "StepTrainer",
    "Trainer",
    "TrainingBackend",
    "UpdateRule",
    "able",
    "available",
    "check_supported",
    "load",
    "named_intermediates",
    "norm_of",
    "outputs_of",
    "overwritten",
    "reached",
    "resolve",
    "supported",
    "usable",
    "value_and_grad",
]
