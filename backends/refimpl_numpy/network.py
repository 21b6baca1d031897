"""The network in NumPy: the forward pass, and the hand-derived backward pass that runs ``refimpl/equations/dense.py``
layer by layer.

No tape and no graph: `backward` is the recursion as the derivation has it, from the output to the input.
refimpl_torch and refimpl_jax have the same names in the same order up to `cost`; what stands below it here is what
autograd replaces there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import NetworkSpec
from refimpl.equations import Equations, VectorJacobianProduct
from refimpl_numpy.functions import ACTIVATION_SLOPES, ACTIVATION_VJPS, ACTIVATIONS, LOSS_SLOPES, LOSSES

Array = NDArray[Any]
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Forward:
    """All that the forward pass computes: z and a of the layers 2 … L+1, and a of layer 1, which is x; each (N, n)."""

    a: list[Array]
    z: list[Array]


def targets(spec: NetworkSpec, y: Array, dtype: str) -> Array:
    """y (N, n_out): labels become rows of zeros and a one."""
    return (y[:, None] == np.arange(spec.n_out, like=y)).astype(dtype) if y.ndim == 1 else y


def forward(spec: NetworkSpec, params: Parameters, x: Array, equations: Sequence[Equations]) -> Forward:
    """(E1) and (E2), layer by layer."""
    a, zs = [x.reshape(len(x), spec.n_in)], []
    for layer, own, equation in zip(spec.layers, spec.by_layer(params), equations, strict=True):
        z = equation.weighted_input(a[-1], own["W"], own.get("b"))
        zs.append(z)
        a.append(equation.activation(z, partial(ACTIVATIONS[layer.activation.name], **layer.activation.kwargs)))
    return Forward(a, zs)


def cost(spec: NetworkSpec, s: Array, y: Array, equations: Sequence[Equations]) -> Array:
    """(E3) the loss, summed over outputs and averaged or summed over the batch."""
    return equations[-1].cost(LOSSES[spec.loss.name](s, y, **spec.loss.kwargs), spec.reduction)


def cost_gradient(spec: NetworkSpec, s: Array, y: Array, equations: Sequence[Equations]) -> Array:
    """∂C/∂s (N, n_out), the reduction included."""
    return equations[-1].cost_gradient(LOSS_SLOPES[spec.loss.name](s, y, **spec.loss.kwargs), spec.reduction)


def vector_jacobian_products(spec: NetworkSpec) -> list[VectorJacobianProduct]:
    """The backward form of every layer's activation."""

    def of(name: str, kwargs: dict[str, float]) -> VectorJacobianProduct:
        if name in ACTIVATION_VJPS:
            return ACTIVATION_VJPS[name]
        return lambda z, a, dC_da: dC_da * ACTIVATION_SLOPES[name](z, **kwargs)

    return [of(layer.activation.name, layer.activation.kwargs) for layer in spec.layers]


def backward(
    spec: NetworkSpec, params: Parameters, known: Forward, y: Array, equations: Sequence[Equations]
) -> tuple[dict[str, Array], list[Array]]:
    """(B1) to (B4), from the output to the input: the gradients of every W and b, and the error signals of the
    layers 2 … L+1.
    """
    vjps, layers, last = vector_jacobian_products(spec), spec.by_layer(params), spec.depth - 1
    grads: list[dict[str, Array]] = [{} for _ in layers]
    delta = equations[last].output_error(
        cost_gradient(spec, known.a[-1], y, equations), known.z[last], known.a[-1], vjps[last]
    )
    deltas = [delta]
    for index in range(last, -1, -1):
        grads[index]["W"] = equations[index].weight_gradient(delta, known.a[index])
        if "b" in layers[index]:
            grads[index]["b"] = equations[index].bias_gradient(delta)
        if index > 0:
            W, before = layers[index]["W"], index - 1
            delta = equations[index].hidden_error(W, delta, known.z[before], known.a[index], vjps[before])
            deltas.insert(0, delta)
    return spec.by_name(grads), deltas
