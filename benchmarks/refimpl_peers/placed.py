"""A placed network over NumPy arrays, for contenders that are functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class PlacedArrays:
    """`loss(params)` and `gradients(params)` → (loss, gradients by name), with gradient descent in place."""

    def __init__(
        self,
        params: Mapping[str, Any],
        loss: Callable[[Mapping[str, Any]], Any],
        gradients: Callable[[Mapping[str, Any]], Any],
        learning_rate: float,
    ) -> None:
        self.params, self._loss, self._gradients = params, loss, gradients
        self.learning_rate = next(iter(params.values())).dtype.type(learning_rate)

    def __enter__(self) -> PlacedArrays:
        return self

    def __exit__(self, *ignored: object) -> None:
        return None

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
