"""`refimpl conform`: what may be asked, of whom, and with which exit code it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from refimpl import backend as backends
from refimpl.cli import app
from refimpl.conformance import vectors
from refimpl.conformance.doors.program import say
from refimpl.conformance.vectors import Suite, load
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import BackendError, ConformanceError, SpecError
from refimpl_numpy import NumpyBackend

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, str(ROOT / "docs" / "adapters" / "backprop.py")]
SUITE = load()
TIES = Suite.of([case for case in SUITE.cases if "Tie" in case.flags])


@pytest.fixture(autouse=True)
def _suite_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "load", lambda folder: SUITE if folder is None else load(folder))


def conform(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["conform", *arguments])


class Nothing:
    """Supports nothing."""

    name = "nothing"

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
        return "not today"

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        raise NotImplementedError


NOTHING = Nothing()


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """A file of answers in float32 to all cases with the flag Tie but the first, and to one without it."""
    other = next(case for case in SUITE.cases if "Tie" not in case.flags)
    lines = [say({"format": "refimpl.answers/1", "name": "mine", "dtype": "float32"})]
    for case in (*TIES.cases[1:], other):
        run = NumpyBackend().gradient_function(case.spec, dtype="float32", device="cpu")
        loss, grads = run(*case.data("float32"))
        gradients = {name: tensor(grad) for name, grad in grads.items()}
        lines.append(say({"case": case.id, "loss": float(loss), "gradients": gradients}))
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def test_a_backend_by_name() -> None:
    outcome = conform("numpy", "--flag", "Exact")
    assert outcome.exit_code == 0, outcome.output
    assert (
        "refimpl float64 | numpy conforms: 24 of 24, 16 with hidden layers, 2 activations, 2 losses" in outcome.output
    )


def test_a_backend_by_place_as_json() -> None:
    outcome = conform("refimpl_peers.hips_autograd:AutogradBackend", "--flag", "Tie", "--json")
    assert outcome.exit_code == 0, outcome.output
    (report,) = json.loads(outcome.stdout)["reports"]
    assert report["implementation"] == "autograd"
    assert "refimpl_peers" in report["description"]


def test_a_program_and_two_backends_with_junit(tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    outcome = conform("--flag", "Basic", "--flag", "Tie", "--junit", str(path), "--", *PROGRAM)
    assert outcome.exit_code == 0, outcome.output
    assert "conforms" in outcome.output
    assert int(ElementTree.parse(path).getroot()[0].get("tests", "0")) > 100
    assert conform("numpy", "torch", "--flag", "Tie", "--junit", str(path)).exit_code == 0
    assert [suite.get("tests") for suite in ElementTree.parse(path).getroot()] == ["9", "9"]
    assert [item.name for item in tmp_path.iterdir()] == ["out.xml"]


def test_a_wrong_gradient_is_exit_code_1() -> None:
    outcome = conform("planted:TIMES_TWO", "--flag", "Tie")
    assert outcome.exit_code == 1
    assert "times two fails: 0 of 9, 9 FAIL, 9 with hidden layers, 5 activations, 3 losses" in outcome.output


def test_what_cannot_be_decided_is_exit_code_3() -> None:
    assert conform("numpy", "--flag", "HugeLogit", "--dtype", "float32").exit_code == 3


OWN = {
    "format": "refimpl.network/1", "input_shape": [3], "loss": "squared_error",
    "layers": [{"size": 4, "activation": "sigmoid"}, {"size": 2, "activation": "identity"}],
}  # fmt: skip


def test_ones_own_network_is_drawn_for_a_backend_and_for_a_program(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps(OWN))
    for who in (["numpy"], ["--", *PROGRAM]):
        outcome = conform("--network", str(path), "--seed", "3", *who)
        assert outcome.exit_code == 0, outcome.output
        assert "conforms: 20 of 20, 20 with hidden layers, 2 activations, 1 loss" in outcome.output
    wrong = conform("planted:TIMES_TWO", "--network", str(path), "--seed", "3", "--json")
    assert wrong.exit_code == 1
    (report,) = json.loads(wrong.stdout)["reports"]
    assert [case["id"] for case in report["cases"]] == [f"drawn {n} of seed 3" for n in range(1, 21)]


def test_below_20_cases_or_without_a_hidden_layer_there_is_too_little_to_say(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps({**OWN, "layers": OWN["layers"][1:]}))
    outcome = conform("numpy", "--network", str(path))
    assert outcome.exit_code == 3
    assert "numpy too little to say: " in outcome.output
    assert "none with hidden layers" in outcome.output
    few = conform("numpy", "--flag", "Tie")
    assert few.exit_code == 0  # so few were asked for
    assert "numpy too little to say: 9 of 9, 9 with hidden layers" in few.output


def test_why_none_was_drawn_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps({**OWN, "loss": "huber"}))
    outcome = conform("--network", str(path), "--", *PROGRAM)
    assert outcome.exit_code == 1
    assert "no more cases could be drawn: has no loss huber" in outcome.output


def test_nothing_judged_is_exit_code_1() -> None:
    assert conform(f"{__name__}:NOTHING", "--flag", "Tie").exit_code == 1


def test_a_file_of_answers_with_expected_failures(answers: Path, tmp_path: Path) -> None:
    arguments, expected = ("--answers", str(answers), "--flag", "Tie"), tmp_path / "xfail"
    first, second = TIES.cases[:2]
    outcome = conform(*arguments)
    assert outcome.exit_code == 1
    assert f"refimpl float32 | mine fails: {len(TIES.cases) - 1} of {len(TIES.cases)}, 1 FAIL" in outcome.output
    expected.write_text(
        f"{first.id}\n{next(case for case in SUITE.cases if case not in TIES.cases).id} # another flag\n"
    )
    assert conform(*arguments, "--xfail", str(expected)).exit_code == 0
    expected.write_text(f"{first.id}\n{second.id} # mended long ago\n")
    outcome = conform(*arguments, "--xfail", str(expected))
    assert outcome.exit_code == 1
    assert "1 XPASS" in outcome.output


def test_answers_in_another_dtype_than_was_asked_for_are_refused(answers: Path) -> None:
    outcome = conform("--answers", str(answers), "--dtype", "float64")
    assert isinstance(outcome.exception, ConformanceError)
    assert "ask with --dtype float32" in str(outcome.exception)


def test_a_required_backend_that_did_not_run_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert conform("numpy", "--flag", "Tie", "--require-backend", "numpy").exit_code == 0
    absent = conform("numpy", "--flag", "Tie", "--require-backend", "torch", "--require-backend", "[/]")
    assert absent.exit_code == 1
    for name in ("torch", "[/]"):
        assert f"required backend {name} did not run: was not asked for" in absent.output
    for name in (f"{__name__}:NOTHING", "nothing"):
        skipped = conform(f"{__name__}:NOTHING", "--flag", "Tie", "--require-backend", name)
        assert skipped.exit_code == 1
        assert f"required backend {name} did not run: it supports no case that was asked for" in skipped.output
    right = backends.load

    def only_numpy(name: str) -> Any:
        if name == "numpy":
            return right(name)
        raise BackendError(f"backend {name!r} is not installed")

    monkeypatch.setattr(backends, "load", only_numpy)
    outcome = conform("--flag", "Tie", "--require-backend", "jax")
    assert outcome.exit_code == 1
    assert "torch: not run" in outcome.output
    assert "required backend jax did not run: backend 'jax' is not installed" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "there is no backend 'nobody'"),
        (["json:dumps"], "without supports and gradient_function"),
        (["nowhere.at:all"], "cannot be loaded"),
        ([__file__], f"refimpl conform -- {__file__}"),
        (["numpy", "--", "true"], "only one of them"),
        (["--"], "no program stands after --"),
        (["--", "/"], "it is a folder"),
        (["numpy", "--flag", "Nonsense"], "no case has the flag 'Nonsense'; known are"),
        (["numpy", "--vectors", "/nonexistent"], "cannot read /nonexistent"),
        (["numpy", "--xfail", "/nonexistent"], "cannot read /nonexistent"),
        (["numpy", "--junit", "/nonexistent/x.xml"], "the folder of /nonexistent/x.xml does not exist"),
        (["numpy", "--junit", "."], "--junit: . is a folder"),
        (["--answers", "x", "--device", "cpu"], "--device has no effect with --answers"),
        (["--answers", "x", "--timeout", "3"], "--timeout has no effect with --answers"),
        (["--device", "cpu", "--", "true"], "--device has no effect with a program"),
        (["numpy", "--timeout", "3"], "--timeout has no effect with backends"),
        (["--answers", "x", "--seed", "3"], "--seed has no effect with --answers"),
        (["numpy", "--flag", "Tie", "--network", "x"], "--flag has no effect with --network"),
        (["--answers", "x", "--network", "x"], "--answers has no effect with --network"),
        (["numpy", "--network", "/nonexistent"], "cannot read /nonexistent"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], words: str) -> None:
    outcome = conform(*arguments)
    assert isinstance(outcome.exception, BackendError | ConformanceError | SpecError), outcome.output
    assert words in str(outcome.exception)
    assert len(str(outcome.exception).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["--timeout", "inf"], ["--timeout", "0"], ["--dtype", "float16"], ["--processes", "0"]], ids=" ".join
)
def test_an_option_out_of_range_is_exit_code_2(arguments: list[str]) -> None:
    outcome = conform(*arguments, "--", "true")
    assert outcome.exit_code == 2
    assert arguments[0] in outcome.output
