"""`refimpl lesson`: a network's forward and backward pass as a page to step through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.check import Dtype
from refimpl.cli.explain import Seed, requested


def lesson(
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC.json]", help="A small network. Default: the article's.", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=16, help="How many random samples.")] = 1,
    seed: Seed = 0,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="ε, to begin with.")] = 0.5,
) -> None:
    """Write one HTML file that needs nothing else: step through the pass, click a weight, change a number, take steps
    of gradient descent, plant a mistake.
    """
    from refimpl.errors import DataError
    from refimpl.files import write_whole

    try:
        from refimpl.teaching.lesson import lesson as made

        page = made(*requested(spec, None, batch, seed, Dtype.float64), learning_rate=learning_rate)
    except ImportError as error:
        raise DataError(f"{error.name} is not installed; pip install 'refimpl[teach]'") from None
    try:
        write_whole(out, page.encode())
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}; name a file in a folder that is there") from None
    typer.echo(f"{out} written, {len(page.encode()):,} bytes: open it in a browser")
