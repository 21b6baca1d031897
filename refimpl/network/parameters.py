"""The parameters of a network as objects, and their initial values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Parameter:
    """An array that a network learns: its name ("W2"), the layer that owns it (from 1), its role there ("W" or "b")
    and its shape.
    """

    name: str
    layer: int
    role: str
    shape: tuple[int, ...]


def _variance_scaling(numerator: float, fans: Callable[[int, int], int], uniform: bool) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return np.zeros(shape)
        variance = numerator / fans(*shape)
        if uniform:
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        return math.sqrt(variance) * rng.standard_normal(shape)

    return draw


def _fan_in(n_out: int, n_in: int) -> int:
    return n_in


SCHEMES: Mapping[str, Draw] = {
    # Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010
    "glorot_uniform": _variance_scaling(2.0, operator.add, uniform=True),
    "glorot_normal": _variance_scaling(2.0, operator.add, uniform=False),
    # He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015
    "he_uniform": _variance_scaling(2.0, _fan_in, uniform=True),
    "he_normal": _variance_scaling(2.0, _fan_in, uniform=False),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "zeros": lambda rng, shape: np.zeros(shape),
}
