"""The network in JAX: the forward pass, and `jax.value_and_grad` for the rest.

The same names in the same order as ``refimpl_numpy/network.py`` up to `cost`; what stands below `cost` there is what
automatic differentiation replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from refimpl.spec import NetworkSpec
from refimpl_jax.functions import ACTIVATIONS, LOSSES

Array = jax.Array
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Forward:
    """All that the forward pass computes: z and a of the layers 2 … L+1, and a of layer 1, which is x; each (N, n)."""

    a: list[Array]
    z: list[Array]


def targets(spec: NetworkSpec, y: Array, dtype: str) -> Array:
    """y (N, n_out): labels become rows of zeros and a one."""
    return (y[:, None] == jnp.arange(spec.n_out)).astype(dtype) if y.ndim == 1 else y


def forward(
    spec: NetworkSpec,
    params: Parameters,
    x: Array,
    shifts: list[Array],
    activations: Mapping[str, Callable[..., Array]] = ACTIVATIONS,
) -> Forward:
    """(E1) and (E2), layer by layer; `shifts`, where there are any, are added to the z's: the derivative by a
    shift is the delta.
    """
    a, zs = [x.reshape(len(x), spec.n_in)], []
    for number, layer in enumerate(spec.layers, start=1):
        z = a[-1] @ params[f"W{number}"].T
        z = z + params[f"b{number}"] if layer.bias else z
        z = z + shifts[number - 1] if shifts else z
        zs.append(z)
        a.append(activations[layer.activation.name](z, **layer.activation.kwargs))
    return Forward(a, zs)


def cost(spec: NetworkSpec, s: Array, y: Array) -> Array:
    """(E3) the loss, summed over outputs and averaged or summed over the batch."""
    total = LOSSES[spec.loss.name](s, y, **spec.loss.kwargs).sum()
    return total / len(s) if spec.reduction == "mean" else total
