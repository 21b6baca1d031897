"""Small networks, and ways to judge and diagnose an answer, shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from refimpl.faults.diagnosis import diagnose_answer
from refimpl.faults.findings import Finding
from refimpl.judge.judge import Judge
from refimpl.judge.report import Row
from refimpl.judge.submission import Submission
from refimpl.network import examples
from refimpl.network.batch import validate
from refimpl.network.functions import ACTIVATIONS, LOSSES
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


def article(n: int = 1, seed: int = 0) -> Problem:
    """The article's network as it is initialised, and n samples."""
    spec = examples.article()
    return Problem(spec, spec.init(seed), *examples.article_batch(n, seed), seed, 0)


def one_of_each(index: int, dtype: str) -> Problem:
    """Small networks over all activations and losses in turn."""
    rng = np.random.default_rng(index)
    loss, names = list(LOSSES)[index % len(LOSSES)], list(ACTIVATIONS)
    sizes = [int(size) for size in rng.integers(1, 5, 4)]
    last = "softmax" if loss == "negative_log_likelihood" else names[(index * 7) % len(names)]
    activations = [names[index % len(names)], names[(index * 3 + 1) % len(names)], last]
    spec = network(sizes, activations, loss, ("mean", "sum")[index % 2], bias=bool(index % 3))
    return problem(spec, int(rng.integers(1, 5)), seed=index, dtype=dtype)


def sampled(count: int, default: int, step: int = 1) -> list[Any]:
    """The numbers of `range(0, count, step)`, of which all but the first are for `make test-all` alone."""
    numbers = range(0, count, step)
    return [*numbers[:default], *(pytest.param(number, marks=pytest.mark.soak) for number in numbers[default:])]


def judge(p: Problem) -> Judge:
    """The truth about a problem."""
    return Judge(p.spec, validate(p.spec, p.params, p.x, p.y))


def verdicts(rows: Sequence[Row]) -> dict[str, str]:
    """Quantity to verdict."""
    return {row.quantity: row.verdict for row in rows}


def diagnosed(judge: Judge, answer: Any, **options: Any) -> list[Finding]:
    """What is wrong with an answer (loss, gradients)."""
    given = Submission.of(answer)
    return diagnose_answer(judge, given, judge.judge_answer("answer", given), **options)
