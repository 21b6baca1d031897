"""`refimpl lesson`: a network's forward and backward pass as a page to step through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.requested import Dtype, Seed, SpecFile, problem
from refimpl.formats.errors import DataError


def lesson(
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    spec: SpecFile = None,
    batch: Annotated[int, typer.Option(min=1, max=16, help="How many random samples.")] = 1,
    seed: Seed = 0,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="ε, to begin with.")] = 0.5,
) -> None:
    """Write a page to step through a pass, change it and break it.

    One HTML file that needs nothing else: click a weight, change a number, take steps of gradient descent, plant a
    mistake.
    """
    from refimpl.formats import files

    try:
        from refimpl.teaching.lesson import lesson as made

        page = made(*problem(spec, None, batch, seed, Dtype.float64), learning_rate=learning_rate)
    except ImportError as error:
        raise DataError(f"{error.name} is not installed; pip install 'refimpl[teach]'") from None
    files.write(out, page.encode(), DataError)
    typer.echo(f"{out} written, {len(page.encode()):,} bytes: open it in a browser")
