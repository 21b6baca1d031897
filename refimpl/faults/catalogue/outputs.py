"""What is wrong between the output and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refimpl.faults.mistaken import (
    WHOLE,
    Fault,
    Mistaken,
    Plant,
    like,
)
from refimpl.faults.plants import (
    vjp,
    with_layer,
)
from refimpl.faults.where import (
    batch,
    last_layer,
    one_output,
    whole,
    with_activation,
    with_loss,
)
from refimpl.network.spec import NetworkSpec
from refimpl.truth.elementwise import LOGISTIC
from refimpl.truth.graph import Node, apply, softmax, transpose
from refimpl.truth.network import LOSS_DEFINITIONS


def _ones(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d * 0.0 + 1.0, reduction))


def _softmax_twice(m: Mistaken, layer: int, parameter: Any) -> None:
    with_layer(m, layer, "softmax")
    m.spec = NetworkSpec(m.spec.input_shape, m.spec.layers, "cross_entropy", m.spec.reduction, m.spec.name)


def _sigmoid_kept(m: Mistaken, layer: int, parameter: Any) -> None:
    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        def cost_gradient(d: Any, reduction: str) -> Any:
            p = d + like(d, m.y)
            return right(d, reduction) * (p * (1.0 - p))

        return cost_gradient

    m.change(m.spec.depth, "cost_gradient", change)


def _softmax_kept(m: Mistaken, layer: int, parameter: Any) -> None:
    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        def cost_gradient(d: Any, reduction: str) -> Any:
            p, g = d + like(d, m.y), right(d, reduction)
            return p * (g - (p * g).sum(axis=1, keepdims=True))

        return cost_gradient

    m.change(m.spec.depth, "cost_gradient", change)


def _broadcast(share: Callable[[int], float]) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        slope = 2.0 if m.spec.loss.name == "mean_squared_error" else 1.0
        # Σ_k (s − y_k) over all targets in place of s − y
        others = slope * (m.n * m.y - m.y.sum())
        m.change(
            m.spec.depth,
            "cost_gradient",
            lambda right: lambda d, reduction: right((d * float(m.n) + like(d, others)) * share(m.n), reduction),
        )

    return plant


def _over_batch(z: Any) -> Any:
    """Softmax over the samples."""
    if isinstance(z, Node):
        return transpose(softmax(transpose(z, (1, 0))), (1, 0))
    e = np.exp(z - z.max(axis=0, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


def _softmax(z: Any) -> Any:
    if isinstance(z, Node):
        return softmax(z)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _softmax_over_batch(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "activation", lambda right: lambda z, f: _over_batch(z))
    m.change_vjp(layer, lambda vjp: lambda z, a, d: a * (d - (a * d).sum(axis=0, keepdims=True)))


def _log_loss(p: Any, y: Any) -> Any:
    return LOSS_DEFINITIONS["negative_log_likelihood"](p, y, {})


def _both_terms(p: Any, y: Any) -> Any:
    return _log_loss(p, y) + _log_loss(1.0 - p, 1.0 - y)


def _probabilities(of: Callable[[Any], Any], losses: Callable[[Any, Any], Any]) -> Plant:
    """∂C/∂s as these probabilities of s less y, over N where the loss is a mean; the losses may be of them too."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        share = 1.0 / m.spec.divisor(m.n)

        def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
            return lambda dC_ds, z, a, vjp: right((of(a) - like(dC_ds, m.y)) * share, z, a, vjp)

        m.change(m.spec.depth, "output_error", wrong)
        m.losses = lambda s: losses(of(s), m.y)

    return plant


def _labels_from_1(m: Mistaken, layer: int, parameter: Any) -> None:
    taken = np.roll(m.y, -1, axis=1)
    moved = m.y - taken
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d + like(d, moved), reduction))
    m.losses = lambda s: LOSS_DEFINITIONS["cross_entropy"](s, taken, {})


def _sign_of_second_term(m: Mistaken, layer: int, parameter: Any) -> None:
    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        def cost_gradient(d: Any, reduction: str) -> Any:
            y = like(d, m.y)
            p = d + y
            return right((p * (y - 1.0)) - (p * -1.0 + 1.0) * y, reduction)

        return cost_gradient

    m.change(m.spec.depth, "cost_gradient", change)
    # −y log p − (1 − y) log(1 − p) less twice its second term, log(1 + eˢ)
    m.losses = lambda s: LOSS_DEFINITIONS["binary_cross_entropy"](s, m.y, {}) - 2.0 * (1.0 - m.y) * apply(LOGISTIC, s)


def _classified(spec: NetworkSpec, n: int) -> Sequence[int]:
    """Where several outputs are classes."""
    return (WHOLE,) if spec.loss.name == "cross_entropy" and spec.n_out > 1 else ()


FAULTS = (
    Fault(
        "softmax_twice",
        "Softmax is applied twice: the network ends in softmax, and the cross-entropy takes logits.",
        "Give cross-entropy the logits, or use the negative log-likelihood on the probabilities.",
        last_layer(lambda spec: spec.n_out > 1 and (
            (spec.loss.name == "cross_entropy" and spec.layers[-1].activation.name == "identity")
            or (spec.loss.name == "negative_log_likelihood" and spec.layers[-1].activation.name == "softmax")
    )),
        _softmax_twice,
    ),
    Fault(
        "diagonal_softmax_jacobian",
        "Only the diagonal a(1 − a) of softmax's Jacobian is used.",
        "δ = a ⊙ (d − Σ a d): every output depends on every z.",
        with_activation("softmax"), vjp(lambda vjp: lambda z, a, d: d * (a * (1.0 - a))),
    ),
    Fault(
        "sigmoid_slope_kept",
        "σ'(s) is multiplied in although it has cancelled: ∂C/∂s of binary cross-entropy is σ(s) − y.",
        "Drop the σ' at the output.",
        with_loss("binary_cross_entropy"), _sigmoid_kept,
    ),
    Fault(
        "softmax_jacobian_kept",
        "The softmax's Jacobian is multiplied in although it has cancelled: ∂C/∂s of cross-entropy is "
        "softmax(s) − y.",
        "Drop the Jacobian at the output.",
        lambda spec, n: (WHOLE,) if spec.loss.name == "cross_entropy" and spec.n_out > 1 else (), _softmax_kept,
    ),
    Fault(
        "gradient_of_output",
        "The gradient is that of the network's output, not of the loss.",
        "Start the backward pass from ∂C/∂s, not from 1.",
        whole, _ones,
    ),
    Fault(
        "broadcast_residual_mean",
        "s − y was broadcast: s is (N, 1) and y is (N,), so every prediction meets every target (mean over all).",
        "Give y the shape (N, 1).",
        one_output, _broadcast(lambda n: 1.0 / n),
    ),
    Fault(
        "broadcast_residual_sum",
        "s − y was broadcast: s is (N, 1) and y is (N,), so every prediction meets every target (summed).",
        "Give y the shape (N, 1).",
        one_output, _broadcast(lambda n: 1.0),
    ),
    Fault(
        "softmax_over_batch",
        "The softmax is taken over the samples, not over the units.",
        "Softmax of a row: axis=1.",
        batch(with_activation("softmax")), _softmax_over_batch,
    ),
    Fault(
        "output_softmax_over_batch",
        "∂C/∂s is that of a softmax over the samples, not over the outputs.",
        "Softmax of a row: axis=1.",
        _classified, _probabilities(_over_batch, _log_loss),
    ),
    Fault(
        "softmax_for_binary_cross_entropy",
        "∂C/∂s is softmax(s) − y; for binary cross-entropy each output has a sigmoid of its own.",
        "∂C/∂s = σ(s) − y, or use the cross-entropy.",
        with_loss("binary_cross_entropy"), _probabilities(_softmax, _both_terms),
    ),
    Fault(
        "labels_from_1",
        "The labels are taken to begin at 1.",
        "The first class is 0.",
        _classified, _labels_from_1,
    ),
    Fault(
        "sign_of_second_term",
        "The term with 1 − y of the binary cross-entropy has the wrong sign.",
        "C = −Σ y log p + (1 − y) log(1 − p).",
        with_loss("binary_cross_entropy"), _sign_of_second_term,
    ),
)  # fmt: skip
