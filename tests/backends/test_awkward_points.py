"""Where implementations go wrong: saturation, the seams between branches, subnormal inputs, degenerate targets, and
callers' unusual modes.

The reference is mpmath at 50 digits, independent of refimpl's own certificates. The rows of the semantics at 0, ties
and kinks are in ``test_backends.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from networks import BACKENDS, DTYPES, network, problem

from refimpl import backend as backends
from refimpl import value_and_grad

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 50
# measured: at most 2.2 spacings (eps) for f and f', over 1,300 points a function, backend and dtype
SPACINGS = 4


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


def slopes_and_values(backend: str, activation: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f(z), f'(z) of a backend: W = 1, and a loss whose ∂C/∂a is 1."""
    spec = network((1, 1), [activation], "absolute_error", "sum", bias=False)
    function = backends.load(backend).intermediates_function(spec, dtype=str(z.dtype), device="cpu")  # type: ignore[attr-defined]
    values = function({"W1": np.ones((1, 1), z.dtype)}, z.reshape(-1, 1), np.full((len(z), 1), -1e32, z.dtype))
    return values["a2"].ravel(), values["delta2"].ravel()


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
def test_values_and_derivatives_are_right_to_a_few_ulps_also_where_saturated(
    backend: str, dtype: str, activation: str
) -> None:
    z = points(dtype)
    values, slopes = slopes_and_values(backend, activation, z)
    f, derivative, scale = SATURATING[activation]
    allowed = SPACINGS * float(np.finfo(dtype).eps)
    with mpmath.workdps(DIGITS):
        for at, value, slope in zip(z.tolist(), values.tolist(), slopes.tolist(), strict=True):
            exact = mpmath.mpf(at)
            assert abs(value - f(exact)) <= allowed * abs(f(exact)), f"{activation}({at})"
            assert abs(slope - derivative(exact)) <= allowed * scale(exact), f"{activation}'({at})"


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
    values, slopes = slopes_and_values(backend, activation, tiny)
    assert slopes == pytest.approx([left, left] if flushes else [right, left], rel=1e-6)
    if flushes:
        assert values.tolist() == [0, 0]
    elif activation != "leaky_relu":  # 0.01 · z loses all but one bit
        assert values.tolist() == [tiny[0], 0 if activation == "relu" else tiny[1]]


def loss_and_delta(backend: str, loss: str, s: Any, y: Any, dtype: str) -> tuple[float, list[Any]]:
    """A loss and ∂C/∂s: s goes through an identity layer with W = I."""
    s = np.asarray(s, dtype)
    spec = network((s.shape[1], s.shape[1]), ["identity"], loss, "sum", bias=False)
    params = {"W1": np.eye(s.shape[1], dtype=dtype)}
    value, grads = value_and_grad(spec, params, s, y, backend=backend, inputs=True)
    return value, grads["x"].tolist()


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
    value, delta = loss_and_delta(
        backend, "negative_log_likelihood", [[0.0, 0.5, 0.0]], np.array([[0, 1, 0]], dtype), dtype
    )
    assert value == pytest.approx(np.log(2), rel=4 * float(np.finfo(dtype).eps))
    assert delta == [[0, -2, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_certain_answer_to_binary_cross_entropy(backend: str, dtype: str) -> None:
    """log(1 + e^s) − y s for logits of ±1e4 and targets 0 and 1: 0 or 1e4, never inf − inf."""
    value, delta = loss_and_delta(
        backend, "binary_cross_entropy", [[1e4, -1e4, 1e4, -1e4]], np.array([[1, 0, 0, 1]], dtype), dtype
    )
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 3)])
def test_inputs_of_any_shape_and_byte_order_get_their_gradient_in_that_shape(
    backend: str, shape: tuple[int, ...]
) -> None:
    from refimpl.network.spec import LayerSpec, NetworkSpec

    p = problem(NetworkSpec(shape, (LayerSpec(2, "tanh"), LayerSpec(1, "identity", bias=False)), "squared_error"))
    expected = value_and_grad(p.spec, p.params, p.x, p.y, backend="numpy", inputs=True)
    swapped = {name: array.astype(">f8") for name, array in {**p.params, "x": p.x, "y": p.y}.items()}
    x, y = swapped.pop("x"), swapped.pop("y")
    loss, grads = value_and_grad(p.spec, swapped, x, y, backend=backend, inputs=True)
    assert loss == pytest.approx(expected[0], rel=1e-14)
    assert grads["x"].shape == p.x.shape == (5, *shape)
    for name, grad in grads.items():
        assert grad.dtype == np.dtype("float64")
        assert grad == pytest.approx(expected[1][name], rel=1e-12)


# Callers' unusual modes ------------------------------------------------------------------------------------------


def test_torch_answers_the_same_whatever_modes_its_caller_is_in() -> None:
    import torch

    p = problem(network((3, 4, 2), ["tanh", "identity"]), dtype="float32")
    expected = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")

    def same() -> bool:
        loss, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
        return loss == expected[0] and all((grads[name] == expected[1][name]).all() for name in grads)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same()
    torch.set_default_dtype(torch.float64)
    try:
        assert same()
    finally:
        torch.set_default_dtype(torch.float32)


def test_torch_leaves_both_settings_of_the_matmul_precision_as_they_were() -> None:
    """The newer setting alone, which makes the older refuse to be read; and the older alone."""
    import torch

    p = problem(network((3, 2), ["tanh"]), dtype="float32")
    newer: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    newer.fp32_precision = "bf16"
    try:
        value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
        assert newer.fp32_precision == "bf16"
    finally:
        newer.fp32_precision = "none"
    torch.set_float32_matmul_precision("high")
    try:
        value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
        assert (torch.get_float32_matmul_precision(), newer.fp32_precision) == ("high", "tf32")
    finally:
        torch.set_float32_matmul_precision("highest")
        newer.fp32_precision = "none"


def test_jax_answers_the_same_whatever_modes_its_caller_is_in() -> None:
    import jax

    p = problem(network((3, 4, 2), ["tanh", "identity"]), dtype="float32")
    expected = value_and_grad(p.spec, p.params, p.x, p.y, backend="jax")
    modes: list[Any] = [
        lambda: jax.enable_x64(True),
        lambda: jax.default_matmul_precision("bfloat16"),
        lambda: jax.numpy_rank_promotion("raise"),
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.transfer_guard("disallow"),
        lambda: jax.debug_nans(True),
    ]
    for mode in modes:
        with mode():
            loss, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend="jax")
        assert loss == expected[0]
        assert all((grads[name] == expected[1][name]).all() for name in grads)


def test_numpy_overflows_silently_also_for_a_caller_who_raises() -> None:
    p = problem(network((1, 1), ["sigmoid"], bias=False), n=1)
    with np.errstate(all="raise"):
        _, grads = value_and_grad(p.spec, {"W1": np.array([[1e200]])}, np.array([[-1e100]]), p.y, backend="numpy")
        assert np.geterr()["over"] == "raise"
    assert grads["W1"].tolist() == [[0]]


@pytest.mark.parametrize("name", BACKENDS)
def test_an_unknown_device_or_dtype_is_refused_with_the_reason(name: str) -> None:
    backend, spec = backends.load(name), network((2, 1), ["relu"])
    for dtype, device, named in [
        ("float16", "cpu", "float16"),
        ("float64", "cuda:99", "cuda:99"),
        ("float64", "quantum", "quantum"),
    ]:
        reason = backend.supports(spec, dtype=dtype, device=device)
        assert isinstance(reason, str)
        assert named in reason


# Independence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_no_backend_imports_another_or_states_a_derivative_to_its_framework(name: str) -> None:
    """Autograd must be what differentiates: no custom backward rule, no detached or stopped gradient."""
    roots: set[str] = set()
    for path in sorted((ROOT / f"backends/refimpl_{name}").glob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                roots.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not used & {
            "custom_vjp",
            "custom_jvp",
            "Function",
            "stop_gradient",
            "register_hook",
            "defvjp",
            "defjvp",
        }, path.name
    others = {f"refimpl_{other}" for other in BACKENDS if other != name} | ({"torch", "jax", "numpy"} - {name, "numpy"})
    assert not roots & others
