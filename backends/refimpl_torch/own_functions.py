"""PyTorch's own activations and losses, fused as its users write them: what `TorchBackend(native=True)` runs.

They take fewer calls than ``functions.py``, and lose what those keep: autograd's slope of torch.sigmoid is a(1 − a)
and of torch.tanh 1 − a², correct to one rounding of 1 and not of themselves where a unit saturates. The tolerance
grants that (it is a textbook's formula); the catalogue's semantics at awkward points are ``functions.py``'s alone.
A function without an entry here is taken from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from refimpl.spec import Function, NetworkSpec
from refimpl_torch import functions

Array = Tensor


def identity(z: Array) -> Array:
    return z


def gelu_tanh(z: Array) -> Array:
    return F.gelu(z, approximate="tanh")


def leaky_relu(z: Array, negative_slope: float) -> Array:
    return F.leaky_relu(z, negative_slope)


def elu(z: Array, alpha: float) -> Array:
    return F.elu(z, alpha)


def squared_error(s: Array, y: Array) -> Array:
    return F.mse_loss(s, y, reduction="sum")


def absolute_error(s: Array, y: Array) -> Array:
    return F.l1_loss(s, y, reduction="sum")


def huber(s: Array, y: Array, delta: float) -> Array:
    return F.huber_loss(s, y, reduction="sum", delta=delta)


def cross_entropy(s: Array, y: Array) -> Array:
    return F.cross_entropy(s, y, reduction="sum")


def binary_cross_entropy(s: Array, y: Array) -> Array:
    return F.binary_cross_entropy_with_logits(s, y, reduction="sum")


ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
    **functions.ACTIVATIONS,
    "identity": identity,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "softsign": F.softsign,
}

TOTALS: Mapping[str, Callable[..., Array]] = {
    "squared_error": squared_error,
    "mean_squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def total_and_scale(spec: NetworkSpec, n: int) -> tuple[Callable[[Array, Array], Array], float] | None:
    """One call of PyTorch's, of s and y as targets or labels, and the number by which it is the cost (E3) of a batch
    of n; None where PyTorch has none.
    """
    if spec.loss.name not in TOTALS:
        return None
    total = partial(TOTALS[spec.loss.name], **spec.loss.kwargs) if spec.loss.kwargs else TOTALS[spec.loss.name]
    shares = {"squared_error": 2, "mean_squared_error": spec.n_out}.get(spec.loss.name, 1)
    return total, 1 / (shares * (n if spec.reduction == "mean" else 1))


def activation(function: Function) -> Callable[[Array], Array]:
    """A layer's activation, its parameters bound."""
    own = ACTIVATIONS[function.name]
    return partial(own, **function.kwargs) if function.kwargs else own
