"""The suite run on backends: who conforms, who does not and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnosis_measure import is_true_fit
from networks import sampled
from planted import Everywhere, Wrong, report

from refimpl import backend as backends
from refimpl.conformance.doors import Answered
from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.report import ConformanceReport
from refimpl.conformance.run import SKIP, UNEXPLAINED, XFAIL, XPASS, expected_failures, judge_answered, judge_case
from refimpl.conformance.vectors import Suite, load
from refimpl.faults.catalogue import FAULTS
from refimpl.formats.errors import ConformanceError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, UNDETERMINED
from refimpl.judge.submission import Submission
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl_numpy import NumpyBackend
from refimpl_peers.hips_autograd import AutogradBackend
from refimpl_peers.scikit_learn import ScikitLearnBackend

ROOT = Path(__file__).resolve().parents[2]
SUITE = load()
SMALL = Suite.of(SUITE.cases[::36])


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_built_in_backend_passes_every_case(name: str, dtype: str) -> None:
    found = report(backends.load(name), SUITE, dtype, diagnosed=False)
    allowed = {PASS} if dtype == "float64" else {PASS, UNDETERMINED}
    assert {result.verdict for result in found.results} <= allowed, found.wrong[:1]
    assert found.counts()[UNDETERMINED] <= 10


@pytest.mark.parametrize("first", sampled(16, default=1, step=8))
def test_jax_passes_every_sixteenth_case(first: int) -> None:
    """Each is compiled anew; `make conform` goes through all of them."""
    found = report(backends.load("jax"), Suite.of(SUITE.cases[first::16]))
    assert {result.verdict for result in found.results} == {PASS}, [r.text for r in found.wrong[:1]]


def test_autograd_passes_every_case() -> None:
    assert report(AutogradBackend(), SUITE).counts() == {PASS: len(SUITE.cases)}


def test_scikit_learn_passes_but_for_its_loss_of_several_outputs() -> None:
    found = report(ScikitLearnBackend(), SUITE)
    assert found.counts()[PASS] >= 20
    for result in found.results:
        case = SUITE.by_id[result.case]
        several = case.spec.loss.name == "squared_error" and case.spec.n_out > 1
        if result.verdict == SKIP:
            continue
        if several:
            assert result.verdict == FAIL, result.case
            assert {row.quantity for row in result.rows if row.verdict == FAIL} == {"loss"}, result.case
            causes = [c.fault.name for f in result.findings for e in f.explanations for c in e]
            assert "loss_averaged_over_outputs" in causes, result.text
        elif result.verdict == FAIL:  # it clips probabilities to [eps, 1 − eps] before the logarithm
            assert "HugeLogit" in case.flags, result.text
            assert {row.quantity for row in result.rows if row.verdict == FAIL} == {"loss"}, result.case
    said = " ".join((ROOT / "docs" / "conformance.md").read_text().split())
    failed = [result for result in found.results if result.verdict == FAIL]
    named = sum("loss_averaged_over_outputs" in result.text for result in failed)
    judged = len(failed) + found.counts()[PASS]
    assert f"supports {judged} of them: its gradients pass in all, and its loss in {found.counts()[PASS]}." in said
    assert f"which the suite finds in {named} cases" in said
    assert f"in {len(failed) - named} cases with huge logits" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda loss, g: (loss, {k: -v for k, v in g.items()}), "wrong_sign"),
        (lambda loss, g: (2 * loss, g), "loss is"),
        (lambda loss, g: (loss, {**g, "W1": g["W1"] * np.nan}), "is NaN in"),
        (lambda loss, g: (loss, {k: v for k, v in g.items() if k != "W1"}), "W1 is missing"),
        (lambda loss, g: None, "returned NoneType"),
    ],
    ids=["sign", "loss", "NaN", "missing", "nothing"],
)
def test_a_wrong_backend_fails_every_case_with_the_right_words(change: Any, words: str) -> None:
    found = report(Wrong(change), SMALL)
    assert not found.ok
    assert all(result.verdict == FAIL for result in found.results if "dead relu 4 of 4" not in result.case)
    assert sum(words in result.text for result in found.results) > 0.7 * len(found.results), found.results[0].text


@pytest.mark.parametrize("name", ["slope_dropped", "not_averaged", "bias_gradient_averaged", "weight_updated_first"])
def test_a_planted_fault_is_found_and_named(name: str) -> None:
    found = report(Everywhere(name, first=True), SMALL)
    killed = 0
    for result in found.results:
        case = SUITE.by_id[result.case]
        layers = list(FAULTS[name].where(case.spec, len(case.x)))[:1]
        kills = bool(layers) and (name, layers[0]) in case.kills
        assert result.verdict == (FAIL if kills else PASS), result.case
        if kills:
            named = [(c.fault.name, c.layer) for e in result.findings[0].explanations for c in e]
            answer = Everywhere(name, first=True).gradient_function(case.spec, dtype="float64", device="cpu")
            judge, given = Judge(case.spec, case.batch("float64")), answer(*case.data("float64"))
            true = (is_true_fit(judge, given, causes) for causes in result.findings[0].explanations)
            assert (name, layers[0]) in named or all(true), result.text
            killed += 1
    assert killed


def test_pairs_of_faults_are_looked_for_until_some_cases_have_none() -> None:
    strange = Wrong(lambda loss, g: (loss, {k: v + np.cos(np.arange(v.size)).reshape(v.shape) for k, v in g.items()}))
    found = report(strange, Suite.of(SUITE.cases[:25]))
    unknown = [result.findings[0] for result in found.results if result.findings]
    assert not any(finding.known for finding in unknown)
    assert [finding.pairs for finding in unknown] == [True] * UNEXPLAINED + [False] * (len(unknown) - UNEXPLAINED)
    assert len(unknown) > 2 * UNEXPLAINED


def test_a_backend_that_lacks_something_is_skipped_and_named() -> None:
    class Narrow(NumpyBackend):
        def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
            return True if spec.loss.name == "squared_error" else "squares only"

    found = report(Narrow(), SMALL)
    assert found.counts()[SKIP] + found.counts()[PASS] == len(SMALL.cases)
    assert {result.reason for result in found.results if result.verdict == SKIP} == {"squares only"}
    assert found.ok


def test_a_run_in_which_nothing_was_judged_is_not_ok() -> None:
    class Nothing(NumpyBackend):
        def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
            return False

    found = report(Nothing(), SMALL)
    assert not found.ok
    assert found.counts() == {SKIP: len(SMALL.cases)}
    assert "was not judged" in found.summary


def test_an_arithmetic_of_its_own_is_judged_by_it() -> None:
    class Coarse(NumpyBackend):
        def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
            return Arithmetic("half as fine", 2.0**-52, 2.3e-308, 5e-324, 1.7e308)

    assert report(Coarse(), Suite.of(SMALL.cases[:3])).ok


def test_a_bound_that_decides_nothing_is_undetermined() -> None:
    deep = Suite.of([SUITE.by_id["logit 20 softmax"]])
    found = report(NumpyBackend(), deep, "float32")
    assert found.results[0].verdict == UNDETERMINED
    assert "undetermined" in found.results[0].text
    assert "undetermined" in found.summary
    assert not found.ok


def test_a_case_too_large_for_float32_is_skipped() -> None:
    case = next(case for case in SUITE.cases if case.x.dtype == np.float64)
    huge = case.model_copy(update={"x": case.x + 1e200})
    door = BackendDoor(NumpyBackend())
    assert judge_case(door, huge, "float32").verdict == SKIP
    assert judge_case(door, case, "float32").verdict == PASS


def test_where_exact_arithmetic_is_asked_for_the_next_number_is_wrong() -> None:
    case = next(case for case in SUITE.cases if "Exact" in case.flags)
    loss, grads = NumpyBackend().gradient_function(case.spec, dtype="float64", device="cpu")(*case.data("float64"))
    name, grad = next((name, grad) for name, grad in grads.items() if grad.any())
    at = np.unravel_index(np.argmax(np.abs(grad)), grad.shape)
    grad[at] = np.nextafter(grad[at], np.inf)
    result = judge_answered("", ARITHMETICS["float64"], Answered(Submission.of((loss, grads))), case, "float64")
    (finding,) = result.findings
    assert (result.verdict, finding.quantity, finding.explanations) == (FAIL, name, ())
    assert "1 of" in finding.symptom
    assert "the right ones need no rounding" in finding.symptom
    shown, wanted = result.reason.split(" is ")[1].split(", should be ")
    assert shown != wanted.split(" ")[0]
    found = ConformanceReport("given", "given", "float64", "float64", [result])
    assert found.to_dict()["cases"][0]["largest_ratio"] is None  # infinite


def test_expected_failures_are_strict() -> None:
    cases = SMALL.cases[:3]

    class Sometimes(Wrong):
        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            wrong = spec in (cases[0].spec, cases[1].spec)
            return (super() if wrong else NumpyBackend()).gradient_function(spec, dtype=dtype, device=device)

    backend = Sometimes(lambda loss, grads: (loss, {k: -v for k, v in grads.items()}))
    expected = {cases[1].id: "known", cases[2].id: ""}
    found = report(backend, Suite.of(cases), expected_failures=expected)
    assert [result.verdict for result in found.results] == [FAIL, XFAIL, XPASS]
    assert "known" in found.results[1].reason
    assert "take it off the list" in found.results[2].reason
    assert [result.verdict for result in found.wrong] == [FAIL, XPASS]
    assert not report(backend, Suite.of(cases[2:]), expected_failures=expected).ok
    assert report(backend, Suite.of(cases[1:2]), expected_failures=expected).ok


def test_the_list_of_expected_failures_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "xfail.txt"
    first = SUITE.cases[0].id
    path.write_bytes(b"\xef\xbb\xbf" + f"# a comment\n\n{first}  # a reason\n".encode())
    assert expected_failures(path, SUITE) == {first: "a reason"}
    for content, words in (
        (b"no such case\n", "line 1: 'no such case' is no case"),
        (b"\xff\xfe", "UTF-8"),
        (b"\n" * (2**20 + 1), "larger than"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConformanceError, match=words):
            expected_failures(path, SUITE)
    with pytest.raises(ConformanceError, match="cannot read"):
        expected_failures(tmp_path / "nowhere", SUITE)
