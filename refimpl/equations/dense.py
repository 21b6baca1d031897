"""Backpropagation, one function per equation, for a batch whose rows are samples.

The numbers are those of ``docs/equations.md``, where each equation is derived. Shapes stand at the end of the line: N
samples, a layer of `in` inputs and `out` neurons. `delta` is the error signal ∂C/∂z of a layer; a `vjp` is an
activation's backward form (z, a, ∂C/∂a) → ∂C/∂z, for an elementwise f the product with f'(z), for softmax the product
with its whole Jacobian.

What is not here: the order in which the equations are applied (``refimpl_numpy/network.py``), and the activations and
losses themselves (``refimpl_numpy/functions.py``). `Equations` gathers the functions, so that a mistake can be
planted in one of them at one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Activation = Callable[[Array], Array]
VectorJacobianProduct = Callable[[Array, Array, Array], Array]


def weighted_input(a: Array, W: Array, b: Array | None) -> Array:
    """(E1) z of a layer from the activations a of the layer before."""
    z = a @ W.T  # (N, out) = (N, in)(in, out)
    return z if b is None else z + b  # (N, out) + (out,)


def activation(z: Array, f: Activation) -> Array:
    """(E2) a of a layer."""
    return f(z)  # (N, out)


def cost(losses: Array, reduction: str) -> Array:
    """(E3) C from the losses of the samples (N,), or of their outputs (N, out): the sum, or its mean over the
    samples.
    """
    total: Array = losses.sum()  # ()
    return total / len(losses) if reduction == "mean" else total


def cost_gradient(dlosses_ds: Array, reduction: str) -> Array:
    """(E3) by s: ∂C/∂s, the only place where N divides."""
    return dlosses_ds / len(dlosses_ds) if reduction == "mean" else dlosses_ds  # (N, out)


def output_error(dC_ds: Array, z: Array, a: Array, vjp: VectorJacobianProduct) -> Array:
    """(B1) delta of the output layer: ∂C/∂s ⊙ f'(z)."""
    return vjp(z, a, dC_ds)  # (N, out)


def hidden_error(W: Array, delta_next: Array, z: Array, a: Array, vjp: VectorJacobianProduct) -> Array:
    """(B2) delta of a hidden layer, from the W and delta of the layer after it: (delta W) ⊙ f'(z)."""
    dC_da = delta_next @ W  # (N, in) = (N, out)(out, in)
    return vjp(z, a, dC_da)  # (N, in)


def weight_gradient(delta: Array, a: Array) -> Array:
    """(B3) ∂C/∂W from the layer's delta and the activations a that came in."""
    return delta.T @ a  # (out, in) = (out, N)(N, in)


def bias_gradient(delta: Array) -> Array:
    """(B4) ∂C/∂b: the error signals, summed over the batch."""
    return delta.sum(axis=0)  # (out,)


def input_gradient(delta: Array, W: Array) -> Array:
    """(B5) ∂C/∂x from the first layer's delta: (B2) where nothing is activated."""
    return delta @ W  # (N, in) = (N, out)(out, in)


@dataclass(frozen=True)
class Equations:
    """The equations that one layer runs. `dataclasses.replace(EQUATIONS, bias_gradient=wrong)` plants a mistake.

    `cost`, `cost_gradient` and `output_error` are the output layer's; `hidden_error` is run by the layer whose W
    leads back, for the delta before it.
    """

    weighted_input: Callable[[Array, Array, Array | None], Array] = weighted_input
    activation: Callable[[Array, Activation], Array] = activation
    cost: Callable[[Array, str], Array] = cost
    cost_gradient: Callable[[Array, str], Array] = cost_gradient
    output_error: Callable[[Array, Array, Array, VectorJacobianProduct], Array] = output_error
    hidden_error: Callable[[Array, Array, Array, Array, VectorJacobianProduct], Array] = hidden_error
    weight_gradient: Callable[[Array, Array], Array] = weight_gradient
    bias_gradient: Callable[[Array], Array] = bias_gradient
    input_gradient: Callable[[Array, Array], Array] = input_gradient


EQUATIONS = Equations()
