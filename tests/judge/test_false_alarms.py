"""Correct answers that a tolerance with a term missing would call wrong: underflow, overflow before a division, long
sums, formulas that cancel. None may be FAIL, and a wrong answer in the same place must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from networks import BACKENDS, judge, network, verdicts

from refimpl import backend as backends
from refimpl.judge.report import FAIL
from refimpl.network.random_problems import Problem

F4 = np.float32
U = 2.0**-24


def case(spec: Any, x: Any, y: Any, dtype: Any = F4, **params: Any) -> Problem:
    targets = np.asarray(y, dtype=dtype if np.ndim(y) == 2 else np.int64)
    return Problem(
        spec, {k: np.asarray(v, dtype=dtype) for k, v in params.items()}, np.asarray(x, dtype), targets, 0, 0
    )


def one(*activations: Any, loss: Any = "absolute_error", reduction: str = "sum") -> Any:
    return network([1] * (len(activations) + 1), activations, loss, reduction, bias=False)


def huge_logits() -> Problem:
    rng = np.random.default_rng(2)
    W = rng.standard_normal((1, 32)) * 1e5 + rng.standard_normal((3, 32)) * 0.002
    x = rng.standard_normal((1, 32)) * 1e5
    return case(network((32, 3), ["identity"], "cross_entropy", "sum", bias=False), x, [0], W1=W)


EXTREMES: dict[str, Callable[[], Problem]] = {
    "probabilities below the range under huge logits": huge_logits,
    "the square before the half": lambda: case(one("identity", loss="squared_error"), [[1]], [[0]], W1=[[2.2e19]]),
    "a residual that overflows": lambda: case(
        one("identity", loss={"name": "huber", "delta": 1e-3}), [[1]], [[-3e38]], W1=[[3e38]]
    ),
    "delta where dC/da does not overflow": lambda: case(
        one({"name": "leaky_relu", "negative_slope": 1e6}, "identity"), [[1e-10]], [[0]], W1=[[-1]], W2=[[1e35]]
    ),
    "the differences in softmax's Jacobian": lambda: case(
        network((1, 2, 1), ["softmax", "identity"], "absolute_error", "sum", bias=False),
        [[1]], [[-1]], W1=[[-3], [0]], W2=[[3e38, -3e38]],
    ),
    "twice the residual before the mean": lambda: case(
        network((1, 2), ["identity"], "mean_squared_error", bias=False), [[1], [1]], np.zeros((2, 2)),
        W1=[[2.2e38], [1]],
    ),
    "a parameter below the normal range": lambda: case(
        one({"name": "leaky_relu", "negative_slope": 1e-40}, "identity", loss="squared_error"), [[1]], [[1]],
        W1=[[-1e30]], W2=[[1e12]],
    ),
    "a product that underflows within f'": lambda: case(
        one("silu", "identity"), [[1]], [[-1]], W1=[[-59.578377]], W2=[[1.7877071e-19]]
    ),
    **{
        f"{name} below float64's range at {z}, times {w}": lambda name=name, z=z, w=w: case(
            one(name, "identity"), [[1]], [[-1]], np.float64, W1=[[z]], W2=[[w]]
        )
        for name in ("silu", "softplus", "sigmoid", "elu", "tanh", "gelu")
        for z in (-745.5, -746, -760)
        for w in (1e12, 1e200)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_no_backend_fails_at_the_ends_of_the_range(name: str) -> None:
    j = judge(EXTREMES[name]())
    for backend in BACKENDS:
        assert FAIL not in verdicts(j.rows(backends.load(backend))).values(), backend


def test_a_division_by_n_at_the_end_may_overflow_before() -> None:
    p = case(one("identity", loss="squared_error", reduction="mean"), np.ones((8, 1)), np.zeros((8, 1)), W1=[[1e38]])
    with np.errstate(over="ignore"):
        late = (np.full((1, 8), F4(1e38)) @ np.ones((8, 1), F4)) / F4(8)
    assert np.isinf(late).all()
    assert FAIL not in verdicts(judge(p).judge_answer("late", (np.inf, {"W1": late}))).values()


def in_order(values: Any) -> Any:
    total = F4(0)
    for value in values:
        total = F4(total + value)
    return total


def test_cross_entropy_summed_over_a_thousand_classes_one_by_one() -> None:
    k = 1000
    spec = network((1, k), ["identity"], "cross_entropy", "sum", bias=False)
    p = case(spec, [[1]], np.full((1, k), 1 / k), W1=np.zeros((k, 1)))
    loss = -in_order(F4(v * -F4(np.log(F4(k)))) for v in p.y[0])
    zero = np.zeros((k, 1), F4)
    assert verdicts(judge(p).judge_answer("loop", (loss, {"W1": zero})))["loss"] != FAIL
    assert verdicts(judge(p).judge_answer("loop", (1.001 * loss, {"W1": zero})))["loss"] == FAIL


def test_the_mass_of_a_row_summed_one_by_one() -> None:
    k = 2000
    y = np.full((1, k), 0.51 * U)
    y[0, 0], y[0, -1] = 0.5, 0.5 - 0.51 * U * (k - 2)
    W = np.full((k, 1), np.log(0.98 * U))
    W[0] = 0
    p = case(network((1, k), ["identity"], "cross_entropy", "sum", bias=False), [[1]], y, W1=W)
    e = np.exp(p.params["W1"][:, 0])
    grad = (in_order(p.y[0]) * (e / in_order(e)) - p.y[0])[:, None].astype(F4)
    assert verdicts(judge(p).judge_answer("loop", (F4(1), {"W1": grad})))["W1"] != FAIL


def slope_answer(activation: Any, z: float, slope: float) -> str:
    p = case(one(activation), [[1]], [[-1e5]], np.float64, W1=[[z]])
    return verdicts(judge(p).judge_answer("formula", (1.0, {"W1": np.array([[slope]])})))["W1"]


@pytest.mark.parametrize("z", [-9.0, -7.340885450620954, -3.0, 1.5, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("off", [-8, 8])
def test_the_slope_of_gelu_tanh_from_a_library_tanh(z: float, off: int) -> None:
    w = np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)
    t = float(mpmath.tanh(w)) * (1 + off * 2.0**-53)
    slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 0.134145 * z * z)
    assert slope_answer("gelu_tanh", z, float(slope)) != FAIL
    assert slope_answer("gelu_tanh", z, float(slope) + 1e-6) == FAIL


@pytest.mark.parametrize("z", [-8.186440677966102, -1.0, -0.01])
def test_the_slope_of_elu_from_its_value(z: float) -> None:
    a = float(mpmath.expm1(z)) * (1 - 8 * 2.0**-53)
    assert slope_answer("elu", z, a + 1.0) != FAIL
    assert slope_answer("elu", z, a + 1.0 + 1e-13) == FAIL
