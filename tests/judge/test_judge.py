"""What the judge asks of a backend, by which arithmetic it judges the answer, what it makes of a backend that raises,
and its verdicts on networks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import BACKENDS, DTYPES, article, judge, network, problem, verdicts

from refimpl import value_and_grad
from refimpl.judge.bounds import BOTH, FIRST_ORDER, THEOREM
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, STATISTICAL, UNDETERMINED, Row
from refimpl.judge.submission import Submission
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.truth.certification import certify_batch
from refimpl_numpy import NumpyBackend

GRADIENTS = ["loss", "W1", "b1", "W2", "b2"]
BETWEEN = ["z2", "a2", "delta2", "z3", "a3", "delta3"]


class Recorder(NumpyBackend):
    """NumPy's backend, which notes what it is asked for and fails where it is told."""

    name = "recorder"

    def __init__(self, broken: str = "", error: BaseException | None = None) -> None:
        super().__init__()
        self.broken, self.error = broken, error or RuntimeError("why\nsecond line")
        self.asked: list[tuple[Any, ...]] = []

    def _note(self, what: str, *details: Any) -> None:
        self.asked.append((what, *details))
        if what == self.broken:
            raise self.error

    def arithmetic(self, *, dtype: str, device: str) -> Any:
        self._note("arithmetic", dtype, device)
        return FLUSHING[dtype]

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self._note("gradient", spec.sizes, dtype, device)
        return super().gradient_function(spec, dtype=dtype, device="cpu")

    def input_gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self._note("inputs", spec.sizes, dtype, device)
        return super().input_gradient_function(spec, dtype=dtype, device="cpu")

    def intermediates_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self._note("intermediates", spec.sizes, dtype, device)
        return super().intermediates_function(spec, dtype=dtype, device="cpu")


class Least:
    """Only what a backend must have."""

    name = "least"

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
        return True

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        return NumpyBackend().gradient_function(spec, dtype=dtype, device="cpu")


@pytest.fixture(scope="module", params=DTYPES)
def j(request: pytest.FixtureRequest) -> Judge:
    return judge(problem(network((2, 3, 2), ["tanh", "identity"]), n=3, dtype=request.param))


def test_a_backend_is_asked_for_what_was_asked_of_it_and_no_more(j: Judge) -> None:
    dtype, sizes = j.batch.dtype, (2, 3, 2)
    for inputs in (False, True):
        for intermediates in (False, True):
            backend = Recorder()
            found = j.judge(backend, device="gpu", inputs=inputs, intermediates=intermediates)
            asked = [("arithmetic", dtype, "gpu"), ("inputs" if inputs else "gradient", sizes, dtype, "gpu")]
            asked += [("intermediates", sizes, dtype, "gpu")] if intermediates else []
            assert backend.asked == asked
            assert [row.quantity for row in found.rows] == (
                GRADIENTS + (["x"] if inputs else []) + (BETWEEN if intermediates else [])
            )
            assert {(row.backend, row.verdict) for row in found.rows} == {("recorder", PASS)}
            assert found.arithmetic == FLUSHING[dtype]
            assert isinstance(found.submission, Submission)
            assert found.submission.loss == pytest.approx(j.truth.loss.mid)
            again = Recorder()
            assert j.rows(again, device="gpu", inputs=inputs, intermediates=intermediates) == found.rows
            assert again.asked == asked


def test_without_a_word_a_backend_computes_on_the_cpu_the_gradients_alone(j: Judge) -> None:
    for ask in (j.judge, j.rows):
        backend = Recorder()
        ask(backend)
        assert backend.asked == [("arithmetic", j.batch.dtype, "cpu"), ("gradient", (2, 3, 2), j.batch.dtype, "cpu")]


def test_a_backend_that_offers_nothing_more_is_judged_in_ieee_arithmetic(j: Judge) -> None:
    found = j.judge(Least(), inputs=True, intermediates=True)
    assert [row.quantity for row in found.rows] == GRADIENTS
    assert found.arithmetic == ARITHMETICS[j.batch.dtype]


def test_a_verdict_is_by_the_arithmetic_that_was_declared(j: Judge) -> None:
    dtype = j.batch.dtype
    coarse = replace(ARITHMETICS[dtype], unit_roundoff=2.0**-12)
    loss, grads = Least().gradient_function(j.spec, dtype=dtype, device="cpu")(*j.batch.copies(j.spec))
    answer = loss * (1 + 2.0**-13), {**grads, "W1": grads["W1"] * np.asarray(1 + 2.0**-13, dtype)}
    ieee = {"loss": FAIL, "W1": FAIL, "b1": PASS, "W2": PASS, "b2": PASS}
    assert verdicts(j.judge_answer("a", answer)) == verdicts(j.judge_answer("a", answer, ARITHMETICS[dtype])) == ieee
    assert FAIL not in verdicts(j.judge_answer("a", answer, coarse)).values()

    values = {name: (j.truth.values[name].mid * (1 + 2.0**-13)).astype(dtype) for name in BETWEEN}

    class Off(Recorder):
        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            return lambda *data: answer

        def intermediates_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            return lambda *data: values

    class Coarse(Off):
        def arithmetic(self, *, dtype: str, device: str) -> Any:
            return coarse

    assert verdicts(j.rows(Off(), intermediates=True)) == {**ieee, **dict.fromkeys(BETWEEN, FAIL)}
    assert FAIL not in verdicts(j.rows(Coarse(), intermediates=True)).values()


def test_a_tolerance_is_computed_once_for_each_arithmetic(j: Judge) -> None:
    ieee, flushing = ARITHMETICS[j.batch.dtype], FLUSHING[j.batch.dtype]
    assert j.tolerance(ieee) is j.tolerance(ieee)
    assert j.tolerance(flushing) is not j.tolerance(ieee)
    assert j.tolerance(flushing).arithmetic == flushing


@pytest.mark.parametrize("error", [RuntimeError("why\nsecond line"), SystemExit("why")])
@pytest.mark.parametrize(
    ("broken", "quantity", "before"),
    [("arithmetic", "loss", []), ("gradient", "loss", []), ("intermediates", "z2", GRADIENTS)],
)
def test_whatever_a_backend_raises_is_one_row(
    j: Judge, broken: str, quantity: str, before: list[str], error: BaseException
) -> None:
    found = j.judge(Recorder(broken, error), intermediates=True)
    *rows, last = found.rows
    assert [row.quantity for row in rows] == before
    assert {row.backend for row in found.rows} == {"recorder"}
    assert (last.quantity, last.verdict, last.failed, last.size) == (quantity, FAIL, 1, 1)
    assert f"raised {type(error).__name__}: why" in last.reason
    assert "second line" not in last.reason
    assert (found.submission is not None) == bool(before)
    assert found.arithmetic == (ARITHMETICS if broken == "arithmetic" else FLUSHING)[j.batch.dtype]


def test_an_arithmetic_that_is_none_is_one_row(j: Judge) -> None:
    Strange = type("Strange", (Recorder,), {"arithmetic": lambda self, dtype, device: 3})
    found = j.judge(Strange())
    assert verdicts(found.rows) == {"loss": FAIL}
    assert found.rows[0].backend == "recorder"
    assert "arithmetic returned a int" in found.rows[0].reason
    assert (found.submission, found.arithmetic) == (None, ARITHMETICS[j.batch.dtype])


def test_intermediates_that_are_no_dictionary_are_one_row(j: Judge) -> None:
    Loose = type("Loose", (Recorder,), {"intermediates_function": lambda self, spec, dtype, device: lambda *data: 3.0})
    rows = j.rows(Loose(), intermediates=True)
    assert verdicts(rows) == {**dict.fromkeys(GRADIENTS, PASS), "z2": FAIL}
    assert rows[-1].backend == "recorder"
    assert "not returned as a dictionary" in rows[-1].reason


def test_an_error_is_told_in_units_of_the_asked_for_dtype(j: Judge) -> None:
    run = NumpyBackend().gradient_function(j.spec, dtype=j.batch.dtype, device="cpu")
    loss, grads = run(*j.batch.copies(j.spec))
    true = j.truth.grads["b1"].mid.astype(j.batch.dtype)
    near = true.copy()
    near[0] += 4 * np.spacing(np.abs(near[0]))
    row = next(row for row in j.judge_answer("mine", (loss, {**grads, "b1": near})) if row.quantity == "b1")
    assert row.index == (1,)
    assert 3.4 < row.ulps < 4.6


def test_a_backend_gets_copies_in_the_shapes_of_the_spec() -> None:
    class Writing(NumpyBackend):
        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            right = super().gradient_function(spec, dtype=dtype, device=device)

            def run(params: Any, x: Any, y: Any) -> Any:
                assert x.shape == (3, 2, 2)
                answer = right(params, x, y)
                for array in (*params.values(), x, y):
                    array[...] = 7
                return answer

            return run

    j = judge(problem(NetworkSpec((2, 2), [LayerSpec(1)], "huber"), n=3))
    for _ in range(2):
        assert set(verdicts(j.rows(Writing())).values()) == {PASS}
    assert not any((array == 7).any() for array in (*j.batch.params.values(), j.batch.x, j.batch.y))


def test_x_is_judged_where_it_was_asked_for_and_else_is_one_too_many(j: Judge) -> None:
    run = NumpyBackend().input_gradient_function(j.spec, dtype=j.batch.dtype, device="cpu")
    answer = run(*j.batch.copies(j.spec))
    assert verdicts(j.judge_answer("mine", answer, inputs=True))["x"] == PASS
    last = j.judge_answer("mine", answer)[-1]
    assert (last.quantity, last.verdict, last.reason) == ("x", FAIL, "is not a quantity of this network")


# --------------------------------------------------------------------------------------------------------------
# Verdicts on networks


@pytest.fixture(scope="module")
def on_the_article() -> tuple[Problem, Judge]:
    p = article(6, seed=4)
    return p, judge(p)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("quantity", ["loss", "W1", "b1", "W2", "b2", "W3"])
def test_one_number_off_by_1e_9_fails_and_is_found(
    on_the_article: tuple[Problem, Judge], name: str, quantity: str
) -> None:
    p, j = on_the_article
    loss, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend=name)
    index: tuple[int, ...] = ()
    if quantity == "loss":
        loss *= 1 + 1e-9
    else:
        index = grads[quantity].shape
        grads[quantity][tuple(size - 1 for size in index)] *= 1 + 1e-9
    (wrong,) = [row for row in j.judge_answer(name, (loss, grads)) if row.verdict != PASS]
    assert (wrong.quantity, wrong.verdict, wrong.failed, wrong.index) == (quantity, FAIL, 1, index)
    assert wrong.ratio > 1


def test_float32_arithmetic_inside_a_float64_answer_fails(on_the_article: tuple[Problem, Judge]) -> None:
    p, j = on_the_article
    low = {name: value.astype("float32") for name, value in p.params.items()}
    loss, grads = value_and_grad(p.spec, low, p.x.astype("float32"), p.y.astype("float32"))
    rows = j.judge_answer("float32", (loss, {name: grad.astype("float64") for name, grad in grads.items()}))
    assert verdicts(rows) == dict.fromkeys(("loss", *p.params), FAIL)


@pytest.fixture(scope="module")
def deep() -> Problem:
    """Six layers of width 64 in float32: the worst case decides nothing about W4, the statistical bound does."""
    p = problem(network((64,) * 7, ["tanh"] * 6, "squared_error"), n=8, dtype="float32")
    for name, value in p.params.items():
        value *= np.float32(0.25) if name[0] == "W" else 1
    return p


@pytest.mark.parametrize(
    ("bound", "factor", "verdict"),
    [
        (BOTH, 1.0, PASS),
        (BOTH, 1.001, FAIL),
        (FIRST_ORDER, 1.0, PASS),
        (FIRST_ORDER, 1.01, FAIL),
        (THEOREM, 1.0, UNDETERMINED),
        (THEOREM, 1.001, UNDETERMINED),
    ],
)
def test_what_the_theorem_leaves_open_the_statistical_bound_decides_unless_the_theorem_alone_is_asked_for(
    deep: Problem, bound: str, factor: float, verdict: str
) -> None:
    loss, grads = value_and_grad(deep.spec, deep.params, deep.x, deep.y)
    grads["W4"] *= np.float32(factor)
    judging = Judge(deep.spec, validate(deep.spec, deep.params, deep.x, deep.y), bound=bound)
    row = of(judging.judge_answer("mine", (loss, grads)), "W4")
    kind = "first order" if bound == FIRST_ORDER else STATISTICAL
    assert (row.verdict, row.by) == (verdict, kind if verdict == FAIL else "")
    assert (f"by the {kind} bound" in row.remark) == (verdict == FAIL)
    assert ("exceeds the largest element" in row.remark) == (verdict == UNDETERMINED)


def of(rows: list[Row], quantity: str) -> Row:
    return next(row for row in rows if row.quantity == quantity)


def test_a_value_at_the_other_side_of_a_kink_is_undetermined_and_beyond_both_sides_a_failure() -> None:
    """z = 0.1·3 − 0.3 is 0 or 5.6e-17 or −5.6e-17, by the order of the roundings: either derivative of relu may
    come out.
    """
    spec = network((2, 1), ["relu"], "absolute_error", "sum", bias=False)
    params = {"W1": np.array([[0.1, -0.3]])}
    j = judge(Problem(spec, params, np.array([[3.0, 1.0]]), np.array([[-1.0]]), 0, 0))
    assert j.truth.values["z2"].mid.item() != 0
    right, other = (3.0, 1.0), (0.0, 0.0)
    if j.truth.grads["W1"].mid[0, 0] == 0:
        right, other = other, right
    rows = {
        grads: of(j.judge_answer("any", (j.truth.loss.mid, {"W1": np.array([grads])})), "W1")
        for grads in (right, other, (-3.0, -1.0))
    }
    assert [row.verdict for row in rows.values()] == [PASS, UNDETERMINED, FAIL]
    assert "a kink lies within the rounding errors" in rows[other].remark


def test_what_may_overflow_is_undetermined() -> None:
    p = problem(network((2, 2, 1), ["identity", "identity"]), n=2)
    for name in ("W1", "W2"):
        p.params[name] *= 1e300
    loss = of(judge(p).rows(NumpyBackend()), "loss")
    assert loss.verdict == UNDETERMINED
    assert "overflow" in loss.remark


def test_a_large_network_in_float32_is_judged_by_float64_with_its_own_bound_where_that_suffices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("refimpl.judge.judge.LARGE", 0)
    p = problem(network((6, 5, 4, 3), ["tanh", "relu", "identity"], "cross_entropy"), n=8, dtype="float32")
    batch = validate(p.spec, p.params, p.x, p.y)
    quick, truth = Judge(p.spec, batch), certify_batch(p.spec, batch)
    assert (quick.truth.precision, quick.truth.undecided) == (53, ())
    for part in ("grads", "values"):
        balls, exact = getattr(quick.truth, part), getattr(truth, part)
        assert balls.keys() == exact.keys()
        for name, ball in balls.items():
            assert ball.mid.shape == exact[name].mid.shape
            assert ball.overlaps(exact[name]).all()
    rows = quick.judge_answer("mine", value_and_grad(p.spec, p.params, p.x, p.y))
    assert {row.verdict for row in rows} == {PASS}
    wide = {name: value.astype("float64") for name, value in p.params.items()}
    assert Judge(p.spec, validate(p.spec, wide, p.x.astype("float64"), p.y)).truth.precision > 53
    monkeypatch.setattr("refimpl.judge.judge.SHARE", 1e-12)
    assert Judge(p.spec, batch).truth.precision > 53
