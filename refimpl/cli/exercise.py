"""`refimpl exercise`: a backward pass to fill in and bugs to find, and their marking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.requested import folder as named
from refimpl.cli.terminal import ALL_PASS, WRONG, print_json

exercise = typer.Typer(no_args_is_help=True, help="A backward pass to fill in, bugs to find, and their marking.")
Folder = Annotated[Path, typer.Argument(metavar="DIR", parser=named, help="The folder.")]


@exercise.command()
def new(folder: Folder) -> None:
    """Write the exercises into a folder."""
    from refimpl.teaching import exercise as exercises

    for path in exercises.new(folder):
        typer.echo(f"{path} written")
    typer.echo(f"refimpl exercise check {folder} marks them")


@exercise.command()
def check(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the marks as JSON, for an autograder.")] = False,
) -> None:
    """Mark the exercises.

    What is right, what is wrong, and which mistake it is. Exit code 0 if all are right, 1 if not.
    """
    from refimpl.judge.report import PASS
    from refimpl.teaching import exercise as exercises

    marked = []
    for mark in exercises.check(folder):
        marked.append(mark)
        if not as_json:
            typer.echo(f"{mark.verdict:4}  {mark.exercise:32} {mark.passed} of {mark.cases} cases")
            if mark.message:
                typer.echo(f"      {mark.message}")
    right = sum(mark.verdict == PASS for mark in marked)
    if as_json:
        report = {
            "format": exercises.FORMAT, "ok": right == len(marked), "score": right, "of": len(marked),
            "exercises": [mark.to_dict() for mark in marked],
        }  # fmt: skip
        print_json(report)
    else:
        typer.echo(f"{right} of {len(marked)} right")
    raise typer.Exit(ALL_PASS if right == len(marked) else WRONG)
