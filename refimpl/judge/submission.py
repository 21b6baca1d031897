"""What somebody's code returned, as (loss, gradients) of plain arrays: `Submission`.

What cannot be used as an array, or as a whole, is `Unusable`, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.backend.untrusted import FAILURES, first_line

MAX_ELEMENTS = 2**27  # of one array: np.broadcast_to makes any number of them from one

Array = NDArray[Any]


@dataclass(frozen=True)
class Unusable:
    """Something in the place of an array or of a whole submission, and why it is of no use."""

    reason: str


class Submission(NamedTuple):
    """What can be judged. `slack`: by name, how far a gradient may be off for being recovered from something else.
    Where it is not `with_loss`, there is none to be judged.
    """

    loss: Array | Unusable | None
    gradients: dict[str, Array | Unusable]
    slack: Mapping[str, Array] | None = None
    with_loss: bool = True

    @classmethod
    def of(cls, answer: Any) -> Submission | Unusable:
        """(loss, gradients by name), or whatever else was returned."""
        if isinstance(answer, Submission | Unusable):
            return answer
        try:
            loss, grads = answer
            gradients = {str(key): _array(value) for key, value in dict(grads).items()}
        except FAILURES:
            return Unusable(f"returned {type(answer).__name__}; return (loss, gradients)")
        return cls(None if loss is None else _array(loss), gradients)

    def array(self, name: str) -> Array | str:
        """The gradient of that name, or what is wrong with it."""
        found = self.gradients.get(name, Unusable("is missing"))
        return found.reason if isinstance(found, Unusable) else found


def _array(value: Any) -> Array | Unusable:
    if isinstance(value, np.ma.MaskedArray):
        return Unusable("is a masked array; give a plain one")
    try:
        array = np.asarray(value)
    except FAILURES as error:
        return Unusable(f"is no array: {first_line(error)}")
    if array.size > MAX_ELEMENTS:
        return Unusable(f"has shape {array.shape}, of more than {MAX_ELEMENTS:,} elements")
    if array.dtype.kind not in "fiu":
        kind = f"of dtype {array.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        return Unusable(f"is {kind}, not {'a real number' if array.ndim == 0 else 'an array of real numbers'}")
    return array.copy()  # it may be a buffer that the next call overwrites
