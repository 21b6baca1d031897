"""Where implementations go wrong: zeros and kinks, saturation, the seams between branches, subnormal numbers, huge
logits, degenerate targets, and every float16 value there is.

NumPy's derivatives keep their digits where a unit saturates. The frameworks' own have the catalogue's assumption, which
is what the tolerance grants to everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import flint
import mpmath
import numpy as np
import pytest
from networks import BACKENDS, DTYPES, judge, network, problem, verdicts

from refimpl import backend as backends
from refimpl import value_and_grad
from refimpl.judge.report import FAIL, PASS
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import ACTIVATIONS, FLUSH_FACTOR, Interval
from refimpl.network.random_problems import Problem
from refimpl.truth.elementwise import activation as elementwise

ELEMENTWISE = [name for name, entry in ACTIVATIONS.items() if entry.elementwise]
DIGITS = 50
# measured: at most 2.2 spacings (eps) for NumPy's f and f', over 1,300 points a function and dtype
SPACINGS = 4


def at(backend: str, activation: Any, z: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """f(z), f'(z) of a backend: one neuron with W = 1, and a loss whose ∂C/∂a is 1."""
    spec = network((1, 1), [activation], "absolute_error", "sum", bias=False)
    function = backends.load(backend).intermediates_function(spec, dtype=dtype, device="cpu")  # type: ignore[attr-defined]
    z = np.asarray(z, dtype)
    rows = np.ones((-(-len(z) // 64) * 64, 1), dtype)  # few shapes: JAX compiles for each
    rows[: len(z), 0] = z
    values = function({"W1": np.ones((1, 1), dtype)}, rows, np.full_like(rows, -1e32))
    return values["a2"][: len(z), 0], values["delta2"][: len(z), 0]


def loss_and_delta(backend: str, loss: Any, s: Any, y: Any, dtype: str) -> tuple[float, list[Any]]:
    """A loss and ∂C/∂s: s goes through an identity layer with W = I."""
    s, y = np.asarray(s, dtype), np.asarray(y)
    spec = network((s.shape[1], s.shape[1]), ["identity"], loss, "sum", bias=False)
    params = {"W1": np.eye(s.shape[1], dtype=dtype)}
    y = y if y.dtype.kind in "iu" else y.astype(dtype)
    value, grads = value_and_grad(spec, params, s, y, backend=backend, inputs=True)
    return value, grads["x"].tolist()


def granted(activation: str, z: Any, value: Any, slope: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """By how much f(z) and f'(z) may be off, by the catalogue; value and slope are what they are."""
    entry, arithmetic = ACTIVATIONS[activation], ARITHMETICS[dtype]
    kwargs = {key: parameter.default for key, parameter in entry.parameters.items()}
    where = Interval(z, z, np.abs(value), np.abs(slope))
    flushed = FLUSH_FACTOR * (1 + np.abs(z)) * arithmetic.smallest_normal if entry.smooth_library else 0.0
    return (
        entry.value_ulps * arithmetic.unit_roundoff * entry.value_scale(where, kwargs) + flushed,
        entry.slope_ulps * arithmetic.unit_roundoff * entry.slope_scale(where, kwargs) + flushed,
    )


# Zeros and kinks -------------------------------------------------------------------------------------------------

AT_ZERO = [
    ("identity", 0.0, 1.0),
    ("relu", 0.0, 0.0),
    ({"name": "leaky_relu", "negative_slope": 0.25}, 0.0, 0.25),
    ({"name": "elu", "alpha": 0.5}, 0.0, 0.5),
    ("gelu", 0.0, 0.5),
    ("gelu_tanh", 0.0, 0.5),
    ("sigmoid", 0.5, 0.25),
    ("tanh", 0.0, 1.0),
    ("silu", 0.0, 0.5),
    ("softsign", 0.0, 1.0),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("activation", "value", "slope"), AT_ZERO)
def test_value_and_derivative_at_plus_and_minus_zero(
    backend: str, dtype: str, activation: Any, value: float, slope: float
) -> None:
    values, slopes = at(backend, activation, [0.0, -0.0], dtype)
    assert values.tolist() == [value, value]
    assert slopes.tolist() == [slope, slope]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_selu_and_softplus_at_zero(backend: str, dtype: str) -> None:
    u = ARITHMETICS[dtype].unit_roundoff
    selu = 1.0507009873554805 * 1.6732632423543772
    assert at(backend, "selu", [0.0, -0.0], dtype)[1] == pytest.approx(selu, rel=4 * u)
    value, slope = at(backend, "softplus", [0.0, -0.0], dtype)
    assert value == pytest.approx(np.log(2), rel=4 * u)
    assert slope.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("loss", "s", "y", "slopes"),
    [
        ("absolute_error", [0.5, 0.0, -0.0, 1.0, -1.0], [0.5, -0.0, 0.0, 0.0, 0.0], [0, 0, 0, 1, -1]),
        ("squared_error", [0.5, 2.0], [0.5, 1.0], [0, 1]),
        ("mean_squared_error", [0.5, 2.0], [0.5, 1.0], [0, 2]),
        (
            {"name": "huber", "delta": 0.5},
            [0.0, 0.5, -0.5, 0.25, 3.0, -3.0], [0.0] * 6, [0, 0.5, -0.5, 0.25, 0.5, -0.5],
        ),
        ("binary_cross_entropy", [0.0, -0.0], [0.0, 1.0], [0.5, -0.5]),
    ],
)  # fmt: skip
def test_loss_derivatives_at_a_residual_of_zero_and_at_hubers_corner(
    backend: str, dtype: str, loss: Any, s: list[float], y: list[float], slopes: list[float]
) -> None:
    _, deltas = loss_and_delta(backend, loss, np.reshape(s, (-1, 1)), np.reshape(y, (-1, 1)), dtype)
    assert np.ravel(deltas).tolist() == slopes


# Saturation ------------------------------------------------------------------------------------------------------


def logistic(z: Any) -> Any:
    return 1 / (1 + mpmath.exp(-z))


# name: f, f', and the magnitude of the terms f' is the sum of
SATURATING: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sigmoid": (logistic, lambda z: logistic(z) * logistic(-z), lambda z: logistic(z) * logistic(-z)),
    "tanh": (mpmath.tanh, lambda z: mpmath.sech(z) ** 2, lambda z: mpmath.sech(z) ** 2),
    "softplus": (lambda z: mpmath.log1p(mpmath.exp(z)), logistic, logistic),
    "silu": (
        lambda z: z * logistic(z),
        lambda z: logistic(z) * (1 + z * logistic(-z)),
        lambda z: logistic(z) * (1 + abs(z) * logistic(-z)),
    ),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: (1 + abs(z)) ** -2, lambda z: (1 + abs(z)) ** -2),
}


def points(dtype: str) -> np.ndarray:
    """Near 0, both sides of the seams at ½ and 1, and out to where f' all but leaves the normal range."""
    seams = [np.nextafter(np.asarray(seam, dtype), np.asarray(side, dtype)) for seam in (0.5, 1) for side in (0, 2)]
    far = 43.0 if dtype == "float32" else 350.0
    positive = np.array(
        [1e-30, 1e-8, 1e-4, 0.1, 0.3, 0.5, *seams, 1, 1.3, 2, 3, 5, 8, 12, 17, 20, 21, 30, 37, 40, far], dtype
    )
    return np.concatenate([positive, -positive])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", SATURATING)
def test_values_and_derivatives_keep_the_digits_that_they_must_where_saturated(
    backend: str, dtype: str, activation: str
) -> None:
    """NumPy's to a few ulps of themselves, against mpmath; the frameworks' to what the catalogue grants them."""
    z = points(dtype)
    values, slopes = at(backend, activation, z, dtype)
    f, derivative, scale = SATURATING[activation]
    spacings = SPACINGS * float(np.finfo(dtype).eps)
    with mpmath.workdps(DIGITS):
        for number, value, slope in zip(z.tolist(), values.tolist(), slopes.tolist(), strict=True):
            exact = mpmath.mpf(number)
            true, true_slope = f(exact), derivative(exact)
            allowed = spacings * abs(true), spacings * scale(exact)
            if backend != "numpy":
                allowed = granted(activation, np.asarray(number), float(true), float(true_slope), dtype)
            assert abs(value - true) <= allowed[0], f"{activation}({number})"
            assert abs(slope - true_slope) <= allowed[1], f"{activation}'({number})"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_nothing_overflows_far_out(backend: str, dtype: str, activation: str) -> None:
    cubed = backend != "numpy" and (activation, dtype) == ("gelu_tanh", "float32")  # the frameworks' own takes z³
    values, slopes = at(backend, activation, [1e4, -1e4, *([1e12, -1e12] if cubed else [1e30, -1e30])], dtype)
    assert np.isfinite(values).all()
    expected = {
        "identity": (1, 1),
        "leaky_relu": (1, 0.01),
        "selu": (1.0507009873554805, 0),
        "sigmoid": (0, 0),
        "tanh": (0, 0),
    }.get(activation, (1, 0))
    assert slopes == pytest.approx(np.tile(expected, 2) if activation != "softsign" else 0, abs=1e-7)


def test_a_gelu_whose_cube_overflows_is_not_called_wrong() -> None:
    spec = network((1, 1), ["gelu_tanh"], "absolute_error", "sum", bias=False)
    one = np.ones((1, 1), np.float32)
    judged = judge(Problem(spec, {"W1": one}, 1e30 * one, 0 * one, 0, 0))
    for backend in BACKENDS:
        assert FAIL not in verdicts(judged.rows(backends.load(backend), inputs=True)).values()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("activation", "loss"), [("softplus", "absolute_error"), ("identity", "binary_cross_entropy")])
def test_log_of_1_plus_e_to_the_z_is_not_called_wrong_where_it_is_about_to_be_z(
    backend: str, dtype: str, activation: str, loss: str
) -> None:
    """Its derivative may be stated as exp(z − log(1 + e^z)), whose argument is off by the rounding of z."""
    z = np.linspace(10, 40, 301).astype(dtype).reshape(-1, 1)
    spec = network((1, 1), [activation], loss, "sum", bias=False)
    p = Problem(spec, {"W1": np.ones((1, 1), dtype)}, np.concatenate([z, -z]), np.zeros((602, 1), dtype), 0, 0)
    assert FAIL not in verdicts(judge(p).rows(backends.load(backend), inputs=True)).values()


@cache
def every_float16(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All finite float16 values z, and certified f(z) and f'(z), rounded to float64."""
    entry = ACTIVATIONS[name]
    kwargs = {key: parameter.default for key, parameter in entry.parameters.items()}
    function = elementwise(name, tuple(kwargs.items()))
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    z = every[np.isfinite(every)].astype(np.float64)
    values = np.empty((len(z), 2))
    with flint.ctx.workprec(300):
        for index, number in enumerate(z.tolist()):
            series, certain = function.series(flint.arb_series([number, 1], 2))
            assert certain
            values[index] = float(series[0].mid()), float(series[1].mid())
    return z, values[:, 0], values[:, 1]


@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_every_float16_value_through_every_activation_within_the_stated_ulps(activation: str) -> None:
    """All 65,536 bit patterns; the 2,048 that are infinite or NaN are no data of a network and are refused
    before any backend.
    """
    z, value, slope = every_float16(activation)
    assert z.size == 65_536 - 2_048
    value_grant, slope_grant = granted(activation, z, value, slope, "float32")
    for backend in BACKENDS:
        values, slopes = at(backend, activation, z, "float32")
        assert (np.abs(values - value) <= value_grant).all(), backend
        assert (np.abs(slopes - slope) <= slope_grant).all(), backend


@pytest.mark.parametrize("activation", [*SATURATING, "identity", "relu", "leaky_relu"])
def test_numpy_s_derivatives_are_relatively_accurate_at_every_float16_value(activation: str) -> None:
    z, value, slope = every_float16(activation)
    _, slopes = at("numpy", activation, z, "float32")
    # silu's changes sign, and is measured by its two terms there
    own = np.abs(slope) + (2 * np.abs(value) if activation == "silu" else 0)
    arithmetic, entry = ARITHMETICS["float32"], ACTIVATIONS[activation]
    flushed = FLUSH_FACTOR * (1 + np.abs(z)) * arithmetic.smallest_normal if entry.smooth_library else 0.0
    assert (np.abs(slopes - slope) <= max(entry.slope_ulps, 16.0) * arithmetic.unit_roundoff * own + flushed).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "left", "right"),
    [("relu", 0, 1), ("identity", 1, 1), ("leaky_relu", 0.01, 1), ("elu", 1, 1), ("tanh", 1, 1)],
)
def test_a_subnormal_is_a_number_unless_its_flushing_is_declared(
    backend: str, dtype: str, activation: str, left: float, right: float
) -> None:
    tiny = np.finfo(dtype).smallest_subnormal * np.asarray([64, -64], dtype)
    loaded = backends.load(backend)
    flushes = (
        isinstance(loaded, backends.ArithmeticBackend)
        and loaded.arithmetic(dtype=dtype, device="cpu").flushes_subnormals
    )
    assert flushes == (backend == "jax")
    values, slopes = at(backend, activation, tiny, dtype)
    assert slopes == pytest.approx([left, left] if flushes else [right, left], rel=1e-6)
    if flushes:
        assert values.tolist() == [0, 0]
    elif activation != "leaky_relu":  # 0.01 · z loses all but one bit
        assert values.tolist() == [tiny[0], 0 if activation == "relu" else tiny[1]]


# Rows, labels and targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_logits_and_ties_in_the_row_wise_functions(backend: str, dtype: str) -> None:
    rows = np.array([[1e4, -1e4, 0.0], [3.0, 3.0, 3.0], [-1e4, -1e4, -1e4]])
    third, u = 1 / 3, ARITHMETICS[dtype].unit_roundoff
    loss, delta = loss_and_delta(backend, "cross_entropy", rows, np.array([1, 0, 2]), dtype)
    assert loss == pytest.approx(2e4 + 2 * np.log(3), rel=8 * u)
    assert delta[0] == [1, -1, 0]
    assert delta[1] == pytest.approx([third - 1, third, third], rel=8 * u)
    spec = network((3, 3), ["softmax"], "squared_error", "sum", bias=False)
    shown = backends.load(backend).intermediates_function(spec, dtype=dtype, device="cpu")  # type: ignore[attr-defined]
    values = shown({"W1": np.eye(3, dtype=dtype)}, rows.astype(dtype), np.zeros((3, 3), dtype))
    assert values["a2"][0].tolist() == [1, 0, 0]
    assert values["a2"][1] == pytest.approx([third] * 3, rel=8 * u)
    assert np.isfinite(values["delta2"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_probabilities_that_do_not_quite_sum_to_one(backend: str, dtype: str) -> None:
    """∂C/∂s is (Σy) p − y, and p − y lies within the tolerance of it."""
    p = problem(network((4, 3), ["identity"], "cross_entropy"), dtype=dtype)
    y = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [1 / 3] * 3, [0.25, 0.5, 0.25], [0.6, 0.3, 0.1]], dtype)
    rows = judge(Problem(p.spec, p.params, p.x, y, 0, 0)).rows(backends.load(backend), inputs=True)
    assert {row.verdict for row in rows} == {PASS}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["cross_entropy", "negative_log_likelihood"])
def test_a_label_is_the_row_with_a_one(backend: str, dtype: str, loss: str) -> None:
    s = np.array([[0.25, 0.5, 0.25], [0.5, 0.125, 0.375]])
    labels = np.array([2, 0])
    rows = np.eye(3, dtype=dtype)[labels]
    for kind in ("int8", "uint16", "int64"):
        assert loss_and_delta(backend, loss, s, labels.astype(kind), dtype) == loss_and_delta(
            backend, loss, s, rows, dtype
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_impossible_class_of_probability_zero_costs_nothing(backend: str, dtype: str) -> None:
    value, delta = loss_and_delta(backend, "negative_log_likelihood", [[0.0, 0.5, 0.0]], [[0.0, 1.0, 0.0]], dtype)
    assert value == pytest.approx(np.log(2), rel=4 * float(np.finfo(dtype).eps))
    assert delta == [[0, -2, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_certain_answer_to_binary_cross_entropy(backend: str, dtype: str) -> None:
    """log(1 + e^s) − y s for logits of ±1e4 and targets 0 and 1: 0 or 1e4, never inf − inf."""
    logits, targets = [[1e4, -1e4, 1e4, -1e4]], [[1.0, 0.0, 0.0, 1.0]]
    value, delta = loss_and_delta(backend, "binary_cross_entropy", logits, targets, dtype)
    assert value == 2e4
    assert delta == [[0, 0, 1, -1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_of_many_classes_need_no_square_matrix(backend: str) -> None:
    """An identity matrix of the classes would be 8 TB here."""
    n = 1_000_000
    spec = network((1, n), ["identity"], "cross_entropy", bias=False)
    loss, grads = value_and_grad(spec, {"W1": np.zeros((n, 1))}, np.ones((1, 1)), np.array([n - 1]), backend=backend)
    assert loss == pytest.approx(np.log(n), rel=1e-12)
    assert grads["W1"][-1, 0] == pytest.approx(1 / n - 1, rel=1e-12)
