"""Factors: what is divided by N or n_out too often or too rarely, a 2 or a sign."""

from __future__ import annotations

from typing import Any

from refimpl.faults.mistaken import (
    WHOLE,
    Fault,
    Mistaken,
)
from refimpl.faults.plants import (
    bias_gradient,
    cost_gradient,
    gradients,
    weight_gradient,
)
from refimpl.faults.where import (
    averaged,
    averaging,
    batch,
    biased,
    deep,
    layers,
    leading_back,
    summing,
    whole,
    whole_and_layers,
    with_loss,
)


def _undo_average(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, "sum"))


def _over_n_minus_1(m: Mistaken, layer: int, parameter: Any) -> None:
    more = m.n / (m.n - 1)
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, reduction) * more)
    m.change(m.spec.depth, "cost", lambda right: lambda losses, reduction: right(losses, reduction) * more)


def _average_every_layer(m: Mistaken, layer: int, parameter: Any) -> None:
    for number in leading_back(m.spec, m.n):
        m.change(number, "hidden_error", lambda right: lambda *operands: right(*operands) / m.n)


def _mean_of_outputs(m: Mistaken) -> float:
    return 1.0 / m.spec.n_out


FAULTS = (
    Fault(
        "not_averaged",
        "The gradient is the sum over the batch; the loss is its mean.",
        "Divide ∂C/∂s by N, once, where the loss is averaged.",
        averaging, _undo_average,
    ),
    Fault(
        "averaged_over_n_minus_1",
        "The sum over the batch is divided by N − 1, as an unbiased variance is; the loss is the mean.",
        "Divide by N.",
        averaging, _over_n_minus_1,
    ),
    Fault(
        "averaged_twice",
        "The gradient is divided by N twice: once with the loss and once more when it is summed over the batch.",
        "Divide by N in one place only; sum over the batch everywhere else.",
        averaging, cost_gradient(lambda d, m: d / m.n),
    ),
    Fault(
        "averaged_sum",
        "The gradient is divided by N, though the loss is a sum over the batch.",
        "Do not divide by N where the reduction is a sum.",
        summing, cost_gradient(lambda d, m: d / m.n),
    ),
    Fault(
        "averaged_at_every_layer",
        "The error signal is divided by N again at every layer it is propagated through.",
        "Divide by N at the loss alone; δ already carries it.",
        batch(deep(whole)), _average_every_layer,
    ),
    Fault(
        "layer_averaged_again",
        "The gradients of this layer are averaged over the batch although δ already carries the 1/N.",
        "Sum dW and db over the batch: dW = δᵀa, db = Σδ.",
        batch(deep(layers)), gradients(lambda m: 1.0 / m.n),
    ),
    Fault(
        "accumulated_twice",
        "The gradients are added up twice, as when they are not zeroed between two backward passes.",
        "Set the gradients to zero before each backward pass.",
        whole_and_layers, gradients(lambda m: 2.0),
    ),
    Fault(
        "squared_error_without_half",
        "The gradient is that of (s − y)²; the loss is ½(s − y)².",
        "∂/∂s of ½(s − y)² is s − y, without the 2.",
        with_loss("squared_error"), cost_gradient(lambda d, m: d * 2.0),
    ),
    Fault(
        "squared_error_with_half",
        "The gradient lacks the 2 of the derivative of (s − y)².",
        "∂/∂s of (s − y)² is 2(s − y).",
        with_loss("mean_squared_error"), cost_gradient(lambda d, m: d * 0.5),
    ),
    Fault(
        "averaged_over_outputs",
        "The gradient is divided by the number of outputs; the loss is summed over them.",
        "Do not divide by n_out, or use mean_squared_error.",
        lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name != "mean_squared_error" else (),
        cost_gradient(lambda d, m: d * _mean_of_outputs(m)),
    ),
    Fault(
        "not_averaged_over_outputs",
        "The gradient is summed over the outputs; mean_squared_error averages over them.",
        "Divide ∂C/∂s by n_out.",
        lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name == "mean_squared_error" else (),
        cost_gradient(lambda d, m: d * float(m.spec.n_out)),
    ),
    Fault(
        "wrong_sign",
        "The gradient has the wrong sign: it points downhill, as with y − s in place of s − y.",
        "∂C/∂s of a squared error is s − y; the minus belongs to the update, not to the gradient.",
        whole_and_layers, gradients(lambda m: -1.0),
    ),
    Fault(
        "bias_gradient_averaged",
        "The gradient of b is averaged over the batch although δ already carries the 1/N.",
        "db = δ.sum(axis=0), not the mean.",
        batch(biased), bias_gradient(lambda db, delta: db / float(len(delta))),
    ),
    Fault(
        "weight_gradient_averaged",
        "The gradient of W is averaged over the batch although δ already carries the 1/N.",
        "dW = δᵀ a, not divided by N.",
        batch(biased), weight_gradient(lambda dW, delta: dW / float(len(delta))),
    ),
    Fault(
        "bias_gradient_not_averaged",
        "The gradient of b is the sum over the batch; the loss is its mean, and dW's 1/N is not in δ.",
        "Divide ∂C/∂s by N, once, so that dW and db both have it; or divide both.",
        averaged(biased), bias_gradient(lambda db, delta: db * float(len(delta))),
    ),
    Fault(
        "weight_gradient_not_averaged",
        "The gradient of W is the sum over the batch; the loss is its mean.",
        "Divide ∂C/∂s by N, once, so that dW and db both have it; or divide both.",
        averaged(layers), weight_gradient(lambda dW, delta: dW * float(len(delta))),
    ),
)  # fmt: skip
