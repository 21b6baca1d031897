"""Functions of a framework's arrays, differentiated by that framework.

What a framework must know for it, an `ArrayLibrary`, is found through the entry-point group ``refimpl.functions`` under
the name of the package that its arrays' type comes from, so that a framework is imported only by who has its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import DataError

GROUP = "refimpl.functions"
REAL = ("float64", "float32", "bfloat16", "float16")
PLAIN = np.__name__  # whose arrays every framework takes beside its own

Array = NDArray[Any]
Cotangent = Callable[[int, tuple[int, ...]], Array]


class Numbers(NamedTuple):
    """An array as NumPy has it: real numbers as float64, whatever `dtype` they are of. `wanted`: whether it says of
    itself that it is to be differentiated by.
    """

    values: Array
    dtype: str
    device: str = "cpu"
    wanted: bool = False


class Derivatives(NamedTuple):
    """What a function returned, and its gradients by the inputs that were asked for, None where there is none.
    `overwritten`: the places of the inputs whose numbers it changed.
    """

    outputs: list[Numbers]
    gradients: list[Numbers | None]
    overwritten: list[int]


class ArrayLibrary(Protocol):
    """What knows the arrays of a framework."""

    def numbers(self, array: Any) -> Numbers:
        """An array's numbers, copied."""
        ...

    def arithmetic(self, dtype: str, device: str) -> str:
        """The preset that its own operations compute in (:mod:`refimpl.network.arithmetic`)."""
        ...

    def differentiate(
        self, function: Callable[..., Any], inputs: Sequence[Any], wrt: Sequence[int], cotangent: Cotangent
    ) -> Derivatives:
        """A function and its vector–Jacobian product. `inputs`: arrays of the framework, and whatever else is handed
        over; `wrt`: the places of those to differentiate by; `cotangent`: of an output's number and shape, float64
        numbers that every dtype has. Inputs are copied first: what the function does to them is its own affair.
        """
        ...


def outputs_of(returned: Any, kind: str) -> list[Any]:
    """The arrays that a function returned, one or several. Raises TypeError where that is anything else than what such
    a function returns, a `kind`.
    """
    outputs = list(returned) if isinstance(returned, tuple | list) else [returned]
    for one in outputs:
        if not hasattr(one, "dtype"):
            raise TypeError(f"returned a {type(one).__name__}; a function returns {kind}")
    return outputs


def overwritten(numbers: Callable[[Any], Numbers], inputs: Sequence[Any], given: Sequence[Any]) -> list[int]:
    """The places of the inputs whose copies, which were given to a function, have other numbers after it."""
    return [
        place
        for place, (one, copy) in enumerate(zip(inputs, given, strict=True))
        if hasattr(one, "dtype") and not np.array_equal(numbers(one).values, numbers(copy).values, equal_nan=True)
    ]


@cache
def registered() -> dict[str, EntryPoint]:
    """The libraries by the package that their arrays' type comes from."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def library_of(values: Sequence[Any]) -> ArrayLibrary:
    """The library that these arrays are of, NumPy's beside those of one other. Raises DataError where there is none, or
    more than one.
    """
    roots = {type(value).__module__.partition(".")[0] for value in values}
    known = sorted({registered()[root].value for root in roots if root in registered()})
    own = [value for value in known if value != registered()[PLAIN].value] or known
    if not own:
        raise DataError(f"inputs: none is an array of {', '.join(sorted(registered()))}")
    if len(own) > 1:
        raise DataError(f"inputs: arrays of more than one framework ({', '.join(own)}); give those of one")
    return cast(ArrayLibrary, next(entry for entry in registered().values() if entry.value == own[0]).load())
