"""check() and its report: verdicts on planted answers, backends that are absent, and what a person reads."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from networks import BACKENDS, DTYPES, judge, network, problem, verdicts
from rich.console import Console

from refimpl import BackendError, DataError, SpecError, backend, check, diagnose, examples, value_and_grad
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, Report
from refimpl.network.arithmetic import ARITHMETICS
from refimpl_numpy import NumpyBackend

PARAMETERS = ("W1", "b1", "W2", "b2", "W3")


def article_problem(dtype: str = "float64") -> Any:
    return problem(examples.article(), n=6, seed=4, dtype=dtype)


def right_answer(p: Any, name: str = "numpy") -> tuple[float, dict[str, np.ndarray]]:
    return value_and_grad(p.spec, p.params, p.x, p.y, backend=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_backends_pass_on_the_article(dtype: str) -> None:
    p = article_problem(dtype)
    report = check(p.spec, p.params, p.x, p.y, inputs=True, intermediates=True)
    assert report.ok
    assert {row.backend for row in report.rows} == set(BACKENDS)
    expected = ["loss", *PARAMETERS, "x", *(f"{kind}{layer}" for layer in (2, 3, 4) for kind in ("z", "a", "delta"))]
    for name in BACKENDS:
        assert [row.quantity for row in report.rows if row.backend == name] == expected
    assert all(0 <= row.ratio < 1 for row in report.rows)


def test_digits_pass() -> None:
    x, y = examples.digits_data()
    spec = examples.digits()
    assert x.shape == (1797, 64)
    report = check(spec, spec.init(1), x[:200], y[:200])
    assert report.ok
    assert len(report.rows) == 21


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("parameter", PARAMETERS)
def test_one_element_off_by_1e_9_fails_and_is_found(name: str, parameter: str) -> None:
    p = article_problem()
    loss, grads = right_answer(p, name)
    index = tuple(size - 1 for size in grads[parameter].shape)
    grads[parameter][index] *= 1 + 1e-9
    rows = judge(p).judge_answer(name, (loss, grads))
    wrong = [row for row in rows if row.verdict != PASS]
    assert [(row.quantity, row.verdict, row.failed) for row in wrong] == [(parameter, FAIL, 1)]
    assert wrong[0].index == tuple(size for size in grads[parameter].shape)
    assert wrong[0].ratio > 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails(value: float) -> None:
    p = article_problem()
    loss, grads = right_answer(p)
    grads["b2"][1] = value
    (row,) = (row for row in judge(p).judge_answer("wrong", (loss, grads)) if row.verdict != PASS)
    assert (row.quantity, row.verdict, row.failed, row.index) == ("b2", FAIL, 1, (2,))
    assert "where the truth is finite" in row.remark


def test_a_wrong_loss_fails() -> None:
    p = article_problem()
    loss, grads = right_answer(p)
    assert verdicts(judge(p).judge_answer("wrong", (loss * (1 + 1e-9), grads)))["loss"] == FAIL
    assert verdicts(judge(p).judge_answer("wrong", (np.ones(3), grads)))["loss"] == FAIL
    assert verdicts(judge(p).judge_answer("wrong", ("much", grads)))["loss"] == FAIL


@pytest.mark.parametrize(
    ("spoil", "quantity", "remark"),
    [
        (lambda g: g | {"W2": g["W2"].T[:1]}, "W2", "has shape (1, 2); it must be (2, 2)"),
        (lambda g: g | {"b1": g["b1"][:, None]}, "b1", "has shape (2, 1); it must be (2,)"),
        (lambda g: g | {"W1": g["W1"].astype("float32")}, "W1", "is float32; float64 was asked for"),
        (lambda g: g | {"W1": g["W1"].astype(object)}, "W1", "is an array of objects, not an array of numbers"),
        (lambda g: {name: grad for name, grad in g.items() if name != "b2"}, "b2", "is missing"),
        (lambda g: g | {"b3": np.zeros(1)}, "b3", "is not a quantity of this network"),
    ],
)
def test_a_malformed_answer_fails_with_the_reason(spoil: Any, quantity: str, remark: str) -> None:
    p = article_problem()
    loss, grads = right_answer(p)
    rows = judge(p).judge_answer("wrong", (loss, spoil(grads)))
    assert [(row.quantity, row.verdict, row.remark) for row in rows if row.verdict != PASS] == [
        (quantity, FAIL, remark)
    ]


def test_an_answer_that_is_no_pair_fails() -> None:
    p = article_problem()
    assert "return (loss, gradients)" in judge(p).judge_answer("wrong", 3.0)[0].remark


class Broken:
    """A backend whose gradient function raises."""

    name = "broken"

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
        return True if dtype == "float64" else "float64 only"

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        raise RuntimeError("no idea\nsecond line")


def test_a_backend_that_raises_fails_and_says_what_it_raised() -> None:
    p = article_problem()
    report = check(p.spec, p.params, p.x, p.y, [Broken(), "numpy"])
    assert not report.ok
    assert report.failures[0].remark == "raised RuntimeError: no idea"
    assert {row.backend for row in report.rows} == {"broken", "numpy"}


def test_a_backend_that_does_not_support_the_request_is_an_error_by_name() -> None:
    p = article_problem("float32")
    with pytest.raises(BackendError, match="'broken' does not support this: float64 only"):
        check(p.spec, p.params, p.x, p.y, [Broken()])


def test_unknown_and_empty_backends_are_errors() -> None:
    p = article_problem()
    with pytest.raises(BackendError, match="no backend 'tensorflow'; known are numpy, torch, jax"):
        check(p.spec, p.params, p.x, p.y, ["tensorflow"])
    with pytest.raises(BackendError, match="none named"):
        check(p.spec, p.params, p.x, p.y, [])


def test_a_backend_that_is_not_installed_is_reported_and_by_name_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        value = "refimpl_torch:backend"

        def load(self) -> Any:
            raise ModuleNotFoundError("No module named 'torch'")

    entries = dict(backend.available()) | {"torch": Absent()}
    monkeypatch.setattr(backend, "available", lambda: entries)
    p = article_problem()
    report = check(p.spec, p.params, p.x, p.y)
    assert "No module named 'torch'" in report.unavailable["torch"]
    assert "pip install 'refimpl[torch]'" in report.unavailable["torch"]
    assert {row.backend for row in report.rows} == {"numpy", "jax"}
    assert "torch: not run" in shown(report)
    with pytest.raises(BackendError, match="pip install 'refimpl\\[torch\\]'"):
        check(p.spec, p.params, p.x, p.y, ["torch"])


def test_a_device_that_no_backend_has_is_a_wrong_request() -> None:
    p = article_problem()
    with pytest.raises(BackendError, match=r"no backend can run this: .*numpy.*torch.*jax") as caught:
        check(p.spec, p.params, p.x, p.y, device="tpu")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("numpy", "backends must be a list"),
        (b"numpy", "backends must be a list"),
        (1, "backends must be a list"),
        ([None], "is a NoneType without supports and gradient_function"),
        ([type("Mine", (), {})], "is the class Mine; give an instance"),
        ([type("Mine", (), {"supports": print, "gradient_function": print, "name": 3})()], "its name must be one line"),
        ([type("Mine", (), {"supports": print, "gradient_function": print, "name": "a\nb"})()], "its name must be"),
        (
            [type("Mine", (), {"supports": print, "gradient_function": print, "name": "m"})()],
            "supports raised TypeError",
        ),
    ],
)
def test_what_is_no_backend_is_refused(asked: Any, message: str) -> None:
    p = article_problem()
    with pytest.raises(BackendError, match=message):
        check(p.spec, p.params, p.x, p.y, asked)


class Able(NumpyBackend):
    name = "able"

    def arithmetic(self, *, dtype: str, device: str) -> Any:
        raise RuntimeError("none")

    def intermediates_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        raise RuntimeError("no such thing")


def test_an_ability_that_raises_is_a_fail() -> None:
    p = article_problem()
    rows = check(p.spec, p.params, p.x, p.y, [Able()]).rows
    assert [(row.verdict, row.reason) for row in rows] == [(FAIL, "raised RuntimeError: none")]
    Half = type("Half", (Able,), {"arithmetic": lambda self, dtype, device: "IEEE"})
    assert "its arithmetic is a str" in check(p.spec, p.params, p.x, p.y, [Half()]).rows[0].reason
    Most = type("Most", (Able,), {"arithmetic": lambda self, dtype, device: ARITHMETICS[dtype]})
    last = check(p.spec, p.params, p.x, p.y, [Most()], intermediates=True).rows[-1]
    assert (last.quantity, last.reason) == ("z2", "raised RuntimeError: no such thing")


def test_what_a_backend_does_not_offer_is_said() -> None:
    class Small:
        name = "small"

        def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
            return True

        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            return NumpyBackend().gradient_function(spec, dtype=dtype, device=device)

    p = article_problem()
    with pytest.raises(BackendError, match="does not give the gradient of x or z, a and delta; leave that out"):
        check(p.spec, p.params, p.x, p.y, [Small()], inputs=True, intermediates=True)
    with pytest.raises(BackendError, match="does not give the gradient of x"):
        backend.value_and_grad(p.spec, p.params, p.x, p.y, backend=Small(), inputs=True)


@pytest.mark.parametrize("spec", [None, {}, "net.json"])
def test_what_is_no_spec_is_refused(spec: Any) -> None:
    p = article_problem()
    for call in (
        lambda: check(spec, p.params, p.x, p.y),
        lambda: backend.value_and_grad(spec, p.params, p.x, p.y),
        lambda: diagnose(spec, p.params, p.x, p.y, {}),
    ):
        with pytest.raises(SpecError, match="spec must be a NetworkSpec"):
            call()
    with pytest.raises(DataError, match="grads must be a dict of arrays"):
        diagnose(p.spec, p.params, p.x, p.y, None)


def test_value_and_grad_keeps_the_callers_data_and_refuses_junk() -> None:
    p = article_problem()

    def writing(params: Any, x: Any, y: Any) -> Any:
        for array in (*params.values(), x, y):
            array[...] = 7
        return 0.5, {}

    def offering(function: Any) -> Any:
        ability = {
            "name": "b",
            "supports": lambda self, spec, dtype, device: True,
            "gradient_function": lambda self, spec, dtype, device: function,
        }
        return type("B", (), ability)()

    before = [array.copy() for array in (*p.params.values(), p.x, p.y)]
    assert backend.value_and_grad(p.spec, p.params, p.x, p.y, backend=offering(writing)) == (0.5, {})
    assert all((a == b).all() for a, b in zip(before, (*p.params.values(), p.x, p.y), strict=True))
    for junk in (None, 1, (), (1, 2, 3), (None, None)):
        with pytest.raises(BackendError, match=r"it must return \(loss, gradients\)"):
            backend.value_and_grad(p.spec, p.params, p.x, p.y, backend=offering(lambda *data, junk=junk: junk))


def test_a_broken_plug_in_is_named_and_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    entries = [
        EntryPoint("numpy", "refimpl_numpy:backend", backend.GROUP),
        EntryPoint("absent", "no_such_module:backend", backend.GROUP),
        EntryPoint("hollow", "refimpl_numpy:nothing", backend.GROUP),
        EntryPoint("data", "refimpl_numpy:Array", backend.GROUP),
    ]
    monkeypatch.setattr(backend, "entry_points", lambda group: entries)
    p = article_problem()
    report = check(p.spec, p.params, p.x, p.y)
    assert report.ok
    assert set(report.unavailable) == {"absent", "hollow", "data"}
    assert "AttributeError" in report.unavailable["hollow"]


def test_two_backends_with_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    two = [EntryPoint("mine", "one:backend", backend.GROUP), EntryPoint("mine", "two:backend", backend.GROUP)]
    monkeypatch.setattr(backend, "entry_points", lambda group: two)
    with pytest.raises(BackendError, match="two backends are called 'mine': one:backend and two:backend"):
        backend.available()


def test_a_backend_may_be_registered_as_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        value = "broken:Broken"

        def load(self) -> Any:
            return Broken

    monkeypatch.setattr(backend, "available", lambda: {"broken": Entry()})
    assert isinstance(backend.load("broken"), Broken)


def test_value_and_grad_refuses_what_a_backend_cannot_do() -> None:
    p = article_problem("float32")
    with pytest.raises(BackendError, match="float64 only"):
        value_and_grad(p.spec, p.params, p.x, p.y, backend=Broken())
    p = article_problem()
    with pytest.raises(BackendError, match="does not give the gradient of x"):
        value_and_grad(p.spec, p.params, p.x, p.y, backend=Broken(), inputs=True)
    _, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch", inputs=True)
    assert grads["x"].shape == p.x.shape


def test_float32_arithmetic_inside_a_float64_answer_fails() -> None:
    p = article_problem()
    low = {name: value.astype("float32") for name, value in p.params.items()}
    loss, grads = value_and_grad(p.spec, low, p.x.astype("float32"), p.y.astype("float32"))
    rows = judge(p).judge_answer("float32", (loss, {name: grad.astype("float64") for name, grad in grads.items()}))
    assert verdicts(rows) == dict.fromkeys(("loss", *PARAMETERS), FAIL)


def test_a_bound_that_says_nothing_is_undetermined_and_never_a_pass() -> None:
    """Six layers of width 64 in float32: the worst case decides nothing, the statistical form does."""
    p = problem(network((64,) * 7, ["tanh"] * 6, "squared_error"), n=8, dtype="float32")
    p.params.update(
        {name: (value * (0.15 if name[0] == "W" else 1)).astype("float32") for name, value in p.params.items()}
    )
    report = check(p.spec, p.params, p.x, p.y, ["numpy"])
    rows = {row.quantity: row for row in report.rows}
    assert rows["W1"].verdict == UNDETERMINED
    assert rows["W1"].statistical == PASS
    assert "exceeds 1% of the largest element" in rows["W1"].remark
    assert not report.ok
    assert report.failures == ()


def test_the_statistical_form_fails_what_the_worst_case_leaves_open() -> None:
    p = problem(network((64,) * 7, ["tanh"] * 6, "squared_error"), n=8, dtype="float32")
    p.params.update(
        {name: (value * (0.15 if name[0] == "W" else 1)).astype("float32") for name, value in p.params.items()}
    )
    loss, grads = value_and_grad(p.spec, p.params, p.x, p.y)
    grads["W1"] *= np.float32(1.01)
    (row,) = (row for row in judge(p).judge_answer("wrong", (loss, grads)) if row.quantity == "W1")
    assert (row.verdict, row.statistical) == (UNDETERMINED, FAIL)


def test_a_value_at_the_other_side_of_a_kink_is_undetermined_and_beyond_both_sides_a_failure() -> None:
    """z = 0.1·3 − 0.3 is 0 or 5.6e-17 or −5.6e-17, by the order of the roundings: either derivative of relu may
    come out.
    """
    spec = network((2, 1), ["relu"], "absolute_error", "sum", bias=False)
    p = problem(spec, n=1)
    p.params["W1"], x, y = np.array([[0.1, -0.3]]), np.array([[3.0, 1.0]]), np.array([[-1.0]])
    p = type(p)(spec, p.params, x, y, 0, 0)
    assert judge(p).truth.values["z2"].mid.item() != 0
    right, other = (3.0, 1.0), (0.0, 0.0)
    if judge(p).truth.grads["W1"].mid[0, 0] == 0:
        right, other = other, right
    loss = float(judge(p).truth.loss.mid)
    for grads, verdict in ((right, PASS), (other, UNDETERMINED), ((-3.0, -1.0), FAIL)):
        rows = verdicts(judge(p).judge_answer("any", (loss, {"W1": np.array([grads])})))
        assert rows["W1"] == verdict, grads
    (row,) = (row for row in judge(p).judge_answer("any", (loss, {"W1": np.array([other])})) if row.quantity == "W1")
    assert "a kink lies within the rounding errors" in row.remark
    assert row.statistical == UNDETERMINED


def test_what_may_overflow_is_undetermined() -> None:
    p = problem(network((2, 2, 1), ["identity", "identity"]), n=2)
    p.params["W1"] = p.params["W1"] * 1e300
    p.params["W2"] = p.params["W2"] * 1e300
    rows = {row.quantity: row for row in judge(p).rows(backend.load("numpy"))}
    assert rows["loss"].verdict == UNDETERMINED
    assert "overflow" in rows["loss"].remark


def shown(report: Report) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(report)
    return console.export_text()


def test_the_terminal_the_notebook_and_json_say_the_same() -> None:
    p = article_problem()
    loss, grads = right_answer(p)
    grads["W2"][1, 0] = 7.0
    rows = tuple(judge(p).judge_answer("<b>mine</b>", (loss, grads)))
    report = Report(p.spec, "float64", "cpu", 6, 200, rows, {"jax": "not <i>installed</i>"})
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["ok"] is False
    assert data["network"]["format"] == "refimpl.network/1"
    wrong = [row for row in data["rows"] if row["verdict"] == "FAIL"]
    assert [(row["quantity"], row["index"], row["value"]) for row in wrong] == [("W2", [2, 1], 7.0)]
    text, page = shown(report), report._repr_html_()
    for piece in ("W2[2,1]", "FAIL", "1 of 4 wrong", "18 PASS, 1 FAIL, 0 UNDETERMINED of 19 elements"):
        assert piece in text
        assert piece in page
    assert "<b>mine</b>" not in page
    assert "<i>installed</i>" not in page
    assert "4-2-2-1" in repr(report)


def test_json_has_no_nan_or_infinity() -> None:
    p = article_problem()
    rows = tuple(judge(p).judge_answer("wrong", (float("nan"), {})))
    text = json.dumps(Report(p.spec, "float64", "cpu", 6, 200, rows).to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][0]["value"] is None


def test_x_is_judged_in_the_shape_it_came_in() -> None:
    from refimpl import LayerSpec, NetworkSpec

    for shape in ((), (2, 3), (1, 2, 2)):
        p = problem(NetworkSpec(shape, [LayerSpec(3, "tanh"), LayerSpec(2)], "huber"), n=4)
        report = check(p.spec, p.params, p.x, p.y, inputs=True)
        assert report.ok
        assert next(row for row in report.rows if row.quantity == "x").size == p.x.size


def test_bad_data_is_refused_before_any_backend_runs() -> None:
    p = article_problem()
    with pytest.raises(DataError, match="b2 has shape"):
        check(p.spec, p.params | {"b2": np.zeros(3)}, p.x, p.y)
    with pytest.raises(DataError, match="lacks W1"):
        check(p.spec, {}, p.x, p.y)


class Hostile:
    """A backend that does whatever it is told."""

    name = "hostile"

    def __init__(self, act: Any) -> None:
        self.act = act

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
        return True

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        return self.act


class NoArray:
    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise MemoryError("\x1b[31mno")


def leaves(params: Any, x: Any, y: Any) -> Any:
    raise SystemExit(0)


def test_what_a_stranger_returns_or_raises_is_a_failure_and_nothing_else() -> None:
    p = article_problem()
    loss, grads = right_answer(p)
    answers = [
        lambda *a: None,
        lambda *a: (loss, None),
        lambda *a: (loss, grads | {"W1": NoArray()}),
        lambda *a: (loss, grads | {"W1": [[1.0, 2.0], [3.0]]}),
        lambda *a: (loss, grads | {"W1": "gradient"}),
        lambda *a: (loss, grads | {"W1": grads["W1"].astype(complex)}),
        lambda *a: (NoArray(), grads),
        lambda *a: (loss, grads | {5: grads["W1"]}),
        leaves,
    ]
    for act in answers:
        report = check(p.spec, p.params, p.x, p.y, [Hostile(act)])
        assert report.failures
        assert "\x1b" not in shown(report)


def test_a_backend_that_writes_into_its_arguments_spoils_nothing() -> None:
    p = article_problem()

    def writes(params: Any, x: Any, y: Any) -> Any:
        for array in (*params.values(), x, y):
            array[...] = 0
        return right_answer(p)

    report = check(p.spec, p.params, p.x, p.y, [Hostile(writes), "numpy"])
    assert report.ok
