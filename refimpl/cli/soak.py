"""`refimpl soak`: thousands of random networks through every backend, to find a false alarm or a wrong gradient."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from refimpl.cli.check import ALL_PASS, WRONG, Dtype

if TYPE_CHECKING:
    from refimpl.soak import Outcome

T = TypeVar("T")


def soak(
    count: Annotated[int, typer.Option(min=1, help="How many random networks.")] = 1000,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="A backend to run; may be given again. Default: all installed."),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="The arithmetic.")] = Dtype.float64,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the stream of networks.")] = 0,
    first: Annotated[int, typer.Option(min=0, help="The first network's number: with --count 1, replays one.")] = 0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many processes. Default: one a core.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Check random networks of every shape, activation, loss and scale, and sum up the verdicts per backend."""
    from refimpl import backend as backends
    from refimpl.cores import cores
    from refimpl.errors import BackendError
    from refimpl.sampling import DRAWS, random_problem
    from refimpl.soak import Tally, run, table

    names = backend or sorted(backends.available())
    network = random_problem(seed, first, dtype.value).spec
    for name in names:
        reason = backends.supported(backends.load(name), network, dtype.value, device)
        if reason is not True:
            raise BackendError(f"backend {name!r} does not support this: {reason}")
    tally = Tally()
    workers = min(processes or cores(), 1 + count // DRAWS)
    for outcome in _with_progress(run(count, names, dtype.value, device, seed, first, workers), count, quiet=as_json):
        tally.add(outcome)
    if as_json:
        typer.echo(json.dumps(tally.to_dict(), indent=1))
    else:
        from rich.console import Console

        Console(width=160).print(table(tally, count, dtype.value, seed))
    raise typer.Exit(WRONG if tally.failures else ALL_PASS)


def _with_progress(outcomes: Iterable[Outcome], count: int, quiet: bool) -> Iterable[Outcome]:
    return outcomes if quiet else progress(outcomes, count, "networks")


def progress(items: Iterable[T], count: int, what: str) -> Iterator[T]:
    """The items, with a bar on stderr that shows how many have come."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=count)
        for item in items:
            bar.advance(task)
            yield item
