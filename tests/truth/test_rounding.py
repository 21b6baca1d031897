"""Error bounds of graphs: right evaluations in float32, in any order of summation, and the truth itself lie within."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from programs import ALL, SHAPE, InFloat32, balls, numbers, program

from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.truth.graph import PRIMITIVES, Node, read
from refimpl.truth.numbers import NumberAlgebra
from refimpl.truth.rounding import RoundingAlgebra

FLOAT32, FLOAT64 = ARITHMETICS["float32"], ARITHMETICS["float64"]
names = pytest.mark.parametrize("name", list(ALL))


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
