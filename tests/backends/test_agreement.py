"""The three backends: complete, alike in names, exact at awkward points and in the exact group, and accurate on
every float16 value.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest
from networks import BACKENDS, DTYPES, judge, network, problem

from refimpl import backend as backends
from refimpl import value_and_grad
from refimpl.equations import EQUATIONS
from refimpl.judge.report import PASS
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import ACTIVATIONS, FLUSH_FACTOR, LOSSES, Interval
from refimpl.network.spec import NetworkSpec
from refimpl.truth.certification import activate
from refimpl_numpy import NumpyBackend

ROOT = Path(__file__).resolve().parent.parent
ELEMENTWISE = [name for name, entry in ACTIVATIONS.items() if entry.elementwise]
KEEPS_RELATIVE_ACCURACY = ("sigmoid", "tanh", "silu", "softsign", "identity", "relu", "leaky_relu", "softplus")
SMALLEST = {"float64": 5e-324, "float32": 1e-45}


def run(
    spec: NetworkSpec, name: str, params: dict[str, Any], x: Any, y: Any, dtype: str
) -> tuple[float, dict[str, np.ndarray]]:
    """Loss, gradients (x too) and intermediate values of one backend, all arrays cast to dtype (labels stay)."""
    cast = {key: np.asarray(value, dtype) for key, value in params.items()}
    x = np.asarray(x, dtype)
    y = np.asarray(y) if np.asarray(y).dtype.kind == "i" else np.asarray(y, dtype)
    loss, grads = value_and_grad(spec, cast, x, y, backend=name, inputs=True)
    values = backends.load(name).intermediates_function(spec, dtype=dtype, device="cpu")(cast, x, y)  # type: ignore[attr-defined]
    return loss, {**grads, **values}


def at(name: str, activation: Any, z: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(f(z), f'(z)) by a backend: one neuron with W = 1, and a loss with ∂C/∂a = 1."""
    spec = network((1, 1), [activation], "absolute_error", "sum", bias=False)
    z = np.asarray(z, dtype).reshape(-1, 1)
    _, values = run(spec, name, {"W1": [[1.0]]}, z, np.full_like(z, -1e32), dtype)
    return values["a2"].ravel(), values["delta2"].ravel()


# The catalogue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_every_function_of_the_catalogue_and_no_other(backend: str) -> None:
    backends.load(backend)
    module = __import__(f"refimpl_{backend}.functions", fromlist=["ACTIVATIONS"])
    assert list(module.ACTIVATIONS) == list(ACTIVATIONS)
    assert list(module.LOSSES) == list(LOSSES)


def test_numpy_has_a_backward_rule_for_every_function() -> None:
    from refimpl_numpy import functions

    assert {*functions.ACTIVATION_SLOPES, *functions.ACTIVATION_VJPS} == set(ACTIVATIONS)
    assert set(functions.LOSS_SLOPES) == set(LOSSES)


def public_names(path: Path) -> list[str]:
    """Functions, classes and constants of a module, in order."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names.append(target.id if isinstance(target, ast.Name) else "")
    return names


@pytest.mark.parametrize("twin", ["torch", "jax"])
@pytest.mark.parametrize("module", ["functions", "network"])
def test_the_twins_have_the_same_names_in_the_same_order(twin: str, module: str) -> None:
    """A diff between two backends then shows what autograd replaces, and nothing else."""
    ours = public_names(ROOT / f"backends/refimpl_numpy/{module}.py")
    theirs = [name for name in public_names(ROOT / f"backends/refimpl_{twin}/{module}.py") if name != "_magnitude"]
    assert theirs == [name for name in ours if name in theirs]
    assert set(theirs) <= set(ours)
    assert all(
        name in theirs
        for name in ours
        if not any(word in name for word in ("slope", "SLOPE", "vjp", "VJP", "gradient", "vector", "backward", "_erfc"))
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_supports_says_why_not(name: str) -> None:
    spec = network((2, 1), ["relu"])
    backend = backends.load(name)
    assert backend.supports(spec, dtype="float64", device="cpu") is True
    assert "float16" in str(backend.supports(spec, dtype="float16", device="cpu"))
    assert "tpu" in str(backend.supports(spec, dtype="float64", device="tpu"))
    assert "cuda" in str(backend.supports(spec, dtype="float64", device="cuda"))


# Awkward points --------------------------------------------------------------------------------------------------

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
    assert at(backend, "selu", [0.0, -0.0], dtype)[1] == pytest.approx(
        1.0507009873554805 * 1.6732632423543772, rel=4 * u
    )
    value, slope = at(backend, "softplus", [0.0, -0.0], dtype)
    assert value == pytest.approx(np.log(2), rel=4 * u)
    assert slope.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_has_no_threshold(backend: str, dtype: str) -> None:
    """torch's own goes linear at 20: its derivative there is exactly 1."""
    z = 12.0 if dtype == "float32" else 25.0
    value, slope = at(backend, "softplus", [z, -z], dtype)
    assert value[0] > z
    assert slope[0] < 1
    assert slope[1] == pytest.approx(np.exp(-z) / (1 + np.exp(-z)), rel=1e-5 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_nothing_overflows_far_out(backend: str, dtype: str, activation: str) -> None:
    far = [1e4, -1e4, 1e30, -1e30]
    values, slopes = at(backend, activation, far, dtype)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    expected = {
        "identity": (1, 1),
        "leaky_relu": (1, 0.01),
        "selu": (1.0507009873554805, 0),
        "sigmoid": (0, 0),
        "tanh": (0, 0),
    }.get(activation, (1, 0))
    assert slopes == pytest.approx(np.tile(expected, 2) if activation != "softsign" else 0, abs=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "silu", "softsign", "softplus"])
def test_derivatives_keep_their_relative_accuracy_in_saturation(backend: str, dtype: str, activation: str) -> None:
    """a(1 − a) and 1 − a² would be 0 or noise here; the catalogue grants ulps of f' itself."""
    z = np.array([-80.0, -40.0, -20.0, -15.0, -9.0, 9.0, 15.0, 20.0, 40.0, 80.0]) / (2 if activation == "tanh" else 1)
    _, slopes = at(backend, activation, z, dtype)
    _, truth = certified(activation, z.astype(dtype))
    assert (np.abs(slopes / truth - 1) <= 32 * ARITHMETICS[dtype].unit_roundoff).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_derivatives_at_a_residual_of_zero_and_at_hubers_corner(backend: str, dtype: str) -> None:
    def slope(loss: Any, s: list[float], y: list[float]) -> list[float]:
        spec = network((1, 1), ["identity"], loss, "sum", bias=False)
        return (
            run(spec, backend, {"W1": [[1.0]]}, np.reshape(s, (-1, 1)), np.reshape(y, (-1, 1)), dtype)[1]["delta2"]
            .ravel()
            .tolist()
        )

    assert slope("absolute_error", [0.5, 0.0, -0.0, 1.0, -1.0], [0.5, -0.0, 0.0, 0.0, 0.0]) == [0, 0, 0, 1, -1]
    assert slope("squared_error", [0.5, 2.0], [0.5, 1.0]) == [0, 1]
    assert slope("mean_squared_error", [0.5, 2.0], [0.5, 1.0]) == [0, 2]
    assert slope({"name": "huber", "delta": 0.5}, [0.0, 0.5, -0.5, 0.25, 3.0, -3.0], [0.0] * 6) == [
        0,
        0.5,
        -0.5,
        0.25,
        0.5,
        -0.5,
    ]
    assert slope("binary_cross_entropy", [0.0, -0.0], [0.0, 1.0]) == [0.5, -0.5]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_logits_and_ties_in_the_row_wise_functions(backend: str, dtype: str) -> None:
    rows = np.array([[1e4, -1e4, 0.0], [3.0, 3.0, 3.0], [-1e4, -1e4, -1e4]])
    for loss in ("cross_entropy", "binary_cross_entropy"):
        y: Any = np.array([1, 0, 2]) if loss == "cross_entropy" else np.eye(3)[[1, 0, 2]]
        value, values = run(
            network((3, 3), ["identity"], loss, "sum", bias=False), backend, {"W1": np.eye(3)}, rows, y, dtype
        )
        assert np.isfinite(value)
        assert np.isfinite(values["W1"]).all()
    third, u = 1 / 3, ARITHMETICS[dtype].unit_roundoff
    delta = run(
        network((3, 3), ["identity"], "cross_entropy", "sum", bias=False),
        backend,
        {"W1": np.eye(3)},
        rows,
        np.array([1, 0, 2]),
        dtype,
    )[1]["delta2"]
    assert delta[0].tolist() == [1, -1, 0]
    assert delta[1] == pytest.approx([third - 1, third, third], rel=8 * u)
    _, values = run(
        network((3, 3), ["softmax"], "squared_error", "sum", bias=False),
        backend,
        {"W1": np.eye(3)},
        rows,
        np.zeros((3, 3)),
        dtype,
    )
    assert values["a2"][0].tolist() == [1, 0, 0]
    assert values["a2"][1] == pytest.approx([third] * 3, rel=8 * u)
    assert np.isfinite(values["delta2"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_probability_of_zero_with_a_target_of_zero_costs_nothing(backend: str, dtype: str) -> None:
    spec = network((2, 2), ["softmax"], "negative_log_likelihood", "sum", bias=False)
    loss, values = run(spec, backend, {"W1": np.eye(2)}, [[1e4, -1e4]], np.array([0]), dtype)
    assert loss == 0
    assert values["W1"].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_probabilities_that_do_not_quite_sum_to_one(backend: str, dtype: str) -> None:
    """∂C/∂s is (Σy) p − y, and p − y lies within the tolerance of it."""
    p = problem(network((4, 3), ["identity"], "cross_entropy"), dtype=dtype)
    y = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [1 / 3] * 3, [0.25, 0.5, 0.25], [0.6, 0.3, 0.1]], dtype)
    rows = judge(type(p)(p.spec, p.params, p.x, y, 0, 0)).rows(backends.load(backend), inputs=True)
    assert {row.verdict for row in rows} == {PASS}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_subnormal_inputs_are_kept_or_their_flushing_is_declared(backend: str, dtype: str) -> None:
    loaded = backends.load(backend)
    declared = (
        isinstance(loaded, backends.ArithmeticBackend)
        and loaded.arithmetic(dtype=dtype, device="cpu").flushes_subnormals
    )
    assert declared == (backend == "jax")
    tiny = 16 * SMALLEST[dtype]
    values, _ = at(backend, "identity", [tiny, -tiny], dtype)
    assert values.tolist() == ([0, 0] if declared else np.asarray([tiny, -tiny], dtype).tolist())


# The exact group -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("activation", ["identity", "relu", {"name": "leaky_relu", "negative_slope": 0.25}])
def test_dyadic_networks_are_hit_bit_for_bit(
    backend: str, dtype: str, reduction: str, activation: Any, rng: np.random.Generator
) -> None:
    """Small integers, N a power of two: every product and sum is representable, so there is nothing to round."""
    for bias in (True, False):
        spec = network((3, 4, 2, 2), [activation, activation, "identity"], "squared_error", reduction, bias=bias)
        params = {name: rng.integers(-2, 3, shape).astype(dtype) for name, shape in spec.parameter_shapes.items()}
        x, y = rng.integers(-2, 3, (8, 3)).astype(dtype), rng.integers(-2, 3, (8, 2)).astype(dtype)
        p = type(problem(spec))(spec, params, x, y, 0, 0)
        truth = judge(p).truth
        loss, values = run(spec, backend, params, x, y, dtype)
        for name, balls in {
            **truth.grads,
            **{key: ball for key, ball in truth.values.items() if not key.startswith("da")},
        }.items():
            assert (balls.rad == 0).all()
            assert values[name].dtype == dtype
            assert (values[name] == balls.mid).all(), name
        assert loss == truth.loss.mid.item()


# Every float16 ---------------------------------------------------------------------------------------------------


def finite_float16() -> np.ndarray:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert every.size == 65_536
    return every[np.isfinite(every)].astype(np.float32)


def certified(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f and f' at exactly these numbers, rounded to float64."""
    entry = ACTIVATIONS[name]
    kwargs = {key: parameter.default for key, parameter in entry.parameters.items()}
    values = np.empty((len(z), 2))
    with flint.ctx.workprec(300):
        for index, number in enumerate(z.astype(np.float64).tolist()):
            series, certain = activate(entry, kwargs, flint.arb_series([number, 1], 2))
            assert certain
            values[index] = float(series[0].mid()), float(series[1].mid())
    return values[:, 0], values[:, 1]


@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_every_float16_value_through_every_activation_within_the_stated_ulps(activation: str) -> None:
    """All 65,536 bit patterns; the 2,048 that are infinite or NaN are no data of a network and are refused
    before any backend.
    """
    z = finite_float16()
    assert z.size == 65_536 - 2_048
    value, slope = certified(activation, z)
    entry = ACTIVATIONS[activation]
    kwargs = {key: parameter.default for key, parameter in entry.parameters.items()}
    exact = z.astype(np.float64)
    where = Interval(exact, exact, np.abs(value), np.abs(slope))
    arithmetic = ARITHMETICS["float32"]
    flushed = FLUSH_FACTOR * (1 + np.abs(exact)) * arithmetic.smallest_normal if entry.smooth_library else 0.0
    value_grant = entry.value_ulps * arithmetic.unit_roundoff * entry.value_scale(where, kwargs) + flushed
    slope_grant = entry.slope_ulps * arithmetic.unit_roundoff * entry.slope_scale(where, kwargs) + flushed
    # relative to f' itself; silu's changes sign, and is measured by its two terms there
    own = np.abs(slope) + (2 * np.abs(value) if activation == "silu" else 0)
    strict_grant = max(entry.slope_ulps, 16.0) * arithmetic.unit_roundoff * own + flushed
    for backend in BACKENDS:
        values, slopes = at(backend, activation, z, "float32")
        assert (np.abs(values - value) <= value_grant).all(), backend
        assert (np.abs(slopes - slope) <= slope_grant).all(), backend
        if activation in KEEPS_RELATIVE_ACCURACY:
            assert (np.abs(slopes - slope) <= strict_grant).all(), backend


# Callers' data and state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_read_only_and_strided_data_are_fine_and_never_changed_or_shared(backend: str) -> None:
    p = problem(network((3, 2, 2), ["identity", "identity"]), n=4)
    wide = np.repeat(p.x, 2, axis=1)
    view = wide[:, ::2]
    params = {name: np.asfortranarray(value) for name, value in p.params.items()}
    for array in (*params.values(), wide, p.y):
        array.flags.writeable = False
    loss, grads = value_and_grad(p.spec, params, view, p.y, backend=backend, inputs=True)
    again, same = value_and_grad(p.spec, p.params, p.x, p.y, backend=backend, inputs=True)
    assert loss == again
    for name, grad in grads.items():
        assert (grad == same[name]).all()
        assert grad.flags.writeable
        assert not any(np.shares_memory(grad, array) for array in (*params.values(), wide, p.y))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_call_leaves_the_first_answer_alone(backend: str) -> None:
    p = problem(network((3, 2), ["tanh"]))
    function = backends.load(backend).gradient_function(p.spec, dtype="float64", device="cpu")
    _, first = function(p.params, p.x, p.y)
    kept = {name: grad.copy() for name, grad in first.items()}
    function(p.params, 2 * p.x, p.y)
    assert all((first[name] == kept[name]).all() for name in kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_outputs_are_the_last_activations(backend: str, dtype: str) -> None:
    p = problem(network([3, 4, 2], ["tanh", "sigmoid"], "cross_entropy"), dtype=dtype)
    judged, loaded = judge(p), backends.load(backend)
    outputs = loaded.forward_function(p.spec, dtype=dtype, device="cpu")(p.params, p.x)  # type: ignore[attr-defined]
    assert type(outputs) is np.ndarray
    assert outputs.dtype == dtype
    balls = judged.truth.values["a3"]
    assert (balls.distance(outputs) <= judged.tolerance(ARITHMETICS[dtype]).worst_case["a3"] + 2 * balls.rad).all()


def test_given_equations_run_in_the_dtype_that_is_asked_for_and_overflow_quietly() -> None:
    p = problem(network([3, 4, 2], ["tanh", "identity"], "cross_entropy"), dtype="float32")
    assert p.y.ndim == 1
    numpy = NumpyBackend([EQUATIONS] * p.spec.depth)
    _, grads = numpy.gradient_function(p.spec, dtype="float32", device="cpu")(p.params, p.x, p.y)
    shown = numpy.intermediates_function(p.spec, dtype="float32", device="cpu")(p.params, p.x, p.y)
    assert {array.dtype for array in (*grads.values(), *shown.values())} == {np.dtype("float32")}
    deep = problem(network([3, 4, 2], ["identity", "identity"]))
    huge = {name: array * 1e200 for name, array in deep.params.items()}
    numpy = NumpyBackend([EQUATIONS] * deep.spec.depth)
    loss, _ = numpy.gradient_function(deep.spec, dtype="float64", device="cpu")(huge, deep.x, deep.y)
    outputs = numpy.forward_function(deep.spec, dtype="float64", device="cpu")(huge, deep.x)
    assert not np.isfinite(loss)
    assert not np.isfinite(outputs).all()


def test_torch_works_inside_no_grad_and_inference_mode() -> None:
    import torch

    p = problem(network((3, 2), ["tanh"]))
    expected = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            loss, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
            assert torch.is_grad_enabled() is False
        assert loss == expected[0]
        assert (grads["W1"] == expected[1]["W1"]).all()


def test_torch_is_exact_and_puts_the_matmul_precision_back() -> None:
    import torch

    p = problem(network((3, 2), ["tanh"]), dtype="float32")
    torch.set_float32_matmul_precision("medium")
    try:
        value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_global_changes_when_a_backend_raises(backend: str) -> None:
    p = problem(network((3, 2), ["tanh"]))
    function = backends.load(backend).gradient_function(p.spec, dtype="float64", device="cpu")
    with pytest.raises(Exception, match=r"shape|size|dimension|incompatible") as caught:
        function({"W1": p.params["W1"][:, :2], "b1": p.params["b1"]}, p.x, p.y)
    assert not isinstance(caught.value, AssertionError)
