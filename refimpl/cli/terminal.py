"""What commands print: exit codes, a console that is wide enough, a progress bar."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

ALL_PASS, WRONG, UNDECIDED, INTERRUPTED = 0, 1, 3, 130
WIDE = 100  # columns that a table of a benchmark takes
LONG = 10_000  # columns of what is no terminal, where a line is for programs to search

T = TypeVar("T")


def main_process() -> bool:
    """Whether this process prints and writes: all do but the further ones of a run of several processes that torchrun
    or `jax.distributed`'s environment has begun.
    """
    for rank, size in (("RANK", "WORLD_SIZE"), ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES")):
        if os.environ.get(size, "1") != "1" and os.environ.get(rank, "0") != "0":
            return False
    return True


def console() -> Console:
    """Standard output. What is no terminal has no width."""
    from rich.console import Console

    found = Console()
    if not sys.stdout.isatty():  # though colours may be forced
        return Console(width=LONG)
    # of the terminal itself: rich takes one that knows no colours for 80 columns wide
    asked = os.environ.get("COLUMNS", "")
    columns = int(asked) if asked.isdigit() else os.get_terminal_size(sys.stdout.fileno()).columns
    return Console(width=columns or found.width, height=found.height)


def print_markdown(text: str) -> None:
    """Rendered; as it is where that has no place: on a narrow terminal, and on what is none."""
    from rich.markdown import Markdown
    from rich.text import Text

    if not sys.stdout.isatty():
        typer.echo(text)
        return
    shown = console()
    shown.print(Markdown(text) if shown.width >= WIDE else Text(text))


def print_json(data: Any) -> None:
    """As JSON, to be read by people too."""
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


def progress_bar(*columns: ProgressColumn, quiet: bool) -> Progress:
    """A bar on stderr that goes when it is done; none where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet or not sys.stderr.isatty())


def progress(items: Iterable[T], count: int, what: str, quiet: bool = False) -> Iterator[T]:
    """The items, with a bar that shows how many have come."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with progress_bar(*columns, quiet=quiet) as bar:
        yield from bar.track(items, total=count, description=what)
