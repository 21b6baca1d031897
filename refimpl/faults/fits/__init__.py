"""What few numbers explain, tried before the catalogue: `fitted`, and `FITS`, by name."""

from __future__ import annotations

from collections.abc import Mapping

from refimpl.faults.findings import Causes
from refimpl.faults.fits.added import ADDED, added
from refimpl.faults.fits.clipping import CLIPPINGS, clipped
from refimpl.faults.fits.differences import DIFFERENCES
from refimpl.faults.fits.earlier import EARLIER, earlier
from refimpl.faults.fits.factors import FACTORS, factors
from refimpl.faults.fits.logarithms import LOGARITHMS, logarithms
from refimpl.faults.fits.precision import PRECISIONS, recovered, rounded
from refimpl.faults.fits.products import PRODUCTS, products
from refimpl.faults.fits.samples import SAMPLES, weights
from refimpl.faults.fits.slopes import SLOPES, slopes
from refimpl.faults.mistaken import Fault
from refimpl.faults.observed import Observed

FITS: Mapping[str, Fault] = {
    fault.name: fault
    for family in (
        FACTORS, SAMPLES, ADDED, CLIPPINGS, SLOPES, LOGARITHMS, EARLIER, PRECISIONS, (PRODUCTS,), DIFFERENCES,
    )
    for fault in family
}  # fmt: skip


def fitted(case: Observed) -> list[Causes]:
    """What explains every wrong gradient with one number or few: a factor, a limit, whole samples; else what was added,
    other arrays, a number in a logarithm, f' or ∂C/∂s as a function of where they are, the weights of samples, or a
    precision.
    """
    nothing = not any(case.answer[name].any() for name in case.wrong)  # which may have any cause
    unfit = any(name in case.refused or not case.fits_shape(name) for name in case.names)
    if nothing or unfit or not case.finite:
        return []
    simple = factors(case) + clipped(case)
    if simple:
        return simple + earlier(case) + weights(case, any_weights=False) + logarithms(case) + slopes(case)
    return (
        added(case)
        or earlier(case)
        or weights(case, any_weights=False)
        or logarithms(case)
        or slopes(case)
        or weights(case)
        or rounded(case)
        or recovered(case)
        or products(case)
    )
