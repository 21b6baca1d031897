"""What somebody's code returns: what is taken, and for everything else a FAIL with its reason."""

from __future__ import annotations

import array
import math
import re
from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from networks import DTYPES, judge, network, problem

from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, Row
from refimpl.judge.submission import Submission, Unusable
from refimpl_numpy import NumpyBackend

Change = Callable[[np.ndarray[Any, Any]], Any]


@pytest.fixture(scope="module", params=DTYPES)
def j(request: pytest.FixtureRequest) -> Judge:
    return judge(problem(network((2, 3, 2), ["tanh", "identity"]), n=3, dtype=request.param))


def right(j: Judge) -> tuple[float, dict[str, Any]]:
    run = NumpyBackend().gradient_function(j.spec, dtype=j.batch.dtype, device="cpu")
    loss, grads = run(*j.batch.copies(j.spec))
    return loss, dict(grads)


def rows(j: Judge, answer: Any) -> dict[str, Row]:
    found = j.judge_answer("mine", answer)
    assert {row.backend for row in found} == {"mine"}
    return {row.quantity: row for row in found}


class Raising:
    """Raises where an array or its keys are asked for."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error

    def keys(self) -> Any:
        raise self.error


class Keys:
    """Neither a mapping nor a sequence, but with keys."""

    def __init__(self, grads: dict[str, Any]) -> None:
        self.grads = grads

    def keys(self) -> Iterator[str]:
        return iter(self.grads)

    def __getitem__(self, key: str) -> Any:
        return self.grads[key]


@pytest.mark.parametrize(
    "form",
    [dict, UserDict, lambda grads: list(grads.items()), lambda grads: iter(grads.items()), Keys],
    ids=["dictionary", "mapping", "pairs", "generator", "keys"],
)
def test_gradients_are_whatever_a_dictionary_can_be_made_of(j: Judge, form: Any) -> None:
    loss, grads = right(j)
    assert {row.verdict for row in j.judge_answer("mine", (loss, form(grads)))} == {PASS}


@pytest.mark.parametrize(
    "form",
    [
        np.asfortranarray,
        lambda grad: grad.astype(grad.dtype.newbyteorder()),
        lambda grad: grad.view(type("Sub", (np.ndarray,), {})),
        memoryview,
        lambda grad: array.array(grad.dtype.char, grad) if grad.ndim == 1 else grad,
        lambda grad: [list(row) for row in grad] if grad.ndim == 2 else tuple(grad),
    ],
    ids=["Fortran order", "other byte order", "subclass", "buffer", "array.array", "lists"],
)
def test_an_array_is_whatever_numpy_takes_for_one(j: Judge, form: Change) -> None:
    loss, grads = right(j)
    answer = (np.array(loss), {name: form(grad) for name, grad in grads.items()})
    assert {row.verdict for row in j.judge_answer("mine", answer)} == {PASS}


@pytest.mark.parametrize("kind", [float, np.float64, np.longdouble, np.array])
def test_a_loss_is_any_real_number(j: Judge, kind: Any) -> None:
    assert rows(j, (kind(right(j)[0]), {}))["loss"].verdict == PASS


@pytest.mark.parametrize("loss", [5, np.uint8(5)], ids=repr)
def test_whole_numbers_are_a_loss(loss: Any) -> None:
    p = problem(network((1, 1), ["identity"], "absolute_error", "sum", bias=False), n=1)
    p.params["W1"][:], p.x[:], p.y[:] = 2.0, 3.0, 1.0
    assert rows(judge(p), (loss, {}))["loss"].verdict == PASS


@pytest.mark.parametrize(
    "answer",
    [None, 3.0, "ab", (1.0,), (1.0, {}, 2), (1.0, 5), (1.0, ["W"]), (1.0, None), (1.0, Raising(SystemExit(0)))],
    ids=lambda answer: re.sub(r"<.*>", "Raising", repr(answer)),
)
def test_an_answer_that_is_no_loss_with_gradients_is_one_fail(j: Judge, answer: Any) -> None:
    (row,) = j.judge_answer("mine", answer)
    assert (row.backend, row.verdict, row.quantity) == ("mine", FAIL, "loss")
    assert row.reason == f"returned {type(answer).__name__}; return (loss, gradients)"


BOTH: dict[str, tuple[Change, str]] = {
    "text": (lambda value: "much", "is a str, not "),
    "None": (lambda value: None, "None"),
    "a truth value": (lambda value: True, "is a bool, not "),
    "complex": (lambda value: np.asarray(value * 1j), "is of dtype complex"),
    "an array of texts": (lambda value: value.astype(str), "is of dtype <U32, not "),
    "an array of objects": (lambda value: value.astype(object), "is of dtype object, not "),
    "an array of truth values": (lambda value: np.asarray(value > 0), "is of dtype bool, not "),
    "objects in a list": (lambda value: [None], "is a list, not "),
    "a set": (lambda value: {1.0}, "is a set, not "),
    "a generator": (lambda value: iter([1.0]), "is a list_iterator, not "),
    "ragged": (lambda value: [[1.0], [1.0, 2.0]], "is no array: "),
    "masked": (lambda value: np.ma.masked_array(value, True), "is a masked array; give a plain one"),
    "too many elements": (lambda value: np.broadcast_to(1.0, 2**27 + 1), "more than 134,217,728 elements"),
    "raising": (lambda value: Raising(ValueError("a\x1bb" + 300 * "c" + "\nd")), "is no array: a?b" + 197 * "c"),
    "leaving": (lambda value: Raising(SystemExit(0)), "is no array: 0"),
    "without memory": (lambda value: Raising(MemoryError()), "is no array: (no message)"),
}
GRADIENT: dict[str, tuple[Change, str]] = {
    "transposed": (lambda grad: grad.T, "has shape (2, 3); it must be (3, 2)"),
    "flat": (lambda grad: grad.ravel(), "has shape (6,); it must be (3, 2)"),
    "empty": (lambda grad: grad[:0], "has shape (0, 2); it must be (3, 2)"),
    "a number": (lambda grad: 1.0, "has shape (); it must be (3, 2)"),
    "short": (lambda grad: grad.astype("float16"), "is float16; float"),
    "long": (lambda grad: grad.astype(np.longdouble), f"is {np.dtype(np.longdouble)}; float"),
    "whole": (lambda grad: grad.astype("int64"), "is int64; float"),
    "NaN": (lambda grad: np.where(np.arange(6).reshape(3, 2) == 3, np.nan, grad), "nan where the truth is finite"),
    "infinite": (lambda grad: grad / grad.dtype.type(0), "inf where the truth is finite"),
}
LOSS: dict[str, tuple[Change, str]] = {
    "several": (lambda loss: np.zeros(2), "has shape (2,); it must be a single number"),
    "in a list": (lambda loss: [float(loss)], "has shape (1,); it must be a single number"),
    "NaN": (lambda loss: math.nan, "nan where the truth is finite"),
    "beyond float64": (lambda loss: np.longdouble("1e4000"), "inf where the truth is finite"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", [*BOTH, *GRADIENT])
def test_a_malformed_gradient_is_the_fail_of_that_gradient_alone(j: Judge, how: str) -> None:
    change, words = {**BOTH, **GRADIENT}[how]
    loss, grads = right(j)
    with np.errstate(divide="ignore"):
        malformed = change(grads["W1"])
    found = rows(j, (loss, {**grads, "W1": malformed}))
    assert {name: row.verdict for name, row in found.items()} == {
        "loss": PASS,
        **dict.fromkeys(grads, PASS),
        "W1": FAIL,
    }
    assert found["W1"].verdict == FAIL
    assert words in found["W1"].reason
    assert found["W1"].size == 6


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", [*BOTH, *LOSS])
def test_a_malformed_loss_is_the_fail_of_the_loss_alone(j: Judge, how: str) -> None:
    change, words = {**BOTH, **LOSS}[how]
    loss, grads = right(j)
    found = rows(j, (change(np.array(loss)), grads))
    assert [name for name, row in found.items() if row.verdict != PASS] == ["loss"]
    assert found["loss"].verdict == FAIL
    assert words in found["loss"].reason


def test_another_dtype_than_was_asked_for_is_a_fail(j: Judge) -> None:
    asked, other = sorted(DTYPES, key=lambda dtype: dtype != j.batch.dtype)
    loss, grads = right(j)
    found = rows(j, (loss, {**grads, "b1": grads["b1"].astype(other)}))
    assert (found["b1"].verdict, found["b1"].reason) == (FAIL, f"is {other}; {asked} was asked for")


def test_a_missing_gradient_is_a_fail_and_so_is_one_too_many(j: Judge) -> None:
    loss, grads = right(j)
    found = rows(j, (loss, {**{name: grad for name, grad in grads.items() if name != "W2"}, "W9": grads["W2"], 5: 0.0}))
    assert {name: (row.verdict, row.reason) for name, row in found.items() if row.verdict != PASS} == {
        "W2": (FAIL, "is missing"),
        "W9": (FAIL, "is not a quantity of this network"),
        "5": (FAIL, "is not a quantity of this network"),
    }


@pytest.mark.parametrize("extra", [10, 11, 5000])
def test_ten_keys_that_are_not_the_networks_are_told_and_the_others_counted(j: Judge, extra: int) -> None:
    loss, grads = right(j)
    unknown = {f"\x1b{index}".ljust(100, "x"): 0.0 for index in range(extra)}
    found = list(rows(j, (loss, {**grads, **unknown})).values())[5:]
    assert [row.quantity for row in found[:10]] == [f"?{index}".ljust(60, "x") for index in range(10)]
    assert sum(row.size for row in found) == extra
    assert {row.verdict for row in found} == {FAIL}
    assert [(row.quantity, row.reason) for row in found[10:]] == [
        (f"{extra - 10} more", "are not quantities of this network")
    ] * (extra > 10)


def test_as_many_elements_as_may_be_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refimpl.judge.submission.MAX_ELEMENTS", 6)
    submission = Submission.of((None, {"W1": np.ones((3, 2)), "W2": np.ones(7)}))
    assert isinstance(submission, Submission)
    assert submission.loss is None
    assert np.shape(submission.array("W1")) == (3, 2)
    assert "more than 6" in str(submission.array("W2"))


def test_an_array_of_many_elements_is_read() -> None:
    """As many as a layer of 1024 has for 1024."""
    submission = Submission.of((0.5, {"W1": np.broadcast_to(1.0, (1024, 1024))}))
    assert isinstance(submission, Submission)
    assert np.shape(submission.array("W1")) == (1024, 1024)


def test_ctrl_c_while_an_answer_is_read_is_no_answer() -> None:
    stopped = Raising(KeyboardInterrupt())
    for answer in ((0.5, stopped), (0.5, {"W1": stopped}), (stopped, {})):
        with pytest.raises(KeyboardInterrupt):
            Submission.of(answer)


def test_what_has_been_read_is_read_no_more(j: Judge) -> None:
    for found in (Submission.of((0.5, {"W1": [1.0]})), Submission.of(None)):
        assert Submission.of(found) is found
    given = rows(j, Submission(Unusable("is bad"), {"W1": Unusable("is worse")}))
    assert [(given[name].verdict, given[name].reason) for name in ("loss", "W1", "b1")] == [
        (FAIL, "is bad"),
        (FAIL, "is worse"),
        (FAIL, "is missing"),
    ]
