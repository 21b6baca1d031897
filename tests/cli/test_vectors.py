"""`refimpl vectors`: the vector files, listed, found and made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from refimpl.cli import app
from refimpl.conformance import generate
from refimpl.conformance.vectors import FOLDER, load
from refimpl.formats.errors import ConformanceError

SUITE = load()


def vectors(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["vectors", *map(str, arguments)])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases are not made anew."""
    monkeypatch.setattr(generate, "admit_all", lambda drafts, processes: (SUITE.by_id[d.name] for d in drafts))


def test_the_cases_are_listed_with_the_faults_that_they_kill() -> None:
    lines = [line.split("\t") for line in vectors("list").output.splitlines()]
    assert [name for name, _, _ in lines] == [case.id for case in SUITE.cases]
    assert all(int(kills) > 0 for _, _, kills in lines)
    assert "cannot read /nonexistent" in str(vectors("list", "/nonexistent").exception)


def test_their_folder_is_told() -> None:
    assert vectors("path").output == f"{FOLDER}\n"


@pytest.mark.usefixtures("made")
def test_an_earlier_suite_is_replaced_and_other_files_are_left(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "new", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("not to be touched")
    (folder / "old-1.json").write_text(f'{{"format": "{generate.FORMAT}",\n"cases": []}}')
    (folder / "mine.json").write_text('{"mine": 1}')
    (folder / "tie-1.json").symlink_to(elsewhere)
    outcome = vectors("generate", folder)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.startswith(f"{len(SUITE.cases)} cases in")
    assert {path.name for path in folder.iterdir()} == {path.name for path in FOLDER.glob("*.json")} | {"mine.json"}
    assert (folder / "tie-1.json").read_bytes() == (FOLDER / "tie-1.json").read_bytes()
    assert elsewhere.read_text() == "not to be touched"


def test_where_it_cannot_write_it_says_so_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("made")

    monkeypatch.setattr(generate, "admit_all", refuse)
    file = tmp_path / "file"
    file.write_text("")
    outcome = vectors("generate", file)
    assert isinstance(outcome.exception, ConformanceError)
    assert f"cannot write to {file}" in str(outcome.exception)
