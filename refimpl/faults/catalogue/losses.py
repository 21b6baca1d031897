"""A wrong loss with right gradients."""

from __future__ import annotations

from refimpl.faults.mistaken import (
    WHOLE,
    Fault,
)
from refimpl.faults.plants import (
    loss,
)
from refimpl.faults.where import (
    averaging,
    summing,
    whole,
    with_loss,
)

FAULTS = (
    Fault(
        "loss_not_averaged",
        "The loss is the sum over the batch; the network's is the mean.",
        "Divide the loss by N.",
        averaging, loss(lambda m: float(m.n)), on_loss=True,
    ),
    Fault(
        "loss_averaged",
        "The loss is divided by N; the network's is the sum over the batch.",
        "Do not divide the loss by N.",
        summing, loss(lambda m: 1.0 / m.n), on_loss=True,
    ),
    Fault(
        "loss_averaged_over_outputs",
        "The loss is divided by the number of outputs, and the gradient is not: the two belong to different "
        "losses.",
        "Sum the loss over the outputs, or divide the gradient by n_out too and use mean_squared_error.",
        lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name != "mean_squared_error" else (),
        loss(lambda m: 1.0 / m.spec.n_out), on_loss=True,
    ),
    Fault(
        "loss_not_averaged_over_outputs",
        "The loss is summed over the outputs; mean_squared_error averages over them.",
        "Divide the loss by n_out.",
        lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name == "mean_squared_error" else (),
        loss(lambda m: float(m.spec.n_out)), on_loss=True,
    ),
    Fault(
        "loss_without_half",
        "The loss is (s − y)²; the network's is ½(s − y)².",
        "Multiply the loss by ½.",
        with_loss("squared_error"), loss(lambda m: 2.0), on_loss=True,
    ),
    Fault(
        "loss_with_half",
        "The loss is ½(s − y)²; the network's is (s − y)².",
        "Leave the ½ out of the loss.",
        with_loss("mean_squared_error"), loss(lambda m: 0.5), on_loss=True,
    ),
    Fault(
        "loss_wrong_sign",
        "The loss has the wrong sign.",
        "Minimise: the cross-entropy is −Σ y log p.",
        whole, loss(lambda m: -1.0), on_loss=True,
    ),
)  # fmt: skip
