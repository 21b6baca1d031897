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
    results become 0.
    """

    name: str
    unit_roundoff: float
    smallest_normal: float
    smallest_subnormal: float
    largest: float
    flushes_subnormals: bool = False


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
