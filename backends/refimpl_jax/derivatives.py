"""Functions of JAX arrays, differentiated by `jax.vjp`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refimpl.backend import Cotangent, Derivatives, Numbers, outputs_of


def numbers(array: Any) -> Numbers:
    """An array's numbers, copied; real ones as float64."""
    given = np.asarray(array)
    wide = given.astype(np.float64) if jnp.issubdtype(given.dtype, jnp.floating) else given.copy()
    device = next(iter(array.devices())).platform if isinstance(array, jax.Array) else "cpu"
    return Numbers(wide, given.dtype.name, device)


def arithmetic(dtype: str, device: str) -> str:
    """Which flushes numbers below the normal range to 0 on a CPU, and multiplies in TF32 on a GPU."""
    if dtype in ("float64", "float32"):
        return f"{dtype}_flushing" if device == "cpu" or dtype == "float64" else "tf32"
    return dtype


def differentiate(
    function: Callable[..., Any], inputs: Sequence[Any], wrt: Sequence[int], cotangent: Cotangent
) -> Derivatives:
    """By `jax.vjp`, x64 as the inputs have it."""
    double = any(isinstance(value, jax.Array | np.ndarray) and value.dtype == np.float64 for value in inputs)
    with jax.enable_x64(True) if double else nullcontext():

        def of(*values: Any) -> Any:
            given = list(inputs)
            for place, value in zip(wrt, values, strict=True):
                given[place] = value
            return function(*given)

        returned, vjp = jax.vjp(of, *(inputs[place] for place in wrt))
        outputs = outputs_of(returned, "an array or a tuple of arrays")
        cotangents = [jnp.asarray(cotangent(i, one.shape)).astype(one.dtype) for i, one in enumerate(outputs)]
        found = vjp(type(returned)(cotangents) if isinstance(returned, tuple | list) else cotangents[0])
        return Derivatives([numbers(one) for one in outputs], [numbers(one) for one in found], [])
