"""`refimpl vectors`: the vector files, made, checked and found."""

from __future__ import annotations

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

    chosen = list(drafts())
    admitted = files.admit_all(chosen, processes)
    cases = list(progress(admitted, len(chosen), "cases"))
    written = list(files.files(cases))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in written:
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConformanceError(f"cannot write to {folder}: {error.strerror}; name another folder") from None
    size = sum(len(text.encode()) for _, text in written)
    typer.echo(f"{len(cases)} cases in {len(written)} files, {size / 1e6:.1f} MB, in {folder}")


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
