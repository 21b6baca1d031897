"""Arrays in JSON: {"shape": …, "data": flat in C order}.

Numbers are decimals that read back exactly; NaN and the infinities, which JSON lacks, are the strings "NaN",
"Infinity", "-Infinity".
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from refimpl.formats.validation import Document, Listed, Whole

NAMED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _as_float(value: Any) -> Any:
    """The named numbers, and integers of any size, as JavaScript writes 3.5e20."""
    if isinstance(value, str):
        return NAMED.get(value, value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


Number = Annotated[
    float,
    BeforeValidator(_as_float),
    Field(strict=True),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(NAMED)}]}),
]
Shape = Annotated[list[Annotated[Whole, Field(gt=0, lt=2**31)]], Field(max_length=33)]


class Tensor(Document):
    """An array, as it is read."""

    shape: Shape
    data: Listed[Number]

    @model_validator(mode="after")
    def _complete(self) -> Tensor:
        asked = math.prod(self.shape)
        if len(self.data) != asked:
            raise ValueError(f"data has {len(self.data)} numbers; the shape {self.shape} asks for {asked}")
        return self

    @property
    def array(self) -> NDArray[np.float64]:
        """The numbers in their shape."""
        return np.array(self.data, dtype=np.float64).reshape(self.shape)


def tensor(array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON-able data; a float32 is written as the float64 that it is."""
    flat = array.ravel() if array.dtype.kind == "i" else array.astype(np.float64).ravel()
    return {"shape": list(array.shape), "data": [number(value) for value in flat.tolist()]}


def number(value: float) -> float | str:
    """A number, or the word for one that JSON lacks."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
