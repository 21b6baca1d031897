"""What a stranger's code returned, made into plain numbers and arrays once, where what that runs is provided for.

An answer may be anything at all: what can be used as (loss, gradients by name) becomes an `Answer` of plain arrays,
each a copy, and what cannot be used becomes `Unusable`, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.strangers import first_line, printable

MAX_KEYS = 10_000
MAX_ELEMENTS = 2**27  # of one array; a view may have any number without taking memory, and its copy takes it
MAX_ITEMS = 2**22  # of one array that is given as lists in lists

Array = NDArray[Any]


@dataclass(frozen=True)
class Unusable:
    """Something in the place of an array or of a whole answer, and why it is of no use."""

    reason: str


class Answer(NamedTuple):
    """What can be used. A `loss` of None is none that is to be judged."""

    loss: Array | Unusable | None
    gradients: dict[str, Array | Unusable]

    def array(self, name: str) -> Array | str:
        """The gradient of that name, or what is wrong with it."""
        found = self.gradients.get(name, Unusable("is missing"))
        return found.reason if isinstance(found, Unusable) else found


def taken(answer: Any) -> Answer | Unusable:
    """What our own code has settled, as it is; anything else settled now. A stranger's answer is `settled`."""
    return answer if isinstance(answer, Answer | Unusable) else settled(answer)


def settled(answer: Any) -> Answer | Unusable:
    """A stranger's (loss, gradients), or whatever else it is."""
    try:
        loss, grads = answer
        gradients = {_text(key): value for key, value in islice(_items(grads), MAX_KEYS + 1)}
    except KeyboardInterrupt:
        raise
    except BaseException:  # a stranger's code may raise anything
        return Unusable(f"returned {_kind(answer)}; return (loss, gradients)")
    if len(gradients) > MAX_KEYS:
        return Unusable(f"returned gradients of more than {MAX_KEYS:,} names")
    return Answer(_number(loss), {name: _plain(value) for name, value in gradients.items()})


def _number(loss: Any) -> Array | Unusable | None:
    value = None if loss is None else _plain(loss)
    if isinstance(value, np.ndarray) and not issubclass(type(loss), np.ndarray) and value.dtype.kind not in "fiu":
        return Unusable(f"is a {_kind(loss)}, not a real number")
    return value


def _items(grads: Any) -> Iterator[tuple[Any, Any]]:
    """The pairs of a mapping, or of anything that a dictionary can be made of."""
    if hasattr(grads, "keys"):
        names = grads.keys()
        yield from ((key, grads[key]) for key in names)
    else:
        yield from ((key, value) for key, value in grads)


def _text(key: Any) -> str:
    """A stranger's key as a plain string, whatever its own methods do."""
    return str.__str__(key) if issubclass(type(key), str) else f"a key of type {_kind(key)}"


def _kind(value: Any) -> str:
    return printable(type(value).__name__)


def _plain(value: Any) -> Array | Unusable:
    try:
        reason = _endless(value)
        if reason:
            return Unusable(reason)
        if issubclass(type(value), np.ma.MaskedArray):
            return Unusable("is a masked array; give a plain one")
        array = np.asarray(value)
        if array.size > MAX_ELEMENTS:
            return Unusable(f"has shape {array.shape}, of more than {MAX_ELEMENTS:,} elements")
        if array.dtype.hasobject:
            kind = "an array of objects" if issubclass(type(value), np.ndarray) else f"a {_kind(value)}"
            return Unusable(f"is {kind}, not an array of numbers")
        return np.array(array)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's __array__ may raise
        return Unusable(f"is no array: {first_line(error)}")


def _endless(value: Any) -> str:
    """Why NumPy must not go through it, item by item, as it does with any sequence; "" where it may or need not."""
    kind = type(value)
    if issubclass(kind, list | tuple):
        return "" if _counted(value) <= MAX_ITEMS else f"is a {_kind(value)} of more than {MAX_ITEMS:,} numbers"
    goes_through = any(hasattr(kind, name) for name in ("__getitem__", "__iter__", "__len__"))
    if not goes_through or issubclass(kind, str | bytes | np.generic | np.ndarray) or _offers_an_array(value):
        return ""
    return f"is a {_kind(value)}, not an array of numbers"


def _counted(value: Any) -> int:
    """The numbers in lists in lists, arrays among them, as far as they may be."""
    found, waiting = 0, [value]
    while waiting and found <= MAX_ITEMS:
        item = waiting.pop()
        if issubclass(type(item), list | tuple):
            waiting += islice(item, MAX_ITEMS + 1 - found)
            found += 1
        else:
            found += np.ndarray.size.__get__(item) if issubclass(type(item), np.ndarray) else 1
    return found


def _offers_an_array(value: Any) -> bool:
    if any(hasattr(value, name) for name in ("__array__", "__array_interface__", "__array_struct__")):
        return True
    try:
        memoryview(value)
    except TypeError:
        return False
    return True
