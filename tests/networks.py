"""Small networks and ways to judge an answer, shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refimpl.judge.judge import Judge
from refimpl.judge.report import Row
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem, random_batch
from refimpl.network.spec import LayerSpec, NetworkSpec

BACKENDS = ("numpy", "torch", "jax")
DTYPES = ("float64", "float32")


def network(
    sizes: Sequence[int],
    activations: Sequence[Any],
    loss: Any = "squared_error",
    reduction: str = "mean",
    bias: bool = True,
) -> NetworkSpec:
    """A network of the given sizes, the input's first."""
    layers = [LayerSpec(size, activation, bias) for size, activation in zip(sizes[1:], activations, strict=True)]
    return NetworkSpec((sizes[0],), layers, loss, reduction)


def problem(spec: NetworkSpec, n: int = 5, seed: int = 0, dtype: str = "float64") -> Problem:
    """Parameters, biases included, and data for a spec."""
    rng = np.random.default_rng(seed)
    params = {name: (0.7 * rng.standard_normal(shape)).astype(dtype) for name, shape in spec.parameter_shapes.items()}
    x, y = random_batch(spec, rng, n, dtype)
    return Problem(spec, params, x, y, seed, 0)


def judge(p: Problem) -> Judge:
    """The truth about a problem."""
    return Judge(p.spec, validate(p.spec, p.params, p.x, p.y))


def verdicts(rows: Sequence[Row]) -> dict[str, str]:
    """Quantity to verdict."""
    return {row.quantity: row.verdict for row in rows}
