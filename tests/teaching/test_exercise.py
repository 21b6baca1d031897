"""Exercises: the solution passes, every bug is found and named, and no learner's code breaks the marking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from refimpl.cli import app
from refimpl.formats.errors import DataError
from refimpl.judge.report import FAIL, PASS
from refimpl.teaching import exercise as exercises

SOLUTION = {
    "cost_gradient": "return dlosses_ds / len(dlosses_ds)",
    "output_error": "return dC_ds * slope",
    "hidden_error": "return (delta_next @ W) * slope",
    "weight_gradient": "return delta.T @ a",
    "bias_gradient": "return delta.sum(axis=0)",
}
# what each bug is called
NAMES = (
    "bias_gradient_averaged", "not_averaged", "slope_at_activation", "slope_dropped", "z_in_weight_gradient",
    "weight_updated_first",
)  # fmt: skip


def filled(text: str, **bodies: str) -> str:
    """The fill-in file with these bodies."""
    for function, body in bodies.items():
        head, _, rest = text.partition(f"def {function}(")
        text = f"{head}def {function}({rest.replace('raise NotImplementedError', body, 1)}"
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    exercises.new(tmp_path / "exercises")
    return tmp_path / "exercises"


@pytest.fixture(scope="module")
def few() -> Any:
    return exercises.chosen_cases()[:8]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["exercise", *arguments])


def test_the_cases_are_of_all_sorts() -> None:
    cases = exercises.chosen_cases()
    assert len(cases) == exercises.CASES
    assert {case.spec.depth for case in cases} >= {2, 3}
    assert any(len(case.x) > 1 for case in cases)
    assert {layer.activation.name for case in cases for layer in case.spec.layers} >= {"sigmoid", "tanh", "identity"}


def test_nothing_is_right_before_it_is_done(folder: Path) -> None:
    marked = run("check", str(folder), "--json")
    assert marked.exit_code == 1
    report = json.loads(marked.stdout)
    assert report["ok"] is False
    assert report["score"] == 0
    assert report["of"] == len(report["exercises"]) == 5 + 1 + 6
    assert {mark["verdict"] for mark in report["exercises"]} == {FAIL}
    assert [mark["message"] for mark in report["exercises"][:6]] == ["not filled in yet"] * 6
    for mark, name in zip(report["exercises"][6:], NAMES, strict=True):
        assert mark["message"].startswith(name), mark
        assert "Remedy: " in mark["message"]


def test_the_solution_passes_all(folder: Path) -> None:
    backward = folder / "backward.py"
    backward.write_text(filled(backward.read_text(), **SOLUTION))
    for number, (right, wrong) in enumerate(exercises.BUGS, start=1):
        path = folder / f"bug_{number}.py"
        assert path.read_text().count(wrong) == 1
        path.write_text(path.read_text().replace(wrong, right))
    marked = run("check", str(folder))
    assert marked.exit_code == 0, marked.stdout
    assert "12 of 12 right" in marked.stdout
    assert marked.stdout.count("24 of 24 cases") == 12


@pytest.mark.parametrize(
    ("function", "body", "message"),
    [
        ("weight_gradient", "return a.T @ delta", "weight_gradient_transposed"),
        ("bias_gradient", "return delta", "bias_gradient_not_summed"),
        ("bias_gradient", "return delta.mean(axis=0)", "bias_gradient_averaged"),
        ("hidden_error", "return delta_next @ W", "slope_dropped"),
        ("cost_gradient", "return dlosses_ds", "not_averaged"),
        ("cost_gradient", "return 2 * dlosses_ds / len(dlosses_ds)", "squared_error_without_half"),
        ("hidden_error", "return (delta_next @ W.T) * slope", "weight_not_transposed"),
        ("weight_gradient", "return None", "has shape ()"),
        ("weight_gradient", "return 1 / 0", "raises ZeroDivisionError"),
        ("weight_gradient", "import sys; sys.exit(0)", "raises SystemExit"),
        ("weight_gradient", "import os; os._exit(3)", "ended with exit code 3"),
        ("weight_gradient", "return 'hello'", "raises"),
        ("weight_gradient", "print('hello'); return delta.T @ a", ""),
        ("weight_gradient", "delta *= 0; return delta.T @ a", "cause unknown"),
    ],
)
def test_a_mistake_is_named_and_nothing_breaks(folder: Path, few: Any, function: str, body: str, message: str) -> None:
    path = folder / "backward.py"
    path.write_text(filled(path.read_text(), **{**SOLUTION, function: body}))
    marked = exercises.mark(function, path, function, few)
    assert marked.verdict == (PASS if message == "" else FAIL)
    assert message in marked.message


def test_a_mistake_in_one_function_is_no_other_s(folder: Path, few: Any) -> None:
    path = folder / "backward.py"
    path.write_text(filled(path.read_text(), **{**SOLUTION, "weight_gradient": "return 1 / 0"}))
    found = {function: exercises.mark(function, path, function, few).verdict for function in exercises.FUNCTIONS}
    assert found == {**dict.fromkeys(exercises.FUNCTIONS, PASS), "weight_gradient": FAIL}


def test_what_never_ends_is_ended(folder: Path, few: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercises, "SECONDS", 1.5)
    path = folder / "bug_1.py"
    path.write_text(path.read_text().replace("    gradients = {}", "    while True: pass\n    gradients = {}"))
    marked = exercises.mark("bug_1.py", path, "", few)
    assert (marked.verdict, marked.passed) == (FAIL, 0)
    assert "no answer in time" in marked.message


def test_a_file_that_is_no_python_is_said(folder: Path, few: Any) -> None:
    for text, message in (("def (", "raises SyntaxError"), ("", "raises AttributeError")):
        (folder / "bug_1.py").write_text(text)
        marked = exercises.mark("bug_1.py", folder / "bug_1.py", "", few)
        assert marked.verdict == FAIL
        assert message in marked.message


def test_work_is_never_overwritten(folder: Path) -> None:
    (folder / "backward.py").write_text("mine")
    for path in folder.glob("bug_*.py"):
        path.unlink()
    again = run("new", str(folder))
    assert isinstance(again.exception, DataError)
    assert (folder / "backward.py").read_text() == "mine"
    assert not list(folder.glob("bug_*.py"))


def test_a_wrong_folder_is_said(tmp_path: Path) -> None:
    for arguments in (["check", str(tmp_path)], ["check", str(tmp_path / "none")]):
        outcome = run(*arguments)
        assert isinstance(outcome.exception, DataError)
        assert "holds no exercises; refimpl exercise new" in str(outcome.exception)
    (tmp_path / "file").write_text("")
    refused = run("new", str(tmp_path / "file"))
    assert isinstance(refused.exception, DataError)
    assert "cannot write" in str(refused.exception)


def test_each_bug_changes_one_line_of_a_right_program(folder: Path) -> None:
    right = (exercises.TASKS / "bug.py.txt").read_text()
    for number, (line, wrong) in enumerate(exercises.BUGS, start=1):
        assert right.count(line) == 1
        assert (folder / f"bug_{number}.py").read_text() == right.replace(line, wrong)
    assert len(right.splitlines()) <= 45
