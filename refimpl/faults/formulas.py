"""Textbook formulas that are right on paper, and lose digits or overflow in floating point.

Each is a `Fault` of the whole network, whose change to the equations is the formula with its own roundings
(:func:`refimpl.faults.prediction.computed`): without any it would be right. Of a function that is written in several
ways there is one a form, all of one name. Those that are `CANCELLING` give wrong numbers, and may overflow too; those
that are but `OVERFLOWING` give none.

What is not here: what the tolerance grants, such as e^z − 1 in place of expm1 (:mod:`refimpl.network.functions`), and
overflow in the sigmoid or softmax of a layer, which makes nearly every gradient NaN throughout, as much else does; nor
an infinite loss alone of the cross-entropy, which the logarithm of a softmax that is 0 gives too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.catalogue import FAULTS
from refimpl.faults.mistaken import WHOLE, Fault, Mistaken, Plant, Where, like
from refimpl.faults.prediction import Exponential, Form, computed

Array = NDArray[Any]


def _with_activation(name: str) -> Where:
    return lambda spec, n: (WHOLE,) if any(layer.activation.name == name for layer in spec.layers) else ()


def _with_loss(name: str) -> Where:
    return lambda spec, n: (WHOLE,) if spec.loss.name == name else ()


def _layers(m: Mistaken, name: str) -> list[int]:
    return [number for number, layer in enumerate(m.spec.layers, start=1) if layer.activation.name == name]


def _activations(name: str, form: Form) -> Plant:
    """a of every layer with this activation by a formula."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        for number in _layers(m, name):
            m.change(number, "activation", lambda right: lambda z, f: computed(form, z))

    return plant


def _softplus_differentiated(m: Mistaken, layer: int, parameter: Any) -> None:
    """With e^z/(1 + e^z) for the derivative, as automatic differentiation has it."""
    _activations("softplus", _softplus)(m, layer, parameter)
    for number in _layers(m, "softplus"):
        m.change_vjp(number, lambda vjp: lambda z, a, d: vjp(z, a, d) + d * computed(_lost_of_sigmoid, z))


def _loss(losses: Callable[[Any, Any, Any], Any] | None = None, lost: Form | None = None) -> Plant:
    """The losses of every sample and output as `losses(the right ones, s, y)`; what is `lost` of ∂C/∂s added to it."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        seen: list[Any] = []

        def remembering(right: Callable[..., Any]) -> Callable[..., Any]:
            def activation(z: Any, f: Any) -> Any:
                seen[:] = [right(z, f)]
                return seen[0]

            return activation

        m.change(m.spec.depth, "activation", remembering)
        if losses:
            m.change(
                m.spec.depth, "cost",
                lambda right: lambda known, reduction: right(losses(known, seen[0], like(seen[0], m.y)), reduction),
            )  # fmt: skip
        if lost:
            m.change(
                m.spec.depth, "cost_gradient",
                lambda right: lambda d, reduction: right(d + computed(lost, seen[0]), reduction),
            )  # fmt: skip

    return plant


# --------------------------------------------------------------------------------------------------------------
# The formulas, of arrays and an exponential


def _softplus(z: Array, exp: Exponential) -> Array:
    return np.log(1 + exp(z))


def _tanh(z: Array, exp: Exponential) -> Array:
    return (exp(z) - exp(-z)) / (exp(z) + exp(-z))


def _tanh_of_falling(z: Array, exp: Exponential) -> Array:
    return (1 - exp(-2 * z)) / (1 + exp(-2 * z))


def _tanh_of_rising(z: Array, exp: Exponential) -> Array:
    return (exp(2 * z) - 1) / (exp(2 * z) + 1)


def _tanh_of_sigmoid(z: Array, exp: Exponential) -> Array:
    return 2 / (1 + exp(-2 * z)) - 1


def _log_sigmoid(s: Array, exp: Exponential) -> Array:
    return np.log(1 / (1 + exp(-s)))


def _log_of_rest(s: Array, exp: Exponential) -> Array:
    return np.log(1 - 1 / (1 + exp(-s)))


def _of_logits(losses: Any, s: Any, y: Any) -> Any:
    return computed(_softplus, s) - y * s


def _of_probabilities(losses: Any, s: Any, y: Any) -> Any:
    return -(y * computed(_log_sigmoid, s) + (1.0 - y) * computed(_log_of_rest, s))


def _with_log_sum(losses: Any, s: Any, y: Any) -> Any:
    lost = computed(_lost_of_log_sum, s)
    return losses + (lost if losses.ndim > 1 else lost[:, 0])


# by how much they are not the right ones where they overflow; elsewhere nothing


def _lost_of_sigmoid(s: Array, exp: Exponential) -> Array:
    return exp(s) * 0


def _lost_of_softmax(z: Array, exp: Exponential) -> Array:
    e, safe = exp(z), exp(z - z.max(axis=1, keepdims=True))
    total = e.sum(axis=1, keepdims=True)
    lost = e / total - safe / safe.sum(axis=1, keepdims=True)
    return np.where(np.isfinite(total) & (total > 0), 0, lost)


def _lost_of_log_sum(s: Array, exp: Exponential) -> Array:
    total = exp(s).sum(axis=1, keepdims=True)
    return np.where(np.isfinite(total) & (total > 0), 0, np.log(total)) + 0 * s


# --------------------------------------------------------------------------------------------------------------
# The table

CANCELLING: tuple[Fault, ...] = (
    Fault(
        "cancellation_in_softplus",
        "Softplus is computed as log(1 + e^z): the sum loses the digits of a small e^z, and a large one overflows.",
        "Use log1p: max(z, 0) + log1p(e^−|z|).",
        _with_activation("softplus"), _activations("softplus", _softplus),
    ),
    *(
        Fault(
            "cancellation_in_tanh",
            "Tanh is computed by exponentials: near 0 their difference loses digits, and large ones overflow.",
            "Call the library's tanh, or use expm1: t / (t + 2) with t = expm1(2|z|), and the sign of z.",
            _with_activation("tanh"), _activations("tanh", form),
        )
        for form in (_tanh, _tanh_of_falling, _tanh_of_rising, _tanh_of_sigmoid)
    ),
    Fault(
        "binary_cross_entropy_without_log1p",
        "The binary cross-entropy is computed as log(1 + e^s) − y s, which overflows with e^s, or from σ(s), where "
        "1 − σ(s) loses the digits of a large s.",
        "Use log1p: max(s, 0) − y s + log1p(e^−|s|).",
        _with_loss("binary_cross_entropy"), _loss(_of_probabilities), on_loss=True,
    ),
)  # fmt: skip

_SOFTPLUS, *_, _BINARY_CROSS_ENTROPY = CANCELLING

OVERFLOWING: tuple[Fault, ...] = (
    replace(_SOFTPLUS, plant=_softplus_differentiated),
    replace(_BINARY_CROSS_ENTROPY, plant=_loss(_of_logits)),
    Fault(
        "overflow_in_sigmoid",
        "The sigmoid is computed as e^s/(1 + e^s), which is ∞/∞ where e^s overflows.",
        "Use 1/(1 + e^−s), or e^s/(1 + e^s) where s < 0 only.",
        _with_loss("binary_cross_entropy"), _loss(lost=_lost_of_sigmoid),
    ),
    Fault(
        "overflow_in_softmax",
        "The exponentials of the cross-entropy overflow: the largest of the row is not subtracted first.",
        "Subtract it: e^(s − max s) in the softmax; max s + log Σ e^(s − max s) − s for the loss.",
        _with_loss("cross_entropy"), _loss(_with_log_sum, _lost_of_softmax),
    ),
)  # fmt: skip

FORMULAS = (*CANCELLING, *OVERFLOWING)
NAMED: Mapping[str, Fault] = {**FAULTS, **{fault.name: fault for fault in reversed(FORMULAS)}}
