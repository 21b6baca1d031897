"""`refimpl check`: every backend held against the certified gradient of one network on one batch."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from refimpl.report import Report
    from refimpl.spec import NetworkSpec

ALL_PASS, WRONG, UNDECIDED = 0, 1, 3
MAX_VALUES = 10**8


class Dtype(StrEnum):
    """What the arithmetic is done in."""

    float64 = "float64"
    float32 = "float32"


class Example(StrEnum):
    """The networks that come with refimpl."""

    article = "article"
    digits = "digits"


def check(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC.json]", help="The network; without it, the example's.", show_default=False),
    ] = None,
    example: Annotated[
        Example | None,
        typer.Option(
            help="A network of refimpl's own: the article's 4-2-2-1 (default), or 64-32-16-10 on handwritten digits.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", metavar="NAME", help="A backend to check; may be given again. Default: all installed."
        ),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="The arithmetic.")] = Dtype.float64,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="How many samples. Default: 8 random ones; for the digits, all 1,797.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial values and of random data.")] = 0,
    inputs: Annotated[bool, typer.Option("--inputs", help="Also the gradient of x.")] = False,
    intermediates: Annotated[bool, typer.Option("--intermediates", help="Also z, a and delta of every layer.")] = False,
    require_backend: Annotated[
        list[str] | None,
        typer.Option(
            "--require-backend", metavar="NAME", help="Fail if this backend does not run; may be given again."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Hold every backend's gradients against the certified ones.

    Prints, for the loss and for every W and b of every backend: the verdict; the largest error as a fraction of the
    tolerance and in ulps (units in the last place); and where that element is, counted from 1.
    """
    from refimpl import agreement
    from refimpl.errors import DataError

    if spec is not None and example is not None:
        raise DataError(f"--example {example.value} and {spec}: give a network file or an example, not both")
    network, x, y = problem(spec, example, batch, seed, dtype.value)
    params = network.init(seed=seed, dtype=dtype.value)
    report = agreement.check(network, params, x, y, backend, device=device, inputs=inputs, intermediates=intermediates)
    _show(report, as_json)
    ran = {*(row.backend for row in report.rows), *(backend or [])}  # one that was asked for ran, or it is an error
    absent = [name for name in require_backend or [] if name not in ran]
    for name in absent:
        typer.echo(
            f"required backend {name} did not run: {report.unavailable.get(name, 'was not asked for')}", err=True
        )
    wrong = bool(report.failures or absent)
    raise typer.Exit(WRONG if wrong else ALL_PASS if report.ok else UNDECIDED)


def problem(
    path: Path | None, example: Example | None, batch: int | None, seed: int, dtype: str
) -> tuple[NetworkSpec, Any, Any]:
    """The network that was asked for, with x and y: random ones, or the digits. Raises DataError, SpecError."""
    import numpy as np

    from refimpl import examples
    from refimpl.errors import DataError
    from refimpl.sampling import random_batch
    from refimpl.spec import NetworkSpec

    if path is None and example is Example.digits:
        x, y = examples.digits_data(dtype)
        if batch is not None and batch > len(x):
            raise DataError(f"--batch {batch}: there are {len(x)} digits; ask for fewer")
        return examples.digits(), x[:batch], y[:batch]
    network = examples.article() if path is None else NetworkSpec.load(path)
    if batch is not None and batch * sum(network.sizes) > MAX_VALUES:
        raise DataError(f"--batch {batch}: the network's activations would take more than {MAX_VALUES:,} numbers")
    x, y = random_batch(network, np.random.default_rng(seed), 8 if batch is None else batch, dtype)
    return network, x, y


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    # a table cut to fit a narrow terminal would hide figures; a pipe has no width at all
    width = max(console.width, 120) if console.is_terminal else 160
    Console(width=width).print(report)
