"""Random networks and random data, each from one seed: what soak runs and property tests draw from.

`random_batch` draws data that suit a spec's loss; `random_problem` a whole problem: spec, parameters, x and y. A
problem is a function of (seed, index, dtype) alone, so that what fails once can be replayed. The draw is wide on
purpose: depth 1–8, widths and batches 1–64, every activation, loss and reduction, with and without bias, scales from
nearly underflowing to saturating, and zeros strewn in so that kinks are met.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.network.documents import Function
from refimpl.network.functions import ACTIVATIONS, LOSSES, REDUCTIONS, FunctionParameter
from refimpl.network.spec import LayerSpec, NetworkSpec

Array = NDArray[Any]
MAX_DEPTH, MAX_WIDTH, MAX_BATCH = 8, 64, 64
DRAWS = 4
SCHEMES = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal")
# what the logarithm of negative_log_likelihood can follow
PROBABILITIES = ("sigmoid", "softmax")


@dataclass(frozen=True)
class Problem:
    """A spec with parameters and a batch, and the seed and index that it was drawn from."""

    spec: NetworkSpec
    params: dict[str, Array]
    x: Array
    y: Array
    seed: int
    index: int


def random_batch(
    spec: NetworkSpec, rng: np.random.Generator, n: int, dtype: str, scale: float = 1.0
) -> tuple[Array, Array]:
    """x (n, *input_shape), normal with standard deviation `scale`, and y as the spec's loss asks."""
    x = (scale * rng.standard_normal((n, *spec.input_shape))).astype(dtype)
    target = LOSSES[spec.loss.name].target
    if target == "values":
        return x, rng.standard_normal((n, spec.n_out)).astype(dtype)
    if target == "probabilities":
        return x, rng.uniform(size=(n, spec.n_out)).astype(dtype)
    return x, rng.integers(spec.n_out, size=n)


def random_problem(seed: int, index: int, dtype: str) -> Problem:
    """The problem number `index` of the stream `seed`, in `dtype`.

    The spec, the batch size and the kind of y are drawn once for `DRAWS` problems in a row, the numbers for each: a
    compiling backend spends nearly all its time on a new spec.
    """
    of_spec = np.random.default_rng([seed, index // DRAWS, 0])
    spec, n = _random_spec(of_spec), _log_uniform_integer(of_spec, MAX_BATCH)
    rows = LOSSES[spec.loss.name].target == "classes" and of_spec.random() < 0.3
    rng = np.random.default_rng([seed, index, 1])
    params = _random_parameters(spec, rng, dtype)
    x, y = random_batch(spec, rng, n, dtype, scale=_random_scale(rng, dtype))
    if rows:
        y = rng.dirichlet(np.ones(spec.n_out), size=n).astype(dtype)
    if rng.random() < 0.3:
        x = np.where(rng.random(x.shape) < 0.2, np.zeros_like(x), x)
    return Problem(spec, params, x, y, seed, index)


def _random_spec(rng: np.random.Generator) -> NetworkSpec:
    depth = int(rng.integers(1, MAX_DEPTH + 1))
    loss = LOSSES[str(rng.choice(list(LOSSES)))]
    names = [str(rng.choice(list(ACTIVATIONS))) for _ in range(depth)]
    if loss.name == "negative_log_likelihood":
        names[-1] = str(rng.choice(PROBABILITIES))
    layers = tuple(
        LayerSpec(
            size=_log_uniform_integer(rng, MAX_WIDTH),
            activation=_with_parameters(rng, name, ACTIVATIONS[name].parameters),
            bias=bool(rng.random() < 0.7),
        )
        for name in names
    )
    return NetworkSpec(
        input_shape=_random_input_shape(rng),
        layers=layers,
        loss=_with_parameters(rng, loss.name, loss.parameters),
        reduction=str(rng.choice(REDUCTIONS)),
        name="random",
    )


def _random_input_shape(rng: np.random.Generator) -> tuple[int, ...]:
    rank = int(rng.choice(4, p=[0.05, 0.75, 0.15, 0.05]))
    return tuple(_log_uniform_integer(rng, round(MAX_WIDTH ** (1 / rank))) for _ in range(rank))


def _with_parameters(rng: np.random.Generator, name: str, parameters: Any) -> Function:
    return Function(name, tuple((key, _random_parameter(rng, parameter)) for key, parameter in parameters.items()))


def _random_parameter(rng: np.random.Generator, parameter: FunctionParameter) -> float:
    return (
        parameter.default
        if rng.random() < 0.5
        else float(rng.uniform(max(parameter.low, 0.0), 2.0)) or parameter.default
    )


def _random_parameters(spec: NetworkSpec, rng: np.random.Generator, dtype: str) -> dict[str, Array]:
    scheme = str(rng.choice(SCHEMES))
    gain = 1.0 if rng.random() < 0.6 else 10 ** rng.uniform(-3, 1)
    params = spec.init(seed=int(rng.integers(2**32)), dtype="float64", scheme=scheme)
    zeroed = rng.random() < 0.2
    for parameter in spec.parameters:
        values = params[parameter.name]
        if parameter.role == "b" and rng.random() < 0.7:
            values = 0.3 * rng.standard_normal(parameter.shape)
        if zeroed:
            values = np.where(rng.random(parameter.shape) < 0.3, 0.0, values)
        params[parameter.name] = (gain * values).astype(dtype)
    return params


def _random_scale(rng: np.random.Generator, dtype: str) -> float:
    """The inputs' scale: mostly around one, sometimes tiny or saturating, rarely near underflow."""
    kind = rng.random()
    if kind < 0.6:
        return float(10 ** rng.uniform(-1, 0.5))
    if kind < 0.8:
        return float(10 ** rng.uniform(-8, -1))
    if kind < 0.97:
        return float(10 ** rng.uniform(0.5, 4))
    smallest = math.log10(float(np.finfo(dtype).smallest_normal))
    return float(10 ** rng.uniform(smallest - 4, smallest + 20))


def _log_uniform_integer(rng: np.random.Generator, high: int) -> int:
    return min(int(math.exp(rng.uniform(0.0, math.log(high + 1)))), high)
