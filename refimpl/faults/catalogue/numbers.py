"""How numbers are computed, kept and printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refimpl.faults.mistaken import (
    Array,
    Fault,
    Mistaken,
)
from refimpl.faults.where import (
    layers,
    whole_and_layers,
)


def _in_float32(m: Mistaken, layer: int, parameter: Any) -> None:
    """Every operand of the layer's equations rounded to float32 first; for the whole network, of every equation."""

    def rounded(right: Callable[..., Any]) -> Callable[..., Any]:
        def equation(*operands: Any) -> Any:
            return right(*(_single(operand) for operand in operands))

        return equation

    if layer:
        m.change(layer, "weight_gradient", rounded)
        return
    for number in layers(m.spec, m.n):
        for name in ("weighted_input", "activation", "cost_gradient", "output_error", "hidden_error"):
            m.change(number, name, rounded)
        for name in ("weight_gradient", "bias_gradient"):
            m.change(number, name, rounded)


def _single(operand: Any) -> Any:
    return operand.astype(np.float32) if hasattr(operand, "astype") else operand


def _is_float32(values: Array) -> bool:
    """Whether all numbers are among float32's, and enough of them to tell, and they are of no shorter format."""
    return values.size > 1 and are_single(values) and not are_short(values)


def are_single(values: Array) -> bool:
    """Whether all numbers are among float32's."""
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float32).astype(values.dtype) == values).all())


def are_short(values: Array) -> bool:
    """Whether all numbers have no more significant bits than float16's; bfloat16's have fewer."""
    mantissas = np.frexp(values)[0] * 2.0**11
    return bool((mantissas == np.rint(mantissas)).all())


FAULTS = (
    Fault(
        "float32_inside",
        "The answer is float64, but it was computed in float32 or rounded to it.",
        "Cast the parameters and the data to float64 before computing, and the result to nothing else.",
        whole_and_layers, _in_float32, evidence=_is_float32, dtype="float64",
    ),
)  # fmt: skip
