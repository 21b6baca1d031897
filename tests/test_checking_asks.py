"""`check` with backends that note what they are asked and answer what they are told: who is run, with what, what is
left out and why, and what is handed on to be diagnosed. No framework is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import DTYPES, network, problem

from refimpl import backend as backend_module
from refimpl import check, checking
from refimpl.formats.errors import BackendError
from refimpl.judge.report import FAIL, PASS
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem
from refimpl.truth.certification import certify_batch
from refimpl_numpy import NumpyBackend

GRADIENTS = ["loss", "W1", "b1", "W2", "b2"]
BETWEEN = ["z2", "a2", "delta2", "z3", "a3", "delta3"]
Spoil = Callable[[Any], Any]


class Least:
    """What a backend must have, with the right answer or a spoiled one; whatever it is asked, it notes."""

    def __init__(self, name: str, spoil: Spoil = lambda answer: answer, supports: bool | str = True) -> None:
        self.name, self.spoil, self.answer = name, spoil, supports
        self.asked: list[tuple[Any, ...]] = []

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
        self.asked.append(("supports", spec, dtype, device))
        return self.answer

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self.asked.append(("gradient", spec, dtype, device))
        run = NumpyBackend().gradient_function(spec, dtype=dtype, device="cpu")
        return lambda *data: self.spoil(run(*data))


class WithX(Least):
    """And the gradient of x."""

    def input_gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self.asked.append(("inputs", spec, dtype, device))
        run = NumpyBackend().input_gradient_function(spec, dtype=dtype, device="cpu")
        return lambda *data: self.spoil(run(*data))


class WithBetween(Least):
    """And what lies between."""

    def intermediates_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self.asked.append(("intermediates", spec, dtype, device))
        return NumpyBackend().intermediates_function(spec, dtype=dtype, device="cpu")


class All(WithX, WithBetween):
    """Everything."""


class Entry:
    """What is installed under a name."""

    value = "somewhere:backend"

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture(params=DTYPES)
def p(request: pytest.FixtureRequest) -> Problem:
    return problem(network((2, 3, 2), ["tanh", "identity"]), n=3, dtype=request.param)


def negated(answer: Any) -> Any:
    loss, grads = answer
    return loss, grads | {"W1": -grads["W1"]}


def run(p: Problem, *backends: Any, **options: Any) -> Any:
    return check(p.spec, p.params, p.x, p.y, list(backends), **options)


def installed(monkeypatch: pytest.MonkeyPatch, **backends: Any) -> None:
    monkeypatch.setattr(backend_module, "available", lambda: {name: Entry(one) for name, one in backends.items()})


def test_every_backend_is_asked_for_what_was_asked_of_check(p: Problem) -> None:
    spec, dtype = p.spec, p.x.dtype.name
    for device in ("cpu", "gpu"):
        for inputs in (False, True):
            for between in (False, True):
                one, two = All("one"), All("two")
                report = run(p, one, two, device=device, inputs=inputs, intermediates=between)
                asked = [("supports", spec, dtype, device), ("inputs" if inputs else "gradient", spec, dtype, device)]
                asked += [("intermediates", spec, dtype, device)] if between else []
                assert one.asked == two.asked == asked
                quantities = GRADIENTS + (["x"] if inputs else []) + (BETWEEN if between else [])
                assert [(row.backend, row.quantity) for row in report.rows] == [
                    (name, quantity) for name in ("one", "two") for quantity in quantities
                ]
                assert report.ok
                assert (report.device, report.unavailable, report.findings) == (device, {}, {})


def test_without_a_word_it_is_the_cpu_and_the_gradients_alone(p: Problem) -> None:
    one = All("one")
    report = run(p, one)
    assert [what for what, *_ in one.asked] == ["supports", "gradient"]
    assert {device for *_, device in one.asked} == {report.device} == {"cpu"}
    assert [row.quantity for row in report.rows] == GRADIENTS


def test_the_report_says_under_what_conditions(p: Problem) -> None:
    report = run(p, Least("one"))
    assert report.spec is p.spec
    assert (report.dtype, report.n) == (p.x.dtype.name, 3)
    assert report.precision == certify_batch(p.spec, validate(p.spec, p.params, p.x, p.y)).precision
    assert isinstance(report.rows, tuple)


def test_what_fails_is_diagnosed_and_nothing_else(p: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def diagnosed(judge: Any, answer: Any, arithmetic: Any) -> list[str]:
        told.append((judge.spec, judge.batch.x.tolist(), answer, arithmetic))
        return ["a finding"]

    monkeypatch.setattr(checking, "diagnose_answer", diagnosed)
    coarse = replace(ARITHMETICS[p.x.dtype.name], unit_roundoff=2.0**-12)

    def declared(self: Any, *, dtype: str, device: str) -> Any:
        return coarse

    Coarse = type("Coarse", (Least,), {"arithmetic": declared})
    raising = Least("raising", spoil=lambda answer: 1 / 0)
    report = run(p, Least("right"), Least("wrong", negated), Coarse("coarse", negated), raising)
    assert report.findings == {"wrong": ("a finding",), "coarse": ("a finding",)}
    assert {row.backend for row in report.rows if row.verdict == FAIL} == {"wrong", "coarse", "raising"}
    assert {row.verdict for row in report.rows if row.backend == "right"} == {PASS}
    assert [arithmetic for *_, arithmetic in told] == [ARITHMETICS[p.x.dtype.name], coarse]
    right = NumpyBackend().gradient_function(p.spec, dtype=p.x.dtype.name, device="cpu")(p.params, p.x, p.y)
    for spec, x, (loss, grads), _ in told:
        assert (spec, x, loss) == (p.spec, p.x.tolist(), right[0])
        assert np.array_equal(grads["W1"], -right[1]["W1"])


def test_a_report_holds_the_diagnosis(p: Problem) -> None:
    """W1's gradient alone has the wrong sign."""
    (finding,) = run(p, Least("wrong", negated)).findings["wrong"]
    assert "W1" in finding.text


LACKING = [
    (Least, "the gradient of x or z, a and delta"),
    (WithX, "z, a and delta"),
    (WithBetween, "the gradient of x"),
]


@pytest.mark.parametrize(("kind", "lacks"), LACKING)
def test_what_a_named_backend_does_not_offer_is_an_error(p: Problem, kind: Any, lacks: str) -> None:
    with pytest.raises(BackendError) as caught:
        run(p, All("all"), kind("one"), inputs=True, intermediates=True)
    assert str(caught.value) == f"backend 'one' does not give {lacks}; leave that out"
    for inputs, between in ((kind is WithX, kind is WithBetween), (False, False)):
        assert run(p, kind("one"), inputs=inputs, intermediates=between).ok


@pytest.mark.parametrize(("kind", "lacks"), LACKING)
def test_what_an_installed_backend_does_not_offer_is_said_and_the_rest_is_judged(
    p: Problem, kind: Any, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, all=All("all"), one=kind("one"))
    report = check(p.spec, p.params, p.x, p.y, inputs=True, intermediates=True)
    assert report.unavailable == {"one (in part)": f"does not give {lacks}"}
    assert [row.quantity for row in report.rows if row.backend == "one"] == (
        GRADIENTS + (["x"] if kind is WithX else []) + (BETWEEN if kind is WithBetween else [])
    )
    assert report.ok
    assert check(p.spec, p.params, p.x, p.y).unavailable == {}


def test_installed_backends_that_cannot_be_used_are_named_with_the_reason(
    p: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses, absent = Least("refuses", supports="not today"), ModuleNotFoundError("No module named 'q'")
    installed(monkeypatch, first=Least("first"), refuses=refuses, absent=absent, last=Least("last"))
    report = check(p.spec, p.params, p.x, p.y, device="gpu")
    assert list(dict.fromkeys(row.backend for row in report.rows)) == ["first", "last"]
    assert report.unavailable == {
        "refuses": "backend 'refuses' does not support this: not today",
        "absent": "backend 'absent' is not installed: No module named 'q'; install what somewhere:backend needs",
    }
    assert refuses.asked == [("supports", p.spec, p.x.dtype.name, "gpu")]
    with pytest.raises(BackendError) as caught:
        check(p.spec, p.params, p.x, p.y, ["first", "refuses"])
    assert str(caught.value) == "backend 'refuses' does not support this: not today"
    assert check(p.spec, p.params, p.x, p.y, ("last", Least("mine"))).ok


def test_no_backend_at_all_is_an_error(p: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> str:
        with pytest.raises(BackendError) as caught:
            check(p.spec, p.params, p.x, p.y)
        return str(caught.value)

    installed(monkeypatch)
    assert said() == "no backend can run this: none is installed"
    installed(monkeypatch, one=Least("one", supports="no"), two=Least("two", supports="never"))
    assert said() == (
        "no backend can run this: backend 'one' does not support this: no; backend 'two' does not support this: never"
    )


@pytest.mark.parametrize("asked", ["numpy", b"numpy", 7, {"numpy"}, None.__class__])
def test_backends_are_a_list(p: Problem, asked: Any) -> None:
    with pytest.raises(BackendError, match="backends must be a list such as"):
        check(p.spec, p.params, p.x, p.y, asked)
    with pytest.raises(BackendError, match="none named; name one"):
        check(p.spec, p.params, p.x, p.y, [])
    with pytest.raises(BackendError, match="is a NoneType without supports"):
        check(p.spec, p.params, p.x, p.y, [None])  # type: ignore[list-item]
