"""`refimpl diagnose`: what is wrong with one answer to one case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from refimpl.cli import app
from refimpl.conformance.vectors import FOLDER, load
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import ConformanceError
from refimpl_numpy import NumpyBackend

SUITE = load()
WRONG = next(w for w in SUITE.wrong if w.id.startswith("slope_dropped"))
CASE = SUITE.by_id[WRONG.case]


def diagnose(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)])


def right() -> tuple[float, dict[str, Any]]:
    loss, grads = NumpyBackend().gradient_function(CASE.spec, dtype="float64", device="cpu")(*CASE.data("float64"))
    return float(loss), {name: tensor(grad) for name, grad in grads.items()}


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    """The wrong answer with its loss."""
    path = tmp_path / "answer.json"
    gradients = {name: tensor(np.asarray(grad)) for name, grad in WRONG.grads.items()}
    path.write_text(json.dumps({"loss": WRONG.loss, "gradients": gradients}))
    return path


def test_a_fault_is_named_with_its_layer_and_exit_code_1(answer: Path) -> None:
    outcome = diagnose(CASE.id, answer)
    assert outcome.exit_code == 1
    assert "slope_dropped at layer" in outcome.output
    data = json.loads(diagnose(CASE.id, answer, "--json").stdout)
    assert (data["case"], data["ok"]) == (CASE.id, False)
    assert data["findings"][0]["explanations"][0][0]["fault"] == "slope_dropped"


def test_the_loss_may_be_left_out(answer: Path) -> None:
    answer.write_text(json.dumps({"gradients": json.loads(answer.read_text())["gradients"]}))
    assert "slope_dropped at layer" in diagnose(CASE.id, answer).output


def test_a_right_answer_is_exit_code_0(answer: Path) -> None:
    loss, gradients = right()
    answer.write_text(json.dumps({"loss": loss, "gradients": gradients}))
    outcome = diagnose(CASE.id, answer)
    assert (outcome.exit_code, outcome.output) == (0, "nothing is wrong\n")


def test_a_malformed_array_is_told_as_it_is_and_once(answer: Path) -> None:
    _, gradients = right()
    malformed = {**gradients["W1"], "data": ["0.5"] * len(gradients["W1"]["data"])}
    answer.write_text(json.dumps({"gradients": {**gradients, "W1": malformed}}))
    outcome = diagnose(CASE.id, answer)
    assert outcome.exit_code == 1
    (line,) = outcome.output.splitlines()
    assert line.startswith("W1 is no array")
    assert "'0.5'" in line


def test_a_case_may_lie_in_a_file(answer: Path) -> None:
    answer.write_text('{"gradients": {}}')
    file = FOLDER / "tie-1.json"
    outcome = diagnose(f"{file}#tie sigmoid cross_entropy", answer)
    assert outcome.exit_code == 1
    assert "is missing" in outcome.output
    many = diagnose(file, answer)
    assert "name one" in str(many.exception)


@pytest.mark.parametrize(
    ("case", "text", "words"),
    [
        ("nobody's case", '{"gradients": {}}', 'there is no case "nobody\'s case"'),
        ("", '{"gradients": {}}', "there is no case ''"),
        (CASE.id, "{", "answer.json: not JSON"),
        (CASE.id, '{"gradient": {}, "gradients": {}}', "unknown key 'gradient'"),
        (CASE.id, '{"case": "another", "gradients": {}}', "it answers the case 'another'"),
        (CASE.id, "{}", "lacks the key 'gradients'"),
    ],
)
def test_a_wrong_request_is_one_line(case: str, text: str, words: str, answer: Path) -> None:
    answer.write_text(text)
    outcome = diagnose(case, answer)
    assert isinstance(outcome.exception, ConformanceError), outcome.output
    assert words in str(outcome.exception)
    assert len(str(outcome.exception).splitlines()) == 1


def test_an_answer_that_is_not_there_is_a_wrong_request() -> None:
    assert "cannot read /nonexistent" in str(diagnose(CASE.id, "/nonexistent").exception)
