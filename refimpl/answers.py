"""What a stranger's code returned, made into plain numbers and arrays once, where what that runs is provided for.

An answer may be anything at all: what can be used as (loss, gradients by name) becomes an `Answer` of plain arrays,
each a copy, and what cannot be used becomes `Unusable`, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.strangers import first_line

MAX_KEYS = 10_000
MAX_ELEMENTS = 2**27  # of one array; a view may have any number without taking memory, and its copy takes it

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


def settled(answer: Any) -> Answer | Unusable:
    """Anything at all as an answer. What is one already stays as it is."""
    if isinstance(answer, Answer | Unusable):
        return answer
    try:
        loss, grads = answer
        gradients = {_text(key): value for key, value in islice(_items(grads), MAX_KEYS + 1)}
    except KeyboardInterrupt:
        raise
    except BaseException:  # a stranger's code may raise anything
        return Unusable(f"returned {type(answer).__name__}; return (loss, gradients)")
    if len(gradients) > MAX_KEYS:
        return Unusable(f"returned gradients of more than {MAX_KEYS:,} names")
    return Answer(_number(loss), {name: _plain(value) for name, value in gradients.items()})


def _number(loss: Any) -> Array | Unusable | None:
    value = None if loss is None else _plain(loss)
    if isinstance(value, np.ndarray) and not isinstance(loss, np.ndarray) and value.dtype.kind not in "fiu":
        return Unusable(f"is a {type(loss).__name__}, not a real number")
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
    return str.__str__(key) if isinstance(key, str) else f"a key of type {type(key).__name__}"


def _plain(value: Any) -> Array | Unusable:
    if isinstance(value, Unusable):
        return value
    if isinstance(value, np.ma.MaskedArray):
        return Unusable("is a masked array; give a plain one")
    try:
        if isinstance(value, np.ndarray) and value.size > MAX_ELEMENTS:
            return Unusable(f"has shape {value.shape}, of more than {MAX_ELEMENTS:,} elements")
        if not _has_an_end(value):
            return Unusable(f"is a {type(value).__name__}, not an array of numbers")
        array = np.array(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's __array__ may raise
        return Unusable(f"is no array: {first_line(error)}")
    if array.dtype.hasobject:
        kind = "an array of objects" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        return Unusable(f"is {kind}, not an array of numbers")
    return array


def _has_an_end(value: Any) -> bool:
    """Whether NumPy need not go through it item by item, as it does with any sequence."""
    own = isinstance(value, list | tuple | str | bytes | np.generic) or not isinstance(value, Iterable)
    return own or any(hasattr(value, name) for name in ("__array__", "__array_interface__", "__array_struct__"))
