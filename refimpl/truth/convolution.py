"""What a convolution by a fast algorithm rounds.

Winograd's algorithm and the FFT transform a tile or an image as a whole, so that their roundings are bounded by norms
of what is transformed together, not element by element: `mixed` (Barabasz, Anderson, Soodhalter, Gregg, "Error Analysis
and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", ACM Trans. Math. Softw. 46, 2020; Higham,
*Accuracy and Stability of Numerical Algorithms*, 2nd ed. 2002, ch. 24).

In a graph a convolution is a `contract` of windows, which a `gather` makes. Its gradient by the weights is a `contract`
of the same windows, that by the data a `scatter_add` of a `contract`. All three are one trilinear form, and their fast
algorithms are transposes of each other. `slid` recognises windows.

What it does not do: windows with gaps between their elements; windows of an array whose axes were merged before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from refimpl.truth.graph import Node, summed

Real = NDArray[np.float64]
# the numbers of a tile, a = m + r − 1; the bounds of F(6, 3) hold for shorter tiles too
TILES = {"winograd": 8, "winograd F(4, 3)": 6, "winograd F(2, 3)": 4}
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # the first a − 1 of them, and ∞
FFT = 20  # roundings for each halving: in three transforms, 1 + 4√2 in each (Higham, theorem 24.2)


class Windows(tuple[Real, Real]):
    """The pair (mid, err) of the windows of an array whose axes they slide along have these `sizes`; and what is
    `mixed` with their elements.
    """

    mixed: Real
    sizes: Sequence[int]

    def __new__(cls, pair: tuple[Real, Real], mixed: Real, sizes: Sequence[int]) -> Windows:
        """Of the pair."""
        made = super().__new__(cls, pair)
        made.mixed, made.sizes = mixed, sizes
        return made

    def with_pair(self, pair: tuple[Real, Real]) -> Windows:
        """Another pair of the same windows."""
        return Windows(pair, self.mixed, self.sizes)


def slid(algorithm: str, index: NDArray[np.int64], shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of an array of this shape along which windows that overlap slide, two axes or more of the index moving
    along them; none for a direct convolution, whose roundings are those of its sums.
    """
    if algorithm == "direct" or not index.size:
        return ()
    hidden = index < 0
    if np.bincount(index[~hidden], minlength=1).max() < 2:
        return ()
    places = np.unravel_index(np.where(hidden, 0, index), shape)
    return tuple(
        axis
        for axis, place in enumerate(places)
        if sum(bool(np.ma.ptp(np.ma.array(place, mask=hidden), i).any()) for i in range(index.ndim)) > 1
    )


def products(node: Node) -> int:
    """How many products each element is a sum of, where a contraction makes it; else 0."""
    while node.rule in ("reshape", "transpose"):
        node = node.inputs[0]
    return summed(node) if node.rule == "contract" else 0


def roundings(algorithm: str, sizes: Sequence[int]) -> float:
    """How many roundings its transforms make on the way of a number along axes of these sizes."""
    if algorithm in TILES:  # of the data, of the weights and back: in F(6, 3) 6 + 4 + 6
        return 2 * TILES[algorithm] * len(sizes)
    return FFT * sum(math.log2(4 * size) for size in sizes)  # padded to a power of two


def mixed(algorithm: str, magnitudes: Real, axes: Sequence[int], of: int = 0) -> Real:
    """What is transformed together with each element along these axes: for FFT the 2-norm of all; for Winograd's, in
    whatever tile the element lies, |V⁻¹||V| times magnitudes. `of`: where these are of what windows of sums of so many
    products were added up to.
    """
    if algorithm not in TILES:
        norm = np.sqrt(max(of, 1) * np.square(magnitudes).sum(axis=tuple(axes), keepdims=True))
        return np.broadcast_to(norm, magnitudes.shape)
    leaks = _leaks(TILES[algorithm], of > 0)
    around = len(leaks) // 2
    for axis in axes:
        along = np.moveaxis(magnitudes, axis, -1)
        padded = np.pad(along, [(0, 0)] * (along.ndim - 1) + [(around, around)])
        near = sliding_window_view(padded, len(leaks), axis=-1) @ leaks
        magnitudes = np.moveaxis(near.max(axis=-1), -1, axis)
    return magnitudes


@cache
def _leaks(tile: int, summed: bool) -> Real:
    """(2a − 1, places in a tile): how much comes to an element that stands there from so far to its left or right. By
    the trilinear form Σ_k |A_kp||G_ki||B_kj| that is (|V⁻¹||V|)_j,p+i, V the powers of the points, whatever the
    transforms' scales. `summed`: the most of all places, to either side, in one column.
    """
    powers = np.vander((*POINTS[: tile - 1], 0.0), tile, increasing=True)
    powers[-1] = np.eye(tile)[-1]
    each = np.abs(np.linalg.inv(powers)) @ np.abs(powers)
    leaks = np.zeros((2 * tile - 1, tile))
    for place in range(tile):
        leaks[tile - 1 - place : 2 * tile - 1 - place, place] = each[:, place]
    most = leaks.max(axis=1, keepdims=True)
    return np.maximum(most, most[::-1]) if summed else leaks
