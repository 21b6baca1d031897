"""What a command is asked about: the network, its parameters and the data; and the options for them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refimpl.formats.errors import DataError

if TYPE_CHECKING:
    from refimpl.network.spec import NetworkSpec

MAX_VALUES = 10**8


def folder(name: str) -> Path:
    """A folder by its name. Raises BadParameter for an empty one, which a script's unset variable leaves."""
    if not name:
        raise typer.BadParameter("is empty; name a folder")
    return Path(name)


class Dtype(StrEnum):
    """What the arithmetic is done in."""

    float64 = "float64"
    float32 = "float32"


class Example(StrEnum):
    """The networks that come with refimpl."""

    article = "article"
    digits = "digits"


SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="[SPEC.json]", help="The network. Default: the example's.", show_default=False),
]
ExampleName = Annotated[
    Example | None,
    typer.Option(
        "--example",
        help="A network of refimpl's own: the article's 4-2-2-1 (default), or 64-32-16-10 on handwritten digits.",
        show_default=False,
    ),
]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend", metavar="NAME", help="A backend, or module:attribute; may be given again. Default: all installed."
    ),
]
OneBackend = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", help="A backend, or module:attribute. Default: the first installed."),
]
Required = Annotated[
    list[str] | None,
    typer.Option("--require-backend", metavar="NAME", help="Fail if this backend does not run; may be given again."),
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Arithmetic = Annotated[Dtype, typer.Option("--dtype", help="The arithmetic.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the initial values and of random data.")]
Samples = Annotated[
    int, typer.Option("--batch", min=1, max=1_000_000, help="How many random samples; of the digits, the first.")
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, max=256, help="How many processes. Default: one a core.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def network(path: Path | None, example: Example | None) -> NetworkSpec:
    """The network of a file, or an example. Raises DataError, SpecError."""
    from refimpl.network import examples
    from refimpl.network.spec import NetworkSpec

    if path is not None and example is not None:
        raise DataError(f"--example {example.value} and {path}: give a network file or an example, not both")
    return NetworkSpec.load(path) if path is not None else getattr(examples, example or Example.article)()


def problem(path: Path | None, example: Example | None, batch: int | None, seed: int, dtype: Dtype) -> tuple[Any, ...]:
    """The network that was asked for, its parameters, x and y: random ones, or the digits. Raises DataError,
    SpecError.
    """
    import numpy as np

    from refimpl.network import examples
    from refimpl.network.random_problems import random_batch

    spec = network(path, example)
    params = spec.init(seed=seed, dtype=dtype.value)
    if path is None and example is Example.digits:
        x, y = examples.digits_data(dtype.value)
        if batch is not None and batch > len(x):
            raise DataError(f"--batch {batch}: there are {len(x)} digits; ask for fewer")
        return spec, params, x[:batch], y[:batch]
    if batch is not None and batch * sum(spec.sizes) > MAX_VALUES:
        raise DataError(f"--batch {batch}: the network's activations would take more than {MAX_VALUES:,} numbers")
    return spec, params, *random_batch(spec, np.random.default_rng(seed), batch or 8, dtype.value)
