"""The rows of a batch over all devices: shardings, and the loss over rows of which some only fill up."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from refimpl import NetworkSpec
from refimpl_jax.functions import LOSSES
from refimpl_jax.network import forward, targets

Array = NDArray[Any]


@lru_cache(maxsize=2)
def mesh(device: str) -> Mesh:
    """All devices of a kind, of all processes, in a row."""
    return Mesh(np.array(jax.devices(device)), ("rows",))


def over_rows(device: str) -> NamedSharding:
    """The first axis over the devices."""
    return NamedSharding(mesh(device), PartitionSpec("rows"))  # type: ignore[no-untyped-call]


def on_all(device: str) -> NamedSharding:
    """All of it on every device."""
    return NamedSharding(mesh(device), PartitionSpec())  # type: ignore[no-untyped-call]


def placed(array: Array, sharding: NamedSharding) -> jax.Array:
    """An array so placed. Every process is given all of it."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def filled(rows: Array, devices: int) -> tuple[Array, Array]:
    """Rows (…, n) with as many more of the first as the devices ask for, and the weights of one batch: 1, and 0 for
    what fills up.
    """
    n = rows.shape[-1]
    more = -n % devices
    first = np.repeat(rows[..., :1], more, axis=-1)
    return np.concatenate([rows, first], axis=-1), np.r_[np.ones(n), np.zeros(more)]


def weighted_loss(
    spec: NetworkSpec, dtype: str, leaves: tuple[jax.Array, ...], x: jax.Array, y: jax.Array, weights: jax.Array
) -> jax.Array:
    """The loss () over the rows of weight 1."""
    s = forward(spec, dict(zip(spec.parameter_shapes, leaves, strict=True)), x).a[-1]
    losses = LOSSES[spec.loss.name](s, targets(spec, y, dtype), **spec.loss.kwargs)
    kept = jnp.where(weights.reshape(-1, *[1] * (losses.ndim - 1)) > 0, losses, 0)
    return kept.sum() / weights.sum() if spec.reduction == "mean" else kept.sum()
