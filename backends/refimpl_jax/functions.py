"""Activations and losses in JAX: its own, as its users write them. `jax.grad` derives the rest.

The same names in the same order as ``refimpl_numpy/functions.py``, which has every backward rule too. A loss gives one
number an element or a row; y are rows of targets, or for the cross-entropy labels. Where JAX's convention is not the
catalogue's, the line that mends it says so.

The slope of jax.nn.sigmoid is a(1 − a) and of jnp.tanh 1 − a², correct to one rounding of 1 and not of themselves where
a unit saturates. The tolerance grants that: it is the textbook's formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

Array = jax.Array


def identity(z: Array) -> Array:
    return z


def leaky_relu(z: Array, negative_slope: float) -> Array:
    return jnp.where(z > 0, z, negative_slope * z)  # jax.nn.leaky_relu has derivative 1 at 0


def gelu(z: Array) -> Array:
    return jax.nn.gelu(z, approximate=False)


def gelu_tanh(z: Array) -> Array:
    return jax.nn.gelu(z, approximate=True)


def softmax(z: Array) -> Array:
    return jax.nn.softmax(z, axis=1)


def squared_error(s: Array, y: Array) -> Array:
    return (s - y) ** 2 / 2


def mean_squared_error(s: Array, y: Array) -> Array:
    return (s - y) ** 2 / s.shape[1]


def absolute_error(s: Array, y: Array) -> Array:
    return jnp.sign(s - y) * (s - y)  # jnp.abs has derivative 1 at 0


def huber(s: Array, y: Array, delta: float) -> Array:
    r = s - y
    near = jnp.clip(r, -delta, delta)
    return near * (r - near / 2)  # ½r², or delta (|r| − ½ delta)


def cross_entropy(s: Array, y: Array) -> Array:
    log_p = jax.nn.log_softmax(s, axis=1)
    return -jnp.take_along_axis(log_p, y[:, None], axis=1) if y.ndim == 1 else -(y * log_p).sum(axis=1)


def binary_cross_entropy(s: Array, y: Array) -> Array:
    return jax.nn.softplus(s) - y * s


def negative_log_likelihood(s: Array, y: Array) -> Array:
    return -y * jnp.log(jnp.where(y == 0, 1, s))  # 0 · log 0 is NaN


ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
    "identity": identity,
    "relu": jax.nn.relu,
    "leaky_relu": leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "softsign": jax.nn.soft_sign,
    "softmax": softmax,
}

LOSSES: Mapping[str, Callable[..., Array]] = {
    "squared_error": squared_error,
    "mean_squared_error": mean_squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "negative_log_likelihood": negative_log_likelihood,
}
