"""Small programs, one or more a primitive, with what they are to NumPy; numbers to run them on; and their balls."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from refimpl.truth import graph as primitives
from refimpl.truth.balls import BallAlgebra, Balls, arbs
from refimpl.truth.elementwise import LOGARITHM, activation, huber
from refimpl.truth.graph import Node, read

Build = Callable[[Node, Node], Node]
SHAPE = (2, 3, 4)
PLACES = np.array([[0, 5, -1], [23, 5, 7]])
MASK = np.arange(24).reshape(SHAPE) % 3 == 0


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
