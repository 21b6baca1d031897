"""Error bounds of graphs: right evaluations in float32, in any order of summation, and the truth itself lie within."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from programs import ALL, SHAPE, InFloat32, balls, leaves, numbers, program

from refimpl.faults.prediction import Casts
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.truth.elementwise import activation
from refimpl.truth.gradients import gradients
from refimpl.truth.graph import PRIMITIVES, Node, about, apply, cast, read
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

    values = read(ends, Casts(RoundingAlgebra(arithmetic, numbers_of, errors or {})))
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


def test_what_is_made_from_numbers_cast_to_float32_rounds_as_float32_does() -> None:
    """And what is not, as before: the bounds are no wider than they must be."""
    at, (a, b) = numbers(4), leaves()
    a, b = (one.reshape(6, 4) for one in (a, b))
    narrow = a.astype(np.float32)
    product = narrow @ b.T
    last = apply(activation("tanh"), product * b.sum())
    alone = (a @ b.T).sum()
    left, right = (at[key].reshape(6, 4) for key in at)
    found = (left.astype(np.float32) @ right.astype(np.float32).T).astype(np.float64)
    close = bounds([narrow, product, last, alone], at, FLOAT64)
    for (mid, err), value, u in zip(
        close, (left.astype(np.float32), found, np.tanh(found * right.sum()), (left @ right.T).sum()),
        (2.0**-24, 2.0**-24, 2.0**-24, 2.0**-53), strict=True,
    ):  # fmt: skip
        assert (np.abs(mid - value) <= err).all()
        assert (err <= 100 * u * np.abs(mid).max()).all()
    assert (close[1][1] >= 2.0**-24 * np.abs(close[1][0])).all()
    (exact,) = bounds([cast(a, FLOAT64) @ b.T], at, FLOAT32)
    assert np.array_equal(exact[1] > 0, np.ones((6, 6), dtype=bool))


def test_a_number_too_large_for_what_it_is_cast_to_is_not_bounded() -> None:
    a, _ = leaves()
    ((_, err),) = bounds([a.astype(np.float32)], {"a": np.full(SHAPE, 1e39)}, FLOAT64)
    assert np.isinf(err).all()


def test_a_sum_with_one_term_that_is_not_0_rounds_nothing_and_others_by_how_many_there_are() -> None:
    a, _ = leaves()
    for count in (0, 1, 2, 20):
        at = {"a": np.where(np.arange(24).reshape(SHAPE) < count, 1 / 3, 0.0)}
        ((mid, err),) = bounds([a.sum()], at, FLOAT64)
        assert (err == 0) == (count < 2)
        assert err <= (count + 2) * FLOAT64.unit_roundoff * mid


def test_only_the_derivative_of_what_is_about_1_may_be_off() -> None:
    a, _ = leaves()
    off = np.linspace(0, 1e-3, 24).reshape(SHAPE)
    loss = apply(activation("tanh"), about(a, off)).sum()
    at = numbers(2)
    (value, slope), (plain, right) = (
        bounds([one, *gradients(one, [a])], at, FLOAT64) for one in (loss, apply(activation("tanh"), a).sum())
    )
    assert np.array_equal(value, plain)
    assert np.array_equal(slope[0], right[0])
    np.testing.assert_allclose(slope[1] - right[1], off * np.abs(right[0]), rtol=1e-6, atol=1e-15)
    assert about(a, off * 0) is a
