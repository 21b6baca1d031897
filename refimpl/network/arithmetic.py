"""The floating-point arithmetics that an implementation may declare, as the constants that rounding-error
bounds need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Arithmetic:
    """One arithmetic, rounding to nearest.

    `unit_roundoff` u is half the distance from 1 to the next number. With `flushes_subnormals`, subnormal inputs and
    results become 0. Raises ValueError, with the field.
    """

    name: str
    unit_roundoff: float
    smallest_normal: float
    smallest_subnormal: float
    largest: float
    flushes_subnormals: bool = False

    def __post_init__(self) -> None:
        for field in ("unit_roundoff", "smallest_normal", "smallest_subnormal", "largest"):
            if not getattr(self, field) >= 0:  # 0 and inf: a model without that limit
                raise ValueError(f"Arithmetic: {field} must be 0 or more, got {getattr(self, field)!r:.40}")


def _ieee(name: str) -> Arithmetic:
    limits = np.finfo(name)
    return Arithmetic(
        name=name,
        unit_roundoff=float(limits.eps) / 2,
        smallest_normal=float(limits.smallest_normal),
        smallest_subnormal=float(limits.smallest_subnormal),
        largest=float(limits.max),
    )


ARITHMETICS: Mapping[str, Arithmetic] = {name: _ieee(name) for name in ("float64", "float32")}
FLUSHING: Mapping[str, Arithmetic] = {
    name: replace(arithmetic, name=f"{name}_flushing", flushes_subnormals=True)
    for name, arithmetic in ARITHMETICS.items()
}
