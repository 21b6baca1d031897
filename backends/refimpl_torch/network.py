"""The network in PyTorch: the forward pass, and `torch.autograd` for the rest.

The same names in the same order as ``refimpl_numpy/network.py`` up to `cost`; what stands below `cost` there is what
autograd replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from refimpl.spec import NetworkSpec
from refimpl_torch.functions import ACTIVATIONS, LOSSES

Array = Tensor
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Forward:
    """All that the forward pass computes: z and a of the layers 2 … L+1, and a of layer 1, which is x; each (N, n)."""

    a: list[Array]
    z: list[Array]


def targets(spec: NetworkSpec, y: Array, dtype: torch.dtype) -> Array:
    """y (N, n_out): labels become rows of zeros and a one."""
    return (y[:, None] == torch.arange(spec.n_out, device=y.device)).to(dtype) if y.ndim == 1 else y


def forward(
    spec: NetworkSpec, params: Parameters, x: Array, activations: Mapping[str, Callable[..., Array]] = ACTIVATIONS
) -> Forward:
    """(E1) and (E2), layer by layer."""
    a, zs = [x.reshape(len(x), spec.n_in)], []
    for number, layer in enumerate(spec.layers, start=1):
        z = linear(a[-1], params[f"W{number}"], params[f"b{number}"] if layer.bias else None)
        zs.append(z)
        a.append(activations[layer.activation.name](z, **layer.activation.kwargs))
    return Forward(a, zs)


def cost(spec: NetworkSpec, s: Array, y: Array) -> Array:
    """(E3) the loss, summed over outputs and averaged or summed over the batch."""
    total = LOSSES[spec.loss.name](s, y, **spec.loss.kwargs).sum()
    return total / len(s) if spec.reduction == "mean" else total
