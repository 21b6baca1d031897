"""Error bounds of graphs: right evaluations in float32, in any order of summation, and the truth itself lie within."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from programs import ALL, SHAPE, balls, leaves, numbers

from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.truth.balls import as_matrices, rows_over
from refimpl.truth.gradients import gradients
from refimpl.truth.graph import PRIMITIVES, Node, read
from refimpl.truth.numbers import NumberAlgebra
from refimpl.truth.rounding import RoundingAlgebra

FLOAT32, FLOAT64 = ARITHMETICS["float32"], ARITHMETICS["float64"]
names = pytest.mark.parametrize("name", list(ALL))


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

    def normalise(self, node: Node, a: np.ndarray) -> np.ndarray:
        return self._normed(node, a)[0]

    def inverse_deviation(self, node: Node, a: np.ndarray) -> np.ndarray:
        return self._normed(node, a)[1]

    def _normed(self, node: Node, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epsilon, centred = node.static
        a, n = a.astype(np.float32), np.float32(a.shape[-1])
        centre = self._summed(a)[..., None] / n if centred else np.float32(0)
        factor = 1 / np.sqrt(self._summed((a - centre) ** 2)[..., None] / n + np.float32(epsilon))
        return (a - centre) * factor, factor


def rounded(name: str, method: Any) -> Any:
    def run(self: InFloat32, node: Node, *inputs: np.ndarray) -> np.ndarray:
        return np.asarray(method(self, node, *(a.astype(np.float32) for a in inputs)), dtype=np.float32)

    return run


for rule in PRIMITIVES:
    setattr(InFloat32, rule, rounded(rule, getattr(InFloat32, rule)))


def program(name: str) -> list[Node]:
    """The example, and its gradients where the rounding of its derivatives is stated."""
    a, b = leaves()
    output = ALL[name][0](a, b)
    return [output, *gradients((output * (1 + np.arange(output.size).reshape(output.shape) / 4)).sum(), [a, b])]


def bounds(
    ends: list[Node], at: dict[str, np.ndarray], arithmetic: Arithmetic, errors: dict[str, np.ndarray] | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    mids = NumberAlgebra(at)

    def numbers_of(node: Node, *inputs: np.ndarray) -> np.ndarray:
        return getattr(mids, node.rule)(node, *inputs)

    values = read(ends, RoundingAlgebra(arithmetic, numbers_of, errors or {}))
    return [values[end] for end in ends]


def test_every_primitive_states_its_rounding() -> None:
    for algebra in (RoundingAlgebra, NumberAlgebra):
        assert set(PRIMITIVES) <= set(dir(algebra))


@names
@over(seed=st.integers(0, 10**6))
def test_a_float32_evaluation_lies_within_the_bound(name: str, seed: int) -> None:
    at = {key: array.astype(np.float32).astype(np.float64) for key, array in numbers(seed).items()}
    ends = program(name)
    found = read(ends, InFloat32(at, seed))
    for end, (mid, err) in zip(ends, bounds(ends, at, FLOAT32), strict=True):
        off = np.abs(found[end] - mid)
        assert np.isfinite(err).all()
        assert (off <= err).all(), f"{name}: up to {np.max(off - err)} outside the bound"


@names
@over(seed=st.integers(0, 10**6))
def test_float64_with_its_own_bound_holds_the_truth(name: str, seed: int) -> None:
    at, ends = numbers(seed), program(name)
    for ball, (mid, err) in zip(balls(ends, at), bounds(ends, at, FLOAT64), strict=True):
        assert (ball.distance(mid) <= err + 2 * ball.tail_rad).all()
        assert (err <= 1e-11 * np.maximum(np.abs(ball.mid).max(), 1)).all()


def test_an_inexact_input_comes_out_as_far_off_as_it_may_be() -> None:
    """A bound on the inputs' own errors is kept to second order: at the ends of what they may be, too."""
    at, rng = numbers(3), np.random.default_rng(3)
    for name in ALL:
        ends = program(name)[:1]
        off = np.full(SHAPE, 1e-3)
        mids = NumberAlgebra(at)
        algebra = RoundingAlgebra(
            FLOAT64, lambda node, *m, k=mids: getattr(k, node.rule)(node, *m), {"a": off, "b": off}
        )
        mid, err = read(ends, algebra)[ends[0]]
        for _ in range(20):
            moved = {key: array + off * rng.choice([-1, 1], SHAPE) for key, array in at.items()}
            there = read(ends, NumberAlgebra(moved))[ends[0]]
            if name != "first_largest":
                assert (np.abs(there - mid) <= err + 1e-14).all(), name
