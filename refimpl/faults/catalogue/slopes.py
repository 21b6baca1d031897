"""What is wrong about f and f'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from refimpl.faults.mistaken import (
    Fault,
    Jacobian,
    Mistaken,
    Plant,
    like,
)
from refimpl.faults.plants import (
    Noted,
    noting,
    vjp,
    with_layer,
)
from refimpl.faults.where import (
    KINKED,
    SLOPED,
    SMOOTH,
    last_layer,
    with_activation,
)
from refimpl.network.documents import Function
from refimpl.network.functions import SELU_ALPHA, SELU_SCALE
from refimpl.network.spec import NetworkSpec
from refimpl.truth.elementwise import AT_ZERO
from refimpl.truth.graph import Node, apply

DEFAULT_SLOPE = 0.01
T = TypeVar("T")


def _own(m: Mistaken, layer: int, of: Mapping[str, T]) -> T:
    """That of the layer's activation. Raises ValueError where another fault has put one there that has none."""
    name = m.spec.layers[layer - 1].activation.name
    if name not in of:
        raise ValueError(f"there is none for {name}")
    return of[name]


def _formula_fed_z(m: Mistaken, layer: int, parameter: Any) -> None:
    forms: Mapping[str, Jacobian] = {
        "sigmoid": lambda z, a, d: d * (z * (1.0 - z)),
        "tanh": lambda z, a, d: d * (1.0 - z * z),
        "softmax": lambda z, a, d: z * (d - (z * d).sum(axis=1, keepdims=True)),
    }
    wrong = _own(m, layer, forms)
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
        slopes = {
            "relu": (0.0, 1.0),
            "leaky_relu": (function.kwargs.get("negative_slope", 0.0), 1.0),
            "elu": (function.kwargs.get("alpha", 0.0), 1.0),
            "selu": (float(SELU_SCALE) * float(SELU_ALPHA), float(SELU_SCALE)),
        }
        left, right_slope = _own(m, layer, slopes)
        jump = share * (right_slope - left)
        m.change_vjp(layer, lambda vjp: lambda z, a, d: vjp(z, a, d) + d * like(d, jump * _at_zero(z)))

    return plant


def _at_zero(z: Any) -> Any:
    return apply(AT_ZERO, z) if isinstance(z, Node) else np.asarray(z == 0, dtype=np.float64)


def _left_out_of_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()
    m.change_vjp(layer, noting(seen, lambda result, z, a, d: d))
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(seen.value, a))


def _of_layer_above(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()

    def remembering(vjp: Jacobian) -> Jacobian:
        seen.value = vjp
        return vjp

    m.change_vjp(layer + 1, remembering)
    m.change_vjp(layer, lambda vjp: lambda z, a, d: seen.value(z, a, d))


def _at_layer_above(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()
    m.change_vjp(layer + 1, noting(seen, lambda result, z, a, d: (z, a)))
    m.change_vjp(layer, lambda vjp: lambda z, a, d: vjp(seen.value[0], seen.value[1], d))


def _formula(name: str) -> Plant:
    """The derivative of the sigmoid or of tanh in terms of a."""
    forms: Mapping[str, Jacobian] = {
        "sigmoid": lambda z, a, d: d * (a * (1.0 - a)),
        "tanh": lambda z, a, d: d * (1.0 - a * a),
    }
    return vjp(lambda vjp: forms[name])


def _not_applied(m: Mistaken, layer: int, parameter: Any) -> None:
    with_layer(m, layer, "identity")


def _default_slope(m: Mistaken, layer: int, parameter: Any) -> None:
    with_layer(m, layer, Function("leaky_relu", (("negative_slope", DEFAULT_SLOPE),)))


def _with_another_slope(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [
        number for number in with_activation("leaky_relu")(spec, n)
        if spec.layers[number - 1].activation.kwargs["negative_slope"] != DEFAULT_SLOPE
    ]  # fmt: skip


def _other_function_above(spec: NetworkSpec, n: int) -> Sequence[int]:
    each = with_activation("identity", "relu", *SMOOTH)(spec, n)
    functions = [layer.activation for layer in spec.layers]
    return [layer for layer in each if layer + 1 in each and functions[layer - 1] != functions[layer]]


def _same_width_above(spec: NetworkSpec, n: int) -> Sequence[int]:
    sloped = with_activation(*SMOOTH)(spec, n)
    return [layer for layer in sloped if layer + 1 in sloped and spec.sizes[layer] == spec.sizes[layer + 1]]


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
        "At z = 0 the derivative is taken from the right, as torch.clamp does; the network's is the left one.",
        "Use z > 0, not z ≥ 0, in the mask.",
        with_activation(*KINKED), _kink_slope(1.0),
    ),
    Fault(
        "kink_slope_half",
        "At z = 0 the derivative is the mean of both sides, as jax.numpy.maximum gives; the network's is the "
        "left one.",
        "Use z > 0 in the mask, or jax.nn.relu in place of jax.numpy.maximum.",
        with_activation(*KINKED), _kink_slope(0.5),
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
    Fault(
        "slope_missing_in_weight_gradient",
        "dW is formed without f'(z), which db and what is propagated have.",
        "Multiply by f'(z) before dW is formed: dW = δᵀ a with the whole δ.",
        with_activation(*SLOPED), _left_out_of_weight_gradient,
    ),
    Fault(
        "slope_of_layer_above",
        "f' is that of the next layer's activation.",
        "Differentiate the activation that this layer applies.",
        _other_function_above, _of_layer_above,
    ),
    Fault(
        "slope_at_layer_above",
        "f' is taken at the next layer's z.",
        "f'(z) of a layer takes that layer's z.",
        _same_width_above, _at_layer_above,
    ),
    *(
        Fault(
            f"formula_of_{name}",
            f"f' is taken as {form} at a layer that has another activation than {name}.",
            "a(1 − a) belongs to the sigmoid and 1 − a² to tanh: each layer has the derivative of what it applies.",
            with_activation(*(other for other in ("identity", "relu", *SMOOTH) if other != name)), _formula(name),
        )
        for name, form in (("sigmoid", "a(1 − a)"), ("tanh", "1 − a²"))
    ),
    Fault(
        "activation_not_applied",
        "The activation of this layer is not applied.",
        "a = f(z) at every layer.",
        with_activation(*SLOPED, last=False), _not_applied,
    ),
    Fault(
        "leaky_slope_fixed",
        "The leaky ReLU has a slope of 0.01, whatever was asked for.",
        "Take negative_slope from the network.",
        _with_another_slope, _default_slope,
    ),
)  # fmt: skip
