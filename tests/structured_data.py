"""Data on which errors are alike: rows, columns, weights or error signals that repeat. `DATA` lists the kinds;
`structured` makes a problem of one, `arranged` the answers of right implementations that sum in different orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from networks import network
from right_implementations import Answer, Arrays, Style, backpropagate
from summation import Array, numpy_sum, products_by, sequential, strided

from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem, random_batch
from refimpl.network.spec import NetworkSpec

# (one layer, dtype, N); certifying takes a second for each 3,000 samples, the bounds three times as long and 0.15 MB
# of memory a sample
SIZES = (
    (True, "float32", 1024),
    (True, "float32", 4096),
    (True, "float32", 16384),
    (True, "float32", 65536),
    (True, "float64", 1024),
    (False, "float32", 1024),
    (False, "float32", 4096),
    (False, "float64", 1024),
)


@dataclass(frozen=True)
class Draft:
    """A classifier, its parameters, x normal and y random labels."""

    spec: NetworkSpec
    params: Arrays
    x: Array
    y: Array
    rng: np.random.Generator

    def with_x(self, x: Any) -> Draft:
        """The same with another x."""
        return replace(self, x=x)

    def of_rows(self, rows: Array) -> Draft:
        """The same with these rows of x and y."""
        return replace(self, x=self.x[rows], y=self.y[rows])

    def with_weights(self, value: float) -> Draft:
        """All parameters the same."""
        return replace(self, params={name: np.full_like(array, value) for name, array in self.params.items()})

    @property
    def sorted(self) -> Draft:
        """The rows by class."""
        return self.of_rows(np.argsort(self.y, kind="stable"))


def _xor(draft: Draft) -> Draft:
    bits = draft.rng.integers(2, size=(len(draft.x), 2))
    x = np.zeros_like(draft.x)
    x[:, :2] = bits
    return replace(draft, x=x, y=bits[:, 0] ^ bits[:, 1])


def _padding(draft: Draft) -> Draft:
    return draft.with_x(draft.x * (draft.rng.random(draft.x.shape) < 0.05))


def _constant_cotangents(draft: Draft) -> Draft:
    layers = draft.spec.layers
    spec = NetworkSpec(draft.spec.input_shape, layers, "absolute_error", "sum")
    x = draft.x.copy()
    x[:, ::2] = 0.1
    return replace(draft, spec=spec, x=x, y=np.full((len(x), spec.n_out), -1000.0))


def _by_class(draft: Draft) -> Draft:
    means = draft.rng.standard_normal((draft.spec.n_out, draft.spec.n_in))
    return draft.with_x(means[draft.y] + 0.1 * draft.x).sorted


DATA: dict[str, Callable[[Draft], Draft]] = {
    "all rows equal": lambda d: d.of_rows(np.zeros(len(d.x), np.intp)),
    "four distinct rows": lambda d: d.of_rows(np.arange(len(d.x)) % 4),
    "XOR repeated": _xor,
    "one-hot inputs": lambda d: d.with_x(np.eye(d.spec.n_in)[d.rng.integers(d.spec.n_in, size=len(d.x))]),
    "binary inputs": lambda d: d.with_x(d.rng.integers(2, size=d.x.shape)),
    "8-bit pixels": lambda d: d.with_x(d.rng.integers(256, size=d.x.shape) / 255),
    "rows sorted by class": _by_class,
    "padding": _padding,
    "weights 0, sorted": lambda d: d.sorted.with_weights(0),
    "weights 0, equal rows": lambda d: d.of_rows(np.zeros(len(d.x), np.intp)).with_weights(0),
    "weights 0, 8-bit pixels": lambda d: d.with_x(d.rng.integers(256, size=d.x.shape) / 255).with_weights(0),
    "weights 0.1": lambda d: d.with_weights(0.1),
    "constant cotangents": _constant_cotangents,
    "saturated units": lambda d: d.with_x(30 * d.x),
    "saturated units, equal rows": lambda d: d.with_x(30 * d.x).of_rows(np.zeros(len(d.x), np.intp)),
    "one large row": lambda d: d.with_x(np.concatenate([1000 * d.x[:1], d.x[1:]])),
    "rows 1e-4 apart": lambda d: replace(d, x=d.x[:1] + 1e-4 * d.x, y=np.full_like(d.y, d.y[0])),
    "rows 1e-4 apart, any class": lambda d: d.with_x(d.x[:1] + 1e-4 * d.x),
}


def structured(kind: str, single: bool, n: int, dtype: str, seed: int) -> Problem:
    """A problem of this kind: softmax regression 16 → 10, or 4-8-3."""
    sizes = (16, 10) if single else (4, 8, 3)
    spec = network(sizes, ["tanh"] * (not single) + ["identity"], "cross_entropy")
    rng = np.random.default_rng([seed, n, *kind.encode()])
    params = {name: 0.5 * rng.standard_normal(shape) for name, shape in spec.parameter_shapes.items()}
    draft = Draft(spec, params, rng.standard_normal((n, sizes[0])), rng.integers(sizes[-1], size=n), rng)
    made = DATA[kind](draft)
    y: Any = made.y.astype(dtype) if made.y.ndim == 2 else made.y
    typed = {name: array.astype(dtype) for name, array in made.params.items()}
    return Problem(made.spec, typed, made.x.astype(dtype), y, seed, n)


STYLES = {
    "sequential": Style(sequential, products_by(sequential)),
    "sequential, 1/N last": Style(sequential, products_by(sequential), "gradients"),
    "NumPy's sum": Style(numpy_sum, products_by(numpy_sum)),
    "8 lanes": Style(strided(8), products_by(strided(8)), "loss"),
    "BLAS": Style(),
    "BLAS, 1/N last": Style(share="gradients"),
}


def arranged(problem: Problem) -> Iterator[tuple[str, Answer]]:
    """The answers by the arrangement of their sums."""
    for name, style in STYLES.items():
        yield name, backpropagate(problem, style)


def tiny(seed: int, number: int, dtype: str) -> Problem:
    """A network of so few roundings that every sensitivity is computed: 1 to 3 layers of 1 to 4 neurons, up to 11
    samples, of which the first is sometimes a thousand times larger.
    """
    rng = np.random.default_rng([seed, number])
    sizes = [int(size) for size in rng.integers(1, 5, int(rng.integers(2, 5)))]
    activations = [str(name) for name in rng.choice(list(ACTIVATIONS), len(sizes) - 1)]
    loss = list(LOSSES)[number % len(LOSSES)]
    if loss == "negative_log_likelihood":
        activations[-1] = "softmax"
    spec = network(sizes, activations, loss, ("mean", "sum")[number // len(LOSSES) % 2])
    gain = 10 ** rng.uniform(-1, 1)
    params = {name: (gain * rng.standard_normal(shape)).astype(dtype) for name, shape in spec.parameter_shapes.items()}
    x, y = random_batch(spec, rng, int(rng.integers(1, 12)), dtype)
    if rng.random() < 0.3:
        x[0] *= np.asarray(1000, dtype)
    return Problem(spec, params, x, y, seed, number)
