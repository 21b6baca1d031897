"""Samples that overwrite each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.faults.mistaken import (
    Fault,
    Mistaken,
    like,
)
from refimpl.faults.where import (
    batch,
    deep,
    layers,
    whole,
)


def _last_sample(m: Mistaken, layer: int, parameter: Any) -> None:
    chosen = np.zeros((m.n, 1))
    chosen[-1] = 1.0
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, reduction) * like(d, chosen))


def _last_sample_of_layer(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta[-1:], a[-1:]))
    m.change(layer, "bias_gradient", lambda right: lambda delta: right(delta[-1:]))


FAULTS = (
    Fault(
        "last_sample_only",
        "Only the last sample contributes: each sample's gradient overwrites the one before.",
        "Add the samples' gradients up (+=).",
        batch(whole), _last_sample,
    ),
    Fault(
        "layer_last_sample_only",
        "Only the last sample contributes to the gradients of this layer.",
        "Add the samples' gradients up (+=).",
        batch(deep(layers)), _last_sample_of_layer,
    ),
)  # fmt: skip
