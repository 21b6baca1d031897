"""`gradcheck` on what PyTorch and JAX compute rightly, on mistakes, on what would fool a comparison, and on requests
that are wrong.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from twins import TWINS

import refimpl
from refimpl import GradientError, assert_gradients_close, check_function, gradcheck, xp
from refimpl.formats.errors import CertificationError, DataError
from refimpl.judge.report import PASS, UNDETERMINED

DTYPES = [
    torch.float32,
    torch.bfloat16,
    *(pytest.param(dtype, marks=pytest.mark.soak) for dtype in (torch.float64, torch.float16)),
]
INCLUDED = ("inf", "all", "any", "newaxis")  # of what is known: nothing to differentiate


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TWINS)
def test_what_pytorch_computes_is_no_failure(name: str, dtype: torch.dtype) -> None:
    twin = TWINS[name]
    short = str(dtype).removeprefix("torch.")
    arithmetic = f"{short}_sums" if twin.sums and short.endswith("16") else None
    report = check_function(twin.function, twin.inputs(0, dtype), twin.definition, arithmetic=arithmetic)
    assert not report.failures, report.text
    if not short.endswith("16"):
        assert report.ok, report.text


def off(function: Any, share: float) -> Any:
    """A function whose gradient by its first input has its largest element times 1 + `share`."""

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: torch.Tensor) -> Any:
            ctx.save_for_backward(*given)
            return function(*given)

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
            with torch.enable_grad():
                given = [one.detach().requires_grad_() for one in ctx.saved_tensors]
                outputs = function(*given)
                first, *rest = torch.autograd.grad(
                    outputs if isinstance(outputs, tuple) else (outputs,), given, cotangents
                )
            wrong = first.flatten()
            wrong[int(wrong.abs().argmax())] *= 1 + share
            return (wrong.reshape(first.shape), *rest)

    return Off.apply


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", TWINS)
def test_twice_what_is_said_to_be_noticed_is_a_failure(name: str, seed: int) -> None:
    twin = TWINS[name]
    inputs = twin.inputs(seed, torch.float32)
    report = check_function(twin.function, inputs, twin.definition)
    row = next(row for row in report.rows if row.quantity.startswith("∂"))
    wrong = check_function(off(twin.function, 2 * row.noticed + 2e-6), inputs, twin.definition)
    assert [failure.quantity for failure in wrong.failures] == [row.quantity], wrong.text


def test_every_name_is_used_by_a_twin() -> None:
    """And returns what is traced where something traced is given."""
    used: set[str] = set()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            used.add(name)
            return getattr(xp, name)

    for twin in TWINS.values():
        given = [xp.Traced(refimpl.truth.graph.given(str(i), shape)) for i, shape in enumerate(twin.shapes)]
        twin.definition(Watched(), *given)
    assert set(xp.__all__) - used == set(INCLUDED)
    assert sorted(xp.__all__) == xp.__all__


# --------------------------------------------------------------------------------------------------------------
# Mistakes


def rms_norm(xp: Any, x: Any, weight: Any, eps: float = 1e-6) -> Any:
    return x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def written(change: Any) -> Any:
    """RMS norm with a backward pass of its own, which is right but for a change to (g, x, w, r)."""

    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            r = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
            ctx.save_for_backward(x, weight, r)
            return x * r * weight

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            return change(g, *ctx.saved_tensors)

    return Written.apply


def right(g: Any, x: Any, w: Any, r: Any) -> Any:
    gw = g * w
    return gw * r - x * r**3 * (gw * x).mean(-1, keepdim=True), (g * x * r).sum(0)


MISTAKES = {
    "no mean term": (lambda g, x, w, r: (g * w * r, right(g, x, w, r)[1]), {"∂/∂x"}),
    "times the first cotangent": (
        lambda g, x, w, r: tuple(one * g.flatten()[0] for one in right(torch.ones_like(g), x, w, r)),
        {"∂/∂x", "∂/∂weight"},
    ),
    "one in a thousand off": (lambda g, x, w, r: (right(g, x, w, r)[0] * 1.001, right(g, x, w, r)[1]), {"∂/∂x"}),
    "the last rows only": (lambda g, x, w, r: (right(g, x, w, r)[0], (g * x * r)[4:].sum(0)), {"∂/∂weight"}),
    "weight's own gradient for x": (lambda g, x, w, r: (w.expand_as(x), right(g, x, w, r)[1]), {"∂/∂x"}),
    "zero": (lambda g, x, w, r: (torch.zeros_like(x), right(g, x, w, r)[1]), {"∂/∂x"}),
    "NaN": (lambda g, x, w, r: (right(g, x, w, r)[0] * torch.nan, right(g, x, w, r)[1]), {"∂/∂x"}),
    "none": (lambda g, x, w, r: (right(g, x, w, r)[0], None), {"∂/∂weight"}),
    "rounded on the way": (
        lambda g, x, w, r: (right(g, x, w, r)[0].bfloat16().float(), right(g, x, w, r)[1]),
        {"∂/∂x"},
    ),
}


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in ((8, 64), (64,)))


def test_a_backward_pass_that_is_right() -> None:
    assert gradcheck(written(right), inputs(), rms_norm)
    assert gradcheck(written(right), inputs(torch.float64), rms_norm)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_failure_where_it_is(name: str) -> None:
    change, where = MISTAKES[name]
    with pytest.raises(GradientError, match="FAIL") as found:
        gradcheck(written(change), inputs(), rms_norm)
    assert {row.quantity for row in found.value.report.failures} == where
    assert not gradcheck(written(change), inputs(), rms_norm, raise_exception=False)


def test_what_is_asked_for_alone_is_judged() -> None:
    change, _ = MISTAKES["no mean term"]
    assert gradcheck(written(change), inputs(), rms_norm, wrt=["weight"])
    assert gradcheck(written(change), inputs(), rms_norm, wrt=[1])
    x, w = inputs()
    assert gradcheck(written(change), (x, w.requires_grad_()), rms_norm)
    assert not gradcheck(written(change), inputs(), rms_norm, wrt=["x"], raise_exception=False)


def test_jax_is_right_too() -> None:
    def function(x: Any, w: Any) -> Any:
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w

    given = [one.numpy() for one in inputs()]
    for dtype in ("float32", "bfloat16", "float16"):
        report = check_function(function, tuple(jnp.asarray(one, dtype) for one in given), rms_norm)
        assert report.ok, report.text

    @jax.custom_vjp
    def wrong(x: Any, w: Any) -> Any:
        return function(x, w)

    wrong.defvjp(lambda x, w: (function(x, w), (x, w)), lambda kept, g: (g, (g * kept[0]).sum(0)))
    report = check_function(wrong, tuple(map(jnp.asarray, given)), rms_norm)
    assert {row.quantity for row in report.failures} == {"∂/∂x", "∂/∂weight"}


def test_a_function_of_numpy_s_arrays_brings_its_vjp() -> None:
    def function(x: Any, w: Any) -> Any:
        r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        return x * r * w, lambda g: (g * w * r - x * r**3 * (g * w * x).mean(-1, keepdims=True), (g * x * r).sum(0))

    given = tuple(one.numpy() for one in inputs(torch.float64))
    assert gradcheck(function, given, rms_norm)
    assert check_function(lambda x, w: x, given, rms_norm).rows[0].reason.startswith("raised TypeError: a function of")


def test_strides_are_as_they_were() -> None:
    seen: list[Any] = []

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        seen.append((x.stride(), w.stride()))
        return written(right)(x, w)

    x = inputs()[0].reshape(64, 8).T
    w = inputs()[0].reshape(64, 8)[:, 0]
    assert gradcheck(function, (x, w), rms_norm)
    assert set(seen) == {(x.stride(), w.stride())}


# --------------------------------------------------------------------------------------------------------------
# What would fool a comparison


def test_an_input_that_is_overwritten_is_a_failure() -> None:
    def function(x: torch.Tensor, weight: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        count += 1
        return x * weight

    x, w = inputs()
    report = check_function(function, (x, w, torch.zeros(3, dtype=torch.int64)), lambda xp, x, w, count: x * w)
    (row,) = report.failures
    assert (row.quantity, row.reason) == ("count", "is an input that the function overwrites; give it back as it was")


def test_results_that_differ_between_two_runs_are_told() -> None:
    factors = iter((1.0, 1 + 2.0**-23))

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * weight * next(factors)

    report = check_function(function, inputs(), lambda xp, x, weight: x * weight)
    said = [finding.text for found in report.findings.values() for finding in found]
    assert any(text.startswith("output differs between two runs on the same inputs, by ") for text in said)
    assert report.to_dict()["findings"] == {"function": [{"text": text} for text in said]}


def test_what_an_output_does_not_depend_on_may_have_no_gradient() -> None:
    assert gradcheck(lambda x, w: 2 * x, inputs(), lambda xp, x, w: x + x)
    report = check_function(lambda x, w: x.detach() * w, inputs(), lambda xp, x, w: x * w)
    (row,) = report.failures
    assert (row.quantity, row.reason) == ("∂/∂x", "is None: the output does not depend on it, as it was computed")


def test_a_tolerance_wider_than_the_gradient_is_no_pass() -> None:
    x = torch.tensor([0.004, 0.005], dtype=torch.bfloat16)
    report = check_function(lambda x: torch.exp(x) - 1, (x,), lambda xp, x: xp.exp(x) - 1)
    assert {row.quantity: row.verdict for row in report.rows} == {"output": UNDETERMINED, "∂/∂x": PASS}
    assert not report.ok


def test_outputs_too_many_or_of_another_shape_are_failures() -> None:
    x, w = inputs()
    two = check_function(lambda x, w: (x * w, x), (x, w), lambda xp, x, w: x * w)
    assert "returned 2 outputs; its definition has 1" in two.text
    other = check_function(lambda x, w: (x * w).sum(0), (x, w), lambda xp, x, w: x * w)
    assert "has shape (64,); it must be (8, 64)" in " ".join(row.reason for row in other.failures)


@pytest.mark.parametrize("returned", [None, {}, 1.0])
def test_what_is_returned_and_no_array_is_a_failure(returned: Any) -> None:
    (row,) = check_function(lambda x: returned, inputs()[:1], lambda xp, x: x * x).failures
    assert f"returned a {type(returned).__name__}; a function returns a tensor or a tuple of tensors" in row.reason


def test_single_numbers() -> None:
    assert gradcheck(lambda x, y: x * y, (torch.tensor(2.0), torch.tensor(3.0)), lambda xp, x, y: x * y)
    assert gradcheck(lambda x: (x * x, lambda g: 2 * g * x), np.float64(3.0), lambda xp, x: x * x)


def test_what_a_function_raises_is_a_failure() -> None:
    report = check_function(lambda x, w: x @ w @ w, inputs(), rms_norm)
    (row,) = report.failures
    assert row.reason.startswith("raised ")


# --------------------------------------------------------------------------------------------------------------
# Gradients that someone has, and requests


def test_gradients_that_someone_has() -> None:
    x, w = (one.requires_grad_() for one in inputs())
    g = inputs()[0].flip(0)
    grads = torch.autograd.grad(torch.nn.functional.rms_norm(x, (64,), w, eps=1e-6), (x, w), g)
    assert_gradients_close(grads, rms_norm, (x, w), g)
    with pytest.raises(GradientError, match="FAIL"):
        assert_gradients_close((grads[0], grads[1] * 1.001), rms_norm, (x, w), g)
    with pytest.raises(GradientError, match="FAIL"):
        assert_gradients_close(grads, rms_norm, (x, w))
    with pytest.raises(DataError, match="gradients: 1 given; there must be one for each of x, weight"):
        assert_gradients_close(grads[0], rms_norm, (x, w), g)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"wrt": ["y"]}, "wrt: 'y' is none of x, weight"),
        ({"wrt": [7]}, "wrt: 7 is none of x, weight"),
        ({"wrt": []}, "wrt: names no input"),
        ({"arithmetic": "tf31"}, "arithmetic must be the name of a preset .* got 'tf31'"),
        ({"bound": "none"}, "bound must be 'both', 'first-order' or 'worst-case', got 'none'"),
        ({"cotangent": torch.ones(3)}, r"cotangent of output has shape \(3,\); it must be \(8, 64\)"),
        ({"cotangent": (torch.ones(8, 64),) * 2}, "cotangent: 2 given; there must be one for each of 1 outputs"),
        ({"inputs": (1, 2)}, "inputs: none is an array of "),
        ({"inputs": (torch.arange(3), torch.arange(3))}, "inputs: none is an array of float64, float32"),
        ({"inputs": (torch.tensor([1.0, torch.inf]), torch.ones(2))}, "input x holds numbers that are not finite"),
        ({"inputs": inputs()[:1] * 4}, "the definition takes 3 inputs, got 4"),
        ({"definition": lambda xp, x, w: x if x.sum() > 0 else w}, "cannot be traced: TypeError: .* xp.where"),
        ({"inputs": (torch.zeros(0, 3), torch.ones(3))}, r"input x has shape \(0, 3\), without an element"),
        ({"definition": lambda xp, x, w: x[:0]}, "the definition returns an array without an element"),
        (
            {"definition": lambda xp, x, w: xp.broadcast_to(x, (2**18, 8, 64))},
            "too large to be certified: .* give smaller inputs",
        ),
        ({"definition": lambda xp, x, w: x @ w @ w}, "cannot be traced: ValueError: "),
        ({"definition": lambda xp, x, w: "x"}, "the definition's output 1 is a str; return arrays made with xp"),
        ({"definition": lambda xp, x, w: x**w}, "NotImplementedError: pow with a traced exponent; write xp.exp"),
    ],
)
def test_a_wrong_request_is_said_in_one_line(request_: dict[str, Any], words: str) -> None:
    asked = {"inputs": inputs(), "definition": rms_norm, **request_}
    with pytest.raises(DataError, match=words) as said:
        gradcheck(written(right), **asked)
    assert len(str(said.value).splitlines()) == 1


def test_where_a_function_is_not_defined() -> None:
    with pytest.raises(CertificationError, match=r"not defined here: log is taken of -\d"):
        gradcheck(torch.log, inputs()[:1], lambda xp, x: xp.log(x))
    with pytest.raises(CertificationError, match="divides by 0"):
        gradcheck(lambda x: 1 / x, (torch.zeros(2),), lambda xp, x: 1 / x)
