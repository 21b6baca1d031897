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
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from refimpl.network.arithmetic import Arithmetic
from refimpl.truth.graph import Node, summed
from refimpl.truth.numbers import contracted

Real = NDArray[np.float64]
MOVING: Mapping[str, Callable[[Node, Real], Real]] = {
    "reshape": lambda node, a: a.reshape(node.shape),
    "transpose": lambda node, a: a.transpose(node.static),
    "cast": lambda node, a: a,
}
# the numbers of a tile, a = m + r − 1; the bounds of F(6, 3) hold for shorter tiles too
TILES = {"winograd": 8, "winograd F(4, 3)": 6, "winograd F(2, 3)": 4}
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # the first a − 1 of them, and ∞
FFT = 20  # roundings for each halving: in three transforms, 1 + 4√2 in each (Higham, theorem 24.2)


class FastConvolutions:
    """What they round in an arithmetic beyond the roundings of their sums, on magnitudes that an implementation holds.
    Windows are known once they were `gathered`.
    """

    def __init__(self, arithmetic: Arithmetic, u: float, summing: float) -> None:
        self.algorithm, self.products = arithmetic.convolution, arithmetic.products
        self.u, self.summing = u, summing
        self.windows: dict[Node, tuple[Real, list[int]]] = {}  # what is mixed with them, and the sizes they slide along

    def gathered(self, node: Node, a: tuple[Real, Real]) -> None:
        """Note the windows of a pair mid ± err, if a `gather` makes such."""
        if axes := slid(self.algorithm, node.static, a[0].shape):
            magnitudes = np.abs(a[0]) + a[1]
            together = mixed(self.algorithm, magnitudes, axes)
            sizes = [magnitudes.shape[axis] for axis in axes]
            self.windows[node] = np.append(together, together.max())[node.static], sizes

    def contracted(self, node: Node, a: Real, b: Real) -> Real | float:
        """Of a `contract` of windows."""
        total: Real | float = 0.0
        for one, other in zip(node.inputs, ((None, b), (a, None)), strict=True):
            if windows := self._before(one):
                factors = [windows[0] if factor is None else factor for factor in other]
                total = total + self._share(summed(node), windows[1]) * contracted(node.static, *factors)
        return total

    def added_up(self, node: Node, terms: Real) -> Real | float:
        """Of a `scatter_add` of windows that a `contract` made; `terms`: the magnitudes' sums."""
        axes, n = slid(self.algorithm, node.static, node.shape), products(node.inputs[0])
        if not axes or not n:
            return 0.0
        return self._share(n, [node.shape[axis] for axis in axes]) * mixed(self.algorithm, terms, axes, n)

    def _before(self, node: Node) -> tuple[Real, list[int]] | None:
        """The windows that a node has, moved as it has them."""
        if node.rule not in MOVING:
            return self.windows.get(node)
        if not (found := self._before(node.inputs[0])):
            return None
        return np.asarray(MOVING[node.rule](node, found[0])), found[1]

    def _share(self, n: int, sizes: Sequence[int]) -> float:
        """By what share of what is mixed sums of n products round, of which each axis leaves at most half."""
        rate = n / 2 ** len(sizes) * self.summing + roundings(self.algorithm, sizes) * self.u
        return rate / (1 - rate) + 2 * self.products if rate < 1 else math.inf


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
    while node.rule in MOVING:
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
