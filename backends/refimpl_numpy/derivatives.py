"""Functions of NumPy arrays that bring their own backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import Cotangent, Derivatives, Numbers, overwritten

Array = NDArray[Any]


def numbers(array: Any) -> Numbers:
    """An array's numbers, copied; real ones as float64."""
    given = np.asarray(array)
    return Numbers(given.astype(np.float64) if given.dtype.kind == "f" else given.copy(), given.dtype.name)


def arithmetic(dtype: str, device: str) -> str:
    """IEEE's."""
    return dtype


def differentiate(
    function: Callable[..., Any], inputs: Sequence[Any], wrt: Sequence[int], cotangent: Cotangent
) -> Derivatives:
    """As `jax.vjp` has it, the function returns its output, or a tuple of several, and what takes their cotangents to
    the gradients by its inputs, as many as asked for or all.
    """
    given = [value.copy() if isinstance(value, np.ndarray) else value for value in inputs]
    returned = function(*given)
    if not (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])):
        raise TypeError("a function of NumPy arrays must return (output, vjp), vjp(cotangent) giving the gradients")
    output, vjp = returned
    several = isinstance(output, tuple | list)
    outputs = [np.asarray(one) for one in (output if several else [output])]
    cotangents = [cotangent(i, one.shape).astype(one.dtype) for i, one in enumerate(outputs)]
    found = vjp(tuple(cotangents) if several else cotangents[0])
    gradients = list(found) if isinstance(found, tuple | list) else [found]
    if len(gradients) == len(inputs) != len(wrt):
        gradients = [gradients[i] for i in wrt]
    if len(gradients) != len(wrt):
        raise TypeError(f"vjp returned {len(gradients)} gradients; {len(wrt)} were asked for")
    return Derivatives(
        [numbers(one) for one in outputs],
        [None if one is None else numbers(one) for one in gradients],
        overwritten(numbers, inputs, given),
    )
