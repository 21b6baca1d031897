"""JSON from strangers: no duplicate keys, no numbers that are none, no depth or size without end; and arrays in JSON
for them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import RefimplError


def parse(text: str | bytes, error: type[RefimplError], what: str, limit: int, *, nonfinite: bool = False) -> Any:
    """The value of a JSON text of at most `limit` bytes or characters; `what` names it in messages.

    With `nonfinite`, the words NaN, Infinity and −Infinity, which are no JSON but are often written, are floats.
    Raises `error`, in one line.
    """
    if len(text) > limit:
        raise error(f"the JSON text is longer than {limit:,} bytes, the most {what} may take")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise error(f"the key {twice[:60]!r} is given twice in one object; remove one")
        return found

    def constant(name: str) -> float:
        if nonfinite:
            return float(name.replace("Infinity", "inf"))
        raise error(f"{name} is not a JSON number; write a finite number")

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value) and not nonfinite:
            raise error(f"the number {number[:60]} is too large for float64; write a smaller one")
        return value

    def bounded(number: str) -> int:
        if len(number) > 20:
            raise error(f"the integer {number[:20]}… is too large; write a smaller one")
        return int(number)

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(
            decoded, object_pairs_hook=unique, parse_constant=constant, parse_float=finite, parse_int=bounded
        )
    except UnicodeDecodeError as undecodable:
        raise error(f"not UTF-8 text: byte {undecodable.start} cannot be decoded; save the file as UTF-8") from None
    except json.JSONDecodeError as bad:
        raise error(f"not JSON: {bad.msg} at line {bad.lineno}, column {bad.colno}") from None
    except RecursionError:
        raise error(f"not {what}: the JSON is nested too deeply") from None


def tensor(array: NDArray[Any]) -> dict[str, Any]:
    """An array as {"shape": …, "data": flat in C order}; a float32 is written as the float64 that it is."""
    flat = array.ravel() if array.dtype.kind == "i" else array.astype(np.float64).ravel()
    return {"shape": list(array.shape), "data": [number(value) for value in flat.tolist()]}


def number(value: float) -> float | str:
    """A number, or the word for one that JSON lacks: "NaN", "Infinity", "-Infinity"."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
