"""The floating-point arithmetics that an implementation may declare, as the constants that rounding-error
bounds need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

MAX_NAME = 80


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
        if not (isinstance(self.name, str) and self.name.isprintable() and 0 < len(self.name) <= MAX_NAME):
            raise ValueError(f"Arithmetic: name must be one line of 1 to {MAX_NAME} printable characters")
        for field in ("unit_roundoff", "smallest_normal", "smallest_subnormal", "largest"):
            value = getattr(self, field)
            if not isinstance(value, float) or not value >= 0:  # 0 and inf: a model without that limit
                raise ValueError(f"Arithmetic: {field} must be a float of 0 or more, got {value!r:.40}")
        if not isinstance(self.flushes_subnormals, bool):
            raise ValueError(f"Arithmetic: flushes_subnormals must be a bool, got {self.flushes_subnormals!r:.40}")


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
