"""`refimpl vectors`: the vector files, made, checked and found."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from refimpl.errors import ConformanceError

vectors = typer.Typer(no_args_is_help=True, help="The conformance suite's vector files.")


@vectors.command()
def generate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write them; made if it is not there.")],
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many processes. Default: one a core.", show_default=False)
    ] = None,
) -> None:
    """Draw, certify and write every case anew: byte for byte the files that come with refimpl."""
    from refimpl.cli.soak import progress
    from refimpl.conformance import vectors as files
    from refimpl.conformance.cases import drafts

    _check_target(folder)
    chosen = list(drafts())
    admitted = files.admit_all(chosen, processes)
    cases = list(progress(admitted, len(chosen), "cases"))
    written = list(files.files(cases))
    _write(folder, written)
    size = sum(len(text.encode()) for _, text in written)
    typer.echo(f"{len(cases)} cases in {len(written)} files, {size / 1e6:.1f} MB, in {folder}")


def _check_target(folder: Path) -> None:
    """Make the folder before the work is done. Raises ConformanceError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a name that a folder can have"
        raise ConformanceError(f"cannot write to {folder}: {reason}; name another folder") from None


def _write(folder: Path, written: Sequence[tuple[str, str]]) -> None:
    """All files, made in a folder of their own and then moved; an earlier suite's are removed. Raises
    ConformanceError.
    """
    from refimpl.conformance.vectors import FORMAT

    names = {name for name, _ in written}
    head = f'{{"format": "{FORMAT}"'.encode()
    try:
        with tempfile.TemporaryDirectory(prefix=".vectors-", dir=folder) as made:
            for name, text in written:
                (Path(made) / name).write_text(text, encoding="utf-8", newline="\n")
            for name, _ in written:
                os.replace(Path(made) / name, folder / name)
        for other in folder.glob("*.json"):
            if other.name not in names and other.is_file() and _begins(other, head):
                other.unlink()
    except OSError as error:
        raise ConformanceError(f"cannot write to {folder}: {error.strerror}; name another folder") from None


def _begins(path: Path, head: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(head)) == head


@vectors.command()
def path() -> None:
    """Print the folder of the vector files that come with refimpl."""
    from refimpl.conformance.vectors import FOLDER

    typer.echo(FOLDER)


@vectors.command(name="list")
def list_cases(
    folder: Annotated[Path | None, typer.Argument(metavar="[FOLDER]", show_default=False)] = None,
) -> None:
    """Print every case: its name, its flags, and how many plantings of faults it kills."""
    from refimpl.conformance.vectors import load

    for case in load(folder).cases:
        typer.echo(f"{case.id}\t{','.join(case.flags)}\t{len(case.kills)}")
