"""Difference quotients of the loss in the place of a gradient: what they are called. They are looked for by
:mod:`refimpl.faults.quotients`.
"""

from __future__ import annotations

from typing import Any

from refimpl.faults.fits.fit import fit
from refimpl.faults.mistaken import Mistaken, Plant

REMEDY = "Derive it: a difference quotient is good for about half the digits."


def _over_a_step(one_sided: bool) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.step, m.one_sided = float(parameter), one_sided

    return plant


CENTRAL = fit(
    "finite_differences", "The gradient is not derived but a central difference quotient of the loss.", REMEDY,
    _over_a_step(one_sided=False), "step", 1e-5,
)  # fmt: skip
ONE_SIDED = fit(
    "one_sided_differences", "The gradient is not derived but a one-sided difference quotient of the loss.", REMEDY,
    _over_a_step(one_sided=True), "step", 1e-7,
)  # fmt: skip
DIFFERENCES = (CENTRAL, ONE_SIDED)
