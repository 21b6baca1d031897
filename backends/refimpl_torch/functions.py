"""Activations and losses in PyTorch: its own, as its users write them. Autograd derives the rest.

The same names in the same order as ``refimpl_numpy/functions.py``, which has every backward rule too. A loss is the sum
over the batch; y are rows of targets, or for the cross-entropy labels. Where PyTorch's convention is not the
catalogue's, the line that mends it says so.

Autograd's slope of torch.sigmoid is a(1 − a) and of torch.tanh 1 − a², correct to one rounding of 1 and not of
themselves where a unit saturates. The tolerance grants that: it is the textbook's formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Array = Tensor


def identity(z: Array) -> Array:
    return z


def gelu_tanh(z: Array) -> Array:
    return F.gelu(z, approximate="tanh")


def softplus(z: Array) -> Array:
    return F.softplus(z, threshold=40.0)  # by default it is linear from 20 on; from 40 on log(1 + eᶻ) rounds to z


def softmax(z: Array) -> Array:
    return torch.softmax(z, dim=1)


def squared_error(s: Array, y: Array) -> Array:
    return F.mse_loss(s, y, reduction="sum") / 2


def mean_squared_error(s: Array, y: Array) -> Array:
    return F.mse_loss(s, y, reduction="sum") / s.shape[1]


def absolute_error(s: Array, y: Array) -> Array:
    return F.l1_loss(s, y, reduction="sum")


def huber(s: Array, y: Array, delta: float) -> Array:
    return F.huber_loss(s, y, reduction="sum", delta=delta)


def cross_entropy(s: Array, y: Array) -> Array:
    return F.cross_entropy(s, y, reduction="sum")


def binary_cross_entropy(s: Array, y: Array) -> Array:
    return F.binary_cross_entropy_with_logits(s, y, reduction="sum")


def negative_log_likelihood(s: Array, y: Array) -> Array:
    return -(y * torch.log(torch.where(y == 0, 1, s))).sum()  # 0 · log 0 is NaN, and its derivative in torch.xlogy


ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
    "identity": identity,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "softplus": softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "softsign": F.softsign,
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
