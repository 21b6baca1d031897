"""What the peers share: `Peer`, a backend that differentiates by placing its network, and `PlacedArrays`, a network
over NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refimpl import NetworkSpec
from refimpl.backend import GradientFunction, InModes


class Peer:
    """A contender whose gradients are those of the network that it places."""

    activations: frozenset[str] = frozenset()
    losses: frozenset[str] = frozenset()

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """Its own activations and losses, averaged over the batch."""
        if spec.loss.name not in self.losses or not {e.activation.name for e in spec.layers} <= self.activations:
            return "its activations and losses only"
        return True if spec.reduction == "mean" else "the mean over the batch"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b)."""

        def gradients(params: Mapping[str, Any], x: Any, y: Any) -> Any:
            with self.place(spec, params, x, y, device=device, learning_rate=0.1) as placed:
                return placed.answer()

        return gradients

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> Any:
        """The network over arrays of its own."""
        raise NotImplementedError


class PlacedArrays(InModes):
    """`loss(params)` and `gradients(params)` → (loss, gradients by name), with gradient descent in place."""

    def __init__(
        self, params: Mapping[str, Any], loss: Callable[[Mapping[str, Any]], Any],
        gradients: Callable[[Mapping[str, Any]], Any], learning_rate: float,
    ) -> None:  # fmt: skip
        self.params, self._loss, self._gradients = params, loss, gradients
        self.learning_rate = next(iter(params.values())).dtype.type(learning_rate)

    def loss(self) -> Any:
        return self._loss(self.params)

    def gradients(self) -> Any:
        return self._gradients(self.params)

    def descend(self, steps: int) -> Mapping[str, Any]:
        for _ in range(steps):
            _, grads = self._gradients(self.params)
            for name, array in self.params.items():
                array -= self.learning_rate * grads[name]
        return self.params

    def wait(self, result: Any) -> None:
        return None

    def answer(self) -> tuple[float, dict[str, Any]]:
        loss, grads = self.gradients()
        return float(loss), {name: np.array(grads[name]) for name in self.params}

    def parameters(self) -> dict[str, Any]:
        return {name: np.array(array) for name, array in self.params.items()}
