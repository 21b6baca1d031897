"""Factors, by where they are multiplied in: 1/N or 1/n_out too often or too rarely, a 2 or a sign."""

from __future__ import annotations

from collections.abc import Callable

from refimpl.faults.mistaken import Fault, Mistaken, Where
from refimpl.faults.plants import times
from refimpl.faults.where import (
    averaged,
    averaging,
    batch,
    biased,
    deep,
    layers,
    outputs_averaged,
    outputs_summed,
    summing,
    whole,
    whole_and_layers,
    with_loss,
)


def _n(m: Mistaken) -> float:
    return float(m.n)


def _one_over_n(m: Mistaken) -> float:
    return 1.0 / m.n


def _outputs(m: Mistaken) -> float:
    return float(m.spec.n_out)


def _one_over_outputs(m: Mistaken) -> float:
    return 1.0 / m.spec.n_out


def _two(m: Mistaken) -> float:
    return 2.0


def _half(m: Mistaken) -> float:
    return 0.5


def _minus(m: Mistaken) -> float:
    return -1.0


Row = tuple[str, Where, tuple[str, ...], Callable[[Mistaken], float], str, str]
COST = ("∂C/∂s",)
GRADIENTS = ("W", "b")
# name, where, what is multiplied, by what, and what to say
FACTORS: tuple[Row, ...] = (
    (
        "not_averaged", averaging, COST, _n,
        "The gradient is the sum over the batch; the loss is its mean.",
        "Divide ∂C/∂s by N, once, where the loss is averaged.",
    ),
    (
        "averaged_twice", averaging, COST, _one_over_n,
        "The gradient is divided by N twice: once with the loss and once more when it is summed over the batch.",
        "Divide by N in one place only; sum over the batch everywhere else.",
    ),
    (
        "averaged_sum", summing, COST, _one_over_n,
        "The gradient is divided by N, though the loss is a sum over the batch.",
        "Do not divide by N where the reduction is a sum.",
    ),
    (
        "averaged_at_every_layer", batch(deep(whole)), ("every delta",), _one_over_n,
        "The error signal is divided by N again at every layer it is propagated through.",
        "Divide by N at the loss alone; δ already carries it.",
    ),
    (
        "layer_averaged_again", batch(deep(layers)), GRADIENTS, _one_over_n,
        "The gradients of this layer are averaged over the batch although δ already carries the 1/N.",
        "Sum dW and db over the batch: dW = δᵀa, db = Σδ.",
    ),
    (
        "accumulated_twice", whole_and_layers, GRADIENTS, _two,
        "The gradients are added up twice, as when they are not zeroed between two backward passes.",
        "Set the gradients to zero before each backward pass.",
    ),
    (
        "squared_error_without_half", with_loss("squared_error"), COST, _two,
        "The gradient is that of (s − y)²; the loss is ½(s − y)².",
        "∂/∂s of ½(s − y)² is s − y, without the 2.",
    ),
    (
        "squared_error_with_half", with_loss("mean_squared_error"), COST, _half,
        "The gradient lacks the 2 of the derivative of (s − y)².",
        "∂/∂s of (s − y)² is 2(s − y).",
    ),
    (
        "averaged_over_outputs", outputs_summed, COST, _one_over_outputs,
        "The gradient is divided by the number of outputs; the loss is summed over them.",
        "Do not divide by n_out, or use mean_squared_error.",
    ),
    (
        "not_averaged_over_outputs", outputs_averaged, COST, _outputs,
        "The gradient is summed over the outputs; mean_squared_error averages over them.",
        "Divide ∂C/∂s by n_out.",
    ),
    (
        "wrong_sign", whole_and_layers, GRADIENTS, _minus,
        "The gradient has the wrong sign: it points downhill, as with y − s in place of s − y.",
        "∂C/∂s of a squared error is s − y; the minus belongs to the update, not to the gradient.",
    ),
    (
        "bias_gradient_averaged", batch(biased), ("b",), _one_over_n,
        "The gradient of b is averaged over the batch although δ already carries the 1/N.",
        "db = δ.sum(axis=0), not the mean.",
    ),
    (
        "weight_gradient_averaged", batch(biased), ("W",), _one_over_n,
        "The gradient of W is averaged over the batch although δ already carries the 1/N.",
        "dW = δᵀ a, not divided by N.",
    ),
    (
        "bias_gradient_not_averaged", averaged(biased), ("b",), _n,
        "The gradient of b is the sum over the batch; the loss is its mean, and dW's 1/N is not in δ.",
        "Divide ∂C/∂s by N, once, so that dW and db both have it; or divide both.",
    ),
    (
        "weight_gradient_not_averaged", averaged(layers), ("W",), _n,
        "The gradient of W is the sum over the batch; the loss is its mean.",
        "Divide ∂C/∂s by N, once, so that dW and db both have it; or divide both.",
    ),
    (
        "loss_not_averaged", averaging, ("loss",), _n,
        "The loss is the sum over the batch; the network's is the mean.",
        "Divide the loss by N.",
    ),
    (
        "loss_averaged", summing, ("loss",), _one_over_n,
        "The loss is divided by N; the network's is the sum over the batch.",
        "Do not divide the loss by N.",
    ),
    (
        "loss_averaged_over_outputs", outputs_summed, ("loss",), _one_over_outputs,
        "The loss is divided by the number of outputs, and the gradient is not: the two belong to different losses.",
        "Sum the loss over the outputs, or divide the gradient by n_out too and use mean_squared_error.",
    ),
    (
        "loss_not_averaged_over_outputs", outputs_averaged, ("loss",), _outputs,
        "The loss is summed over the outputs; mean_squared_error averages over them.",
        "Divide the loss by n_out.",
    ),
    (
        "loss_without_half", with_loss("squared_error"), ("loss",), _two,
        "The loss is (s − y)²; the network's is ½(s − y)².",
        "Multiply the loss by ½.",
    ),
    (
        "loss_with_half", with_loss("mean_squared_error"), ("loss",), _half,
        "The loss is ½(s − y)²; the network's is (s − y)².",
        "Leave the ½ out of the loss.",
    ),
    (
        "loss_wrong_sign", whole, ("loss",), _minus,
        "The loss has the wrong sign.",
        "Minimise: the cross-entropy is −Σ y log p.",
    ),
)  # fmt: skip

FAULTS = tuple(
    Fault(name, explanation, remedy, where, times(*scaled, by=factor), on_loss=scaled == ("loss",))
    for name, where, scaled, factor, explanation, remedy in FACTORS
)
