"""JAX's own activations and losses, as its users write them: what `JaxBackend(native=True)` runs.

They lose what ``functions.py`` keeps: the slope of jax.nn.sigmoid is a(1 − a) and of jnp.tanh 1 − a², correct to one
rounding of 1 and not of themselves where a unit saturates. The tolerance grants that (it is a textbook's formula); the
catalogue's semantics at awkward points are ``functions.py``'s alone. What has no entry here is taken from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from refimpl.spec import NetworkSpec
from refimpl_jax import functions
from refimpl_jax.network import cost, targets

Array = jax.Array


def identity(z: Array) -> Array:
    return z


ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
    **functions.ACTIVATIONS,
    "identity": identity,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
}


def own_cost(spec: NetworkSpec, s: Array, y: Array, dtype: str) -> Array:
    """(E3); of labels, by picking the one logarithm of a row that counts."""
    if spec.loss.name != "cross_entropy" or y.ndim != 1:
        return cost(spec, s, targets(spec, y, dtype))
    total = -jnp.take_along_axis(jax.nn.log_softmax(s, axis=1), y[:, None], axis=1).sum()
    return total / len(s) if spec.reduction == "mean" else total
