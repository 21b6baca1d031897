"""Small programs, one or more a primitive, with what they are to NumPy; numbers to run them on; and their balls."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from refimpl.network.arithmetic import ARITHMETICS
from refimpl.truth import graph as primitives
from refimpl.truth.balls import BallAlgebra, Balls, arbs, as_matrices, rows_over
from refimpl.truth.elementwise import LOGARITHM, activation, huber
from refimpl.truth.gradients import gradients
from refimpl.truth.graph import PRIMITIVES, Node, read
from refimpl.truth.numbers import NumberAlgebra

Build = Callable[[Node, Node], Node]
SHAPE = (2, 3, 4)
PLACES = np.array([[0, 5, -1], [23, 5, 7]])
MASK = np.arange(24).reshape(SHAPE) % 3 != 1


def softmax(a: Any) -> Any:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def norm(a: Any, centred: bool = True) -> Any:
    c = a - a.mean(axis=-1, keepdims=True) if centred else a
    return c / np.sqrt((c * c).mean(axis=-1, keepdims=True) + 0.5)


def scattered(a: Any) -> Any:
    out = np.zeros(6)
    np.add.at(out, np.arange(24) % 6, a.ravel())
    return out.reshape(2, 3)


# what each primitive is to NumPy, on two arrays of SHAPE whose numbers lie between ¼ and 3
EXAMPLES: dict[str, tuple[Build, Callable[[Any, Any], Any]]] = {
    "given": (lambda a, b: a, lambda a, b: a),
    "constant": (lambda a, b: a * np.full(SHAPE, 0.75), lambda a, b: a * 0.75),
    "add": (lambda a, b: a + b[0], lambda a, b: a + b[0]),
    "mul": (lambda a, b: a * b[:, :1], lambda a, b: a * b[:, :1]),
    "div": (lambda a, b: a / b, lambda a, b: a / b),
    "scale": (lambda a, b: primitives.scale(a, Fraction(2, 7)), lambda a, b: a * 2 / 7),
    "contract": (
        lambda a, b: primitives.contract("nij,kin->kj", a, b.reshape(4, 3, 2)),
        lambda a, b: np.einsum("nij,kin->kj", a, b.reshape(4, 3, 2)),
    ),
    "cast": (lambda a, b: primitives.cast(a, ARITHMETICS["float64"]) * b, lambda a, b: a * b),
    "about": (lambda a, b: primitives.about(a, np.full(SHAPE, 1e-13)) * b, lambda a, b: a * b),
    "apply": (lambda a, b: primitives.apply(activation("tanh"), a), lambda a, b: np.tanh(a)),
    "softmax": (lambda a, b: primitives.softmax(a), lambda a, b: softmax(a)),
    "log_sum_exp": (
        lambda a, b: primitives.log_sum_exp(a),
        lambda a, b: np.log(np.exp(a).sum(axis=-1, keepdims=True)),
    ),
    "normalise": (lambda a, b: primitives.normalise(a, 0.5), lambda a, b: norm(a)),
    "inverse_deviation": (
        lambda a, b: primitives.inverse_deviation(a, 0.5, centred=False),
        lambda a, b: 1 / np.sqrt((a * a).mean(axis=-1, keepdims=True) + 0.5),
    ),
    "sum": (lambda a, b: a.sum(axis=(0, -1)), lambda a, b: a.sum(axis=(0, -1))),
    "max": (lambda a, b: a.max(axis=(0, 2)), lambda a, b: a.max(axis=(0, 2))),
    "first_largest": (
        lambda a, b: a * primitives.first_largest(a, (1,)),
        lambda a, b: a * (a == a.max(axis=1, keepdims=True)),
    ),
    "select": (lambda a, b: primitives.select(MASK, a, b), lambda a, b: np.where(MASK, a, b)),
    "gather": (
        lambda a, b: primitives.gather(a, PLACES),
        lambda a, b: np.append(a.ravel(), 0.0)[PLACES],
    ),
    "scatter_add": (lambda a, b: primitives.scatter_add(a, np.arange(24) % 6, (2, 3)), lambda a, b: scattered(a)),
    "reshape": (lambda a, b: a.reshape(4, -1), lambda a, b: a.reshape(4, -1)),
    "transpose": (lambda a, b: primitives.transpose(a, (2, 0, 1)), lambda a, b: a.transpose(2, 0, 1)),
    "broadcast": (lambda a, b: primitives.broadcast(a, (5, *SHAPE)), lambda a, b: np.broadcast_to(a, (5, *SHAPE))),
}
MORE: dict[str, tuple[Build, Callable[[Any, Any], Any]]] = {
    "rms norm": (lambda a, b: primitives.normalise(a, 0.5, centred=False), lambda a, b: norm(a, centred=False)),
    "masked softmax": (lambda a, b: primitives.softmax(a, MASK), lambda a, b: softmax(np.where(MASK, a, -np.inf))),
    "masked log_sum_exp": (
        lambda a, b: primitives.log_sum_exp(a, MASK) * b,
        lambda a, b: np.log(np.where(MASK, np.exp(a), 0).sum(axis=-1, keepdims=True)) * b,
    ),
    "log": (lambda a, b: primitives.apply(LOGARITHM, a), lambda a, b: np.log(a)),
    "huber": (
        lambda a, b: primitives.apply(huber(1.0), a - b),
        lambda a, b: np.where(abs(a - b) <= 1, (a - b) ** 2 / 2, abs(a - b) - 0.5),
    ),
    "operators": (
        lambda a, b: 1 - (2 / a - a / 4) * -b + (a.reshape(6, 4) @ b.reshape(4, 6).T.T).sum(),
        lambda a, b: 1 - (2 / a - a / 4) * -b + (a.reshape(6, 4) @ b.reshape(4, 6)).sum(),
    ),
}
ALL = EXAMPLES | MORE


def leaves() -> tuple[Node, Node]:
    return primitives.given("a", SHAPE), primitives.given("b", SHAPE)


def numbers(seed: int) -> dict[str, np.ndarray]:
    """Distinct numbers between ¼ and 3, short enough to print, no two of which are at a kink."""
    rng = np.random.default_rng(seed)
    return {name: 0.25 + rng.permutation(24).reshape(SHAPE) / 9 + offset for name, offset in (("a", 0), ("b", 0.05))}


def balls(ends: list[Node], at: dict[str, np.ndarray]) -> list[Balls]:
    values = read(ends, BallAlgebra({name: arbs(array) for name, array in at.items()}))
    return [Balls.from_arbs(list(values[end].ravel()), end.shape) for end in ends]


def program(name: str) -> list[Node]:
    """The example, and its gradients where the rounding of its derivatives is stated."""
    a, b = leaves()
    output = ALL[name][0](a, b)
    return [output, *gradients((output * (1 + np.arange(output.size).reshape(output.shape) / 4)).sum(), [a, b])]


class InFloat32(NumberAlgebra):
    """What a float32 implementation computes, sums in an order drawn anew each time, functions as far off as they are
    allowed to be.
    """

    def __init__(self, known: dict[str, np.ndarray], seed: int) -> None:
        super().__init__(known)
        self.rng = np.random.default_rng(seed)

    def _summed(self, terms: np.ndarray) -> np.ndarray:
        """The sums over the last axis, one term after the other or by halves."""
        terms = self.rng.permuted(terms.astype(np.float32), axis=-1)
        if self.rng.random() < 0.5:
            return np.cumsum(terms, axis=-1, dtype=np.float32)[..., -1]
        while terms.shape[-1] > 1:
            odd = terms[..., -1:] if terms.shape[-1] % 2 else terms[..., :0]
            terms = np.concatenate([terms[..., 0:-1:2] + terms[..., 1::2], odd], axis=-1)
        return terms[..., 0]

    def contract(self, node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right, placed = as_matrices(node.static, a, b)
        products = left.astype(np.float32)[:, :, None, :] * right.astype(np.float32).transpose(0, 2, 1)[:, None, :, :]
        return placed(self._summed(products))

    def sum(self, node: Node, a: np.ndarray) -> np.ndarray:
        return self._summed(rows_over(a, node.static)).reshape(node.shape)

    def scatter_add(self, node: Node, a: np.ndarray) -> np.ndarray:
        sums = np.zeros(node.size + 1, dtype=np.float32)  # the place −1 is the last
        for place in self.rng.permutation(a.size):
            sums[node.static.flat[place]] += np.float32(a.flat[place])
        return sums[:-1].reshape(node.shape)

    def apply(self, node: Node, a: np.ndarray) -> np.ndarray:
        function, times = node.static
        ulps = max((function.value_ulps, function.slope_ulps)[times] - 1, 0)  # the last is the result's
        value = super().apply(node, a)
        return value * (1 + ulps * 2.0**-24 * self.rng.uniform(-1, 1, value.shape))

    def about(self, node: Node, a: np.ndarray) -> np.ndarray:
        off, times = node.static
        return a * (1 + times * off * self.rng.uniform(-1, 1, a.shape))

    def normalise(self, node: Node, a: np.ndarray, inverse: np.ndarray, *mean: np.ndarray) -> np.ndarray:
        return (a.astype(np.float32) - sum(mean)) * inverse

    def inverse_deviation(self, node: Node, a: np.ndarray) -> np.ndarray:
        epsilon, centred = node.static
        a, n = a.astype(np.float32), np.float32(a.shape[-1])
        centre = self._summed(a)[..., None] / n if centred else np.float32(0)
        return 1 / np.sqrt(self._summed((a - centre) ** 2)[..., None] / n + np.float32(epsilon))


def rounded(name: str, method: Any) -> Any:
    def run(self: InFloat32, node: Node, *inputs: np.ndarray) -> np.ndarray:
        return np.asarray(method(self, node, *(a.astype(np.float32) for a in inputs)), dtype=np.float32)

    return run


for rule in PRIMITIVES:
    setattr(InFloat32, rule, rounded(rule, getattr(InFloat32, rule)))
