"""Samples that overwrite each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refimpl.faults.mistaken import (
    Fault,
    Mistaken,
    Plant,
    like,
)
from refimpl.faults.where import (
    averaging,
    batch,
    biased,
    deep,
    layers,
    whole,
)


def _last_sample(scale: Callable[[Mistaken], float]) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        chosen = np.zeros((m.n, 1))
        chosen[-1] = scale(m)
        m.change(
            m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, reduction) * like(d, chosen)
        )

    return plant


def _last_sample_of_weights(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta[-1:], a[-1:]))


def _last_sample_of_bias(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "bias_gradient", lambda right: lambda delta: right(delta[-1:]))


def _last_sample_of_layer(m: Mistaken, layer: int, parameter: Any) -> None:
    _last_sample_of_weights(m, layer, parameter)
    _last_sample_of_bias(m, layer, parameter)


FAULTS = (
    Fault(
        "last_sample_only",
        "Only the last sample contributes: each sample's gradient overwrites the one before.",
        "Add the samples' gradients up (+=).",
        batch(whole), _last_sample(lambda m: 1.0),
    ),
    Fault(
        "last_sample_alone",
        "The gradient is that of the last sample alone, not even divided by N.",
        "Average the gradients of all samples.",
        averaging, _last_sample(lambda m: float(m.n)),
    ),
    Fault(
        "layer_last_sample_only",
        "Only the last sample contributes to the gradients of this layer.",
        "Add the samples' gradients up (+=).",
        batch(deep(layers)), _last_sample_of_layer,
    ),
    Fault(
        "weight_gradient_last_sample_only",
        "Only the last sample contributes to dW of this layer: each sample's overwrites the one before.",
        "Add the samples' dW up (+=).",
        batch(biased), _last_sample_of_weights,
    ),
    Fault(
        "bias_gradient_last_sample_only",
        "Only the last sample contributes to db of this layer: each sample's overwrites the one before.",
        "Add the samples' db up (+=).",
        batch(biased), _last_sample_of_bias,
    ),
)  # fmt: skip
