"""Orders in which a sum over the last axis may be taken, each in the dtype of its terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Sum = Callable[[Array], Array]
Product = Callable[[Array, Array], Array]


def sequential(terms: Array) -> Array:
    """From left to right."""
    return np.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1]


def backwards(terms: Array) -> Array:
    return sequential(terms[..., ::-1])


def shuffled(terms: Array) -> Array:
    return sequential(terms[..., np.random.default_rng(terms.size).permutation(terms.shape[-1])])


def largest_first(terms: Array) -> Array:
    return sequential(np.take_along_axis(terms, np.argsort(-np.abs(terms), axis=-1), axis=-1))


def pairwise(terms: Array) -> Array:
    """By halves, to the end."""
    while terms.shape[-1] > 1:
        odd = terms[..., -1:] if terms.shape[-1] % 2 else terms[..., :0]
        terms = np.concatenate([terms[..., 0:-1:2] + terms[..., 1::2], odd], axis=-1)
    return terms[..., 0]


def compensated(terms: Array) -> Array:
    """Kahan's sum."""
    total = lost = np.zeros(terms.shape[:-1], terms.dtype)
    for term in np.moveaxis(terms, -1, 0):
        wanted = term - lost
        longer = total + wanted
        total, lost = longer, (longer - total) - wanted
    return np.asarray(total)


def strided(lanes: int) -> Sum:
    """As a vector unit of so many lanes sums."""

    def summed(terms: Array) -> Array:
        nothing = np.zeros((*terms.shape[:-1], -terms.shape[-1] % lanes), terms.dtype)
        rows = np.concatenate([terms, nothing], axis=-1).reshape(*terms.shape[:-1], -1, lanes)
        return sequential(np.cumsum(rows, axis=-2, dtype=terms.dtype)[..., -1, :])

    return summed


def products_by(summed: Sum) -> Product:
    """a (m, k) times b (k, n), whose products are summed so."""
    return lambda a, b: summed(a[:, None, :] * b.T[None, :, :])


def numpy_sum(terms: Array) -> Array:
    """Pairwise in blocks of 128, over an axis whose elements lie side by side."""
    return np.asarray(np.ascontiguousarray(terms).sum(axis=-1, dtype=terms.dtype))
