"""Activations and losses in NumPy, each with its hand-derived backward rule under its forward one.

A forward rule maps z (N, n) to a; a slope is f'(z), from z and not from a, stated so that it keeps its relative
accuracy where the unit saturates. A loss maps (s, y) to one number an element or a row; its slope is ∂/∂s. The
semantics at awkward points are the catalogue's (``refimpl/network/functions.py``). The tables at the end are what the
rest of the package uses; the twins in refimpl_torch and refimpl_jax have the same names in the same order, less the
slopes, which autograd replaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717
GELU_CUBIC = 0.044715


def identity(z: Array) -> Array:
    return z.copy()


def identity_slope(z: Array) -> Array:
    return np.ones_like(z)


def relu(z: Array) -> Array:
    return np.maximum(z, 0)


def relu_slope(z: Array) -> Array:
    return (z > 0).astype(z.dtype)


def leaky_relu(z: Array, negative_slope: float) -> Array:
    return np.where(z > 0, z, negative_slope * z)


def leaky_relu_slope(z: Array, negative_slope: float) -> Array:
    return np.where(z > 0, np.ones_like(z), negative_slope)


def elu(z: Array, alpha: float) -> Array:
    return np.where(z > 0, z, alpha * np.expm1(z))


def elu_slope(z: Array, alpha: float) -> Array:
    return np.where(z > 0, 1, alpha * np.exp(z))


def selu(z: Array) -> Array:
    return SELU_SCALE * elu(z, SELU_ALPHA)


def selu_slope(z: Array) -> Array:
    return SELU_SCALE * elu_slope(z, SELU_ALPHA)


def gelu(z: Array) -> Array:
    return z * _normal_distribution(z)


def gelu_slope(z: Array) -> Array:
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return _normal_distribution(z) + z * density


def _normal_distribution(z: Array) -> Array:
    return _half_erfc(z).astype(z.dtype)


# NumPy has no erfc; the C library's, in float64
_half_erfc = np.vectorize(lambda z: math.erfc(z / -math.sqrt(2)) / 2, otypes=[np.float64])


def gelu_tanh(z: Array) -> Array:
    return z * sigmoid(2 * _gelu_argument(z))


def gelu_tanh_slope(z: Array) -> Array:
    w = 2 * _gelu_argument(z)  # ½(1 + tanh w/2) = σ(w)
    slope = sigmoid_slope(w)
    dw_dz = 2 * math.sqrt(2 / math.pi) * (1 + 3 * GELU_CUBIC * z * z)
    return sigmoid(w) + np.where(slope > 0, z * dw_dz * slope, 0)


def _gelu_argument(z: Array) -> Array:
    return math.sqrt(2 / math.pi) * (z + GELU_CUBIC * z * z * z)  # z³ may overflow: σ is 0 or 1 then


def softplus(z: Array) -> Array:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def softplus_slope(z: Array) -> Array:
    return sigmoid(z)


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def sigmoid_slope(z: Array) -> Array:
    return sigmoid(z) / (1 + np.exp(z))  # σ(z)σ(−z)


def tanh(z: Array) -> Array:
    return np.tanh(z)


def tanh_slope(z: Array) -> Array:
    t = np.exp(-2 * np.abs(z))
    return 4 * t / ((1 + t) * (1 + t))


def silu(z: Array) -> Array:
    return z * sigmoid(z)


def silu_slope(z: Array) -> Array:
    return sigmoid(z) + z * sigmoid_slope(z)


def softsign(z: Array) -> Array:
    return z / (1 + np.abs(z))


def softsign_slope(z: Array) -> Array:
    inverse = 1 / (1 + np.abs(z))
    return inverse * inverse


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_vjp(z: Array, a: Array, dC_da: Array) -> Array:
    return a * (dC_da - (a * dC_da).sum(axis=1, keepdims=True))


def squared_error(s: Array, y: Array) -> Array:
    return (s - y) * (s - y) / 2


def squared_error_slope(s: Array, y: Array) -> Array:
    return s - y


def mean_squared_error(s: Array, y: Array) -> Array:
    return (s - y) * (s - y) / s.shape[1]


def mean_squared_error_slope(s: Array, y: Array) -> Array:
    return 2 * (s - y) / s.shape[1]


def absolute_error(s: Array, y: Array) -> Array:
    return np.abs(s - y)


def absolute_error_slope(s: Array, y: Array) -> Array:
    return np.sign(s - y)


def huber(s: Array, y: Array, delta: float) -> Array:
    r = np.abs(s - y)
    near = np.minimum(r, delta)
    return near * (r - near / 2)  # ½r², or delta (r − ½ delta)


def huber_slope(s: Array, y: Array, delta: float) -> Array:
    return np.clip(s - y, -delta, delta)


def cross_entropy(s: Array, y: Array) -> Array:
    return -(y * _log_softmax(s)).sum(axis=1)


def cross_entropy_slope(s: Array, y: Array) -> Array:
    return y.sum(axis=1, keepdims=True) * softmax(s) - y


def _log_softmax(s: Array) -> Array:
    shifted = s - s.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def binary_cross_entropy(s: Array, y: Array) -> Array:
    return softplus(s) - y * s


def binary_cross_entropy_slope(s: Array, y: Array) -> Array:
    return sigmoid(s) - y


def negative_log_likelihood(s: Array, y: Array) -> Array:
    return -y * np.log(np.where(y == 0, 1, s))


def negative_log_likelihood_slope(s: Array, y: Array) -> Array:
    return -y / np.where(y == 0, 1, s)


ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
    "identity": identity,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "softplus": softplus,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "silu": silu,
    "softsign": softsign,
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

ACTIVATION_SLOPES: Mapping[str, Callable[..., Array]] = {
    "identity": identity_slope,
    "relu": relu_slope,
    "leaky_relu": leaky_relu_slope,
    "elu": elu_slope,
    "selu": selu_slope,
    "gelu": gelu_slope,
    "gelu_tanh": gelu_tanh_slope,
    "softplus": softplus_slope,
    "sigmoid": sigmoid_slope,
    "tanh": tanh_slope,
    "silu": silu_slope,
    "softsign": softsign_slope,
}

ACTIVATION_VJPS: Mapping[str, Callable[..., Array]] = {"softmax": softmax_vjp}

LOSS_SLOPES: Mapping[str, Callable[..., Array]] = {
    "squared_error": squared_error_slope,
    "mean_squared_error": mean_squared_error_slope,
    "absolute_error": absolute_error_slope,
    "huber": huber_slope,
    "cross_entropy": cross_entropy_slope,
    "binary_cross_entropy": binary_cross_entropy_slope,
    "negative_log_likelihood": negative_log_likelihood_slope,
}
