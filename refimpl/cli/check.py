"""`refimpl check`: every backend held against the certified gradient of one network on one batch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from refimpl.cli.requested import (
    Arithmetic,
    AsJson,
    Backends,
    Device,
    Dtype,
    ExampleName,
    Required,
    Seed,
    SpecFile,
    problem,
)  # fmt: skip
from refimpl.cli.terminal import ALL_PASS, UNDECIDED, WRONG, console, print_json


class Bound(StrEnum):
    """By what is judged."""

    both = "both"
    first_order = "first-order"
    worst_case = "worst-case"


def check(
    spec: SpecFile = None,
    example: ExampleName = None,
    backend: Backends = None,
    dtype: Arithmetic = Dtype.float64,
    device: Device = "cpu",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="How many samples. Default: 8 random ones; for the digits, all 1,797.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    inputs: Annotated[bool, typer.Option("--inputs", help="Also the gradient of x.")] = False,
    intermediates: Annotated[bool, typer.Option("--intermediates", help="Also z, a and delta of every layer.")] = False,
    bound: Annotated[
        Bound,
        typer.Option(
            help="Judge by the worst case, a theorem, and the statistical bound; or in place of that by a wider one "
            "that assumes nothing about roundings; or by the theorem alone."
        ),
    ] = Bound.both,
    require_backend: Required = None,
    as_json: AsJson = False,
) -> None:
    """Hold every backend's gradients against the certified ones.

    Prints, for the loss and for every W and b of every backend: the verdict; the largest error as a fraction of the
    tolerance and in ulps (units in the last place); where that element is, counted from 1; and the smallest change of
    the array's largest element that would have been noticed.
    """
    from refimpl.checking import check as held

    network, params, x, y = problem(spec, example, batch, seed, dtype)
    report = held(
        network, params, x, y, backend, device=device, inputs=inputs, intermediates=intermediates, bound=bound.value
    )
    if as_json:
        print_json(report.to_dict())
    else:
        console().print(report)
    ran = {*(row.backend for row in report.rows), *(backend or [])}  # one that was asked for ran, or it is an error
    absent = [name for name in require_backend or [] if name not in ran]
    for name in absent:
        typer.echo(
            f"required backend {name} did not run: {report.unavailable.get(name, 'was not asked for')}", err=True
        )
    wrong = bool(report.failures or absent)
    raise typer.Exit(WRONG if wrong else ALL_PASS if report.ok else UNDECIDED)
