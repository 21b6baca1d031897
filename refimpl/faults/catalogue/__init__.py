"""The catalogue of faults: each known way to get backpropagation wrong, as a runnable change to the equations
(:mod:`refimpl.faults.mistaken`), in families. `FAULTS`, by name.

What it does not do: decide which fault explains a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from refimpl.faults.catalogue import averaging, numbers, outputs, samples, slopes, wiring
from refimpl.faults.mistaken import Fault
from refimpl.network.spec import NetworkSpec

FAMILIES = (averaging, wiring, slopes, outputs, samples, numbers)
# in the order in which equal explanations are named
FAULTS: Mapping[str, Fault] = {fault.name: fault for family in FAMILIES for fault in family.FAULTS}


def places(spec: NetworkSpec, n: int, dtype: str) -> Iterator[tuple[Fault, int]]:
    """Every fault at every layer where it can act."""
    for fault in FAULTS.values():
        if fault.dtype in ("", dtype):
            for layer in fault.where(spec, n):
                yield fault, layer
