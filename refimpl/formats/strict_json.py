"""JSON without its traps: no duplicate keys, no numbers that are none, a largest size."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from refimpl.formats.errors import RefimplError


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

    def real(number: str) -> float:
        value = float(number)
        if not math.isfinite(value) and not nonfinite:
            raise error(f"the number {number[:60]} is too large for float64; write a smaller one")
        return value

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=unique, parse_constant=constant, parse_float=real)
    except error:
        raise
    except UnicodeDecodeError as undecodable:
        raise error(f"not UTF-8 text: byte {undecodable.start} cannot be decoded; save the file as UTF-8") from None
    except json.JSONDecodeError as bad:
        raise error(f"not JSON: {bad.msg} at line {bad.lineno}, column {bad.colno}") from None
    except RecursionError:
        raise error(f"not {what}: the JSON is nested too deeply") from None
    except ValueError:  # of Python, for an integer of thousands of digits
        raise error("a number has too many digits; write a smaller one") from None


def finite(value: Any) -> Any:
    """JSON-able data with None, as JSON has it, for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
