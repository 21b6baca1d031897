"""What is wrong about f and f'."""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.faults.mistaken import (
    Fault,
    Jacobian,
    Mistaken,
    Plant,
    like,
)
from refimpl.faults.plants import (
    vjp,
    with_layer,
)
from refimpl.faults.where import (
    SLOPED,
    SMOOTH,
    last_layer,
    with_activation,
)
from refimpl.truth.elementwise import AT_ZERO
from refimpl.truth.graph import Node, apply


def _formula_fed_z(m: Mistaken, layer: int, parameter: Any) -> None:
    wrong: Jacobian = {
        "sigmoid": lambda z, a, d: d * (z * (1.0 - z)),
        "tanh": lambda z, a, d: d * (1.0 - z * z),
        "softmax": lambda z, a, d: z * (d - (z * d).sum(axis=1, keepdims=True)),
    }[m.spec.layers[layer - 1].activation.name]
    m.change_vjp(layer, lambda vjp: wrong)


def _other_gelu(m: Mistaken, layer: int, parameter: Any) -> None:
    present = m.spec.layers[layer - 1].activation.name
    with_layer(m, layer, "gelu_tanh" if present == "gelu" else "gelu")


def _wrong_side(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "activation", lambda right: lambda z, f: -right(-z, f))
    m.change_vjp(layer, lambda vjp: lambda z, a, d: vjp(-z, a, d))


def _kink_slope(share: float) -> Plant:
    """`share` of the right derivative and the rest of the left one at a kink."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        function = m.spec.layers[layer - 1].activation
        left, right_slope = {
            "relu": (0.0, 1.0),
            "leaky_relu": (function.kwargs.get("negative_slope", 0.0), 1.0),
        }[function.name]
        jump = share * (right_slope - left)
        m.change_vjp(layer, lambda vjp: lambda z, a, d: vjp(z, a, d) + d * like(d, jump * _at_zero(z)))

    return plant


def _at_zero(z: Any) -> Any:
    return apply(AT_ZERO, z) if isinstance(z, Node) else np.asarray(z == 0, dtype=np.float64)


FAULTS = (
    Fault(
        "slope_dropped",
        "The error signal goes through this layer's activation without f'(z).",
        "Multiply by f'(z): δ = (δ W) ⊙ f'(z).",
        with_activation(*SLOPED, last=False), vjp(lambda vjp: lambda z, a, d: d),
    ),
    Fault(
        "output_slope_dropped",
        "The error signal of the output lacks f'(z), as if it cancelled with the loss; it does so only for "
        "a sigmoid with cross-entropy and a softmax with cross-entropy.",
        "δ = ∂C/∂s ⊙ f'(z) for this loss, e.g. σ'(z) with the squared error.",
        last_layer(lambda spec: spec.layers[-1].activation.name != "identity"),
        vjp(lambda vjp: lambda z, a, d: d),
    ),
    Fault(
        "slope_at_activation",
        "The derivative of the activation is taken at a instead of at z.",
        "Give f' the weighted input: f'(z).",
        with_activation(*SMOOTH), vjp(lambda vjp: lambda z, a, d: vjp(a, a, d)),
    ),
    Fault(
        "activation_formula_fed_z",
        "The formula for the derivative in terms of a (such as a(1 − a)) is fed z.",
        "Either f'(z) from z, or a(1 − a) and 1 − a² from a.",
        with_activation("sigmoid", "tanh", "softmax"), _formula_fed_z,
    ),
    Fault(
        "slope_twice",
        "The error signal is multiplied by f'(z) twice at this layer.",
        "Multiply by f'(z) once a layer.",
        with_activation(*SMOOTH), vjp(lambda vjp: lambda z, a, d: vjp(z, a, vjp(z, a, d))),
    ),
    Fault(
        "relu_mask_on_gradient",
        "The ReLU's mask is the sign of the incoming gradient, not of z.",
        "Let the gradient through where z > 0.",
        with_activation("relu"), vjp(lambda vjp: lambda z, a, d: vjp(d, a, d)),
    ),
    Fault(
        "kink_slope_one",
        "At z = 0 the derivative is taken from the right (1), as torch.clamp does; the network's is the left one.",
        "Use z > 0, not z ≥ 0, in the mask.",
        with_activation("relu", "leaky_relu"), _kink_slope(1.0),
    ),
    Fault(
        "kink_slope_half",
        "At z = 0 the derivative is the mean of both sides, as jax.numpy.maximum gives; the network's is the "
        "left one.",
        "Use z > 0 in the mask, or jax.nn.relu in place of jax.numpy.maximum.",
        with_activation("relu", "leaky_relu"), _kink_slope(0.5),
    ),
    Fault(
        "other_gelu",
        "The other GELU is computed: the tanh approximation in place of z Φ(z), or the other way round.",
        "torch.nn.GELU() is exact, jax.nn.gelu approximates by default: say which (approximate=…).",
        with_activation("gelu", "gelu_tanh"), _other_gelu,
    ),
    Fault(
        "leaky_slope_wrong_side",
        "The leaky ReLU's small slope is on the positive side.",
        "z where z > 0, negative_slope · z elsewhere.",
        with_activation("leaky_relu"), _wrong_side,
    ),
)  # fmt: skip
