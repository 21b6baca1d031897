"""The suite run through each door: who conforms, who does not and why, and how that is reported."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from refimpl import backend as backends
from refimpl.cli import app
from refimpl.conformance import messages
from refimpl.conformance.doors import AnswersDoor, BackendDoor
from refimpl.conformance.messages import Hello, Unusable, evaluate, read_answer, read_hello, say
from refimpl.conformance.run import SKIP, XFAIL, XPASS, ConformanceReport, conform, expected_failures, judge_case, junit
from refimpl.conformance.vectors import Suite, load
from refimpl.faults.catalogue import FAULTS, WHOLE, PlantedBackend
from refimpl.formats.errors import BackendError, ConformanceError
from refimpl.judge.report import FAIL, PASS, UNDETERMINED
from refimpl.network.arithmetic import ARITHMETICS
from refimpl_numpy import NumpyBackend
from refimpl_peers.hips_autograd import AutogradBackend
from refimpl_peers.scikit_learn import ScikitLearnBackend

SUITE = load()
SMALL = Suite.of(SUITE.cases[::23])
HOSTILE = str(Path(__file__).parent / "hostile_program.py")


def report(backend: Any, suite: Suite = SUITE, dtype: str = "float64", **options: Any) -> ConformanceReport:
    door = BackendDoor(backend)
    found = ConformanceReport(door.name, door.description, dtype, door.arithmetic(dtype).name)
    found.results = list(conform(door, suite, dtype, **options))
    return found


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_built_in_backend_passes_every_case(name: str, dtype: str) -> None:
    found = report(backends.load(name), dtype=dtype, diagnosed=False)
    allowed = {PASS} if dtype == "float64" else {PASS, UNDETERMINED}
    assert {result.verdict for result in found.results} <= allowed, found.wrong[:1]
    assert found.counts()[UNDETERMINED] <= 10


@pytest.mark.parametrize("part", range(2))
def test_jax_passes_every_eighth_case(part: int) -> None:
    """`make conform`, which .ci/run calls, goes through all of them: each is compiled anew."""
    found = report(backends.load("jax"), Suite.of(SUITE.cases[part::16]))
    assert {result.verdict for result in found.results} == {PASS}, [r.text for r in found.wrong[:1]]


def test_autograd_passes_every_case() -> None:
    found = report(AutogradBackend())
    assert found.counts() == {PASS: len(SUITE.cases)}


def test_scikit_learn_passes_but_for_its_loss_of_several_outputs() -> None:
    found = report(ScikitLearnBackend())
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
    said = " ".join((Path(__file__).parent.parent / "docs" / "conformance.md").read_text().split())
    failed = [result for result in found.results if result.verdict == FAIL]
    named = sum("loss_averaged_over_outputs" in result.text for result in failed)
    judged = len(failed) + found.counts()[PASS]
    assert f"supports {judged} of them: its gradients pass in all, and its loss in {found.counts()[PASS]}." in said
    assert f"which the suite finds in {named} cases" in said
    assert f"in {len(failed) - named} cases with huge logits" in said


class Wrong:
    """A backend that changes what the right one returns."""

    name = "wrong"

    def __init__(self, change: Callable[[float, dict[str, Any]], Any]) -> None:
        self.change = change

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
        return True

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        right = NumpyBackend().gradient_function(spec, dtype=dtype, device=device)
        return lambda params, x, y: self.change(*right(params, x, y))


def raising(loss: float, grads: dict[str, Any]) -> Any:
    raise RuntimeError("out of\nluck")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda loss, g: (loss, {**g, "W1": g["W1"] * np.nan}), "is NaN in"),
        (lambda loss, g: (loss, {k: v for k, v in g.items() if k != "W1"}), "W1 is missing"),
        (lambda loss, g: (loss, {**g, "W9": g["W1"]}), "W9 is not a quantity of this network"),
        (lambda loss, g: (loss, {**g, "W1": g["W1"].astype(np.float32)}), "float64 was asked for"),
        (lambda loss, g: (loss, {k: -v for k, v in g.items()}), "wrong_sign"),
        (lambda loss, g: (2 * loss, g), "loss is"),
        (lambda loss, g: ("much", g), "is a str, not a real number"),
        (lambda loss, g: None, "returned NoneType"),
        (raising, "raised RuntimeError: out of"),
    ],
)
def test_a_wrong_backend_fails_every_case_with_the_right_words(change: Any, words: str) -> None:
    found = report(Wrong(change), SMALL)
    assert not found.ok
    assert all(result.verdict == FAIL for result in found.results if "dead relu 4 of 4" not in result.case)
    assert sum(words in result.text for result in found.results) > 0.7 * len(found.results), found.results[0].text


@pytest.mark.parametrize("name", ["slope_dropped", "not_averaged", "bias_gradient_averaged", "weight_updated_first"])
def test_a_planted_fault_is_found_and_named(name: str) -> None:
    fault = FAULTS[name]

    class Planted:
        """The fault at its first layer, where it can act."""

        name = "planted"

        def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
            return True

        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            def run(params: Any, x: Any, y: Any) -> Any:
                layers = list(fault.where(spec, len(x)))[:1]
                plantings = tuple((fault, layer, fault.example) for layer in layers)
                return PlantedBackend(plantings).gradient_function(spec, dtype=dtype, device=device)(params, x, y)

            return run

    found = report(Planted(), SMALL)
    for result in found.results:
        case = SUITE.by_id[result.case]
        layers = list(fault.where(case.spec, len(case.x)))[:1]
        killed = bool(layers) and (name, layers[0]) in case.kills
        assert result.verdict == (FAIL if killed else PASS), result.case
        if killed:
            named = [(c.fault.name, c.layer) for e in result.findings[0].explanations for c in e]
            assert (name, layers[0]) in named, result.text


def test_a_backend_that_lacks_something_is_skipped_and_named() -> None:
    class Narrow(NumpyBackend):
        name = "narrow"

        def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
            return True if spec.loss.name == "huber" else "huber only"

    found = report(Narrow(), SMALL)
    assert found.counts()[SKIP] + found.counts()[PASS] == len(SMALL.cases)
    assert {result.reason for result in found.results if result.verdict == SKIP} == {"huber only"}


def test_a_report_where_nothing_ran_is_not_ok() -> None:
    class Nothing(NumpyBackend):
        def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
            return False

    found = report(Nothing(), SMALL)
    assert not found.ok
    assert found.counts() == {SKIP: len(SMALL.cases)}


def test_an_arithmetic_of_its_own_is_judged_by_it() -> None:
    class Coarse(NumpyBackend):
        def arithmetic(self, *, dtype: str, device: str) -> Any:
            return type(ARITHMETICS["float64"])("half as fine", 2.0**-52, 2.3e-308, 5e-324, 1.7e308)

    assert report(Coarse(), Suite.of(SMALL.cases[:3])).ok


def test_a_bound_that_decides_nothing_is_undetermined() -> None:
    deep = Suite.of([case for case in SUITE.cases if case.id == "depth 12 identity"])
    found = report(NumpyBackend(), deep, "float32")
    assert found.results[0].verdict == UNDETERMINED
    assert "undetermined" in found.results[0].text
    assert "undetermined" in found.summary
    assert not found.ok


# --------------------------------------------------------------------------------------------------------------
# Reports


@pytest.fixture(scope="module")
def mixed() -> ConformanceReport:
    """A pass, a failure, an expected failure and an unexpected pass."""
    cases = SMALL.cases[:4]

    class Sometimes(Wrong):
        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            wrong = spec in (cases[1].spec, cases[2].spec)
            return (super() if wrong else NumpyBackend()).gradient_function(spec, dtype=dtype, device=device)

    backend = Sometimes(lambda loss, grads: (loss, {k: -v for k, v in grads.items()}))
    return report(backend, Suite.of(cases), expected_failures={cases[2].id: "known <bug>", cases[3].id: ""})


def test_expected_failures_are_strict(mixed: ConformanceReport) -> None:
    assert [result.verdict for result in mixed.results] == [PASS, FAIL, XFAIL, XPASS]
    assert "known <bug>" in mixed.results[2].reason
    assert "take it off the list" in mixed.results[3].reason
    assert not mixed.ok
    assert [result.verdict for result in mixed.wrong] == [FAIL, XPASS]


def test_a_report_as_data(mixed: ConformanceReport) -> None:
    data = json.loads(json.dumps(mixed.to_dict()))
    assert data["counts"] == {PASS: 1, FAIL: 1, XFAIL: 1, XPASS: 1}
    assert data["cases"][1]["findings"][0]["explanations"][0][0]["fault"] == "wrong_sign"
    assert data["ok"] is False
    assert sum(sum(counts.values()) for counts in data["flags"].values()) >= 4


def test_a_report_as_junit(mixed: ConformanceReport) -> None:
    root = ElementTree.fromstring(junit([mixed]))
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "1")
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [[], ["failure"], ["skipped"], ["failure"]]
    assert "wrong_sign" in suite[1][0].get("message", "")


def test_junit_takes_any_text() -> None:
    found = report(Wrong(raising), Suite.of(SMALL.cases[:1]))
    found.implementation = "a\x00\x1b<b>\ud800"
    assert ElementTree.fromstring(junit([found]))[0].get("name", "").startswith("refimpl.conformance a??<b>?")


def test_the_summary_is_one_line(mixed: ConformanceReport) -> None:
    assert mixed.summary == "refimpl float64 | wrong fails: 1 PASS, 1 FAIL, 1 XFAIL, 1 XPASS"
    assert report(NumpyBackend(), SMALL).summary.startswith("refimpl float64 | numpy conforms: ")


def test_the_list_of_expected_failures_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "xfail.txt"
    first = SUITE.cases[0].id
    path.write_text(f"# a comment\n\n{first}  # a reason\n")
    assert expected_failures(path, SUITE) == {first: "a reason"}
    path.write_text("no such case\n")
    with pytest.raises(ConformanceError, match="line 1: 'no such case' is no case of the suite"):
        expected_failures(path, SUITE)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConformanceError, match="UTF-8"):
        expected_failures(path, SUITE)
    path.write_text("\n" * (2**20 + 1))
    with pytest.raises(ConformanceError, match="larger than"):
        expected_failures(path, SUITE)
    with pytest.raises(ConformanceError, match="cannot read"):
        expected_failures(tmp_path / "nowhere", SUITE)


# --------------------------------------------------------------------------------------------------------------
# Messages and answers files


def test_a_hello_is_read_and_its_limits_are_kept() -> None:
    hello = read_hello(
        b'{"type":"hello","format":"refimpl.process/1","name":"x","losses":["huber"],"reductions":["mean"]}'
    )
    assert hello == Hello("x", losses=("huber",), reductions=("mean",))
    case = next(case for case in SUITE.cases if case.spec.loss.name == "huber" and case.spec.reduction == "sum")
    assert hello.supports(case.spec, "float64") == "has no reduction sum"
    for wrong, message in (
        (b"{}", "did not say hello"),
        (b'{"type":"hello","format":"refimpl.process/1","name":"x","dtypes":"all"}', "must be a list"),
        (b'{"type":"hello","format":"refimpl.process/1","name":"x","losses":["guess"]}', "names 'guess'"),
        (b'{"type":"hello","format":"refimpl.process/1","name":"x","arithmetic":"mine"}', "arithmetic must be"),
        (b'{"type":"hello","format":"refimpl.process/1","name":"a\\nb"}', "name must be one line"),
        (b'{"type":"hello","format":"refimpl.process/1"}', "name of the program is missing"),
    ):
        with pytest.raises(ConformanceError, match=message):
            read_hello(wrong)


def test_a_request_reads_back_exactly() -> None:
    for dtype in ("float64", "float32"):
        for case in SMALL.cases:
            message = json.loads(evaluate(7, case, dtype))
            params, x, y = case.data(dtype)
            assert message["id"] == 7
            for name, array in {**params, "x": x, "y": y}.items():
                item = message["parameters"].get(name) or message[name]
                back = np.array(item["data"], dtype=array.dtype).reshape(item["shape"])
                assert (back == array).all()
                assert back.shape == array.shape


def test_numbers_that_json_lacks_are_words() -> None:
    message = {"loss": "Infinity", "gradients": {"W1": {"shape": [3], "data": ["NaN", "-Infinity", 1]}}}
    loss, grads = read_answer(message, "float64")
    assert loss == np.inf
    assert np.isnan(grads["W1"][0])
    assert grads["W1"][1:].tolist() == [-np.inf, 1.0]
    assert isinstance(read_answer({"loss": [], "gradients": {}}, "float64")[0], Unusable)


def answers_file(path: Path, backend: Any, suite: Suite, dtype: str = "float64") -> None:
    lines = [say({"format": "refimpl.answers/1", "name": "mine", "dtype": dtype})]
    for case in suite.cases:
        loss, grads = backend.gradient_function(case.spec, dtype=dtype, device="cpu")(*case.data(dtype))
        tensors = {
            name: {"shape": list(g.shape), "data": g.astype(float).ravel().tolist()} for name, g in grads.items()
        }
        lines.append(say({"case": case.id, "loss": loss, "gradients": tensors}))
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_file_of_answers_is_judged_like_any_other(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "answers.jsonl"
    answers_file(path, NumpyBackend(), Suite.of(SMALL.cases[1:]), dtype)
    door = AnswersDoor(path, dtype, SUITE.by_id.__contains__)
    assert door.name == "mine"
    verdicts = [judge_case(door, case, dtype) for case in SMALL.cases]
    assert verdicts[0].verdict == FAIL
    assert "is not answered" in verdicts[0].text
    assert {result.verdict for result in verdicts[1:]} <= {PASS, UNDETERMINED}


def test_a_file_of_answers_says_its_dtype_and_what_it_has_not(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    suite = Suite.of([case for case in SUITE.cases if "Tie" in case.flags])
    answers_file(path, NumpyBackend(), Suite.of(suite.cases[1:]), "float32")
    with open(path, "ab") as file:
        file.write(say({"case": suite.cases[0].id, "unsupported": "no softmax here"}))
    schema = json.loads((Path(messages.__file__).parent.parent / "schemas" / "answers-1.schema.json").read_text())
    for line in path.read_text().splitlines():
        jsonschema.Draft202012Validator(schema).validate(json.loads(line))
    outcome = CliRunner().invoke(app, ["conform", "--answers", str(path), "--flag", "Tie"])
    assert outcome.exit_code == 0, outcome.output
    assert f"refimpl float32 | mine conforms: {len(suite.cases) - 1} PASS, 1 SKIP" in outcome.output
    assert "SKIP 1 case: no softmax here" in outcome.output
    refused = CliRunner().invoke(app, ["conform", "--answers", str(path), "--flag", "Tie", "--dtype", "float64"])
    assert "the answers are float32; ask with --dtype float32, or leave it out" in str(refused.exception)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (['{"format":"refimpl.answers/1","dtype":"float16"}'], "dtype must be one of float64, float32"),
        (['{"format":"refimpl.answers/1","dtype":[]}'], "dtype must be one of float64, float32"),
        (
            ['{"format":"refimpl.answers/1"}', f'{{"case":"{SUITE.cases[0].id}","unsupported":3}}'],
            "line 2: unsupported must be one line",
        ),
        (["{}"], 'line 1: the first line must hold "format"'),
        (['{"format":"refimpl.answers/1","dtype":"float32"}'], "the answers are float32"),
        (['{"format":"refimpl.answers/1"}', "[]"], "line 2: wrote a list"),
        (['{"format":"refimpl.answers/1"}', '{"case":"nobody\'s"}'], "is not one of the suite's"),
        (['{"format":"refimpl.answers/1"}', f'{{"case":"{SUITE.cases[0].id}"}}'], "without loss"),
        (['{"format":"refimpl.answers/1"}', "x" * (messages.MAX_LINE + 5)], "longer than"),
        (
            ['{"format":"refimpl.answers/1"}', *[f'{{"case":"{SUITE.cases[0].id}","loss":0,"gradients":{{}}}}'] * 2],
            "line 3: case 'basic identity squared_error' is answered twice",
        ),
    ],
)
def test_a_wrong_file_of_answers_is_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConformanceError) as caught:
        AnswersDoor(path, "float64", SUITE.by_id.__contains__)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_answers_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match="cannot read"):
        AnswersDoor(tmp_path / "nowhere", "float64", SUITE.by_id.__contains__)


# --------------------------------------------------------------------------------------------------------------
# The command line


def refimpl(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_conform_on_a_backend_by_name() -> None:
    outcome = refimpl("conform", "numpy", "--flag", "Exact")
    assert outcome.exit_code == 0, outcome.output
    assert "refimpl float64 | numpy conforms: 24 PASS" in outcome.output


def test_conform_on_a_backend_by_place() -> None:
    outcome = refimpl("conform", "refimpl_peers.hips_autograd:AutogradBackend", "--flag", "Tie", "--json")
    assert outcome.exit_code == 0
    data = json.loads(outcome.stdout)
    assert data["reports"][0]["implementation"] == "autograd"
    assert "refimpl_peers" in data["reports"][0]["description"]


def test_conform_on_a_program(tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    outcome = refimpl("conform", "--flag", "Tie", "--junit", str(path), "--", sys.executable, HOSTILE, "none")
    assert outcome.exit_code == 0, outcome.output
    assert ElementTree.parse(path).getroot()[0].get("tests") == "9"
    assert refimpl("conform", "numpy", "torch", "--flag", "Tie", "--junit", str(path)).exit_code == 0
    assert [suite.get("tests") for suite in ElementTree.parse(path).getroot()] == ["9", "9"]
    assert [item.name for item in tmp_path.iterdir()] == ["out.xml"]


def test_conform_on_a_file_of_answers_with_expected_failures(tmp_path: Path) -> None:
    ties = Suite.of([case for case in SUITE.cases if "Tie" in case.flags])
    answers, expected = tmp_path / "answers.jsonl", tmp_path / "xfail"
    answers_file(answers, NumpyBackend(), Suite.of(ties.cases[1:]))
    arguments = ["conform", "--answers", str(answers), "--flag", "Tie"]
    assert refimpl(*arguments).exit_code == 1
    expected.write_text(f"{ties.cases[0].id}\n")
    assert refimpl(*arguments, "--xfail", str(expected)).exit_code == 0
    expected.write_text(f"{ties.cases[0].id}\n{ties.cases[1].id} # fixed long ago\n")
    outcome = refimpl(*arguments, "--xfail", str(expected))
    assert outcome.exit_code == 1
    assert "XPASS" in outcome.output


def test_conform_in_float32_may_be_undecided() -> None:
    assert refimpl("conform", "numpy", "--flag", "Deep", "--dtype", "float32").exit_code == 3


class Nothing:
    """Supports nothing."""

    name = "nothing"

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
        return "not today"

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        raise NotImplementedError


NOTHING = Nothing()


def test_a_program_without_the_two_dashes_is_told_so(tmp_path: Path) -> None:
    program = tmp_path / "prog"
    program.write_text("")
    assert f"refimpl conform -- {program}" in str(refimpl("conform", str(program)).exception)


def test_pairs_of_faults_are_looked_for_until_ten_cases_have_none() -> None:
    strange = report(Wrong(lambda loss, g: (loss, {k: v * 1.37 for k, v in g.items()})), Suite.of(load().cases[:25]))
    unknown = [result.findings[0] for result in strange.results if result.findings]
    assert not any(finding.known for finding in unknown)
    assert [finding.pairs for finding in unknown] == [True] * 10 + [False] * (len(unknown) - 10)
    assert len(unknown) > 20


def test_a_required_backend_that_is_absent_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    present = refimpl("conform", "numpy", "--flag", "Tie", "--require-backend", "numpy")
    assert present.exit_code == 0, present.output
    absent = refimpl("conform", "numpy", "--flag", "Tie", "--require-backend", "torch")
    assert absent.exit_code == 1
    assert "required backend torch did not run: was not asked for" in absent.output
    place = f"{__name__}:NOTHING"
    for name in (place, "nothing"):
        skipped = refimpl("conform", place, "--flag", "Tie", "--require-backend", name)
        assert skipped.exit_code == 1
        assert f"required backend {name} did not run: it supports no case that was asked for" in skipped.output
    right = backends.load

    def only_numpy(name: str) -> Any:
        if name == "numpy":
            return right(name)
        raise BackendError(f"backend {name!r} is not installed")

    monkeypatch.setattr(backends, "load", only_numpy)
    outcome = refimpl("conform", "--flag", "Tie", "--require-backend", "jax")
    assert outcome.exit_code == 1
    assert "torch: not run" in outcome.output
    assert "required backend jax did not run: backend 'jax' is not installed" in outcome.output
    assert refimpl("check", "--require-backend", "jax").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conform", "nobody"], "there is no backend 'nobody'"),
        (["conform", "json:dumps"], "without supports and gradient_function"),
        (["conform", "nowhere.at:all"], "cannot be loaded"),
        (["conform", "numpy", "--", "true"], "only one of them"),
        (["conform", "--"], "no program stands after --"),
        (["conform", "--flag", "Nonsense", "numpy"], "no case has the flag"),
        (["conform", "--vectors", "/nonexistent", "numpy"], "cannot read"),
        (["conform", "--junit", "/nonexistent/x.xml", "numpy"], "the folder of"),
        (["conform", "--xfail", "/nonexistent", "numpy"], "cannot read"),
        (["diagnose", "nobody's case", "x.json"], "there is no case"),
        (["diagnose", "basic identity squared_error", "/nonexistent"], "cannot read"),
        (["vectors", "list", "/nonexistent"], "cannot read"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], message: str) -> None:
    outcome = refimpl(*arguments)
    assert isinstance(outcome.exception, BackendError | ConformanceError)
    assert message in str(outcome.exception)
    assert len(str(outcome.exception).splitlines()) == 1


def test_diagnose_on_files(tmp_path: Path) -> None:
    wrong = next(w for w in SUITE.wrong if w.id.startswith("slope_dropped"))
    path = tmp_path / "answer.json"

    def write(**change: Any) -> None:
        tensors = {n: {"shape": list(g.shape), "data": g.ravel().tolist()} for n, g in wrong.grads.items()}
        path.write_text(json.dumps({"gradients": tensors, **change}))

    write(loss=wrong.loss)
    outcome = refimpl("diagnose", wrong.case, str(path))
    assert outcome.exit_code == 1
    assert "slope_dropped at layer" in outcome.output
    data = json.loads(refimpl("diagnose", wrong.case, str(path), "--json").stdout)
    assert data["findings"][0]["explanations"][0][0]["fault"] == "slope_dropped"
    write()
    assert "slope_dropped at layer" in refimpl("diagnose", wrong.case, str(path)).output
    write(gradients={"W1": 3})
    outcome = refimpl("diagnose", wrong.case, str(path))
    assert outcome.exit_code == 1
    assert "W" in outcome.output
    case = SUITE.by_id[wrong.case]
    loss, grads = NumpyBackend().gradient_function(case.spec, dtype="float64", device="cpu")(*case.data("float64"))
    right = {n: {"shape": list(g.shape), "data": g.ravel().tolist()} for n, g in grads.items()}
    write(gradients=right, loss=loss)
    outcome = refimpl("diagnose", wrong.case, str(path))
    assert (outcome.exit_code, outcome.output) == (0, "nothing is wrong\n")


def test_diagnose_on_a_case_in_a_file(tmp_path: Path) -> None:
    folder = refimpl("vectors", "path").output.strip()
    path = tmp_path / "answer.json"
    path.write_text('{"gradients": {}}')
    file = os.path.join(folder, "tie-1.json")
    outcome = refimpl("diagnose", f"{file}#tie sigmoid cross_entropy", str(path))
    assert outcome.exit_code == 1
    assert "is missing" in outcome.output
    assert isinstance(refimpl("diagnose", file, str(path)).exception, ConformanceError)


def test_the_cases_are_listed() -> None:
    lines = refimpl("vectors", "list").output.splitlines()
    assert len(lines) == len(SUITE.cases)
    assert all(int(line.split("\t")[2]) > 0 for line in lines)


def test_vectors_are_generated_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from refimpl.conformance import vectors

    by_name = dict(SUITE.by_id)
    monkeypatch.setattr(vectors, "admit_all", lambda drafts, processes: (by_name[draft.name] for draft in drafts))
    outcome = refimpl("vectors", "generate", str(tmp_path / "new"))
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.startswith(f"{len(SUITE.cases)} cases in")
    (tmp_path / "file").write_text("")
    assert isinstance(refimpl("vectors", "generate", str(tmp_path / "file")).exception, ConformanceError)


def test_two_processes_admit_the_same_cases_as_one() -> None:
    from refimpl.conformance.drafts import drafts
    from refimpl.conformance.vectors import _case_text, admit_all

    chosen = list(drafts())[:3]
    assert [_case_text(c) for c in admit_all(chosen, 2)] == [_case_text(c) for c in admit_all(chosen, 1)]


def test_whole_faults_are_at_layer_zero() -> None:
    assert WHOLE == 0
