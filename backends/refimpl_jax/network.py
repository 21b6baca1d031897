"""The network in JAX: the forward pass, and `jax.value_and_grad` for the rest.

The same names in the same order as ``refimpl_numpy/network.py`` up to `cost`; what stands below `cost` there is what
automatic differentiation replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from refimpl import NetworkSpec
from refimpl_jax.functions import ACTIVATIONS, LOSSES

Array = jax.Array
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Forward:
    """All that the forward pass computes: z and a of the layers 2 … L+1, and a of layer 1, which is x; each (N, n)."""

    a: list[Array]
    z: list[Array]


def targets(spec: NetworkSpec, y: Array, dtype: str) -> Array:
    """y (N, n_out): labels become rows of zeros and a one, but for the loss that takes them as they are."""
    if y.ndim == 2 or spec.loss.name == "cross_entropy":
        return y
    return (y[:, None] == jnp.arange(spec.n_out)).astype(dtype)


def forward(spec: NetworkSpec, params: Parameters, x: Array, shifts: Sequence[Array] = ()) -> Forward:
    """(E1) and (E2), layer by layer; `shifts`, where there are any, are added to the z's: the derivative by a shift is
    the delta.
    """
    a: list[Array] = [x.reshape(len(x), spec.n_in)]
    zs: list[Array] = []
    for layer, own in zip(spec.layers, spec.by_layer(params), strict=True):
        z = a[-1] @ own["W"].T
        z = z + own["b"] if layer.bias else z
        zs.append(z + shifts[len(zs)] if shifts else z)
        a.append(ACTIVATIONS[layer.activation.name](zs[-1], **layer.activation.kwargs))
    return Forward(a, zs)


def cost(spec: NetworkSpec, s: Array, y: Array) -> Array:
    """(E3) the loss, summed over outputs and averaged or summed over the batch."""
    total = LOSSES[spec.loss.name](s, y, **spec.loss.kwargs).sum()
    return total / len(s) if spec.reduction == "mean" else total
