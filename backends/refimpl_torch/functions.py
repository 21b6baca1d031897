"""Activations and losses in PyTorch: the forward rules alone. Autograd derives the rest.

The same names in the same order as ``refimpl_numpy/functions.py``, which has every backward rule too. Each rule is
stated so that its derivative by autograd keeps its relative accuracy where a unit saturates (that of torch.sigmoid,
a(1 − a), does not) and is the catalogue's at awkward points. A branch that `where` does not take must still be
finite, or 0 · inf makes NaN of the gradient: hence the safe arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Array = Tensor

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717
GELU_CUBIC = 0.044715


def identity(z: Array) -> Array:
    return z * 1


def relu(z: Array) -> Array:
    return torch.relu(z)


def leaky_relu(z: Array, negative_slope: float) -> Array:
    return torch.where(z > 0, z, negative_slope * z)


def elu(z: Array, alpha: float) -> Array:
    return torch.where(z > 0, z, alpha * torch.expm1(torch.where(z > 0, 0, z)))


def selu(z: Array) -> Array:
    return SELU_SCALE * elu(z, SELU_ALPHA)


def gelu(z: Array) -> Array:
    return z * _normal_distribution(z)


def _normal_distribution(z: Array) -> Array:
    return torch.erfc(z * -math.sqrt(0.5)) / 2


def gelu_tanh(z: Array) -> Array:
    return z * sigmoid(2 * _gelu_argument(z))


def _gelu_argument(z: Array) -> Array:
    near = torch.clamp(z, -64, 64)  # beyond, σ(2w) is 0 or 1 and z³ may overflow
    return math.sqrt(2 / math.pi) * (near + GELU_CUBIC * near * near * near)


def softplus(z: Array) -> Array:
    return torch.where(z > 0, z, 0) + torch.log1p(torch.exp(-_magnitude(z)))


def _magnitude(z: Array) -> Array:
    # |z| with derivative −1 at 0, which goes with the left branches of the rules above and below
    return torch.where(z > 0, z, -z)


def sigmoid(z: Array) -> Array:
    small = torch.sigmoid(torch.where(z > 0, -z, z))  # whose slope a(1 − a) is accurate up to ½
    return torch.where(z > 0, 1 - small, small)


def tanh(z: Array) -> Array:
    near, p = torch.abs(z) < 0.5, _magnitude(z)
    t = torch.exp(-2 * torch.where(near, 1, p))
    far = (1 - t) / (1 + t)
    return torch.where(near, torch.tanh(torch.where(near, z, 0)), torch.where(z > 0, far, -far))


def silu(z: Array) -> Array:
    return z * sigmoid(z)


def softsign(z: Array) -> Array:
    near, p = torch.abs(z) < 1, _magnitude(z)
    far = 1 - 1 / (1 + p)
    return torch.where(near, z / (1 + torch.where(near, p, 0)), torch.where(z > 0, far, -far))


def softmax(z: Array) -> Array:
    return torch.softmax(z, dim=1)


def squared_error(s: Array, y: Array) -> Array:
    return (s - y) * (s - y) / 2


def mean_squared_error(s: Array, y: Array) -> Array:
    return (s - y) * (s - y) / s.shape[1]


def absolute_error(s: Array, y: Array) -> Array:
    return torch.abs(s - y)


def huber(s: Array, y: Array, delta: float) -> Array:
    r = torch.abs(s - y)
    near = torch.where(r <= delta, r, 0)
    return torch.where(r <= delta, near * near / 2, delta * (r - delta / 2))


def cross_entropy(s: Array, y: Array) -> Array:
    return -(y * _log_softmax(s)).sum(dim=1)


def _log_softmax(s: Array) -> Array:
    return torch.log_softmax(s, dim=1)


def binary_cross_entropy(s: Array, y: Array) -> Array:
    return softplus(s) - y * s


def negative_log_likelihood(s: Array, y: Array) -> Array:
    return -y * torch.log(torch.where(y == 0, 1, s))


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
