"""Where one number comes from: the chain rule for ∂C/∂(a weight, a bias, a z, an a) with the numbers put in, and what
everybody says it is.

    print(refimpl.explain(spec, params, x, y, "W2[2,2]"))

The lines of the chain rule and the paths from the number to the cost come of :mod:`refimpl.teaching.chain`; beside
them stand the installed backends, each with its verdict, the certified value, and a central difference quotient with
its error. For a batch, the derivative by a W or b is a sum over the samples, and the lines are those of one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import backend as backends
from refimpl.backend import Backend, IntermediatesBackend, value_and_grad
from refimpl.formats.errors import BackendError, DataError
from refimpl.judge.judge import Judge
from refimpl.judge.report import Row
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import Batch, validate
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.teaching.chain import chain, count, forward_line, paths
from refimpl.teaching.explanation import Explanation
from refimpl.teaching.notation import Quantity, parse
from refimpl.teaching.record import trace
from refimpl.teaching.trace import Trace

STEP = 2.0 ** (-52 / 3)  # of a central difference in float64: rounding and truncation are of one size

Array = NDArray[Any]


def explain(
    spec: NetworkSpec,
    params: Mapping[str, Array],
    x: Array,
    y: Array,
    quantity: str,
    *,
    sample: int = 1,
    names: Sequence[str] | None = None,
) -> Explanation:
    """Where ∂C/∂`quantity` comes from.

    Parameters: `params` with the spec's keys and shapes, `x` (N, *input_shape), `y` as the loss asks, all float64 or
    all float32; `quantity` such as "W2[2,1]", "b1[1]", "z3[2]", "a2[1]", "delta3[1]" or "x[4]", counted from 1;
    `sample`, from 1, whose lines are shown; `names` of the backends to ask, by default all that are installed.
    Raises DataError, BackendError.
    """
    asked = parse(quantity, spec)
    found = trace(spec, params, x, y)
    if isinstance(sample, bool) or not 1 <= sample <= found.n:
        raise DataError(f"sample must be from 1 to {found.n}, the samples of the batch; got {sample!r}")
    at = sample - 1
    samples = range(found.n) if asked.is_parameter else [at]
    contributions = tuple(chain(found, asked, n)[0].value for n in samples)
    ways = paths(found, asked, at)
    problem = _problem(found, asked, at)
    judge = Judge(problem.spec, problem.batch)
    truth = judge.truth.grads.get(problem.array) or judge.truth.values[problem.array]
    bounds = judge.tolerance(ARITHMETICS[problem.batch.dtype], inputs=problem.array == "x")
    bound = np.minimum(bounds.worst_case[problem.array], bounds.statistical[problem.array])
    quotient, step = _quotient(found, asked, at)
    return Explanation(
        found, asked, at, forward_line(found, asked, at), tuple(chain(found, asked, at)), contributions,
        None if ways is None else tuple(ways), count(found, asked), math.fsum(contributions),
        float(truth.mid[problem.index]), float(truth.rad[problem.index]), float(bound[problem.index]),
        tuple(_witnesses(problem, judge, names)), quotient, step,
    )  # fmt: skip


@dataclass(frozen=True)
class _Problem:
    """A network in which the derivative asked for is an element of an array that backends return."""

    spec: NetworkSpec
    batch: Batch
    array: str
    index: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array, with x flattened."""
        if self.array in self.batch.params:
            return self.spec.parameter_shapes[self.array]
        return len(self.batch.x), self.spec.n_in if self.array == "x" else self.spec.sizes[int(self.array[5:]) - 1]


def _problem(found: Trace, quantity: Quantity, sample: int) -> _Problem:
    spec, params, x, y = _flat(found.spec), dict(found.params), found.values["a1"], found.y
    if quantity.is_parameter:
        return _Problem(spec, validate(spec, params, x, y), quantity.array, quantity.index)
    index = (sample, *quantity.index)
    if quantity.kind == "a" and quantity.layer > 1:
        # ∂C/∂a is the δ of a layer z = I a that is put behind it
        spec, params = _with_identity(spec, params, quantity.layer)
        quantity = Quantity("delta", quantity.layer + 1, quantity.index)
    batch = validate(spec, params, x, y)
    return _Problem(spec, batch, "x" if quantity.kind == "a" else f"delta{quantity.layer}", index)


def _flat(spec: NetworkSpec) -> NetworkSpec:
    """The network with its input flattened."""
    return NetworkSpec((spec.n_in,), spec.layers, spec.loss, spec.reduction, spec.name)


def _with_identity(spec: NetworkSpec, params: dict[str, Array], layer: int) -> tuple[NetworkSpec, dict[str, Array]]:
    """The network with a layer a = I a behind layer `layer`."""
    size, layers, arrays = spec.sizes[layer - 1], list(spec.layers), spec.by_layer(params)
    layers.insert(layer - 1, LayerSpec(size, "identity", bias=False))
    arrays.insert(layer - 1, {"W": np.eye(size, dtype=arrays[0]["W"].dtype)})
    longer = NetworkSpec(spec.input_shape, layers, spec.loss, spec.reduction, spec.name)
    return longer, longer.by_name(arrays)


def _witnesses(problem: _Problem, judge: Judge, names: Sequence[str] | None) -> Iterator[Row]:
    """What every backend says. Raises BackendError for one that was asked for by name and cannot say it."""
    for name in backends.available() if names is None else names:
        try:
            value = _asked(backends.load(name), problem)
        except BackendError:
            if names is None:
                continue
            raise
        yield judge.judge_element(
            name, problem.array, float(value.reshape(problem.shape)[problem.index]), problem.index
        )


def _asked(backend: Backend, problem: _Problem) -> Array:
    """A backend's array. Raises BackendError where it has none."""
    spec, batch, dtype = problem.spec, problem.batch, problem.batch.dtype
    backends.check_supported(backend, spec, dtype, "cpu")
    if problem.array.startswith("delta"):
        if not isinstance(backend, IntermediatesBackend):
            raise BackendError(f"backend {backend.name!r} does not show delta; leave it out")
        run = backend.intermediates_function(spec, dtype=dtype, device="cpu")
        return run(batch.params, batch.x, batch.y)[problem.array]
    answer = value_and_grad(spec, batch.params, batch.x, batch.y, backend=backend, inputs=problem.array == "x")
    return answer[1][problem.array]


def _quotient(found: Trace, quantity: Quantity, sample: int) -> tuple[float, float]:
    """The central difference quotient of the loss by the quantity in float64, and its step."""
    spec, params = _flat(found.spec), {name: array.astype(np.float64) for name, array in found.params.items()}
    x, y = found.values["a1"].astype(np.float64), found.y.astype(np.float64)
    if quantity.is_parameter:
        arrays, name, index = params, quantity.array, quantity.index
    else:
        spec, params, x = _behind(spec, params, found, quantity)
        arrays, name, index = {"x": x}, "x", (sample, *quantity.index)
    run = backends.resolve().gradient_function(spec, dtype="float64", device="cpu")

    def loss(moved: Mapping[str, Array]) -> float:
        return run({**params, **moved}, moved.get("x", x), y)[0]

    step = STEP * max(1.0, abs(float(arrays[name][index])))
    up, down = (_moved(arrays, name, index, by) for by in (step, -step))
    between = float(up[name][index]) - float(down[name][index])  # the step as it was rounded, twice
    return (loss(up) - loss(down)) / between, between / 2


def _moved(arrays: Mapping[str, Array], name: str, index: tuple[int, ...], by: float) -> dict[str, Array]:
    array = arrays[name].copy()
    array[index] += by
    return {name: array}


def _behind(
    spec: NetworkSpec, params: dict[str, Array], found: Trace, quantity: Quantity
) -> tuple[NetworkSpec, dict[str, Array], Array]:
    """The network from a z or an a on, whose input that is."""
    layer, size, is_a = quantity.layer, spec.sizes[quantity.layer - 1], quantity.kind == "a"
    layers, arrays = list(spec.layers[layer - 1 :]), spec.by_layer(params)[layer - 1 :]
    if not is_a or not layers:
        layers.insert(0, LayerSpec(size, "identity" if is_a else spec.layers[layer - 2].activation, bias=False))
        arrays.insert(0, {"W": np.eye(size)})
    rest = NetworkSpec((size,), layers, spec.loss, spec.reduction)
    return rest, rest.by_name(arrays), found.values[f"{'a' if is_a else 'z'}{layer}"].astype(np.float64)
