"""`refimpl vectors`: the vector files, made, listed and found."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.requested import Processes
from refimpl.cli.terminal import progress
from refimpl.formats.errors import ConformanceError

vectors = typer.Typer(no_args_is_help=True, help="The conformance suite's vector files.")


@vectors.command()
def generate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write them; made if it is not there.")],
    processes: Processes = None,
) -> None:
    """Draw, certify and write every case anew.

    Byte for byte the files that come with refimpl.
    """
    from refimpl.conformance import generate as made
    from refimpl.conformance.drafts import drafts
    from refimpl.formats.files import make_folder

    make_folder(folder, ConformanceError)
    chosen = list(drafts())
    cases = list(progress(made.admit_all(chosen, processes), len(chosen), "cases"))
    written = list(made.files(cases))
    _write(folder, written)
    size = sum(len(text.encode()) for _, text in written)
    typer.echo(f"{len(cases)} cases in {len(written)} files, {size / 1e6:.1f} MB, in {folder}")


def _write(folder: Path, written: Sequence[tuple[str, str]]) -> None:
    """All files, made in a folder of their own and then moved; an earlier suite's are removed. Raises
    ConformanceError.
    """
    from refimpl.conformance.generate import FORMAT

    names = {name for name, _ in written}
    head = f'{{"format": "{FORMAT}"'.encode()
    try:
        with tempfile.TemporaryDirectory(prefix=".vectors-", dir=folder) as made:
            for name, text in written:
                (Path(made) / name).write_text(text, encoding="utf-8", newline="\n")
            for name in names:
                os.replace(Path(made) / name, folder / name)
        for other in folder.glob("*.json"):
            if other.name not in names and other.is_file() and other.read_bytes().startswith(head):
                other.unlink()
    except OSError as error:
        raise ConformanceError(f"cannot write to {folder}: {error.strerror}; name another folder") from None


@vectors.command()
def path() -> None:
    """Print the folder of the vector files that come with refimpl."""
    from refimpl.conformance.vectors import FOLDER

    typer.echo(FOLDER)


@vectors.command(name="list")
def list_cases(
    folder: Annotated[Path | None, typer.Argument(metavar="[FOLDER]", show_default=False)] = None,
) -> None:
    """Print every case: name, flags, how many faults it kills.

    A fault counts once for every layer that it was planted at.
    """
    from refimpl.conformance.vectors import load

    for case in load(folder).cases:
        typer.echo(f"{case.id}\t{','.join(case.flags)}\t{len(case.kills)}")
