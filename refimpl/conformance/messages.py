"""What refimpl and another program say to each other: one JSON object a line, `refimpl.process/1`.

    → {"type":"hello","format":"refimpl.process/1","dtype":"float64"}
    ← {"type":"hello","format":"refimpl.process/1","name":"mine","version":"1.0","activations":["sigmoid"],…}
    → {"type":"evaluate","id":1,"case":"…","network":{…},"parameters":{"W1":{"shape":[2,4],"data":[…]},…},
       "x":{"shape":…,"data":…},"y":{"shape":…,"data":…}}
    ← {"type":"answer","id":1,"loss":0.5,"gradients":{"W1":{"shape":[2,4],"data":[…]},…}}
    → {"type":"bye"}

In place of an answer a program may say {"type":"unsupported","id":1,"reason":"…"} or {"type":"error", … "message"}.
What refimpl writes has no spaces and the keys in this order, so that a program without a JSON library can find its
way. Numbers are decimals that read back exactly; NaN and infinities are the strings "NaN", "Infinity", "-Infinity".
The schema is ``refimpl/schemas/process-1.schema.json``.

An answers file holds a line {"format":"refimpl.answers/1","name":"…","dtype":"float64"} and then a line
{"case":"…","loss":…,"gradients":{…}} a case, or {"case":"…","unsupported":"the reason"}. The schema is
``refimpl/schemas/answers-1.schema.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.answers import Answer, Unusable
from refimpl.arithmetic import ARITHMETICS
from refimpl.conformance.vectors import ARITHMETIC_NAMES, Case
from refimpl.errors import ConformanceError
from refimpl.functions import ACTIVATIONS, LOSSES, REDUCTIONS
from refimpl.spec import NetworkSpec
from refimpl.strict_json import parse, tensor

FORMAT = "refimpl.process/1"
ANSWERS_FORMAT = "refimpl.answers/1"
MAX_LINE = 2**20  # bytes of one message; the largest answer to a case of ours takes some 10 kB
MAX_TEXT = 200
NAMED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Array = NDArray[Any]


@dataclass(frozen=True)
class Hello:
    """What a program says of itself. None: everything."""

    name: str
    version: str = ""
    dtypes: tuple[str, ...] | None = None
    activations: tuple[str, ...] | None = None
    losses: tuple[str, ...] | None = None
    reductions: tuple[str, ...] | None = None
    arithmetic: str = ""

    def supports(self, spec: NetworkSpec, dtype: str) -> bool | str:
        """True, or what it has not."""
        for what, have, need in (
            ("dtype", self.dtypes, [dtype]),
            ("activation", self.activations, [layer.activation.name for layer in spec.layers]),
            ("loss", self.losses, [spec.loss.name]),
            ("reduction", self.reductions, [spec.reduction]),
        ):
            missing = [name for name in need if have is not None and name not in have]
            if missing:
                return f"has no {what} {missing[0]}"
        return True


def say(message: Mapping[str, Any]) -> bytes:
    """A message as its line."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def evaluate(number: int, case: Case, dtype: str) -> bytes:
    """The request for a case's loss and gradients."""
    params, x, y = case.data(dtype)
    return say(
        {
            "type": "evaluate",
            "id": number,
            "case": case.id,
            "network": case.spec.to_dict(),
            "parameters": {name: tensor(array) for name, array in params.items()},
            "x": tensor(x),
            "y": tensor(y),
        }
    )


def heard(line: bytes, what: str) -> dict[str, Any]:
    """A line as a JSON object. Raises ConformanceError."""
    message = parse(line, ConformanceError, what, MAX_LINE, nonfinite=True)
    if not isinstance(message, dict):
        raise ConformanceError(f"wrote a {type(message).__name__} where {what} must be a JSON object")
    return message


def read_hello(line: bytes) -> Hello:
    """Raises ConformanceError."""
    message = heard(line, "the hello")
    if message.get("type") != "hello" or message.get("format") != FORMAT:
        raise ConformanceError(f'did not say hello; the first line must be {{"type":"hello","format":"{FORMAT}",…}}')
    if not message.get("name"):
        raise ConformanceError("hello: the name of the program is missing")
    names: dict[str, tuple[str, ...] | None] = {}
    for key, known in (
        ("dtypes", ARITHMETICS),
        ("activations", ACTIVATIONS),
        ("losses", LOSSES),
        ("reductions", REDUCTIONS),
    ):
        given = message.get(key)
        if given is not None and not (isinstance(given, list) and all(isinstance(item, str) for item in given)):
            raise ConformanceError(f"hello: {key} must be a list of names")
        unknown = [item for item in given or [] if item not in known]
        if unknown:
            raise ConformanceError(f"hello: {key} names {unknown[0][:40]!r}; known are {', '.join(known)}")
        names[key] = None if given is None else tuple(given)
    arithmetic = one_line(message.get("arithmetic", ""), "hello: arithmetic")
    if arithmetic and arithmetic not in ARITHMETIC_NAMES:
        raise ConformanceError(f"hello: arithmetic must be one of {', '.join(ARITHMETIC_NAMES)}")
    return Hello(
        one_line(message["name"], "hello: name"),
        one_line(message.get("version", ""), "hello: version"),
        arithmetic=arithmetic,
        **names,
    )


def one_line(value: Any, key: str) -> str:
    """A text of a stranger's that may be shown. Raises ConformanceError."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value.isprintable() or not value):
        raise ConformanceError(f"{key} must be one line of at most {MAX_TEXT} printable characters")
    return value


def read_answer(message: Mapping[str, Any], dtype: str) -> Answer:
    """(loss, gradients); what is no array of numbers is an `Unusable`. Raises ConformanceError."""
    missing = [key for key in ("loss", "gradients") if key not in message]
    if missing:
        raise ConformanceError(f"answered without {missing[0]}")
    gradients = message["gradients"]
    if not isinstance(gradients, dict):
        raise ConformanceError(f"gradients is a {type(gradients).__name__}; it must be an object of arrays by name")
    loss = _number(message["loss"])
    return Answer(
        Unusable(loss) if isinstance(loss, str) else np.array(loss),
        {name: _array(item, dtype) for name, item in gradients.items()},
    )


def _array(item: Any, dtype: str) -> Array | Unusable:
    if not isinstance(item, dict) or set(item) != {"shape", "data"}:
        return _no_array('write {"shape":[…],"data":[…]}')
    shape, data = item["shape"], item["data"]
    if not isinstance(shape, list) or len(shape) > 32 or any(type(e) is not int or not 0 < e < 2**31 for e in shape):
        return _no_array("shape must be a list of positive sizes")
    if isinstance(data, list) and any(isinstance(value, list) for value in data):
        return _no_array("data must be flat, in C order, without lists in it")
    if not isinstance(data, list) or len(data) != math.prod(shape):
        count = len(data) if isinstance(data, list) else "no list of"
        return _no_array(f"data has {count} numbers; the shape {shape} asks for {math.prod(shape)}")
    numbers = [_number(value) for value in data]
    for index, number in enumerate(numbers):
        if isinstance(number, str):
            return _no_array(f"number {index + 1} {number}")
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=np.float64).astype(dtype).reshape(shape)


def _no_array(reason: str) -> Unusable:
    return Unusable(f"is no array: {reason}")


def _number(value: Any) -> float | str:
    """The number, or what it is instead."""
    if isinstance(value, str):
        return NAMED.get(value, f"is the text {value[:20]!r}")
    if value is None:
        return 'is null; write "NaN" or "Infinity" for what is no finite number'
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is a {type(value).__name__}"
    return float(value)
