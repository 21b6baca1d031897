"""NumPy's activations, losses and their hand-derived slopes, one function at a time, against mpmath at 40 digits: from
both sides of every kink to where a library function overflows, and the rows at which a naive formula is inf − inf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from networks import DTYPES

from refimpl.network.functions import ACTIVATIONS as CATALOGUE
from refimpl.network.functions import LOSSES as LOSS_CATALOGUE
from refimpl_numpy import functions

SPACINGS = 8  # of the size of the terms that a function is the sum of

Exact = Callable[..., Any]


def logistic(z: Any) -> Any:
    return 1 / (1 + mpmath.exp(-z))


def normal(z: Any) -> Any:
    return mpmath.erfc(-z / mpmath.sqrt(2)) / 2


def inner(z: Any) -> Any:
    return mpmath.sqrt(2 / mpmath.pi) * (z + mpf("0.044715") * z**3)


# name: f, f', and the sizes of their terms
ACTIVATIONS: dict[str, tuple[Exact, Exact, Exact, Exact]] = {
    "identity": (lambda z: z, lambda z: mpf(1), abs, lambda z: 1),
    "relu": (lambda z: max(z, 0), lambda z: mpf(z > 0), abs, lambda z: 1),
    "leaky_relu": (lambda z, c: z if z > 0 else c * z, lambda z, c: mpf(1) if z > 0 else c, abs, lambda z: 1),
    "elu": (
        lambda z, c: z if z > 0 else c * mpmath.expm1(z), lambda z, c: mpf(1) if z > 0 else c * mpmath.exp(z),
        lambda z: min(abs(z), 2) if z < 0 else z, lambda z: mpmath.exp(min(z, 0)) * (1 + min(abs(z), 1)),
    ),
    "selu": (
        lambda z: mpf("1.0507009873554804934193349852946") * (
            z if z > 0 else mpf("1.6732632423543772848170429916717") * mpmath.expm1(z)),
        lambda z: mpf("1.0507009873554804934193349852946") * (
            1 if z > 0 else mpf("1.6732632423543772848170429916717") * mpmath.exp(z)),
        lambda z: min(abs(z), 2) if z < 0 else z, lambda z: mpmath.exp(min(z, 0)) * (1 + min(abs(z), 1)),
    ),
    "gelu": (
        lambda z: z * normal(z), lambda z: normal(z) + z * mpmath.npdf(z),
        # rounding z/√2 moves erfc by z² times that
        lambda z: abs(z) * normal(z) * (1 + z * z / 4), lambda z: normal(z) * (1 + z * z / 4) + (1 + z * z) * (
            abs(z) * mpmath.npdf(z) / 4),
    ),
    "gelu_tanh": (
        lambda z: z * logistic(2 * inner(z)),
        lambda z: logistic(2 * inner(z)) + z * logistic(2 * inner(z)) * logistic(-2 * inner(z)) * 2 * mpmath.sqrt(
            2 / mpmath.pi) * (1 + 3 * mpf("0.044715") * z**2),
        lambda z: abs(z) * logistic(2 * inner(z)) * (1 + (abs(inner(z)) if z < 0 else 0)),
        lambda z: logistic(2 * inner(z)) * (1 + logistic(-2 * inner(z)) * (1 + abs(z)) ** 3 * (1 + abs(inner(z)))),
    ),
    "softplus": (lambda z: mpmath.log1p(mpmath.exp(z)), logistic, None, None),
    "sigmoid": (logistic, lambda z: logistic(z) * logistic(-z), None, None),
    "tanh": (mpmath.tanh, lambda z: mpmath.sech(z) ** 2, None, None),
    "silu": (
        lambda z: z * logistic(z), lambda z: logistic(z) * (1 + z * logistic(-z)),
        None, lambda z: logistic(z) * (1 + abs(z) * logistic(-z)),
    ),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: (1 + abs(z)) ** -2, None, None),
}  # fmt: skip

PARAMETERS = {"leaky_relu": [0.01, 0.25, 3.0], "elu": [1.0, 0.5, 2.0]}
NUMBERS = [
    1e-30, 1e-4, 0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 3.0, 5.0, 8.0, 12.0, 17.0, 21.0, 40.0, 63.0, 65.0, 87.0, 89.0,
    300.0, 1e3, 1e4, 1e13, 1e30,
]  # fmt: skip


def close(found: float, exact: Any, scale: Any, dtype: str, reach: float = 1.0) -> bool:
    """To some spacings of the scale, or where a library function has underflowed and is multiplied by `reach`."""
    about = np.finfo(dtype)
    allowed = SPACINGS * mpf(float(about.eps)) * scale + 4 * reach * mpf(float(about.tiny))
    return bool(abs(found - exact) <= allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "parameter"), [(n, p) for n in ACTIVATIONS for p in PARAMETERS.get(n, [None])])
def test_every_activation_and_its_slope(name: str, parameter: float | None, dtype: str) -> None:
    z = np.array([*NUMBERS, 0.0, -0.0, *(-number for number in NUMBERS)], dtype).reshape(-1, 2)
    kept = z.copy()
    arguments = [] if parameter is None else [parameter]
    with np.errstate(all="ignore"):
        values, slopes = (table[name](z, *arguments) for table in (functions.ACTIVATIONS, functions.ACTIVATION_SLOPES))
    f, slope, value_scale, slope_scale = ACTIVATIONS[name]
    times = max([1, *arguments])
    for found in (values, slopes):
        assert (found.shape, found.dtype) == (z.shape, np.dtype(dtype))
        assert not np.shares_memory(found, z)
    assert (z == kept).all()
    with mpmath.workdps(40):
        for at, value, derivative in zip(*(array.ravel().tolist() for array in (z, values, slopes)), strict=True):
            exact = mpf(at)
            wanted = f(exact, *map(mpf, arguments)), slope(exact, *map(mpf, arguments))
            scales = [
                abs(true) if scale is None else times * scale(exact)
                for true, scale in zip(wanted, (value_scale, slope_scale), strict=True)
            ]
            assert close(value, wanted[0], scales[0], dtype, 1 + abs(at)), f"{name}({at}) = {value}"
            assert close(derivative, wanted[1], scales[1], dtype, 1 + abs(at)), f"{name}'({at}) = {derivative}"


ROWS = [
    [0.5, -1.0, 2.0], [3.0, 3.0, 3.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 9.999e3, 1e4], [0.0, 80.0, -80.0],
    [1e30, 1.0, -1e30], [-5.0, -4.0, -3.0],
]  # fmt: skip
CLASSES = [
    [1.0, 0.0, 0.0], [0.25, 0.25, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5],
    [1.0, 0.0, 0.0], [0.5, 0.0, 0.5],
]  # fmt: skip


def softmax(row: list[Any]) -> list[Any]:
    total = mpmath.fsum(mpmath.exp(z - max(row)) for z in row)
    return [mpmath.exp(z - max(row)) / total for z in row]


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_its_product_with_a_row(dtype: str) -> None:
    z = np.array(ROWS, dtype)
    a = functions.softmax(z)
    dC_da = np.array([[2.0, -1.0, 0.5], [1.0, 0.0, 7.0]] * 4, dtype)
    found = functions.softmax_vjp(z, a, dC_da)
    assert a.dtype == found.dtype == dtype
    with mpmath.workdps(40):
        for row, values, incoming, deltas in zip(*(array.tolist() for array in (z, a, dC_da, found)), strict=True):
            p = softmax([mpf(number) for number in row])
            for value, true in zip(values, p, strict=True):
                assert close(value, true, true, dtype), row
            for j, delta in enumerate(deltas):  # Σ_i d_i ∂a_i/∂z_j with the Jacobian written out
                true = mpmath.fsum(incoming[i] * p[i] * ((i == j) - p[j]) for i in range(3))
                assert close(delta, true, 10 * p[j], dtype), row


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_and_its_slope(dtype: str) -> None:
    s, y = np.array(ROWS, dtype), np.array(CLASSES, dtype)
    for mass in (1.0, 2.0):  # (Σy) p − y
        losses, slopes = functions.cross_entropy(s, mass * y), functions.cross_entropy_slope(s, mass * y)
        assert (losses.shape, losses.dtype, slopes.dtype) == ((len(s),), np.dtype(dtype), np.dtype(dtype))
        with mpmath.workdps(60):
            for row, target, loss, found in zip(*(array.tolist() for array in (s, y, losses, slopes)), strict=True):
                exact = [mpf(number) for number in row]
                total = max(exact) + mpmath.log(mpmath.fsum(mpmath.exp(z - max(exact)) for z in exact))
                true = mpmath.fsum(mass * t * (total - z) for t, z in zip(target, exact, strict=True))
                assert close(loss, true, mass + 2 * max(map(abs, exact)), dtype), row
                for slope, p, t in zip(found, softmax(exact), target, strict=True):
                    assert close(slope, mass * (p - t), mass * (p + t), dtype), row


def elementwise(s: Any, y: Any, c: Any) -> dict[str, tuple[Any, Any]]:
    """Loss and slope, one output of a row of two."""
    r = s - y
    within = abs(r) <= c
    return {
        "squared_error": (r * r / 2, r),
        "mean_squared_error": (r * r / 2, r),  # over two outputs
        "absolute_error": (abs(r), mpmath.sign(r)),
        "huber": (r * r / 2 if within else c * (abs(r) - c / 2), r if within else c * mpmath.sign(r)),
        "binary_cross_entropy": (mpmath.log1p(mpmath.exp(s)) - y * s, logistic(s) - y),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_elementwise_loss_and_its_slope(dtype: str) -> None:
    s = np.array([-1e4, -80.0, -3.0, -1.0, -0.5, -0.25, -0.0, 0.0, 1e-4, 0.25, 0.5, 0.75, 1.0, 2.0, 90.0, 1e4], dtype)
    for target in (0.0, 0.25, 1.0):
        for name, loss in LOSS_CATALOGUE.items():
            if loss.target == "classes":
                continue
            for delta in (0.5, 2.0):
                kwargs = {"delta": delta} if name == "huber" else {}
                rows, y = s.reshape(-1, 2), np.full((len(s) // 2, 2), target, dtype)
                with np.errstate(all="ignore"):
                    values, slopes = (
                        table[name](rows, y, **kwargs) for table in (functions.LOSSES, functions.LOSS_SLOPES)
                    )
                assert values.shape == slopes.shape == rows.shape
                assert values.dtype == slopes.dtype == dtype
                with mpmath.workdps(60):
                    for at, value, slope in zip(s.tolist(), values.flat, slopes.flat, strict=True):
                        true = elementwise(mpf(at), mpf(target), mpf(delta))[name]
                        scale = abs(true[0]) + (abs(at) if name[0] == "b" else 0)
                        assert close(float(value), true[0], scale, dtype), f"{name}({at}, {target})"
                        assert close(float(slope), true[1], abs(true[1]) + (name[0] == "b"), dtype), f"{name}'({at})"


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_log_likelihood_and_its_slope(dtype: str) -> None:
    """−y log s, and nothing at all where y is 0, whatever s."""
    s = np.array([[0.25, 0.5, 0.0], [1.0, 0.0, 0.0], [1e-30, 0.9, 0.1]], dtype)
    y = np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.5]], dtype)
    values, slopes = functions.negative_log_likelihood(s, y), functions.negative_log_likelihood_slope(s, y)
    assert values.dtype == slopes.dtype == dtype
    with mpmath.workdps(40):
        for p, t, value, slope in zip(s.flat, y.flat, values.flat, slopes.flat, strict=True):
            true = (-mpf(float(t)) * mpmath.log(float(p)), -mpf(float(t)) / float(p)) if t else (mpf(0), mpf(0))
            assert close(float(value), true[0], abs(true[0]), dtype)
            assert close(float(slope), true[1], abs(true[1]), dtype)


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_sample_at_all_is_a_batch_too(name: str) -> None:
    z = np.zeros((0, 3))
    kwargs = {key: parameter.default for key, parameter in CATALOGUE[name].parameters.items()}
    assert functions.ACTIVATIONS[name](z, **kwargs).shape == z.shape
    if name != "softmax":
        assert functions.ACTIVATION_SLOPES[name](z, **kwargs).shape == z.shape


def test_nothing_of_the_catalogue_is_left_out() -> None:
    assert {*ACTIVATIONS, "softmax"} == set(CATALOGUE)
    assert {*elementwise(mpf(1), mpf(1), mpf(1)), "cross_entropy", "negative_log_likelihood"} == set(LOSS_CATALOGUE)
    for name, values in PARAMETERS.items():
        assert len(CATALOGUE[name].parameters) == 1
        assert next(iter(CATALOGUE[name].parameters.values())).default in values
