"""`check`: which backends are run and with what, what is left out and why, and what is handed on to be diagnosed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from diagnosis_measure import planted_backend
from networks import BACKENDS, DTYPES, article, network, problem

from refimpl import BackendError, DataError, SpecError, backend, check, checking, diagnose, examples
from refimpl.faults.catalogue import FAULTS
from refimpl.judge import judge as judging
from refimpl.judge.report import FAIL, PASS
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem
from refimpl.network.spec import LayerSpec, NetworkSpec
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
    dist = None

    def __init__(self, name: str, loaded: Any) -> None:
        self.name, self.loaded = name, loaded

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
    entries = [Entry(name, one) for name, one in backends.items()]
    monkeypatch.setattr("refimpl.backend.registry.registered", lambda: entries)


# --------------------------------------------------------------------------------------------------------------
# What is run


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_backends_pass_on_the_article(dtype: str) -> None:
    p = problem(examples.article(), n=6, seed=4, dtype=dtype)
    report = check(p.spec, p.params, p.x, p.y, inputs=True, intermediates=True)
    assert report.ok
    assert {row.backend for row in report.rows} == set(BACKENDS)
    expected = ["loss", "W1", "b1", "W2", "b2", "W3", "x"]
    expected += [f"{kind}{layer}" for layer in (2, 3, 4) for kind in ("z", "a", "delta")]
    for name in BACKENDS:
        assert [row.quantity for row in report.rows if row.backend == name] == expected
    assert all(0 <= row.ratio < 1 for row in report.rows)


def test_all_backends_pass_on_handwritten_digits() -> None:
    x, y = examples.digits_data()
    assert x.shape == (1797, 64)
    report = check(examples.digits(), examples.digits().init(1), x[:50], y[:50])
    assert report.ok
    assert len(report.rows) == 3 * 7


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 2, 2)])
def test_x_is_judged_in_the_shape_it_came_in(shape: tuple[int, ...]) -> None:
    p = problem(NetworkSpec(shape, [LayerSpec(3, "tanh"), LayerSpec(2)], "huber"), n=4)
    report = check(p.spec, p.params, p.x, p.y, inputs=True)
    assert report.ok
    assert [row.size for row in report.rows if row.quantity == "x"] == [p.x.size] * len(BACKENDS)


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


# --------------------------------------------------------------------------------------------------------------
# What is diagnosed


def test_what_fails_is_diagnosed_and_nothing_else(p: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def diagnosing(judge: Any, submission: Any, rows: Any, arithmetic: Any) -> list[str]:
        given.append((judge.spec, judge.batch.x.tolist(), submission, rows, arithmetic))
        return ["a finding"]

    monkeypatch.setattr(checking, "diagnose_answer", diagnosing)
    coarse = replace(ARITHMETICS[p.x.dtype.name], unit_roundoff=2.0**-12)
    Coarse = type("Coarse", (Least,), {"arithmetic": lambda self, dtype, device: coarse})
    raising = Least("raising", spoil=lambda answer: 1 / 0)
    report = run(p, Least("right"), Least("wrong", negated), Coarse("coarse", negated), raising)
    assert report.findings == {"wrong": ("a finding",), "coarse": ("a finding",)}
    assert {row.backend for row in report.rows if row.verdict == FAIL} == {"wrong", "coarse", "raising"}
    assert {row.verdict for row in report.rows if row.backend == "right"} == {PASS}
    assert [arithmetic for *_, arithmetic in given] == [ARITHMETICS[p.x.dtype.name], coarse]
    assert [rows for *_, rows, _ in given] == [
        [row for row in report.rows if row.backend == name] for name in ("wrong", "coarse")
    ]
    right = NumpyBackend().gradient_function(p.spec, dtype=p.x.dtype.name, device="cpu")(p.params, p.x, p.y)
    for spec, x, (loss, grads, *_), *_ in given:
        assert (spec, x, loss) == (p.spec, p.x.tolist(), right[0])
        assert np.array_equal(grads["W1"], -right[1]["W1"])


def test_a_gradient_is_judged_once(p: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is diagnosed from the verdicts that are there already."""
    judged: list[str] = []

    def counting(name: str, key: str, *rest: Any) -> Any:
        judged.append(key)
        return right(name, key, *rest)

    right = judging.judged
    monkeypatch.setattr(judging, "judged", counting)
    assert run(p, Least("wrong", negated)).findings["wrong"]
    assert judged == GRADIENTS
    judged.clear()
    loss, grads = NumpyBackend().gradient_function(p.spec, dtype=p.x.dtype.name, device="cpu")(p.params, p.x, p.y)
    assert diagnose(p.spec, p.params, p.x, p.y, grads | {"W1": -grads["W1"]}, loss)
    assert judged == GRADIENTS


def test_a_report_says_what_is_wrong() -> None:
    p = problem(network((4, 3, 3, 2), ["sigmoid", "tanh", "identity"]))
    wrong = planted_backend((FAULTS["slope_dropped"], 2, 0.0))
    report = run(p, wrong, "numpy")
    assert list(report.findings) == [wrong.name]
    assert "slope_dropped at layer 2" in report.findings[wrong.name][0].text
    assert report.to_dict()["findings"][wrong.name][0]["explanations"][0][0]["layer"] == 2
    assert "slope_dropped at layer 2" in report._repr_html_()


# --------------------------------------------------------------------------------------------------------------
# What is left out, and what is refused


LACKING = [
    (Least, "the gradient of x or z, a and delta"),
    (WithX, "z, a and delta"),
    (WithBetween, "the gradient of x"),
]


@pytest.mark.parametrize(("kind", "lacks"), LACKING)
def test_what_a_named_backend_does_not_offer_is_an_error(p: Problem, kind: Any, lacks: str) -> None:
    with pytest.raises(BackendError, match=f"'one' does not give {lacks}; leave that out"):
        run(p, All("all"), kind("one"), inputs=True, intermediates=True)
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
    broken = AttributeError("no backend here")
    installed(monkeypatch, absent=absent, broken=broken, first=Least("first"), last=Least("last"), refuses=refuses)
    report = check(p.spec, p.params, p.x, p.y, device="gpu")
    assert list(dict.fromkeys(row.backend for row in report.rows)) == ["first", "last"]
    assert report.ok
    assert set(report.unavailable) == {"refuses", "absent", "broken"}
    for name, reason in (
        ("refuses", "'refuses' does not support this: not today"),
        ("absent", "'absent' is not installed: No module named 'q'; install what somewhere:backend needs"),
        ("broken", "'broken' (somewhere:backend) cannot be loaded: AttributeError: no backend here"),
    ):
        assert reason in report.unavailable[name]
    assert refuses.asked == [("supports", p.spec, p.x.dtype.name, "gpu")]
    for name in ("refuses", "absent", "broken"):
        with pytest.raises(BackendError) as caught:
            check(p.spec, p.params, p.x, p.y, ["first", name], device="gpu")
        assert str(caught.value).partition(" (at ")[0] == report.unavailable[name].partition(" (at ")[0]
    assert check(p.spec, p.params, p.x, p.y, ("last", Least("mine"))).ok


def test_no_backend_at_all_is_an_error(p: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(BackendError, match="no backend can run this: none is installed"):
        check(p.spec, p.params, p.x, p.y)
    installed(monkeypatch, one=Least("one", supports="no"), two=Least("two", supports="never"))
    with pytest.raises(BackendError, match=r"no backend can run this: .*'one' .*: no; .*'two' .*: never$"):
        check(p.spec, p.params, p.x, p.y)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("numpy", "backends must be a list such as"),
        (b"numpy", "backends must be a list such as"),
        (7, "backends must be a list such as"),
        ({"numpy"}, "backends must be a list such as"),
        ([], "none named; name one"),
        ([None], "is a NoneType without supports"),
        (["tensorflow"], "no backend 'tensorflow'; known are numpy, jax, torch"),
    ],
)
def test_backends_are_a_list_of_backends(asked: Any, message: str) -> None:
    p = article()
    with pytest.raises(BackendError, match=message):
        check(p.spec, p.params, p.x, p.y, asked)


@pytest.mark.parametrize("spec", [None, {}, "net.json"])
def test_what_is_no_spec_is_refused(spec: Any) -> None:
    p = article()
    for call in (check, backend.value_and_grad, lambda *data: diagnose(*data, {})):
        with pytest.raises(SpecError, match="spec must be a NetworkSpec"):
            call(spec, p.params, p.x, p.y)


def test_bad_data_is_refused_before_any_backend_runs() -> None:
    p, one = article(), Least("one")
    for params, message in ((p.params | {"b2": np.zeros(3)}, "b2 has shape"), ({}, "lacks W1")):
        with pytest.raises(DataError, match=message):
            check(p.spec, params, p.x, p.y, [one])
    assert one.asked == []
