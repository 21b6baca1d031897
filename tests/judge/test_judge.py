"""The judge: its verdict on every element against a judge in loops, and what it makes of answers that are none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import DTYPES, judge, network, problem

from refimpl.judge import judge as judge_module
from refimpl.judge.judge import Judge, largest_element
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, Row
from refimpl.judge.submission import Answer, Unusable
from refimpl.judge.tolerance import Tolerance
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING
from refimpl.truth.certification import Balls
from refimpl_numpy import NumpyBackend

OVERFLOW = "an intermediate value may overflow, or its derivative is unbounded, within the rounding errors"
WIDE = "the worst-case bound exceeds 1% of the largest element"
KINK = "a kink lies within the rounding errors"
NAN, INF = math.nan, math.inf


def balls(mid: Any, tail: Any = 0.0, tail_rad: Any = 0.0) -> Balls:
    mid = np.asarray(mid, dtype=np.float64)
    rest = [np.broadcast_to(np.asarray(part, dtype=np.float64), mid.shape).copy() for part in (tail, tail_rad)]
    return Balls(mid, np.zeros_like(mid), *rest)


def judged(
    monkeypatch: pytest.MonkeyPatch, values: Any, truth: Balls, worst: Any, across: Any = None, statistical: Any = None,
    dtype: str = "float64", others: Mapping[str, Balls] | None = None,
) -> Row:  # fmt: skip
    """The verdict on `values` as the gradient W1, for a truth and bounds set by hand."""
    j = judge(problem(network((2, 3), ["identity"], bias=False), dtype=dtype))
    j.truth = replace(j.truth, grads={"W1": truth, **(others or {})})
    forms = [worst, worst if across is None else across, worst if statistical is None else statistical]
    bounds = [
        {"W1": np.broadcast_to(np.asarray(form, dtype=np.float64), truth.mid.shape), "loss": np.array(INF)}
        for form in forms
    ]
    monkeypatch.setattr(judge_module, "tolerance", lambda *a: Tolerance(*bounds, ARITHMETICS[dtype]))
    rows = j.judge_answer("someone", (0.0, {"W1": np.asarray(values, dtype)}))
    return next(row for row in rows if row.quantity == "W1")


def in_loops(
    values: Any, truth: Balls, worst: Any, across: Any, statistical: Any, dtype: str = "float64", largest: float = 0.0
) -> dict[str, Any]:
    """What the row must say, from the docstrings of refimpl.tolerance and Row, one element at a time."""
    largest = max(np.abs(truth.mid).max(), ARITHMETICS[dtype].smallest_normal, largest)
    distances = truth.distance(values)
    verdicts, ratios, ulps, kinked, open_bounds = {}, {}, {}, [], []
    for at in np.ndindex(truth.mid.shape):
        slack, off = 2 * float(truth.tail_rad[at]), float(distances[at])
        inside = off <= worst[at] + slack
        if not inside and off > across[at] + slack and across[at] < INF:
            verdicts[at] = FAIL
        elif inside and worst[at] < INF and worst[at] + slack <= 0.01 * largest:
            verdicts[at] = PASS
        else:
            verdicts[at] = UNDETERMINED
            open_bounds.append((off, statistical[at] + slack if across[at] == worst[at] else INF))
            kinked.append(not inside and worst[at] < INF)
        excess = max(off - slack, 0.0)
        if not math.isfinite(values[at]):
            ratios[at] = INF
        else:
            ratios[at] = 0.0 if excess == 0 or worst[at] == INF else excess / worst[at] if worst[at] else INF
        ulp = float(np.spacing(np.abs(truth.mid[at]).astype(dtype)))
        excess = float(abs(truth.tail[at])) if values[at] == truth.mid[at] else off
        ulps[at] = INF if excess > ulp * 1e308 else excess / ulp
    found = set(verdicts.values())
    verdict = FAIL if FAIL in found else UNDETERMINED if UNDETERMINED in found else PASS
    at = max((at for at in verdicts if verdicts[at] == verdict), key=lambda at: ratios[at])
    still_open = [at for at in verdicts if verdicts[at] == UNDETERMINED]
    reason = ""
    if verdict == FAIL and not math.isfinite(values[at]):
        reason = f"{values[at]} where the truth is finite"
    elif verdict == UNDETERMINED:
        reason = OVERFLOW if any(worst[place] == INF for place in still_open) else KINK if any(kinked) else WIDE
    second = ""
    if open_bounds:
        sure = all(bound <= 0.01 * largest for _, bound in open_bounds)
        second = FAIL if any(off > bound for off, bound in open_bounds) else PASS if sure else UNDETERMINED
    return {
        "backend": "someone", "quantity": "W1", "verdict": verdict, "size": truth.mid.size,
        "failed": list(verdicts.values()).count(FAIL), "undetermined": len(still_open),
        "ratio": float(ratios[at]), "ulps": float(ulps[at]), "index": tuple(i + 1 for i in at),
        "value": float(values[at]), "truth": float(truth.mid[at]), "bound": float(worst[at]), "reason": reason,
        "statistical": second,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3)])
def test_every_field_of_a_row_against_a_judge_in_loops(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> None:
    seen = set()
    for trial in range(80):
        truth = balls(
            rng.choice([0.0, 1.0, -3.0, 1e-3], shape), rng.choice([0.0, 1e-12], shape), rng.choice([0.0, 1e-9], shape)
        )
        worst = rng.choice([1e-7, 1e-4] if trial % 4 else [0.0, 1e-4, 0.02, 0.5, INF], shape)
        across = np.maximum(worst, rng.choice([0.0, 0.0, 0.1, INF], shape))
        statistical = worst * rng.choice([0.01, 0.5], shape)
        times = rng.choice([0.0, 0.3, 0.999, -0.999] if trial % 2 else [0.0, 0.999, 1.5, -1.5, 300.0], shape)
        values = (truth.mid + times * np.where(np.isfinite(worst), worst, 0.01)).astype(dtype)
        if trial % 7 == 0:
            values = np.where(rng.random(shape) < 0.4, rng.choice([NAN, INF, -INF]), values).astype(dtype)
        row = judged(monkeypatch, values, truth, worst, across, statistical, dtype)
        wanted = in_loops(values, truth, worst, across, statistical, dtype)
        found = {name: getattr(row, name) for name in wanted}
        assert str(found) == str(wanted)
        seen.add((row.verdict, row.statistical))
    assert {verdict for verdict, _ in seen} == {PASS, FAIL, UNDETERMINED}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", ["W1", "z2", "delta3"])
def test_one_element_is_judged_as_it_is_among_all(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, key: str, dtype: str
) -> None:
    j = judge(problem(network((2, 3, 2), ["tanh", "identity"]), n=4, dtype=dtype))
    kind = "grads" if key in j.truth.grads else "values"
    shape = getattr(j.truth, kind)[key].mid.shape
    seen = set()
    for trial in range(60):
        mid = rng.choice([0.0, 1.0, -3.0], shape) if trial % 4 else np.zeros(shape)
        truth = balls(mid, rng.choice([0.0, 1e-12], shape), rng.choice([0, 1e-9], shape))
        j.truth = replace(j.truth, **{kind: {**getattr(j.truth, kind), key: truth}})
        worst = rng.choice([1e-7, 1e-4, 0.5, INF], shape)
        across = np.maximum(worst, rng.choice([0.0, 0.1, INF], shape))
        statistical = worst * rng.choice([0.01, 0.5], shape)
        bounds = [{key: form} for form in (worst, across, statistical)]
        monkeypatch.setattr(judge_module, "tolerance", lambda *a, b=bounds: Tolerance(*b, a[-1]))
        j._tolerances.clear()
        at = tuple(int(rng.integers(size)) for size in shape)
        value = truth.mid[at] + rng.choice([0.0, 0.9e-7, 0.9e-4, 0.05, 300.0, NAN])
        alone = Balls(*(getattr(truth, part)[at].reshape(1) for part in ("mid", "rad", "tail", "tail_rad")))
        forms = [form[at].reshape(1) for form in (worst, across, statistical)]
        of_its_kind = j.truth.grads.values() if kind == "grads" and not mid.any() else [truth]
        largest = max(np.abs(b.mid).max() for b in of_its_kind)
        wanted = in_loops(np.array([value], dtype), alone, *forms, dtype, largest=largest)
        wanted |= {"quantity": key, "index": tuple(i + 1 for i in at)}
        row = j.judge_element("someone", key, float(value), at)
        assert str({name: getattr(row, name) for name in wanted}) == str(wanted)
        assert list(j._tolerances) == [ARITHMETICS[dtype]]
        seen.add((row.verdict, row.statistical))
    assert {verdict for verdict, _ in seen} == {PASS, FAIL, UNDETERMINED}


def test_a_value_at_its_bound_passes_and_the_next_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 2.0**-20
    at, beyond = 1 + bound, np.nextafter(1 + bound, 2) + 2.0**-51
    assert judged(monkeypatch, [at], balls([1.0]), bound * (1 + 2.0**-51)).verdict == PASS
    assert judged(monkeypatch, [beyond], balls([1.0]), bound).verdict == FAIL


def test_the_certificates_own_radius_is_granted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the distance, which is taken to the far end of the ball, and once for the bound."""
    truth = balls([1.0], 0.0, 2.0**-10)
    off = {times: judged(monkeypatch, [1.0 + times * 2.0**-10], truth, 0.0).verdict for times in (0, 0.99, 1.01)}
    assert off == {0: PASS, 0.99: PASS, 1.01: FAIL}
    wide = balls([0.0, 1.0], 0.0, [2.0**-8, 0.0])
    assert judged(monkeypatch, [0.0, 1.0], wide, 0.0).undetermined == 0
    assert judged(monkeypatch, [0.0, 1.0], wide, 0.003).undetermined == 1


@pytest.mark.parametrize(("bound", "verdict"), [(0.01, PASS), (np.nextafter(0.01, 1), UNDETERMINED)])
def test_a_bound_of_a_hundredth_decides_and_a_larger_one_does_not(
    monkeypatch: pytest.MonkeyPatch, bound: float, verdict: str
) -> None:
    assert judged(monkeypatch, [1.0, 0.5], balls([1.0, 0.5]), bound).verdict == verdict
    assert judged(monkeypatch, [1.0, 0.5], balls([-1.0, 0.5]), 1.0, statistical=bound).statistical == (
        PASS if verdict == PASS else UNDETERMINED
    )


def test_zeros_are_held_against_the_largest_gradient_and_then_the_smallest_normal_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zeros, smallest = balls([0.0, 0.0]), ARITHMETICS["float64"].smallest_normal
    others = {"W2": balls([1.0, -5.0]), "x": balls([2.0])}
    assert judged(monkeypatch, [0.0, 0.0], zeros, 0.05, others=others).verdict == PASS
    assert judged(monkeypatch, [0.0, 0.0], zeros, 0.051, others=others).verdict == UNDETERMINED
    assert judged(monkeypatch, [0.0, 0.0], zeros, 0.009 * smallest).verdict == PASS
    assert judged(monkeypatch, [0.0, 0.0], zeros, 0.011 * smallest).verdict == UNDETERMINED


def test_what_the_certificate_does_not_know_is_granted_across_kinks_and_statistically(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values at the very end of what is granted, in numbers that are exact."""
    truth = balls([1.0], 0.0, 2.0**-10)
    end = np.array([1 + 0.5])  # at most 0.5 (1 + 2⁻⁵¹) + 2⁻¹⁰ away
    away = float(truth.distance(end)[0])
    for across, verdict in ((away - 2.0**-9, UNDETERMINED), (np.nextafter(away, 0) - 2.0**-9, FAIL)):
        assert judged(monkeypatch, end, truth, 0.0, across).verdict == verdict
    for form, verdict in ((away - 2.0**-9, UNDETERMINED), (np.nextafter(away, 0) - 2.0**-9, FAIL)):
        assert judged(monkeypatch, end, truth, 1.0, statistical=form).statistical == verdict


def test_the_largest_element_is_the_arrays_own_or_where_it_is_zero_that_of_its_kind() -> None:
    kind = {"W1": balls([[0.0]]), "W2": balls([1.0, -7.0]), "b2": balls([3.0])}
    assert largest_element(np.array([0.5, -2.0]), kind) == 2.0
    assert largest_element(np.array([1e-3]), kind) == 1e-3
    assert largest_element(np.array([0.0]), kind) == 7.0
    assert largest_element(np.array(0.0), {}) == 0.0
    assert largest_element(np.zeros(0), {"none": balls(np.zeros(0))}) == 0.0


def test_a_loss_and_a_z_of_zero_are_not_held_against_the_gradients() -> None:
    j = judge(problem(network((2, 1), ["identity"], bias=False)))
    assert j._largest(balls(0.0), "loss") == 0.0
    assert j._largest(balls([0.0]), "z2") == 0.0
    assert j._largest(balls([0.0]), "W1") == np.abs(j.truth.grads["W1"].mid).max() > 0


def test_a_truth_beyond_float64_passes_in_no_form(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = balls([INF], 0.0, INF)
    row = judged(monkeypatch, [1e308], beyond, INF)
    assert (row.verdict, row.statistical, row.reason, row.ratio) == (UNDETERMINED, UNDETERMINED, OVERFLOW, 0.0)


# --------------------------------------------------------------------------------------------------------------
# Answers and backends


def refused(name: str, quantity: str, reason: str, size: int = 1) -> str:
    """The row of what could not be judged."""
    return str(Row(name, quantity, FAIL, size, size, 0, INF, INF, (), NAN, NAN, NAN, reason, ""))


class Recorder(NumpyBackend):
    """NumPy's backend, which notes what it is asked for and fails where it is told."""

    name = "recorder"

    def __init__(self, *broken: str, error: BaseException | None = None) -> None:
        super().__init__()
        self.broken, self.error, self.asked = broken, error or RuntimeError("why\nsecond line"), []

    def _note(self, what: str, *details: Any) -> None:
        self.asked.append((what, *details))
        if what in self.broken:
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


@pytest.fixture(params=DTYPES)
def j(request: pytest.FixtureRequest) -> Judge:
    return judge(problem(network((2, 3, 2), ["tanh", "identity"]), n=3, dtype=request.param))


GRADIENTS = ["loss", "W1", "b1", "W2", "b2"]
BETWEEN = ["z2", "a2", "delta2", "z3", "a3", "delta3"]


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
            assert float(found.answer[0]) == pytest.approx(float(j.truth.loss.mid))
            again = Recorder()
            rows = j.rows(again, device="gpu", inputs=inputs, intermediates=intermediates)
            assert list(map(str, rows)) == list(map(str, found.rows))
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
    coarse = replace(ARITHMETICS[j.batch.dtype], unit_roundoff=2.0**-12)
    loss, grads = Least().gradient_function(j.spec, dtype=j.batch.dtype, device="cpu")(*j._data())
    grads["W1"] = grads["W1"] * np.asarray(1 + 2.0**-13, j.batch.dtype)
    verdicts = {
        arithmetic: {
            row.quantity: row.verdict for row in j.judge_answer("a", (loss * (1 + 2.0**-13), grads), arithmetic)
        }
        for arithmetic in (None, ARITHMETICS[j.batch.dtype], coarse)
    }
    ieee = {"loss": FAIL, "W1": FAIL, "b1": PASS, "W2": PASS, "b2": PASS}
    assert verdicts[None] == verdicts[ARITHMETICS[j.batch.dtype]] == ieee
    assert FAIL not in verdicts[coarse].values()
    Coarse = type("Coarse", (Recorder,), {"arithmetic": lambda self, dtype, device: coarse})
    values = {name: (j.truth.values[name].mid * (1 + 2.0**-13)).astype(j.batch.dtype) for name in BETWEEN}
    off = {
        "gradient_function": lambda self, spec, dtype, device: lambda *data: (loss, grads),
        "intermediates_function": lambda self, spec, dtype, device: lambda *data: values,
    }
    verdicts_of = {
        kind: {row.verdict for row in j.rows(type("Off", (kind,), off)(), intermediates=True)}
        for kind in (Coarse, Recorder)
    }
    assert FAIL in verdicts_of[Recorder]
    assert FAIL not in verdicts_of[Coarse]


def test_a_tolerance_is_computed_once_for_each_arithmetic(j: Judge) -> None:
    ieee, flushing = ARITHMETICS[j.batch.dtype], FLUSHING[j.batch.dtype]
    assert j.tolerance(ieee) is j.tolerance(ieee)
    assert j.tolerance(flushing) is not j.tolerance(ieee)
    assert j.tolerance(flushing).arithmetic == flushing


@pytest.mark.parametrize("error", [RuntimeError("why\nsecond line"), SystemExit("why"), ValueError("why")])
@pytest.mark.parametrize(
    ("broken", "quantity", "before", "answers"),
    [("arithmetic", "loss", [], False), ("gradient", "loss", [], False), ("intermediates", "z2", GRADIENTS, True)],
)
def test_whatever_a_backend_raises_is_one_row(
    j: Judge, broken: str, quantity: str, before: list[str], answers: bool, error: BaseException
) -> None:
    found = j.judge(Recorder(broken, error=error), intermediates=True)
    assert [row.quantity for row in found.rows[:-1]] == before
    assert str(found.rows[-1]) == refused("recorder", quantity, f"raised {type(error).__name__}: why")
    assert (found.answer is not None) == answers
    assert found.arithmetic == (ARITHMETICS if broken == "arithmetic" else FLUSHING)[j.batch.dtype]


def test_an_arithmetic_that_is_none_is_one_row(j: Judge) -> None:
    Strange = type("Strange", (Recorder,), {"name": "strange", "arithmetic": lambda self, dtype, device: 3})
    found = j.judge(Strange())
    assert list(map(str, found.rows)) == [refused("strange", "loss", "raised TypeError: its arithmetic is a int")]
    assert (found.answer, found.arithmetic) == (None, ARITHMETICS[j.batch.dtype])


def test_a_backend_gets_copies_in_the_shapes_of_the_spec() -> None:
    from refimpl.network.spec import LayerSpec, NetworkSpec

    j = judge(problem(NetworkSpec((2, 2), [LayerSpec(1)], "huber"), n=3))
    params, x, y = j._data()
    assert x.shape == (3, 2, 2)
    for array in (*params.values(), x, y):
        array[...] = 7
    assert not any((array == 7).any() for array in (*j.batch.params.values(), j.batch.x, j.batch.y))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (3.0, "returned float; return (loss, gradients)"),
        (None, "returned NoneType; return (loss, gradients)"),
        ((1.0, {}, 2), "returned tuple; return (loss, gradients)"),
        ((1.0, 5), "returned tuple; return (loss, gradients)"),
    ],
)
def test_an_answer_that_is_no_pair_is_one_row(j: Judge, answer: Any, reason: str) -> None:
    assert list(map(str, j.judge_answer("mine", answer))) == [refused("mine", "loss", reason)]


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("0.5", "is a str, not a real number"),
        (np.array("0.5"), "is of dtype <U3, not a real number"),
        (0.5j, "is a complex, not a real number"),
        (True, "is a bool, not a real number"),
        ([0.5], "has shape (1,); it must be a single number"),
        (np.zeros(2), "has shape (2,); it must be a single number"),
        (np.ma.masked_array(0.5, True), "is a masked array; give a plain one"),
        ([[1.0], [1.0, 2.0]], None),
    ],
)
def test_a_loss_that_is_none_is_refused(j: Judge, loss: Any, reason: str | None) -> None:
    row = j.judge_answer("mine", (loss, {}))[0]
    if reason is None:
        assert row.reason.startswith("is no array: ")
        reason = row.reason
    assert str(row) == refused("mine", "loss", reason)


def test_what_was_found_unusable_keeps_its_reason(j: Judge) -> None:
    rows = j.judge_answer("mine", Answer(Unusable("is bad"), {"W1": Unusable("is worse")}))
    assert [row.reason for row in rows[:2]] == ["is bad", "is worse"]
    assert str(j.judge_answer("mine", Unusable("is nothing"))[0]) == refused("mine", "loss", "is nothing")


def test_no_loss_is_refused(j: Judge) -> None:
    assert str(j.judge_answer("mine", (None, {}))[0]) == refused("mine", "loss", "is a NoneType, not a real number")


@pytest.mark.filterwarnings("error")
def test_a_loss_beyond_float64_is_infinite(j: Judge) -> None:
    row = j.judge_answer("mine", (np.longdouble("1e4000"), {}))[0]
    assert (row.verdict, row.value) == (FAIL, np.inf)


def test_intermediates_that_are_no_dictionary_are_refused(j: Judge) -> None:
    class Loose(NumpyBackend):
        def intermediates_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            return lambda *data: 3.0

    rows = j.rows(Loose(), intermediates=True)
    assert str(rows[-1]) == refused("numpy", "z2", "are not returned as a dictionary")
    assert [row.quantity for row in rows] == [*GRADIENTS, "z2"]


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.array])
def test_a_loss_may_be_any_real_number(j: Judge, kind: Any) -> None:
    loss = j.truth.loss.mid
    row = j.judge_answer("mine", (kind(loss), {}))[0]
    assert row.quantity == "loss"
    assert row.verdict == (PASS if kind is not np.float32 or j.batch.dtype == "float32" else FAIL)


def test_whole_numbers_are_a_loss() -> None:
    p = problem(network((1, 1), ["identity"], "absolute_error", "sum", bias=False), n=1)
    p.params["W1"][:], p.x[:], p.y[:] = 2.0, 3.0, 1.0
    for loss in (5, np.int32(5), np.uint8(5)):
        assert judge(p).judge_answer("mine", (loss, {"W1": np.array([[3.0]])}))[0].verdict == PASS


def test_gradients_that_do_not_fit_are_refused_one_by_one(j: Judge) -> None:
    dtype = j.batch.dtype
    other = "float32" if dtype == "float64" else "float64"
    loss, grads = Least().gradient_function(j.spec, dtype=dtype, device="cpu")(*j._data())

    class NoArray:
        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("a\x1bb" + 300 * "c" + "\nd")

    wrong = {
        "W1": (grads["W1"].T, "has shape (2, 3); it must be (3, 2)"),
        "b1": (grads["b1"].astype(other), f"is {other}; {dtype} was asked for"),
        "W2": (NoArray(), "is no array: a?b" + 197 * "c"),
    }
    answer = {**{name: array for name, (array, _) in wrong.items()}, "b2": grads["b2"], "W9": 1, "y" * 70: 2, 5: 3}
    rows = {row.quantity: str(row) for row in j.judge_answer("mine", (loss, answer))}
    for name, (_, reason) in wrong.items():
        assert rows[name] == refused("mine", name, reason, size=j.truth.grads[name].mid.size)
    for name in ("W9", "y" * 60, "a key of type int"):
        assert rows[name] == refused("mine", name, "is not a quantity of this network")
    assert list(rows) == ["loss", "W1", "b1", "W2", "b2", "W9", "y" * 60, "a key of type int"]
    missing = j.judge_answer("mine", (loss, {}))
    assert [str(row) for row in missing[1:]] == [
        refused("mine", name, "is missing", size=j.truth.grads[name].mid.size) for name in GRADIENTS[1:]
    ]


@pytest.mark.parametrize("extra", [9, 10, 11, 12, 5000])
def test_ten_keys_that_are_not_the_networks_are_told_and_the_others_counted(j: Judge, extra: int) -> None:
    rows = j.judge_answer("mine", (0.0, {f"\x1b{index}": 0.0 for index in range(extra)}))[len(GRADIENTS) :]
    told = [refused("mine", f"?{index}", "is not a quantity of this network") for index in range(min(extra, 10))]
    if extra > 10:
        told.append(refused("mine", f"{extra - 10} more", "are not quantities of this network", size=extra - 10))
    assert [str(row) for row in rows] == told


def test_x_is_judged_where_it_was_asked_for_and_else_is_one_too_many(j: Judge) -> None:
    loss, grads = NumpyBackend().input_gradient_function(j.spec, dtype=j.batch.dtype, device="cpu")(*j._data())
    assert [(row.quantity, row.verdict) for row in j.judge_answer("mine", (loss, grads), inputs=True)][-1] == (
        "x",
        PASS,
    )
    assert str(j.judge_answer("mine", (loss, grads))[-1]) == refused("mine", "x", "is not a quantity of this network")


def test_an_exception_without_words_and_with_control_characters(j: Judge) -> None:
    (row,) = j.rows(Recorder("gradient", error=ValueError()))
    assert row.reason == "raised ValueError: (no message)"
    (row,) = j.rows(Recorder("gradient", error=ValueError("a\tb\x07" + 300 * "c")))
    assert row.reason == "raised ValueError: a?b?" + 196 * "c"
