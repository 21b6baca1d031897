"""Right implementations of a fully connected network's loss and gradients, none of which may be called wrong.

They differ in what the mathematics leaves open: the order of every sum, where 1/N stands, which of the usual formulas
stands for a function, forward or reverse mode, one sample or a batch at a time. `NUMPY` lists them; a `Right` says what
it supports. The NumPy ones are written here and share one forward pass, so that what is measured is the arrangement.

What it does not do: judge (`false_alarms.py`).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import special
from summation import (
    Array,
    Product,
    Sum,
    backwards,
    compensated,
    largest_first,
    numpy_sum,
    pairwise,
    products_by,
    sequential,
    shuffled,
    strided,
)

from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem
from refimpl.network.spec import LayerSpec, NetworkSpec

Arrays = dict[str, Array]
Answer = tuple[Any, Arrays]
ANALYTIC = frozenset({"identity", "sigmoid", "tanh", "gelu_tanh", "silu", "softmax"})
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
SMALL = 50_000  # parameters × samples × the widest layer, for what takes one direction at a time


# --------------------------------------------------------------------------------------------------------------
# Functions: from z and the parameters to a and f'(z), in the dtype of z

Rule = Callable[[Array, Mapping[str, Any]], tuple[Array, Array]]


def sigmoid(z: Array) -> Array:
    t = np.exp(-np.abs(z))
    return np.where(z < 0, t, 1) / (1 + t)


def sigmoid_by_tanh(z: Array) -> Array:
    """Where that does not cancel: at −3 it is off by 16 u, and at −20 it is 0."""
    return np.where(z > -1, (1 + np.tanh(z / 2)) / 2, sigmoid(z))


def _sigmoid(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    a = sigmoid(z)
    return a, a * sigmoid(-z)


def _elu(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    low = np.minimum(z, 0)
    return np.where(z > 0, z, p["alpha"] * np.expm1(low)), np.where(z > 0, 1, p["alpha"] * np.exp(low))


def _selu(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    a, slope = _elu(z, {"alpha": z.dtype.type(SELU_ALPHA)})
    scale = z.dtype.type(SELU_SCALE)
    return scale * a, scale * slope


def _elu_from_value(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    a, _ = _elu(z, p)
    return a, np.where(z > 0, 1, a + p["alpha"])


def _gelu(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    below = (special.erfc((-z / math.sqrt(2)).astype(np.float64)) / 2).astype(z.dtype)
    return z * below, below + z * (np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def _gelu_by_erf(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    below = (1 + special.erf(z / math.sqrt(2))) / 2
    return z * below, below + z * (np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def _gelu_tanh(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    factor = math.sqrt(2 / math.pi)
    t = np.tanh(factor * (z + 0.044715 * z * z * z))
    bend = np.where(np.abs(t) < 1, z / 2 * (1 - t * t) * factor * (1 + 0.134145 * z * z), 0)
    return z / 2 * (1 + t), (1 + t) / 2 + bend


def _tanh(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    a = np.tanh(z)
    return a, 1 - a * a


def _tanh_by_product(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    a = np.tanh(z)
    return a, (1 - a) * (1 + a)


def _silu(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    s = sigmoid(z)
    return z * s, s * (1 + z * (1 - s))


def _softsign_from_value(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    a = z / (1 + np.abs(z))
    return a, np.square(1 - np.abs(a))


def _leaky_relu(z: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    slope = np.where(z > 0, 1, z.dtype.type(p["negative_slope"]))
    return z * slope, slope


USUAL: dict[str, Rule] = {
    "identity": lambda z, p: (z, np.ones_like(z)),
    "relu": lambda z, p: (np.maximum(z, 0), (z > 0).astype(z.dtype)),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": lambda z, p: (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))), sigmoid(z)),
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": _silu,
    "softsign": lambda z, p: (z / (1 + np.abs(z)), 1 / np.square(1 + np.abs(z))),
}
OTHER: dict[str, Rule] = USUAL | {
    "elu": _elu_from_value,
    "gelu": _gelu_by_erf,
    "softplus": lambda z, p: (np.logaddexp(z, z.dtype.type(0)), sigmoid(z)),
    "sigmoid": lambda z, p: (sigmoid(z), sigmoid(z) * (1 - sigmoid(z))),
    "tanh": _tanh_by_product,
    "softsign": _softsign_from_value,
}
BY_TANH: dict[str, Rule] = USUAL | {
    "sigmoid": lambda z, p: (sigmoid_by_tanh(z), sigmoid_by_tanh(z) * (1 - sigmoid_by_tanh(z)))
}


@dataclass(frozen=True)
class Style:
    """An arrangement. `share`: what 1/N multiplies, "delta", "gradients", or, as a division, "loss"; `by_logarithm`:
    softmax is the exponential of log-softmax, and slopes are products with whole Jacobians.
    """

    summed: Sum = numpy_sum
    product: Product = np.matmul
    share: str = "delta"
    rules: Mapping[str, Rule] = field(default_factory=lambda: USUAL)
    by_logarithm: bool = False
    work: Any = None

    def log_softmax(self, z: Array) -> Array:
        """(N, n)"""
        away = z - z.max(axis=1, keepdims=True)
        return away - np.log(self.summed(np.exp(away)))[:, None]

    def softmax(self, z: Array) -> Array:
        """(N, n)"""
        if self.by_logarithm:
            return np.exp(self.log_softmax(z))
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / self.summed(e)[:, None]

    def softmax_vjp(self, a: Array, g: Array) -> Array:
        """(N, n)"""
        if self.by_logarithm:
            jacobian = a[:, :, None] * np.eye(a.shape[1], dtype=a.dtype) - a[:, :, None] * a[:, None, :]
            return self.summed(jacobian * g[:, None, :])
        return a * (g - self.summed(a * g)[:, None])

    def loss(self, name: str, p: Mapping[str, Any], s: Array, y: Array) -> tuple[Array, Array]:
        """Of each output before the reduction, and its slope; both (N, n)."""
        r = s - y
        if name in ("squared_error", "mean_squared_error"):
            return (r * r / 2, r) if name == "squared_error" else (r * r, 2 * r)
        if name == "absolute_error":
            return np.abs(r), np.sign(r)
        if name == "huber":
            delta = s.dtype.type(p["delta"])
            far = np.abs(r) > delta
            return np.where(far, delta * (np.abs(r) - delta / 2), r * r / 2), np.clip(r, -delta, delta)
        if name == "cross_entropy":
            probabilities = self.softmax(s)
            if self.by_logarithm:  # Σᵢ −yᵢ (δᵢⱼ − pⱼ)
                jacobian = np.eye(s.shape[1], dtype=s.dtype) - probabilities[:, :, None]
                return -y * self.log_softmax(s), self.summed(-y[:, None, :] * jacobian)
            return -y * self.log_softmax(s), self.summed(y)[:, None] * probabilities - y
        if name == "binary_cross_entropy":
            value, slope = self.rules["softplus"](s, {})
            return value - y * s, slope - y
        certain = np.where(y == 0, 1, s)
        return -y * np.log(certain), -y / certain


# --------------------------------------------------------------------------------------------------------------
# Backpropagation


def targets(problem: Problem, dtype: Any) -> Array:
    """(N, n_out)"""
    y, n_out = problem.y, problem.spec.n_out
    return ((y[:, None] == np.arange(n_out)) if y.ndim == 1 else y).astype(dtype)


def count(problem: Problem) -> int:
    """What the sum of all losses is divided by."""
    averages = problem.spec.n_out if LOSSES[problem.spec.loss.name].averages_outputs else 1
    return averages * (len(problem.x) if problem.spec.reduction == "mean" else 1)


def backpropagate(problem: Problem, style: Style, parts: int | None = None) -> Answer:
    """The loss and the gradients; divided by `parts`, where that is not the problem's own."""
    spec, dtype = problem.spec, problem.x.dtype
    work = np.dtype(style.work or dtype)
    n = work.type(count(problem) if parts is None else parts)
    layers = [{role: w.astype(work) for role, w in own.items()} for own in spec.by_layer(problem.params)]
    a = [problem.x.reshape(len(problem.x), spec.n_in).astype(work)]
    slopes = []
    for layer, own in zip(spec.layers, layers, strict=True):
        z = style.product(a[-1], own["W"].T)
        z = z + own["b"] if layer.bias else z
        if layer.activation.name == "softmax":
            value, slope = style.softmax(z), None
        else:
            value, slope = style.rules[layer.activation.name](z, _typed(layer.activation.kwargs, work))
        a.append(np.asarray(value, work))
        slopes.append(slope)
    losses, delta = style.loss(spec.loss.name, spec.loss.kwargs, a[-1], targets(problem, work))
    loss = style.summed(style.summed(losses)) / n
    if style.share != "gradients":
        delta = delta * (1 / n) if style.share == "delta" else delta / n
    grads = []
    for number in reversed(range(spec.depth)):
        slope = slopes[number]
        delta = style.softmax_vjp(a[number + 1], delta) if slope is None else delta * slope
        own = {"W": style.product(delta.T, a[number])}
        if spec.layers[number].bias:
            own["b"] = style.summed(delta.T)
        grads.append({role: (g / n if style.share == "gradients" else g).astype(dtype) for role, g in own.items()})
        delta = style.product(delta, layers[number]["W"])
    return loss.astype(dtype), spec.by_name(grads[::-1])


def _typed(parameters: Mapping[str, float], dtype: Any) -> dict[str, Any]:
    return {name: dtype.type(value) for name, value in parameters.items()}


def in_parts(sizes: Callable[[int], list[int]]) -> Callable[[Problem], Answer]:
    """The batch in parts, whose gradients are added up and divided at the end."""

    def run(problem: Problem) -> Answer:
        n, dtype = count(problem), problem.x.dtype.type
        loss, grads = dtype(0), {name: np.zeros_like(array) for name, array in problem.params.items()}
        for rows in np.split(np.arange(len(problem.x)), np.cumsum(sizes(len(problem.x)))[:-1]):
            part = replace(problem, x=problem.x[rows], y=problem.y[rows])
            more, own = backpropagate(part, Style(), parts=1)
            loss, grads = loss + more, {name: grads[name] + own[name] for name in grads}
        return loss / dtype(n), {name: grad / dtype(n) for name, grad in grads.items()}

    return run


def random_sizes(n: int) -> list[int]:
    """Of micro-batches."""
    cuts = np.flatnonzero(np.random.default_rng(n).random(n - 1) < 0.3) + 1
    return np.diff([0, *cuts, n]).tolist()


# --------------------------------------------------------------------------------------------------------------
# Forward mode


def dual_numbers(problem: Problem) -> Answer:
    """A tangent for each parameter, from the input to the loss."""
    spec, style, layers = problem.spec, Style(), problem.spec.by_layer(problem.params)
    dtype, n = problem.x.dtype, problem.x.dtype.type(count(problem))
    a = problem.x.reshape(len(problem.x), spec.n_in)
    tangents = np.zeros((spec.n_parameters, *a.shape), dtype)  # (parameters, N, n)
    start = 0
    for layer, own in zip(spec.layers, layers, strict=True):
        tangents = np.matmul(tangents, own["W"].T)
        for i in range(layer.size):  # ∂z_i/∂W_ij = a_j
            at = start + i * a.shape[1] + np.arange(a.shape[1])
            tangents[at, :, i] += a.T
        start += own["W"].size
        z = a @ own["W"].T
        if layer.bias:
            z = z + own["b"]
            tangents[start + np.arange(layer.size), :, np.arange(layer.size)] += 1
            start += layer.size
        if layer.activation.name == "softmax":
            a = style.softmax(z)
            tangents = a * (tangents - (a * tangents).sum(axis=-1, keepdims=True))
        else:
            a, slope = USUAL[layer.activation.name](z, _typed(layer.activation.kwargs, dtype))
            a, tangents = a.astype(dtype), tangents * slope.astype(dtype)
    losses, slope = style.loss(spec.loss.name, spec.loss.kwargs, a, targets(problem, dtype))
    return losses.sum() / n, _apart(problem, (tangents * slope).sum(axis=(1, 2)) / n)


def _apart(problem: Problem, flat: Array) -> Arrays:
    parameters = problem.spec.parameters
    ends = np.cumsum([math.prod(parameter.shape) for parameter in parameters])[:-1]
    pieces = zip(parameters, np.split(flat, ends), strict=True)
    return {parameter.name: piece.reshape(parameter.shape) for parameter, piece in pieces}


STEP = 2.0**-70


def complex_step(problem: Problem) -> Answer:
    """Im f(w + ih) / h for each parameter (Squire & Trapp, "Using complex variables to estimate derivatives of real
    functions", SIAM Review 40, 1998), in long double for its range: h times a gradient may underflow.
    """
    flat = np.concatenate([array.ravel() for array in problem.params.values()]).astype(np.clongdouble)
    found = []
    for place in range(flat.size):
        moved = flat.copy()
        moved[place] += 1j * STEP
        found.append(_complex_loss(problem, _apart(problem, moved)))
    return _complex_loss(problem, problem.params).real, _apart(problem, np.array(found).imag / STEP)


def _complex_sigmoid(z: Array) -> Array:
    t = np.exp(np.where(z.real < 0, z, -z))
    return np.where(z.real < 0, t, 1) / (1 + t)


def _complex_log_softmax(z: Array) -> Array:
    away = z - z.real.max(axis=1, keepdims=True)
    return away - np.log(np.exp(away).sum(axis=1, keepdims=True))


COMPLEX: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "sigmoid": _complex_sigmoid,
    "tanh": np.tanh,
    "gelu_tanh": lambda z: z * _complex_sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)),
    "silu": lambda z: z * _complex_sigmoid(z),
    "softmax": lambda z: np.exp(_complex_log_softmax(z)),
}
COMPLEX_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "squared_error": lambda s, y: (s - y) * (s - y) / 2,
    "mean_squared_error": lambda s, y: (s - y) * (s - y),
    "cross_entropy": lambda s, y: -y * _complex_log_softmax(s),
    "negative_log_likelihood": lambda s, y: -y * np.log(np.where(y == 0, 1, s)),
}


def _complex_loss(problem: Problem, params: Arrays) -> Any:
    a: Array = problem.x.reshape(len(problem.x), -1).astype(complex)
    for layer, own in zip(problem.spec.layers, problem.spec.by_layer(params), strict=True):
        a = COMPLEX[layer.activation.name](a @ own["W"].T + own.get("b", 0.0))
    return COMPLEX_LOSSES[problem.spec.loss.name](a, targets(problem, float)).sum() / count(problem)


# --------------------------------------------------------------------------------------------------------------
# The table


@dataclass(frozen=True)
class Right:
    """A right implementation, and what it supports (`adapted` makes a problem of that kind of another).

    `small`: it takes one parameter at a time; `forward`: a product that underflows is multiplied by what follows, so
    that data near underflow are none for it; `flushes`: subnormal numbers; `needs`: a module that may be missing.
    """

    name: str
    run: Callable[[Problem], Answer]
    activations: frozenset[str] = frozenset(ACTIVATIONS)
    losses: frozenset[str] = frozenset(LOSSES)
    dtypes: tuple[str, ...] = ("float64", "float32")
    small: bool = False
    forward: bool = False
    flushes: bool = False
    needs: str = ""

    @property
    def missing(self) -> bool:
        """Whether a module that it needs is not installed."""
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None

    def adapted(self, problem: Problem) -> Problem:
        """The problem with functions that it supports in the place of others."""
        spec, known = problem.spec, sorted(self.activations)
        layers = [
            layer if layer.activation.name in known else LayerSpec(layer.size, known[at % len(known)], layer.bias)
            for at, layer in enumerate(spec.layers, start=problem.index)
        ]
        loss = spec.loss if spec.loss.name in self.losses else "squared_error"
        adapted = NetworkSpec(spec.input_shape, layers, loss, spec.reduction, spec.name)
        return problem if adapted == spec else replace(problem, spec=adapted)

    def supports(self, problem: Problem) -> bool:
        """Whether this problem is within its domain."""
        spec, x = problem.spec, np.abs(problem.x)
        work = spec.n_parameters * len(x) * max(spec.sizes)
        tiny = float(x.max(initial=0.0)) < float(np.finfo(x.dtype).smallest_normal) ** 0.5
        return str(x.dtype) in self.dtypes and not (self.small and work > SMALL) and not (self.forward and tiny)


def _arranged(name: str, **style: Any) -> Right:
    return Right(name, lambda problem: backpropagate(problem, Style(**style)))


def _summed(name: str, summed: Sum, share: str = "delta") -> Right:
    return _arranged(name, summed=summed, product=products_by(summed), share=share)


NUMPY = (
    _arranged("BLAS, 1/N on delta"),
    _arranged("BLAS, 1/N on the gradients", share="gradients"),
    _arranged("BLAS, 1/N on the loss", share="loss"),
    _arranged("einsum", product=lambda a, b: np.einsum("ik,kj->ij", a, b)),
    _summed("sequential sums", sequential),
    _summed("reversed sums", backwards, "gradients"),
    _summed("shuffled sums", shuffled),
    _summed("largest first", largest_first, "gradients"),
    _summed("pairwise sums", pairwise),
    _summed("Kahan's sums", compensated),
    _summed("sums in 8 lanes", strided(8), "loss"),
    _summed("sums in 16 lanes", strided(16)),
    _arranged("long double throughout", work=np.longdouble),
    _arranged("other formulas", rules=OTHER),
    _arranged("softmax by its logarithm, whole Jacobians", by_logarithm=True),
    _arranged("sigmoid by tanh", rules=BY_TANH),
    Right("loop over samples", in_parts(lambda n: [1] * n)),
    Right("micro-batches", in_parts(random_sizes)),
    Right("dual numbers", dual_numbers, small=True, forward=True),
    Right(
        "complex step", complex_step, ANALYTIC, frozenset(COMPLEX_LOSSES), ("float64",), small=True, forward=True
    ),
)  # fmt: skip
