"""`refimpl trace` and `refimpl explain`: what happens in a pass, and where a number comes from."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from refimpl.cli.check import ALL_PASS, WRONG, Dtype, Example, problem

Batch = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many random samples; of the digits, the first.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the initial values and of random data.")]
In = Annotated[Dtype, typer.Option("--dtype", help="The arithmetic.")]
Named = Annotated[
    Example | None, typer.Option("--example", help="A network that comes with refimpl.", show_default=False)
]


class Format(StrEnum):
    """What an explanation is written as."""

    text = "text"
    latex = "latex"
    html = "html"
    json = "json"


def trace(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC.json]", help="The network. Default: the article's.", show_default=False),
    ] = None,
    example: Named = None,
    batch: Batch = 1,
    seed: Seed = 0,
    dtype: In = Dtype.float64,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trace as JSON, refimpl.trace/1.")] = False,
) -> None:
    """Print every step of a forward and a backward pass: the equation, the code line, the values."""
    from refimpl.teaching.tracing import trace as traced

    found = traced(*requested(spec, example, batch, seed, dtype))
    typer.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) if as_json else str(found))


def explain(
    given: Annotated[
        list[str],
        typer.Argument(metavar="[SPEC.json] QUANTITY", help="W2[2,1], b1[1], z3[2], a2[1], delta3[1] or x[4]."),
    ],
    example: Named = None,
    batch: Batch = 1,
    sample: Annotated[int, typer.Option(min=1, help="The sample whose numbers are shown, from 1.")] = 1,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="A backend to ask; may be given again. Default: all installed."),
    ] = None,
    seed: Seed = 0,
    dtype: In = Dtype.float64,
    form: Annotated[Format, typer.Option("--format", help="What is written.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print where the derivative of the loss by one number comes from: the chain rule with the numbers put in, and
    what the backends, the certified value and a difference quotient say.
    """
    from refimpl.errors import DataError
    from refimpl.teaching.explain import explain as explained

    if len(given) > 2:
        raise DataError(f"{len(given)} arguments; give at most a network file and one quantity, such as 'W2[2,1]'")
    path = Path(given[0]) if len(given) == 2 else None
    network, params, x, y = requested(path, example, batch, seed, dtype)
    found = explained(network, params, x, y, given[-1], sample=sample, names=backend)
    if as_json or form is Format.json:
        typer.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    elif form is Format.text:
        typer.echo(str(found))
    else:
        typer.echo(found.latex() if form is Format.latex else found.to_html())
    raise typer.Exit(ALL_PASS if found.ok else WRONG)


def requested(spec: Path | None, example: Example | None, batch: int, seed: int, dtype: Dtype) -> tuple[Any, ...]:
    """The network, its parameters, x and y. Raises DataError, SpecError."""
    network, x, y = problem(spec, example, batch, seed, dtype.value)
    return network, network.init(seed=seed, dtype=dtype.value), x, y
