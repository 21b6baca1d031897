"""Training with any backend: by its own `Trainer` where it has one, else by its gradient function and the update
rules over NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import (
    Backend,
    ForwardBackend,
    ForwardFunction,
    Trainer,
    TrainingBackend,
    able,
    check_supported,
)  # fmt: skip
from refimpl.backend.training import DIVERGED, Leg, Limits, UpdateRule, norm_of, reached
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
    names = list(spec.parameter_shapes)
    buffers = {f"{buffer}.{name}": np.zeros_like(params[name]) for buffer in rule.buffers for name in names}
    return {**{name: params[name] for name in names}, **buffers}


class GradientTrainer:
    """A `Trainer` made of a backend's gradient function."""

    def __init__(
        self,
        backend: Backend,
        spec: NetworkSpec,
        state: Mapping[str, Array],
        x: Array,
        y: Array,
        rule: UpdateRule,
        device: str,
    ) -> None:
        self.x, self.y, self.rule = x, y, rule
        self.names = list(spec.parameter_shapes)
        self.params = {name: np.array(state[name]) for name in self.names}
        self.good = dict(self.params)
        self.buffers = {
            name: tuple(np.array(state[f"{buffer}.{name}"]) for buffer in rule.buffers) for name in self.names
        }
        self.gradients = backend.gradient_function(spec, dtype=x.dtype.name, device=device)
        self.forward = forward_function(backend, spec, x.dtype.name, device)

    def __enter__(self) -> GradientTrainer:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        return None

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """As `Trainer.run`."""
        losses, norms, found, rows = [], [], 0, coefficients.tolist()
        self.good = dict(self.params)
        for index, row in enumerate(rows):
            x, y = (self.x, self.y) if batches is None else (self.x[batches[index]], self.y[batches[index]])
            loss, gradients = self.gradients(self.params, x, y)
            losses.append(float(loss))
            norms.append(norm_of([gradients[name] for name in self.names]))
            found = reached(losses[-1], norms[-1], previous, limits)
            if found:
                break
            previous = losses[-1]
            self._update(gradients, row)
        if found & DIVERGED:
            self.revert()
        return Leg(np.array(losses), np.array(norms), found)

    def _update(self, gradients: Mapping[str, Array], coefficients: list[float]) -> None:
        self.good = dict(self.params)
        with np.errstate(all="ignore"):
            for name in self.names:
                self.params[name], self.buffers[name] = self.rule.update(
                    self.params[name], gradients[name], self.buffers[name], coefficients
                )

    def revert(self) -> None:
        """As `Trainer.revert`."""
        self.params = dict(self.good)

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """As `Trainer.measure`."""
        loss, gradients = self.gradients(self.params, x, y)
        return float(loss), norm_of([gradients[name] for name in self.names])

    def outputs(self, x: Array) -> Array:
        """As `Trainer.outputs`."""
        return self.forward(self.params, x)

    def state(self) -> dict[str, Array]:
        """As `Trainer.state`."""
        found = {name: array.copy() for name, array in self.params.items()}
        for index, buffer in enumerate(self.rule.buffers):
            found |= {f"{buffer}.{name}": self.buffers[name][index].copy() for name in self.names}
        return found
