"""What all fits have in common: how much must bear one out, and that no layer is looked for where one may act."""

from __future__ import annotations

from collections.abc import Sequence

from refimpl.faults.mistaken import Fault, Plant
from refimpl.network.spec import NetworkSpec

CLEAR = 0.01  # the share of a change that its tolerance may have
CONFIRMATIONS = 3  # elements that must agree on a number without a name, the one it was fitted to included
ACCIDENT = 1e-4  # how likely it may be that a fit is none


def fit(name: str, explanation: str, remedy: str, plant: Plant, parameter: str, example: float) -> Fault:
    """A fault that is fitted, not tried layer by layer."""
    return Fault(name, explanation, remedy, _nowhere, plant, parameter=parameter, example=example)


def _nowhere(spec: NetworkSpec, n: int) -> Sequence[int]:
    return ()
