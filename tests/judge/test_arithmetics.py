"""Declared arithmetics: what computes in one is within its bounds, and outside those of what it does not declare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from arithmetics_measure import LARGE, measured, numbered, random_network
from emulated import (
    BFLOAT16,
    EMULATED,
    EMULATIONS,
    FLOAT16,
    FLOAT32,
    EmulatedBackend,
    Product,
    Rounding,
    one_by_one,
    tensor_cores,
    to_bits,
    toward_zero,
)
from networks import network
from summation import Sum, numpy_sum, pairwise, sequential

from refimpl.judge.bounds import FIRST_ORDER, bounds
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, WORST_CASE, Row
from refimpl.network.arithmetic import PRESETS, Arithmetic
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem
from refimpl.truth.graph import given

PLAIN = ("float64", "float32", "float64_flushing", "float32_flushing")
COARSE = [name for name in PRESETS if name not in PLAIN]
IN_FLOAT32 = PRESETS["float32"]
SMALL, MIDDLE = (16, 12, 8, 4), (256, 128, 10)
TRUNCATING: dict[str, tuple[Product, Arithmetic]] = {
    "turing": (tensor_cores(4, 24), replace(IN_FLOAT32, accumulation=2.0**-24, truncated=4)),
    "hopper": (tensor_cores(16, 25), replace(IN_FLOAT32, accumulation=2.0**-25, truncated=16)),
    "one by one": (one_by_one(toward_zero(24)), replace(IN_FLOAT32, accumulation=2.0**-24, truncated=1)),
}
Array = np.ndarray[Any, Any]


def judge_of(p: Problem) -> Judge:
    return Judge(p.spec, validate(p.spec, p.params, p.x, p.y))


@cache
def judge(seed: int, sizes: tuple[int, ...], n: int, dtype: str = "float32", loss: str = "") -> Judge:
    """The truth about a random network."""
    return judge_of(random_network(np.random.default_rng([seed, n, *sizes]), sizes, n, dtype, loss))


@cache
def one_sign(sizes: tuple[int, ...] = LARGE, n: int = 64) -> Judge:
    """Where every term has one sign, so that what is cut adds up; 784-128-10 on 64 samples."""
    p = random_network(np.random.default_rng(0), sizes, n, loss="squared_error")
    spec = network(sizes, ["relu", "identity"])
    return judge_of(replace(p, spec=spec, params={name: abs(array) for name, array in p.params.items()}, x=abs(p.x)))


def failed(rows: list[Row]) -> int:
    return sum(row.failed for row in rows)


# --------------------------------------------------------------------------------------------------------------
# Emulations and what they declare


def test_every_preset_has_its_own_name_as_its_key_and_is_emulated() -> None:
    assert [arithmetic.name for arithmetic in PRESETS.values()] == list(PRESETS)
    assert len(set(PRESETS.values())) == len(PRESETS)
    assert set(PRESETS) <= set(EMULATIONS)


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize(("sizes", "n"), [((6, 5, 3), 4), ((20, 16, 12, 6), 12)])
def test_what_is_computed_in_a_declared_arithmetic_is_within_every_bound(
    name: str, sizes: tuple[int, ...], n: int, seed: int
) -> None:
    backend = EMULATED[name]
    found = measured(judge(seed, sizes, n, backend.dtype), backend)
    assert found.failed == 0
    assert max(found.shares.values()) <= 1
    assert found.shares["statistical"] > 1e-6


@pytest.mark.parametrize(("name", "number"), [("tf32", 366), ("bfloat16_hopper", 352), ("bfloat16_products", 418)])
def test_a_derivative_on_the_other_side_of_a_kink_carries_the_errors_of_what_it_is_times(
    name: str, number: int
) -> None:
    """Where f' jumps from 0 to 1 the gradient is that of the other side, its own errors included."""
    line = measured(judge_of(numbered(0, number)), EMULATED[name], number)
    assert line.failed == 0
    assert line.kinked > 0


@pytest.mark.parametrize("name", COARSE)
@pytest.mark.parametrize(("sizes", "n", "share"), [(SMALL, 9, 0.5), (MIDDLE, 64, 0.3)])
def test_what_is_not_declared_is_a_fail(name: str, sizes: tuple[int, ...], n: int, share: float, seed: int) -> None:
    rows = judge(seed, sizes, n, loss="cross_entropy").rows(EMULATED[name].undeclared)
    assert failed(rows) > share * sum(row.size for row in rows)
    assert all(row.verdict == FAIL for row in rows[1:])


@pytest.mark.parametrize(
    ("computed", "declared"),
    [
        ("bfloat16", "tf32"),
        ("bfloat16_products", "tf32"),
        ("bfloat16_boundary", "tf32"),
        ("tf32", "float32_flushing"),
    ],
)
def test_a_finer_arithmetic_than_that_computed_in_may_not_be_declared(computed: str, declared: str, seed: int) -> None:
    backend = EMULATED[computed].declaring(PRESETS[declared])
    assert sum(failed(judge(seed + i, (6, 5, 3), 4, loss="squared_error").rows(backend)) for i in range(4)) > 0


@pytest.mark.parametrize("name", ["tf32", "tf32_turing", "tf32_hopper", "float16_boundary"])
def test_twice_the_gradients_are_a_fail_in_a_declared_arithmetic(name: str, seed: int) -> None:
    found = judge(seed, (32, 24, 10), 16, loss="squared_error")
    loss, grads = EMULATED[name].gradient_function(found.spec, dtype="float32", device="cpu")(
        *found.batch.copies(found.spec)
    )
    rows = found.judge_answer("twice", (loss, {key: 2 * grad for key, grad in grads.items()}), PRESETS[name])
    assert all(row.verdict == FAIL for row in rows[1:])


def plain_with(product: Product) -> EmulatedBackend:
    emulation = replace(EMULATIONS["float32"], product=product)
    return EmulatedBackend("float32", emulation, IN_FLOAT32)


@pytest.mark.parametrize("name", list(TRUNCATING))
def test_sums_of_products_that_are_cut_are_a_fail_unless_declared(name: str) -> None:
    product, arithmetic = TRUNCATING[name]
    backend = plain_with(product)
    rows = one_sign().rows(backend)
    wrong = {row.quantity: row for row in rows if row.verdict == FAIL}
    assert {"W1", "W2"} <= set(wrong)
    assert all(row.by != WORST_CASE for row in wrong.values())
    assert {row.verdict for row in one_sign().rows(backend.declaring(arithmetic))} == {PASS}


@pytest.mark.parametrize("product", [one_by_one(FLOAT32), EMULATIONS["float32"].product])
def test_sums_of_products_that_round_to_nearest_pass_there(product: Product) -> None:
    assert {row.verdict for row in one_sign().rows(plain_with(product))} == {PASS}


def test_what_always_rounds_toward_zero_is_held_against_the_first_order_alone() -> None:
    """A unit roundoff of 2⁻²³ says how far, not that it is one-sided, for which √n is false."""
    cut = replace(EMULATIONS["float32"], product=one_by_one(toward_zero(24)), summing=toward_zero(24))
    backend = EmulatedBackend("float32", cut, replace(IN_FLOAT32, unit_roundoff=2.0**-23))
    likely = one_sign((784, 16, 10), 16)
    assert {row.by for row in likely.rows(backend) if row.verdict == FAIL} == {"statistical"}
    assert {row.verdict for row in Judge(likely.spec, likely.batch, likely.truth, bound=FIRST_ORDER).rows(backend)} == {
        PASS
    }


@pytest.mark.parametrize("name", ["bfloat16_boundary", "float16_boundary"])
def test_targets_are_given_too(name: str) -> None:
    spec = network((1, 1), ["identity"])
    params = {"W1": np.zeros((1, 1), "float32"), "b1": np.full(1, 64, "float32")}
    y = np.full((1, 1), 100.3, "float32")
    found = Judge(spec, validate(spec, params, np.ones((1, 1), "float32"), y))
    assert failed(found.rows(EMULATED[name])) == 0


# --------------------------------------------------------------------------------------------------------------
# Bounds of one operation


def off(build: Callable[[Any, Any], Any], a: Array, b: Array, arithmetic: Arithmetic) -> Array:
    """The worst case of what is built from a and b."""
    ends = {"end": build(given("a", a.shape), given("b", b.shape))}
    return bounds(ends, {"a": a, "b": b}, arithmetic).worst_case["end"]


@pytest.mark.parametrize(
    ("name", "times"),
    [("bfloat16", 2.0**16), ("bfloat16_sums", 2.0**16), ("float16", 2.0**13), ("tf32", 1.0), ("tf32_turing", 1.0)],
)
def test_a_product_of_two_numbers_errs_in_proportion_to_the_unit_roundoff(name: str, times: float) -> None:
    a, b = np.array([1.25, -3.0, 0.75]), np.array([1.5, 5.0, -0.375])  # of few bits
    of_float32 = off(lambda a, b: a * b, a, b, IN_FLOAT32)
    assert off(lambda a, b: a * b, a, b, PRESETS[name]) == pytest.approx(times * of_float32, rel=0.01)


def test_the_factors_of_a_sum_of_products_are_rounded_unless_they_are_of_few_bits() -> None:
    short, long = np.array([[1.25]]), np.array([[1.1]])
    of_float32, of_tf32 = (
        [off(lambda a, b: a @ b, number, number, PRESETS[name]) for number in (short, long)]
        for name in ("float32", "tf32")
    )
    assert of_tf32[0] == pytest.approx(of_float32[0])
    assert of_tf32[1] == pytest.approx(2 * 2.0**-11 * 1.21, rel=0.01)


def test_sums_in_float32_of_bfloat16_numbers_are_rounded_once_and_sums_in_bfloat16_each_time() -> None:
    a, b = np.full((1, 64), 1.0), np.full((64, 1), 0.5)
    once, each = (off(lambda a, b: a @ b, a, b, PRESETS[name]) for name in ("bfloat16", "bfloat16_sums"))
    assert once == pytest.approx(2.0**-8 * 32, rel=0.01)
    assert each > 63 * 2.0**-8 * 32


def test_what_is_returned_in_fewer_bits_is_rounded_once_more() -> None:
    a, b = np.full((1, 64), 1.0), np.full((64, 1), 0.5)
    boundary = off(lambda a, b: (a @ b) @ a, a, b, PRESETS["bfloat16_boundary"])
    assert boundary == pytest.approx(np.full((1, 64), 2.0**-8 * 32), rel=0.01)


def test_what_is_cut_is_bounded_by_the_number_of_products_and_of_blocks() -> None:
    a, b = np.full((1, 64), 1.0), np.full((64, 1), 0.5)
    turing, hopper = (off(lambda a, b: a @ b, a, b, PRESETS[f"tf32_{one}"]) for one in ("turing", "hopper"))
    assert turing > (64 + 2 * 16) * 2.0**-24 * 32
    assert hopper > (64 * 2.0**-25 + 2 * 4 * 2.0**-24) * 32
    assert hopper < turing / 2


@pytest.mark.parametrize(("block", "summed"), [(1, pairwise), (128, numpy_sum)])
def test_sums_in_pairs_are_within_the_smaller_bound_of_blocks_and_one_after_another_is_not(
    block: int, summed: Sum, rng: np.random.Generator
) -> None:
    n = 2**14
    in_blocks = replace(IN_FLOAT32, block=block)
    for terms in (np.full(n, 0.1, np.float32), rng.uniform(0, 1, n).astype(np.float32)):
        graph = {"sum": given("terms", (n,)).sum()}
        smaller, whole = (
            bounds(graph, {"terms": terms.astype(np.float64)}, one).worst_case["sum"] for one in (in_blocks, IN_FLOAT32)
        )
        true = terms.astype(np.float64).sum()
        assert smaller < whole / 100
        assert abs(float(summed(terms)) - true) <= smaller
        if len(set(terms.tolist())) == 1:
            assert abs(float(sequential(terms)) - true) > smaller


# --------------------------------------------------------------------------------------------------------------
# The statement of an arithmetic


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit_roundoff", -1.0), ("unit_roundoff", float("nan")), ("smallest_normal", -1e-30),
        ("smallest_subnormal", -1.0), ("largest", -1.0), ("products", -(2.0**-11)), ("block", -1), ("truncated", -4),
        ("truncated", 4), ("accumulation", -1.0), ("accumulation", float("nan")),
        ("convolution", "strassen"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_named(field: str, value: Any) -> None:
    changes: Any = {field: value}
    with pytest.raises(ValueError, match=f"Arithmetic: {field} must be"):
        replace(IN_FLOAT32, **changes)


def test_no_limits_and_a_block_of_any_size_may_be_stated() -> None:
    replace(IN_FLOAT32, largest=float("inf"), smallest_normal=0.0, block=1024, truncated=8, accumulation=2.0**-24)


# --------------------------------------------------------------------------------------------------------------
# The emulations themselves


def wide(rng: np.random.Generator) -> Array:
    """Numbers of every magnitude that a format may have, halves between two of them, and 0."""
    values = rng.standard_normal(4000) * 2.0 ** rng.uniform(-160, 140, 4000)
    ties = (rng.integers(1, 2**9, 4000) + 0.5) * 2.0 ** rng.integers(-30, 12, 4000)
    return np.concatenate([values, ties, [0.0, 65504.0, 65519.0, 65520.0, 2.0**-24, 2.0**-25, 3e38, 3.4e38, 1e39]])


def by_bits(values: Array) -> Array:
    """bfloat16 as the upper half of float32's bits, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("rounding", "other"),
    [
        (FLOAT32, lambda values: values.astype(np.float32)),
        (FLOAT16, lambda values: values.astype(np.float16)),
        (BFLOAT16, by_bits),
    ],
    ids=["float32", "float16", "bfloat16"],
)
def test_rounding_to_a_format_agrees_with_its_bits(
    rounding: Rounding, other: Callable[[Array], Array], rng: np.random.Generator
) -> None:
    values = wide(rng)
    with np.errstate(over="ignore"):
        assert np.array_equal(rounding(values), other(values).astype(np.float64))


@pytest.mark.parametrize("bits", [8, 11, 24])
def test_rounding_to_bits_is_to_the_nearest_and_cutting_is_toward_zero(bits: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal(2000) * 2.0 ** rng.integers(-40, 40, 2000)
    nearest, cut = to_bits(bits)(values), toward_zero(bits)(values)
    spacing = 2.0 ** (np.frexp(values)[1] - bits)
    assert (np.abs(nearest - values) <= spacing / 2).all()
    assert (np.abs(cut) <= np.abs(values)).all()
    assert (np.abs(cut - values) < spacing).all()
    assert np.array_equal(np.rint(cut / spacing) * spacing, cut)


def by_fractions(a: Array, b: Array, block: int, bits: int) -> float:
    """The tensor cores' sum, in exact rational numbers."""

    def cut(number: Fraction, last: int) -> Fraction:
        return int(number / Fraction(2) ** last) * Fraction(2) ** last

    def exponent(number: float) -> int:
        return int(np.frexp(number)[1]) - 1

    total = Fraction(0)
    for start in range(0, len(a), block):
        taken = zip(a[start : start + block].tolist(), b[start : start + block].tolist(), strict=True)
        pairs = [(left, right) for left, right in taken if left and right]
        top = [exponent(left) + exponent(right) for left, right in pairs] + [exponent(float(total))] * bool(total)
        if not top:
            continue
        last = max(top) - bits
        total = cut(total, last) + sum(cut(Fraction(left) * Fraction(right), last) for left, right in pairs)
        total = cut(total, exponent(float(total)) - 23) if total else total
    return float(total)


@pytest.mark.parametrize(("block", "bits"), [(4, 24), (16, 25)])
def test_tensor_cores_agree_with_exact_rational_numbers(block: int, bits: int, rng: np.random.Generator) -> None:
    scales = 2.0 ** rng.integers(-12, 12, (5, 37))
    a = to_bits(11)(rng.standard_normal((5, 37)) * scales)
    b = to_bits(11)(rng.standard_normal((37, 3)))
    a[:, ::7] = 0.0
    found = tensor_cores(block, bits)(a, b)
    assert np.array_equal(found, [[by_fractions(row, column, block, bits) for column in b.T] for row in a])


def test_addends_below_the_last_bit_are_lost_one_by_one_and_a_bit_more_keeps_them() -> None:
    """As Fasi et al. find it, section 3."""
    a = np.array([[1.0, 0.0, 0.0, 0.0, *[2.0**-25] * 4]])
    ones = np.ones((8, 1))
    assert tensor_cores(4, 24)(a, ones)[0, 0] == 1.0
    assert tensor_cores(4, 25)(a, ones)[0, 0] == 1.0 + 2.0**-23
    assert tensor_cores(16, 25)(a, ones)[0, 0] == 1.0 + 2.0**-23
