"""What a right implementation's roundings come to, to first order through the whole graph, which does not wrap.

Two norms of ∂node/∂source × the source's own rounding: the 1-norm, which needs no more than that no rounding is larger
than stated, and λ times the 2-norm, for roundings that are independent and of mean zero (Hoeffding's inequality; Higham
& Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41, 2019).

Where the graph is small, every sensitivity is computed; else both norms are estimated from `DRAWS` tangents by their
upper confidence limits, whose failure is part of the false-alarm probability: a Gaussian sketch for the 2-norm
(P(χ²_K ≤ cK) ≤ exp(−K(c − 1 − log c)/2)), a Cauchy sketch for the 1-norm (Indyk, "Stable
distributions, pseudorandom generators, embeddings, and data stream computation", J. ACM 53, 2006).

Where √n is false: roundings of values that store to the same number are one error; library functions, whose errors
have no mean of zero over a narrow window, add linearly, and so do the outputs of a fast convolution, which share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.judge.tangents import Displaced, SideBySide, Tangent, Tangents
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.functions import SMALLEST
from refimpl.truth.balls import as_matrices
from refimpl.truth.graph import Node, read
from refimpl.truth.numbers import NumberAlgebra, contracted
from refimpl.truth.rounding import RoundingAlgebra, Slope, Terms, unbounded
from refimpl.truth.suprema import Local

Real = NDArray[np.float64]
Values = Mapping[Node, Real]
Drawn = Callable[[np.random.Generator, Node, int], Any]
Norm = Callable[[Tangent, Node], Real]
Carried = Callable[[Callable[[Node], Tangent]], dict[Node, Tangent]]
FALSE_ALARM = 2.0**-40  # the probability of one or more false alarms on one answer
DRAWS = 128
LARGEST_OF_DRAWS = 2.75  # of the magnitudes of so many normal numbers, about
AT_ONCE = 2**28  # numbers in an array of tangents, of which there are several
EXACT = 500  # roundings, up to which every sensitivity is computed
NEGLIGIBLE = 2.0**-20
PARTS = 2**16  # of equal probability, from which numbers are drawn
LIBRARY = frozenset({"apply", "softmax", "log_sum_exp", "inverse_deviation"})


class PointRoundings(RoundingAlgebra):
    """What each primitive itself rounds where its inputs are right: sums of n terms like √n, and where terms repeat
    (`repeated`), like √Σm² over the cells of m nearly equal terms.
    """

    def __init__(
        self, arithmetic: Arithmetic, numbers: NumberAlgebra, parts: int, repeated: bool, biased: bool
    ) -> None:
        super().__init__(arithmetic, lambda node, *mids: self.mid, parts=parts)
        self.numbers, self.mid, self.repeated, self.biased = numbers, np.zeros(()), repeated, biased
        self.made: dict[Node, Any] = {}

    def own(self, node: Node, mid: Real, *mids: Real) -> Real:
        """In the shape of the node, whose value is `mid`; a node's inputs come before it."""
        self.mid = mid
        pairs = [self._exactly(one, number) for one, number in zip(node.inputs, mids, strict=True)]
        self.made[node] = getattr(self, node.rule)(node, *pairs)
        return np.broadcast_to(unbounded(self.made[node][1]), node.shape)

    def _exactly(self, node: Node, mid: Real) -> tuple[Real, Real]:
        pair, made = (mid, np.zeros(mid.shape)), self.made.get(node)
        return made.with_pair(pair) if isinstance(made, Terms | Slope) else pair

    def _local(self, where: Node, function: Any, a: tuple[Real, Real]) -> Local:
        value, slope, curvature = np.abs(self.numbers.derivatives(where, function, a[0])[:3])
        none = np.zeros_like(value)
        return Local(value, slope, curvature, none, none)

    def contract(self, node: Node, a: tuple[Real, Real], b: tuple[Real, Real]) -> Terms:
        made = super().contract(node, a, b)
        if self.repeated:
            left, right, placed = as_matrices(node.static, np.abs(a[0]), np.abs(b[0]))
            rows = [
                [(self._alike(terms := row * columns.T) * terms.sum(axis=-1, keepdims=True))[:, 0] for row in matrix]
                for matrix, columns in zip(left, right, strict=True)
            ]
            return made.with_pair((made[0], np.maximum(made[1], placed(np.array(rows)))))
        return made

    def _of_sums(self, terms: Real, more: int) -> Real:
        own, n = super()._of_sums(terms, more), (terms != 0).sum(axis=-1, keepdims=True)
        if not self.biased:
            partial = np.cumsum(-np.sort(-terms, axis=-1), axis=-1)  # in the order that rounds most
            shares = partial / np.maximum(partial[..., -1:], SMALLEST)
            own = np.minimum(own, self.summing * np.sqrt(np.square(shares).sum(axis=-1, keepdims=True) + more))
        if not self.repeated:
            return own
        alike = self._alike(terms)
        more_alike = np.sqrt(np.maximum(np.square(alike) - n * self.summing**2, 0.0))
        return np.maximum(own, alike) if self.biased else np.hypot(own, more_alike)

    def _of_collected(self, terms: Real, places: NDArray[np.intp], size: int) -> Real:
        own = super()._of_collected(terms, places, size)
        return np.maximum(own, self._in_cells(terms, places, size)) if self.repeated else own

    def _alike(self, terms: Real) -> Real:
        rows = terms.reshape(-1, terms.shape[-1])
        places = np.repeat(np.arange(len(rows)), rows.shape[1])
        return self._in_cells(rows.ravel(), places, len(rows)).reshape(*terms.shape[:-1], 1)

    def _in_cells(self, terms: Real, places: NDArray[np.intp], size: int) -> Real:
        """Of the sums of terms of one place: the m terms in a cell of width 2u Σ round m times alike."""
        total = np.bincount(places, terms, size)
        cell = np.floor(terms / np.maximum(2 * self.summing * total[places], SMALLEST))
        some = terms > 0
        order = np.lexsort((cell[some], places[some]))
        cell, place = cell[some][order], places[some][order]
        first = np.flatnonzero(np.append(True, (cell[1:] != cell[:-1]) | (place[1:] != place[:-1])))[: len(cell)]
        squares = np.bincount(place[first], np.square(np.diff(np.append(first, len(cell)))), size)
        return np.asarray(self.summing * np.sqrt(squares + 2))

    def _rate(self, n: NDArray[Any]) -> Real:
        return np.asarray((n if self.biased else np.sqrt(n)) * self.summing)


def cells(values: Real, u: float) -> NDArray[np.intp]:
    """The places of values that store to the same number, numbered."""
    mantissas, exponents = np.frexp(values.ravel())
    _, inverse = np.unique(np.ldexp(np.rint(mantissas / (2 * u)), exponents), return_inverse=True)
    return inverse


class FirstOrder:
    """Linear part + λ √Σ(∂output/∂node × rounding)² at the `values` of a graph's nodes, at all of them at once.
    The linear part is of what has no mean of zero, library functions, flushing to zero and all roundings of an
    arithmetic that is biased, and of what outputs share, as those of a fast convolution do.
    """

    def __init__(
        self, values: Values, walk: RoundingAlgebra, numbers: NumberAlgebra, seed: int, repeated: bool = False,
        biased: bool = False,
    ) -> None:  # fmt: skip
        arithmetic = walk.arithmetic
        self.values, self.numbers = values, SideBySide(numbers.known, numbers.evaluated)
        self.u, self.seed = arithmetic.unit_roundoff, seed
        self.chance = FALSE_ALARM / 4 / sum(node.size for node in values)
        self.spread = math.sqrt(2 * math.log(1 / self.chance))
        self.inner = {one for node in values for one in node.inputs}  # an end's own rounding is known
        more = numbers, walk.parts, repeated, biased
        point = PointRoundings(arithmetic, *more)
        fast = arithmetic.convolution != "direct"
        unlimited = replace(
            arithmetic, smallest_normal=0.0, smallest_subnormal=0.0, flushes_subnormals=False, convolution="direct"
        )
        nearest = PointRoundings(unlimited, *more)
        within = PointRoundings(replace(unlimited, unit_roundoff=walk.summing), *more)
        without = PointRoundings(unlimited, *more)  # functions that are exact
        without.library = without.exponential = 0.0
        self.random: dict[Node, Real] = {}
        self.biased: dict[Node, Real] = {}
        for node, value in values.items():
            inputs = [values[one] for one in node.inputs]
            rounding = point.own(node, value, *inputs)
            # what may underflow in a number of usual size is nothing beside that number's roundings
            rounding = np.where(rounding > NEGLIGIBLE * self.u * np.abs(value), rounding, 0.0)
            library = node.rule in LIBRARY
            one_sided = biased or (arithmetic.truncated > 0 and node.rule == "contract")
            one_sided |= node.rule == "apply" and not walk.more_bits
            if one_sided or library or arithmetic.flushes_subnormals or fast:
                if one_sided:
                    even = np.zeros(())
                elif library and not walk.more_bits:
                    even = without.own(node, value, *inputs)
                else:
                    even = nearest.own(node, value, *inputs)
                    if library:  # what is computed with more bits is rounded to nearest
                        even = np.maximum(even - within.own(node, value, *inputs), 0.0)
                _put(self.biased, node, rounding - np.minimum(even, rounding))
                rounding = np.minimum(even, rounding)
            _put(self.random, node, rounding)

    def statistical(self) -> dict[Node, Real]:
        """The bound of every node."""
        linear = self.one_norm(self.biased)
        return {node: unbounded(err + linear[node]) for node, err in self._quadratic().items()}

    def displaced(self) -> dict[Node, Real]:
        """The bound of every node to all orders: the linear part, and how far the graph goes astray when all roundings
        are drawn many times as large: in root mean square, brought to λ, and at most, which counts where it saturates.
        """
        wide = 1 / math.sqrt(_chi_square(self.chance))
        times = self.spread * wide / LARGEST_OF_DRAWS
        linear = self.one_norm(self.biased)
        whole = {
            node: times * np.hypot(self.random.get(node, 0.0), self.biased.get(node, 0.0))
            for node in self.random.keys() | self.biased.keys()
        }

        def away(draws: Callable[[Node], Tangent]) -> dict[Node, Tangent]:
            found = read(self.values, Displaced(self.numbers, self.values, draws))
            return {node: one - self.values[node] if one.ndim > node.ndim else None for node, one in found.items()}

        def astray(tangents: Tangent, node: Node) -> Real:
            norm = LARGEST_OF_DRAWS * _root_mean_square(tangents, node)
            return norm if tangents is None else np.maximum(np.abs(tangents).max(axis=0), norm)

        return {
            node: unbounded(linear[node] + np.hypot(most, self.spread * self._last(self.random, node)))
            for node, most in self._drawn(self.values, whole, self._gaussian, astray, away, math.inf).items()
        }

    def one_norm(self, own: Mapping[Node, Real]) -> dict[Node, Real]:
        """Σ |∂node/∂source| × own, or its upper confidence limit."""
        if _few(own):
            return {node: _total(tangents, node) for node, tangents in self._sensitivities(own).items()}
        wide, reached = 1 / _root_moment(self.chance), self._reached(own)
        # of a large end with one exact factor, Σ of the other's norms: no less, and the same where samples are apart
        large = [
            node
            for node in self.values
            if node.rule == "contract" and node not in self.inner
            if node.size > AT_ONCE // DRAWS and len(reached.intersection(node.inputs)) == 1
        ]
        norms = self._sketched(
            [node for node in self.values if node not in large], own, _cauchy, _mean_root_square, 0.5
        )
        for node in large:
            factors = (norms[one] if one in reached else np.abs(self.values[one]) for one in node.inputs)
            norms[node] = contracted(node.static, *factors)
        return {node: wide * norm + self._last(own, node) for node, norm in norms.items()}

    def _reached(self, own: Mapping[Node, Real]) -> set[Node]:
        """The nodes that have tangents."""
        reached = {node for node in own if node in self.inner}
        for node in self.values:  # each after its inputs
            if not reached.isdisjoint(node.inputs):
                reached.add(node)
        return reached

    def _quadratic(self) -> dict[Node, Real]:
        """λ √Σ(…)² of what is random, or its upper confidence limit."""
        own = self.random
        if _few(own):
            group = np.zeros(0, np.intp)
            for node in own:
                group = np.append(group, group.max(initial=-1) + 1 + cells(self.values[node], self.u))
            found = self._sensitivities(own)
            return {node: self.spread * _root_of_squares(t, group, node) for node, t in found.items()}
        wide = 1 / math.sqrt(_chi_square(self.chance))
        norms = self._sketched(self.values, own, self._gaussian, _root_mean_square, 2.0)
        return {node: self.spread * np.hypot(wide * norm, self._last(own, node)) for node, norm in norms.items()}

    def _gaussian(self, rng: np.random.Generator, node: Node, draws: int) -> NDArray[np.float32]:
        """What stores alike, alike."""
        cell = cells(self.values[node], self.u)
        count = int(cell.max()) + 1
        drawn = _normal(rng, (draws, count))
        if count < node.size:
            drawn, repeated = drawn[:, cell], (np.bincount(cell) > 1)[cell]
            drawn[:, repeated] += _normal(rng, (draws, int(repeated.sum())))  # or as if by chance
        return drawn.reshape(draws, *node.shape)

    def _sketched(
        self, nodes: Iterable[Node], own: Mapping[Node, Real], drawn: Drawn, norm: Norm, power: float
    ) -> dict[Node, Real]:
        """The norms of the nodes' tangents along what is drawn: in float32 where nothing is far from 1 and nothing
        comes out so.
        """
        if self._usual(own):
            found = self._norms(nodes, own, drawn, norm, power, np.float32, self.u)
            if all(_within(one, 60) for one in found.values()):
                return {node: self.u * one.astype(np.float64) for node, one in found.items()}
        return self._norms(nodes, own, drawn, norm, power, np.float64, 1.0)

    def _norms(
        self, nodes: Iterable[Node], own: Mapping[Node, Real], drawn: Drawn, norm: Norm, power: float, dtype: Any,
        unit: float,
    ) -> dict[Node, Real]:  # fmt: skip
        """The norms in a dtype, as multiples of a unit."""
        evaluated = {key: np.asarray(one, dtype) for key, one in self.numbers.evaluated.items()}
        values = {node: np.asarray(value, dtype) for node, value in self.values.items()}

        def tangents(draws: Callable[[Node], Tangent]) -> dict[Node, Tangent]:
            return read(nodes, Tangents(SideBySide(self.numbers.known, evaluated), values, draws))

        short = {node: np.asarray(one / unit, dtype) for node, one in own.items()}
        return self._drawn(nodes, short, drawn, norm, tangents, power)

    def _drawn(
        self, nodes: Iterable[Node], own: Mapping[Node, Real], drawn: Drawn, norm: Norm, carried: Carried,
        power: float,
    ) -> dict[Node, Real]:  # fmt: skip
        """The nodes' norms, means of that power, of what is carried through the graph from roundings times drawn
        numbers.
        """
        rng = np.random.Generator(np.random.SFC64(self.seed))
        largest = max((node.size for node in self._reached(own).intersection(nodes)), default=1)
        piece = max(1, min(DRAWS, AT_ONCE // largest))
        pieces = [min(piece, DRAWS - begun) for begun in range(0, DRAWS, piece)]
        found: dict[Node, list[Real]] = {node: [] for node in nodes}
        for count in pieces:

            def draws(node: Node, count: int = count) -> Tangent:
                return own[node] * drawn(rng, node, count) if node in self.inner and node in own else None

            tangents = carried(draws)
            for node, norms in found.items():
                norms.append(norm(tangents[node], node))
        return {node: _mean(norms, pieces, power) for node, norms in found.items()}

    def _usual(self, own: Mapping[Node, Real]) -> bool:
        """Whether no product of two numbers leaves float32's range."""
        numbers = [*self.values.values(), *self.numbers.evaluated.values()]
        return all(_within(one, 40) for one in numbers) and all(_within(one / self.u, 40) for one in own.values())

    def _sensitivities(self, own: Mapping[Node, Real]) -> dict[Node, Tangent]:
        starts = dict(zip(own, np.cumsum([0, *(node.size for node in own)]).tolist(), strict=False))
        total = sum(node.size for node in own)

        def unit(node: Node) -> Tangent:
            if node not in own:
                return None
            units = np.zeros((total, node.size))
            units[starts[node] + np.arange(node.size), np.arange(node.size)] = own[node].ravel()
            return units.reshape(total, *node.shape)

        return read(self.values, Tangents(self.numbers, self.values, unit))

    def _last(self, own: Mapping[Node, Real], node: Node) -> Real | float:
        return 0.0 if node in self.inner else own.get(node, 0.0)


def _put(own: dict[Node, Real], node: Node, rounding: Real) -> None:
    if rounding.any():
        own[node] = np.broadcast_to(rounding, node.shape)


def _few(own: Mapping[Node, Real]) -> bool:
    return sum(node.size for node in own) <= EXACT


def _within(numbers: Real, bits: int) -> bool:
    """Whether they are all 0 or between 2^±bits."""
    magnitudes = np.abs(numbers)
    return bool(((magnitudes == 0) | ((magnitudes > 2.0**-bits) & (magnitudes < 2.0**bits))).all())


def _mean(norms: list[Real], weights: list[int], power: float) -> Real:
    if len(norms) == 1:
        return norms[0]
    top = np.max(norms, axis=0)
    if math.isinf(power):
        return np.asarray(top)
    shares = np.array(norms) / np.maximum(top, SMALLEST)
    return np.asarray(top * np.average(shares**power, axis=0, weights=weights) ** (1 / power))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return _quantiles()[0][rng.integers(0, PARTS, shape, np.uint16)]


def _cauchy(rng: np.random.Generator, node: Node, draws: int) -> NDArray[np.float32]:
    part = rng.integers(0, PARTS, (draws, *node.shape), np.uint16)
    drawn = _quantiles()[1][part]
    ends = np.flatnonzero((part == 0) | (part == PARTS - 1))  # whose tails are heavy: P(|C| > x) is 2/(πx) there
    drawn.flat[ends] = np.copysign(PARTS / math.pi / (1 - rng.random(len(ends))), drawn.flat[ends])
    return drawn


@cache
def _quantiles() -> NDArray[np.float32]:
    """(2, `PARTS`): of a normal and of a Cauchy number, in the middles of parts of the same probability."""
    upper = [(part + 0.5) / PARTS for part in range(PARTS // 2, PARTS)]
    found = np.array([list(map(NormalDist().inv_cdf, upper)), [math.tan(math.pi * (p - 0.5)) for p in upper]])
    found[0] /= np.sqrt(np.square(found[0]).mean())
    return np.concatenate([-found[:, ::-1], found], axis=1).astype(np.float32)


def _root_of_squares(tangents: Tangent, group: NDArray[np.intp], node: Node) -> Real:
    """The 2-norm over the groups, what is in one being one error."""
    if tangents is None:
        return np.zeros(node.shape)
    each = np.zeros((int(group.max()) + 1, node.size))
    np.add.at(each, group, np.abs(tangents.reshape(len(group), node.size)))
    top = np.maximum(each.max(axis=0), SMALLEST)  # squares must not underflow
    return np.asarray((top * np.sqrt(np.square(each / top).sum(axis=0))).reshape(node.shape))


def _total(tangents: Tangent, node: Node) -> Real:
    return np.zeros(node.shape) if tangents is None else np.abs(tangents).sum(axis=0)


def _root_mean_square(tangents: Tangent, node: Node) -> Real:
    if tangents is None:
        return np.zeros(node.shape)
    norm = np.asarray(np.sqrt(np.einsum("k...,k...->...", tangents, tangents) / len(tangents)))
    low = norm < 2.0**-450  # squares that underflow
    if low.any():
        few = tangents[:, low]
        top = np.maximum(np.abs(few).max(axis=0), SMALLEST)
        norm[low] = top * np.sqrt(np.square(few / top).mean(axis=0))
    return norm


def _mean_root_square(tangents: Tangent, node: Node) -> Real:
    if tangents is None:
        return np.zeros(node.shape)
    magnitudes = np.abs(tangents)
    return np.square(np.sqrt(magnitudes, out=magnitudes).mean(axis=0))


def _chi_square(chance: float) -> float:
    """c with exp(−K(c − 1 − log c)/2) = chance, K = `DRAWS`."""
    wanted = -2 * math.log(chance) / DRAWS
    low, high = 1e-300, 1.0
    for _ in range(200):
        c = math.sqrt(low * high)
        low, high = (c, high) if c - 1 - math.log(c) > wanted else (low, c)
    return low


def _root_moment(chance: float) -> float:
    """c² such that the mean of √|C| over K Cauchy numbers of scale 1 is below c with at most this chance, by Chernoff's
    bound: (min over h of e^(hc) E e^(−h√|C|))^K.
    """
    rates, logarithms = _transforms()
    # for each rate the c at which the bound is the chance; the best of them
    return float(np.max((math.log(chance) / DRAWS - logarithms) / rates)) ** 2


@cache
def _transforms() -> tuple[Real, Real]:
    """Rates h, and log E e^(−h√|C|) at each, C being a Cauchy number of scale 1."""
    angles = (np.arange(20000) + 0.5) / 20000 * math.pi / 2  # |C| = tan of a uniform angle
    roots = np.sqrt(np.tan(angles))
    rates = np.geomspace(0.1, 300, 400)
    return rates, np.log([np.exp(-rate * roots).mean() for rate in rates])
