"""`refimpl trace` and `refimpl explain`: what happens in a pass, and where a number comes from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.requested import (
    Arithmetic,
    AsJson,
    Backends,
    Dtype,
    ExampleName,
    Samples,
    Seed,
    SpecFile,
    problem,
)  # fmt: skip
from refimpl.cli.terminal import ALL_PASS, WRONG, print_json
from refimpl.formats.errors import DataError


class Format(StrEnum):
    """What an explanation is written as."""

    text = "text"
    latex = "latex"
    html = "html"
    json = "json"


def trace(
    spec: SpecFile = None,
    example: ExampleName = None,
    batch: Samples = 1,
    seed: Seed = 0,
    dtype: Arithmetic = Dtype.float64,
    as_json: AsJson = False,
) -> None:
    """Print every step of a forward and a backward pass.

    For each: the equation, the code line, the values. With --json as refimpl.trace/1.
    """
    from refimpl.teaching.record import trace as recorded

    found = recorded(*problem(spec, example, batch, seed, dtype))
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(str(found))


def explain(
    given: Annotated[
        list[str],
        typer.Argument(metavar="[SPEC.json] QUANTITY", help="W2[2,1], b1[1], z3[2], a2[1], delta3[1] or x[4]."),
    ],
    example: ExampleName = None,
    batch: Samples = 1,
    sample: Annotated[int, typer.Option(min=1, help="The sample whose numbers are shown, from 1.")] = 1,
    backend: Backends = None,
    seed: Seed = 0,
    dtype: Arithmetic = Dtype.float64,
    form: Annotated[Format, typer.Option("--format", help="What is written.")] = Format.text,
    as_json: AsJson = False,
) -> None:
    """Print where the derivative of the loss by a number comes from.

    That is the chain rule with the numbers put in, and what the backends, the certified value and a difference
    quotient say.
    """
    from refimpl.teaching.explain import explain as explained

    if len(given) > 2:
        raise DataError(f"{len(given)} arguments; give at most a network file and one quantity, such as 'W2[2,1]'")
    path = Path(given[0]) if len(given) == 2 else None
    network, params, x, y = problem(path, example, batch, seed, dtype)
    found = explained(network, params, x, y, given[-1], sample=sample, names=backend)
    if as_json or form is Format.json:
        print_json(found.to_dict())
    else:
        typer.echo(str(found) if form is Format.text else found.latex() if form is Format.latex else found.to_html())
    raise typer.Exit(ALL_PASS if found.ok else WRONG)
