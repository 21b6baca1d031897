"""`--version` and `--help`: whole sentences that fit into 80 columns."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import refimpl
from refimpl.cli import app

PROGRAM = typer.main.get_command(app)


def paths(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The program, its commands and theirs."""
    below = getattr(command, "commands", {})
    return [path, *(found for name, each in below.items() for found in paths(each, (*path, name)))]


def shown(*arguments: str) -> str:
    outcome = CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "TERM": "dumb"})
    assert outcome.exit_code == 0
    return outcome.output


def test_the_version_is_told() -> None:
    assert shown("--version") == f"refimpl {refimpl.__version__}\n"


@pytest.mark.parametrize("path", paths(PROGRAM), ids=" ".join)
def test_help_is_whole_and_fits_into_80_columns(path: tuple[str, ...]) -> None:
    text = shown(*path, "-h")
    assert shown(*path, "--help") == text
    assert " ".join(("Usage: refimpl", *path)) in text
    assert max(map(len, text.splitlines())) <= 80
    assert not [line for line in text.partition("\n\n")[2].splitlines() if line.endswith(("...", "…"))]
