"""Products of factors that were rounded to a short format first, as tensor cores and accelerated libraries do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.fit import CONFIRMATIONS, fit
from refimpl.faults.fits.precision import to_bits
from refimpl.faults.mistaken import WHOLE, Mistaken
from refimpl.faults.observed import Observed

FORMATS: Mapping[str, int] = {"bfloat16": 8, "TF32": 11, "float32": 24}  # bits of the significand
SUMS = 2.0**-21  # of the largest element: the sums may be float32's
NEARLY = 0.9  # of the elements, since a factor may be rounded to the other neighbour
Array = NDArray[Any]


def _with_rounded_factors(m: Mistaken, layer: int, parameter: Any) -> None:
    def rounded(values: Array) -> Array:
        return to_bits(values, int(parameter)).astype(values.dtype)

    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        return lambda one, other, *rest: right(rounded(one), rounded(other), *rest)

    for number in range(1, m.spec.depth + 1):
        for equation in ("weighted_input", "weight_gradient", "hidden_error"):
            m.change(number, equation, change)


PRODUCTS = fit(
    "products_of_rounded_factors", "The factors of every matrix product are rounded to a short format first.",
    "Switch it off (torch.backends.cuda.matmul.allow_tf32, jax_default_matmul_precision), or declare the arithmetic.",
    _with_rounded_factors, "bits", 11,
)  # fmt: skip


def products(case: Observed) -> list[Causes]:
    """The formats that explain every wrong gradient: nearly all elements are as they predict, which the right ones are
    not.
    """
    causes = (Cause(PRODUCTS, WHOLE, float(bits), (name,)) for name, bits in FORMATS.items())
    return [(cause,) for cause in causes if _as_predicted(case, cause)]


def _as_predicted(case: Observed, cause: Cause) -> bool:
    assert cause.parameter is not None
    bits = int(cause.parameter)
    loss, grads = case.run(PRODUCTS, bits)
    near, far, telling = [], [], []
    for name in case.names:
        answer, truth = case.answer[name], case.truth(name)
        largest = np.abs(truth).max(initial=0.0)
        bound = 2 * case.tight[name] + SUMS * largest * (bits < FORMATS["float32"])
        near.append((np.abs(answer - grads[name]) <= bound).ravel())
        far.append((np.abs(answer - grads[name]) > 2.0 ** (3 - bits) * largest).ravel())
        telling.append((np.abs(grads[name] - truth) > 8 * bound).ravel())
    told = np.concatenate(telling)
    right = np.concatenate(near)
    enough = 1 if cause.labels[0] in case.trusted else 2 * CONFIRMATIONS
    if told.sum() < enough or np.concatenate(far).any():
        return False
    explained = bool(right.mean() >= NEARLY and right[told].mean() >= NEARLY)
    case.loss_explained |= explained and math.isclose(case.loss_number, loss, rel_tol=2.0 ** (3 - bits))
    return explained
