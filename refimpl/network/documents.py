"""The JSON form of a network, `refimpl.network/1`: its fields and their limits.

`NetworkDocument` is both what is read and what the schema says; the limits keep a stranger's file from taking the
memory of the machine.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema

from refimpl.formats.validation import Document, Flag, Line
from refimpl.network.functions import ACTIVATIONS, LOSSES, Activation, Loss

FORMAT: Literal["refimpl.network/1"] = "refimpl.network/1"
MAX_SIZE = 10**7  # neurons of a layer, or inputs
MAX_LAYERS = 10_000
MAX_RANK = 32

Catalogue = Mapping[str, Activation] | Mapping[str, Loss]


@dataclass(frozen=True)
class Function:
    """An activation or loss by name, with its parameters. Inside a spec every parameter of the catalogue is present."""

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def kwargs(self) -> dict[str, float]:
        """The parameters as keyword arguments."""
        return dict(self.parameters)

    def to_json(self) -> str | dict[str, Any]:
        """The name, or an object of name and parameters."""
        return {"name": self.name, **self.kwargs} if self.parameters else self.name


def _resolved(value: Any, catalogue: Catalogue) -> Function:
    """A name, an object or a `Function` with every parameter of the catalogue. Raises ValueError."""
    given: dict[str, Any] = {}
    name = value
    if isinstance(value, Function):
        try:
            name, given = value.name, dict(value.parameters)
            assert len(given) == len(value.parameters)
        except (AssertionError, TypeError, ValueError):
            raise ValueError(
                f"{value.name!r:.60}: its parameters must be pairs of a name, each once, and a number, "
                f"got {value.parameters!r:.60}"
            ) from None
    elif isinstance(value, Mapping):
        if "name" not in value:
            raise ValueError("lacks the key 'name'; write {'name': …} or the name alone")
        name, given = value["name"], {key: number for key, number in value.items() if key != "name"}
    if not isinstance(name, str) or name not in catalogue:
        raise ValueError(f"must be one of {', '.join(catalogue)}; got {name!r:.60}")
    known = catalogue[name].parameters
    for key in given:
        if key not in known:
            raise ValueError(f"{name} has no parameter {key!r:.60}; it has: {', '.join(known) or 'none'}")
    pairs = []
    for key, parameter in known.items():
        number = given.get(key, parameter.default)
        real = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
        if not real or not abs(number) <= parameter.high or not parameter.admits(float(number)):
            shown = f"{number!r:.60}" if real and abs(number) < 10**20 else type(number).__name__
            raise ValueError(
                f"{key} of {name} must be a number {parameter.range_text} ({parameter.meaning}), got {shown}"
            )
        pairs.append((key, float(number)))
    return Function(name, tuple(pairs))


def _function_schema(catalogue: Catalogue) -> dict[str, Any]:
    """A name, or an object of a name and its parameters."""
    forms: list[dict[str, Any]] = [{"enum": list(catalogue)}]
    for name, entry in catalogue.items():
        properties: dict[str, Any] = {"name": {"const": name}}
        for key, parameter in entry.parameters.items():
            properties[key] = {
                "type": "number",
                "exclusiveMinimum" if parameter.open_low else "minimum": parameter.low,
                "maximum": parameter.high,
                "default": parameter.default,
                "description": parameter.meaning,
            }
        forms.append({"type": "object", "properties": properties, "required": ["name"], "additionalProperties": False})
    return {"anyOf": forms}


def _of(catalogue: Catalogue) -> Any:
    return Annotated[
        Any, BeforeValidator(partial(_resolved, catalogue=catalogue)), WithJsonSchema(_function_schema(catalogue))
    ]


def _index(value: Any) -> Any:
    return operator.index(value) if isinstance(value, np.integer) else value


Size = Annotated[int, Field(strict=True, ge=1, le=MAX_SIZE), BeforeValidator(_index)]


class LayerDocument(Document):
    """One layer."""

    size: Size
    activation: _of(ACTIVATIONS) = Function("identity")  # type: ignore[valid-type]
    bias: Flag = True


class NetworkDocument(Document):
    """A network of refimpl."""

    format: Literal["refimpl.network/1"]
    name: Line = ""
    input_shape: Annotated[list[Size], Field(max_length=MAX_RANK)]
    layers: Annotated[list[LayerDocument], Field(min_length=1, max_length=MAX_LAYERS)]
    loss: _of(LOSSES)  # type: ignore[valid-type]
    reduction: Literal["mean", "sum"] = "mean"
