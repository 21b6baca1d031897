"""The network in PyTorch: the forward pass, and `torch.autograd` for the rest.

The same names in the same order as ``refimpl_numpy/network.py`` up to `cost`; what stands below `cost` there is what
autograd replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from refimpl import NetworkSpec
from refimpl_torch.functions import ACTIVATIONS, LOSSES

Array = Tensor
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Forward:
    """All that the forward pass computes: z and a of the layers 2 … L+1, and a of layer 1, which is x; each (N, n)."""

    a: list[Array]
    z: list[Array]


def targets(spec: NetworkSpec, y: Array, dtype: torch.dtype) -> Array:
    """y (N, n_out): labels become rows of zeros and a one, but for the loss that takes them as they are."""
    if y.ndim == 2 or spec.loss.name == "cross_entropy":
        return y
    return (y[:, None] == torch.arange(spec.n_out, device=y.device)).to(dtype)


def forward(spec: NetworkSpec, params: Parameters, x: Array) -> Forward:
    """(E1) and (E2), layer by layer."""
    a, zs = [x.reshape(len(x), spec.n_in)], []
    for layer, own in zip(spec.layers, spec.by_layer(params), strict=True):
        z = linear(a[-1], own["W"], own.get("b"))
        zs.append(z)
        a.append(ACTIVATIONS[layer.activation.name](z, **layer.activation.kwargs))
    return Forward(a, zs)


def cost(spec: NetworkSpec, s: Array, y: Array) -> Array:
    """(E3) the loss, summed over outputs and averaged or summed over the batch."""
    total = LOSSES[spec.loss.name](s, y, **spec.loss.kwargs)
    return total / len(s) if spec.reduction == "mean" else total
