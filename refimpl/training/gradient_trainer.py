"""Training with any backend: by its own `Trainer` where it has one, else by its gradient function and the update
rules over NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import Backend, ForwardBackend, ForwardFunction, Trainer, TrainingBackend, able, check_supported
from refimpl.backend.training import StepTrainer, UpdateRule, norm_of
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]


def trainer(
    backend: Backend, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, rule: UpdateRule, device: str
) -> Trainer:
    """The network with `state` over the training data, on that backend. Raises BackendError."""
    check_supported(backend, spec, x.dtype.name, device)
    if isinstance(backend, TrainingBackend):
        return backend.trainer(spec, state, x, y, rule=rule, device=device)
    return GradientTrainer(backend, spec, state, x, y, rule, device)


def forward_function(backend: Backend, spec: NetworkSpec, dtype: str, device: str) -> ForwardFunction:
    """(params, x) → the outputs, by the backend where it gives them, else by the first that does."""
    if isinstance(backend, ForwardBackend):
        return backend.forward_function(spec, dtype=dtype, device=device)
    return able(ForwardBackend).forward_function(spec, dtype=dtype, device="cpu")


def initial_state(spec: NetworkSpec, params: Mapping[str, Array], rule: UpdateRule) -> dict[str, Array]:
    """The parameters, and the buffers of the update rule: zeros."""
    kept = {name: params[name] for name in spec.parameter_shapes}
    return kept | {key: np.zeros_like(array) for name, array in kept.items() for key in rule.buffer_names(name)}


class GradientTrainer(StepTrainer):
    """A `Trainer` made of a backend's gradient function."""

    modes = staticmethod(partial(np.errstate, all="ignore"))  # of a run that diverges

    def __init__(
        self, backend: Backend, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, rule: UpdateRule,
        device: str,
    ) -> None:  # fmt: skip
        super().__init__(spec, {name: np.array(array) for name, array in state.items()}, x, y, rule)
        self.differentiate = backend.gradient_function(spec, dtype=x.dtype.name, device=device)
        self.forward = forward_function(backend, spec, x.dtype.name, device)

    def gradients(self, x: Array, y: Array) -> tuple[float, float, Mapping[str, Array]]:
        """By the backend's gradient function."""
        loss, gradients = self.differentiate(self.params, x, y)
        return float(loss), norm_of([gradients[name] for name in self.params]), gradients

    def outputs(self, x: Array) -> Array:
        """As `Trainer.outputs`."""
        return self.forward(self.params, x)
