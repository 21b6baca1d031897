"""The three backends: complete, alike in names, exact in the exact group, and without a trace in what is their
caller's: data, modes, settings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import BACKENDS, DTYPES, judge, network, problem

from refimpl import backend as backends
from refimpl import value_and_grad
from refimpl.equations import EQUATIONS
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl_numpy import NumpyBackend

HOME = Path(__file__).resolve().parents[2] / "backends"

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
def test_the_twins_have_the_same_names_in_the_same_order(twin: str) -> None:
    """A diff between two backends then shows what autograd replaces, and nothing else."""
    ours, theirs = (public_names(HOME / f"refimpl_{name}" / "network.py") for name in ("numpy", twin))
    assert theirs == ours[: ours.index("cost") + 1]
    ours, theirs = (public_names(HOME / f"refimpl_{name}" / "functions.py") for name in ("numpy", twin))
    assert theirs == [name for name in ours if name in theirs]  # less what the framework has itself
    assert {"ACTIVATIONS", *LOSSES} <= set(theirs)


@pytest.mark.parametrize("name", BACKENDS)
def test_autograd_is_what_differentiates(name: str) -> None:
    """No custom backward rule, no detached or stopped gradient."""
    for path in sorted((HOME / f"refimpl_{name}").glob("*.py")):
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        stated = {"custom_vjp", "custom_jvp", "Function", "stop_gradient", "register_hook", "defvjp", "defjvp"}
        assert not used & stated, path.name


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_what_was_called_native_is_the_default_now(framework: str) -> None:
    with pytest.warns(FutureWarning, match=f"refimpl_{framework}:backend"):
        native = backends.load(f"refimpl_{framework}:native")
    assert native is backends.load(framework)


@pytest.mark.parametrize("name", BACKENDS)
def test_supports_says_why_not(name: str) -> None:
    backend, spec = backends.load(name), network((2, 1), ["relu"])
    assert backend.supports(spec, dtype="float64", device="cpu") is True
    for dtype, device in [("float16", "cpu"), ("float64", "tpu"), ("float64", "cuda:99")]:
        reason = backend.supports(spec, dtype=dtype, device=device)
        assert isinstance(reason, str)
        assert (dtype if device == "cpu" else device) in reason


# The exact group -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("bias", [True, False])
def test_dyadic_networks_are_hit_bit_for_bit(
    backend: str, dtype: str, reduction: str, bias: bool, rng: np.random.Generator
) -> None:
    """Small integers, N a power of two: every product and sum is representable, so there is nothing to round."""
    activations = ["relu", {"name": "leaky_relu", "negative_slope": 0.25}, "identity", "identity"]
    spec = network((3, 4, 3, 2, 2), activations, "squared_error", reduction, bias=bias)
    params = {name: rng.integers(-1, 2, shape).astype(dtype) for name, shape in spec.parameter_shapes.items()}
    x, y = (rng.integers(-1, 2, (8, n)).astype(dtype) for n in (3, 2))
    truth = judge(Problem(spec, params, x, y, 0, 0)).truth
    loaded: Any = backends.load(backend)
    loss, grads = value_and_grad(spec, params, x, y, backend=backend, inputs=True)
    shown = loaded.intermediates_function(spec, dtype=dtype, device="cpu")(params, x, y)
    assert loss == truth.loss.mid.item()
    values = {name: balls for name, balls in truth.values.items() if not name.startswith("da")}
    for name, balls in {**truth.grads, **values}.items():
        array = {**grads, **shown}[name]
        assert (balls.rad == 0).all()
        assert array.dtype == dtype
        assert (array == balls.mid).all(), name


# What comes in and goes out --------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 3)])
def test_inputs_of_any_shape_and_byte_order_get_their_gradient_in_that_shape(
    backend: str, shape: tuple[int, ...]
) -> None:
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


# Callers' unusual modes ------------------------------------------------------------------------------------------


def assert_the_same_in(modes: Sequence[Any], backend: str) -> None:
    p = problem(network((3, 4, 2), ["tanh", "identity"]), dtype="float32")
    expected = value_and_grad(p.spec, p.params, p.x, p.y, backend=backend)
    for mode in modes:
        with mode():
            loss, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend=backend)
        assert loss == expected[0]
        assert all((grads[name] == expected[1][name]).all() for name in grads)


def test_torch_answers_the_same_whatever_modes_its_caller_is_in() -> None:
    import torch

    @contextmanager
    def float64_by_default() -> Iterator[None]:
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)

    @contextmanager
    def without(mode: Any) -> Iterator[None]:
        with mode():
            yield
            assert not torch.is_grad_enabled()

    def autocast() -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    no_gradients = [partial(without, torch.no_grad), partial(without, torch.inference_mode)]
    assert_the_same_in([*no_gradients, autocast, float64_by_default], "torch")


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

    modes: list[Any] = [
        lambda: jax.enable_x64(True),
        lambda: jax.default_matmul_precision("bfloat16"),
        lambda: jax.numpy_rank_promotion("raise"),
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.transfer_guard("disallow"),
        lambda: jax.debug_nans(True),
    ]
    assert_the_same_in(modes, "jax")


def test_numpy_overflows_silently_also_for_a_caller_who_raises() -> None:
    p = problem(network((1, 1), ["sigmoid"], bias=False), n=1)
    with np.errstate(all="raise"):
        _, grads = value_and_grad(p.spec, {"W1": np.array([[1e200]])}, np.array([[-1e100]]), p.y, backend="numpy")
        assert np.geterr()["over"] == "raise"
    assert grads["W1"].tolist() == [[0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_global_changes_when_a_backend_raises(backend: str) -> None:
    p = problem(network((3, 2), ["tanh"]))
    function = backends.load(backend).gradient_function(p.spec, dtype="float64", device="cpu")
    with pytest.raises(Exception, match=r"shape|size|dimension|incompatible") as caught:
        function({"W1": p.params["W1"][:, :2], "b1": p.params["b1"]}, p.x, p.y)
    assert not isinstance(caught.value, AssertionError)
