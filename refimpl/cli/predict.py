"""`refimpl predict`: what a trained network makes of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.requested import Device, OneBackend
from refimpl.cli.train import DATA, Data, Delimiter, Ignored, Lines
from refimpl.formats.errors import DataError


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")],
    data: Data = "",
    ignore: Ignored = None,
    delimiter: Delimiter = ",",
    backend: OneBackend = None,
    device: Device = "cpu",
    as_json: Lines = False,
) -> None:
    """Print a trained network's prediction for every sample.

    A target column, if there is one, is left out.
    """
    from refimpl.training.datasets import read
    from refimpl.training.model import Model

    loaded = Model.load(model)
    if not data:
        raise DataError(f"--data is missing; it may be {DATA}")
    preparation = loaded.preparation
    dataset = read(data, preparation.targets, ignore or (), None, delimiter, labelled=False)
    predicted = loaded.predict(dataset, backend, device)
    names = preparation.targets or ("prediction",)
    if not as_json:
        typer.echo(",".join(names))
    for row in predicted.tolist():
        cells = row if isinstance(row, list) else [row]
        if as_json:
            typer.echo(json.dumps(dict(zip(names, cells, strict=True))))
        else:
            typer.echo(",".join(str(cell) for cell in cells))
