"""How far a right implementation may lie from the truth: two bounds from one statement of what each primitive rounds.

- *worst case*: the errors walked through the graph node by node (:mod:`refimpl.truth.rounding`), a theorem;
- *statistical*: linear part + λ √Σ(∂output/∂node × rounding)² to first order through the whole graph, which does not
  wrap; λ from the probability of a false alarm.

Where the graph is small, every sensitivity is computed; else both norms are estimated from `DRAWS` tangents by their
upper confidence limits, whose failure is part of the false-alarm probability: a Gaussian sketch for the 2-norm
(P(χ²_K ≤ cK) ≤ exp(−K(c − 1 − log c)/2)), a Cauchy sketch for the 1-norm (Indyk, "Stable
distributions, pseudorandom generators, embeddings, and data stream computation", J. ACM 53, 2006).

Where √n is false: roundings of values that store to the same number are one error; library functions, whose errors
have no mean of zero over a narrow window, add linearly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.judge.first_order import SideBySide, Tangent, Tangents
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.functions import SMALLEST
from refimpl.truth.balls import as_matrices, rows_over
from refimpl.truth.graph import Node, read
from refimpl.truth.numbers import NumberAlgebra
from refimpl.truth.rounding import Local, RoundingAlgebra, suprema

Real = NDArray[np.float64]
Values = Mapping[Node, Real]
FALSE_ALARM = 2.0**-40  # the probability of one or more false alarms in a report
DRAWS = 128
EXACT = 500  # roundings, up to which every sensitivity is computed
NEGLIGIBLE = 2.0**-20
LINEAR = frozenset({"apply"})


class PointRoundings(RoundingAlgebra):
    """What each primitive itself rounds where its inputs are right: sums of n terms like √n, and where terms repeat
    (`repeated`), like √Σm² over the cells of m nearly equal terms.
    """

    def __init__(self, arithmetic: Arithmetic, numbers: NumberAlgebra, parts: int, repeated: bool) -> None:
        super().__init__(arithmetic, lambda node, *mids: self.mid, parts=parts)
        self.numbers, self.mid, self.repeated = numbers, np.zeros(()), repeated

    def own(self, node: Node, mid: Real, *mids: Real) -> Real:
        """(shape of the node)"""
        self.mid = mid
        rounded = getattr(self, node.rule)(node, *((one, np.zeros(one.shape)) for one in mids))[1]
        return np.broadcast_to(_unbounded(rounded), node.shape)

    def _local(self, where: Node, function: Any, a: tuple[Real, Real]) -> Local:
        value, slope, curvature = np.abs(self.numbers.derivatives(where, function, a[0])[:3])
        return Local(value, slope, curvature, np.zeros_like(value))

    def sum(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        mid, err = super().sum(node, a)
        if self.repeated:
            terms = rows_over(np.abs(a[0]), node.static)
            err = np.maximum(err, self._in_cells(terms).reshape(node.shape))
        return mid, err

    def contract(self, node: Node, a: tuple[Real, Real], b: tuple[Real, Real]) -> tuple[Real, Real]:
        mid, err = super().contract(node, a, b)
        if self.repeated:
            left, right, placed = as_matrices(node.static, np.abs(a[0]), np.abs(b[0]))
            rows = [
                [self._in_cells(row * columns.T) for row in matrix] for matrix, columns in zip(left, right, strict=True)
            ]
            err = np.maximum(err, placed(np.array(rows)))
        return mid, err

    def _in_cells(self, terms: Real) -> Real:
        """Of sums over the last axis: a cell of width 2u Σ|t| that holds m terms rounds m times alike."""
        total = terms.sum(axis=-1, keepdims=True)
        cell = np.where(terms > 0, np.floor(terms / np.maximum(2 * self.u * total, SMALLEST)), -1.0)
        cell.sort(axis=-1)
        starts = np.ones(cell.shape, dtype=bool)
        starts[..., 1:] = cell[..., 1:] != cell[..., :-1]
        first = np.flatnonzero(starts)
        sizes = np.diff(np.append(first, cell.size)) * (cell.ravel()[first] >= 0)
        squares = np.bincount(first // terms.shape[-1], np.square(sizes), total.size)
        return np.asarray(self.u * total[..., 0] * np.sqrt(squares + 2).reshape(total.shape[:-1]))

    def _gamma(self, n: int) -> float:
        return math.sqrt(n) * self.u

    def _gammas(self, counts: Real) -> Real:
        return np.asarray(np.sqrt(counts) * self.u)


@dataclass(frozen=True)
class Bounds:
    """Bounds by name, each in the shape of what it bounds: `worst_case` and `statistical` for an implementation that is
    on the right side of every kink, `across_kinks` and `statistical_across` for one on either side; inf where the
    arithmetic may overflow.
    """

    worst_case: dict[str, Real]
    across_kinks: dict[str, Real]
    statistical: dict[str, Real]
    statistical_across: dict[str, Real]


def cells(values: Real, u: float) -> NDArray[np.intp]:
    """The places of values that store to the same number, numbered."""
    mantissas, exponents = np.frexp(values.ravel())
    _, inverse = np.unique(np.ldexp(np.rint(mantissas / (2 * u)), exponents), return_inverse=True)
    return inverse


def bounds(
    ends: Mapping[str, Node],
    given: Mapping[str, Real],
    arithmetic: Arithmetic,
    parts: int = 1,
    seed: int = 0,
    repeated: bool = False,
    known: Values | None = None,
) -> Bounds:
    """The bounds of the named ends of a graph at the `given` numbers. `parts`: what may be divided by last; `seed`: of
    the sketches; `repeated`: whether to look in every sum for terms that repeat, which takes its time; `known`: values
    that are certified.
    """
    numbers = NumberAlgebra(given)
    values = read(ends.values(), numbers, known)
    walk = RoundingAlgebra(arithmetic, lambda node, *mids: values[node], parts=parts)
    worst = _errors(ends, walk)
    across = worst
    if walk.near_kinks:
        walk = replace(walk, across_kinks=True)
        across = _errors(ends, walk)
    point = PointRoundings(arithmetic, numbers, parts, repeated)
    own = {}
    for node in values:
        rounding = point.own(node, values[node], *(values[one] for one in node.inputs))
        # what may underflow in a number of usual size is nothing beside that number's roundings
        rounding = np.where(rounding > NEGLIGIBLE * arithmetic.unit_roundoff * np.abs(values[node]), rounding, 0.0)
        if rounding.any():
            own[node] = rounding
    judged = sum(node.size for node in ends.values())
    sources = sum(node.size for node in own)
    spread = math.sqrt(2 * math.log(4 * judged / FALSE_ALARM))
    aside = SideBySide(given, numbers.evaluated)
    if sources <= EXACT:
        likely = _exact(values, aside, own, arithmetic.unit_roundoff, spread)
    else:
        likely = _sketched(values, aside, own, arithmetic.unit_roundoff, spread, judged, seed)
    reach = {node: np.minimum(worst[node], _unbounded(err)) for node, err in likely.items()}
    # what is below float64's range is not 0, and may lie beside a kink
    moved = {node: np.where(worst[node] > 0, np.maximum(err, SMALLEST), 0.0) for node, err in reach.items()}
    jumps = _errors(ends, Jumps(arithmetic, values, moved, parts))

    def named(errors: Mapping[Node, Real]) -> dict[str, Real]:
        return {name: errors[node] for name, node in ends.items()}

    return Bounds(
        named(worst), named(across), named(reach), named({node: reach[node] + err for node, err in jumps.items()})
    )


def _errors(ends: Mapping[str, Node], walk: RoundingAlgebra) -> dict[Node, Real]:
    return {node: _unbounded(err) for node, (_, err) in read(ends.values(), walk).items()}


def _unbounded(err: Real) -> Real:
    """What is not a number, 0 · inf and the like, is unbounded."""
    return np.where(np.isnan(err), np.inf, err)


class Jumps(RoundingAlgebra):
    """Where an implementation may be on the other side of a kink, or beyond what a function or the arithmetic takes,
    and by how much the results then differ: no rounding, but the jumps within `reach` of each argument.
    """

    def __init__(
        self, arithmetic: Arithmetic, values: Mapping[Node, Real], reach: Mapping[Node, Real], parts: int
    ) -> None:
        exact = replace(arithmetic, unit_roundoff=0.0, smallest_normal=0.0, smallest_subnormal=0.0)
        super().__init__(exact, lambda node, *mids: values[node], across_kinks=True, parts=parts)
        self.reach = reach

    def apply(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        (function, times), mid = node.static, self.mids(node, a[0])
        reach = a[1] + self.reach[node.inputs[0]]
        ends = np.array([*function.kinks, function.above])
        near = (a[1] > 0) | (np.abs(a[0][..., None] - ends) <= 1.01 * reach[..., None]).any(axis=-1)
        err = np.zeros(node.shape)
        if near.any():
            local = suprema(function, a[0][near], reach[near])
            carried = (local.curvature if times else local.slope) * a[1][near]
            jumped = np.where(a[1][near] > 0, carried, 0.0) + (local.jump if times else 0.0)
            err[near] = np.where(np.isinf(local.slope), np.inf, jumped)
        return self._made(mid, err)

    def first_largest(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        return super().first_largest(node, (a[0], a[1] + self.reach[node.inputs[0]]))


def _exact(values: Values, numbers: SideBySide, own: Mapping[Node, Real], u: float, spread: float) -> dict[Node, Real]:
    """The statistical bound of every node from all sensitivities."""
    starts = dict(zip(own, np.cumsum([0, *(node.size for node in own)]).tolist(), strict=False))
    total = sum(node.size for node in own)
    groups: list[NDArray[np.intp]] = []
    linear: list[bool] = []
    for node in own:
        cell = cells(values[node], u)
        groups.append(len(linear) + cell)
        linear += [node.rule in LINEAR] * (int(cell.max()) + 1)

    def draws(node: Node) -> Tangent:
        if node not in own:
            return None
        units = np.zeros((total, node.size))
        units[starts[node] + np.arange(node.size), np.arange(node.size)] = own[node].ravel()
        return units.reshape(total, *node.shape)

    found = read(values, Tangents(numbers, values, draws))
    group, is_linear = np.concatenate([*groups, np.zeros(0, np.intp)]), np.array(linear, dtype=bool)
    return {node: _from_all(tangents, node, group, is_linear, spread) for node, tangents in found.items()}


def _from_all(tangents: Tangent, node: Node, group: NDArray[np.intp], linear: NDArray[np.bool_], spread: float) -> Real:
    if tangents is None:
        return np.zeros(node.shape)
    each = np.zeros((len(linear), node.size))
    np.add.at(each, group, np.abs(tangents.reshape(len(group), node.size)))
    nothing = np.zeros((1, node.size))
    rest = np.sort(np.concatenate([each[~linear], nothing]), axis=0)[::-1]
    top = np.maximum(rest[:1], SMALLEST)  # squares must not underflow
    tails = np.concatenate([top * np.sqrt(np.cumsum(np.square(rest / top)[::-1], axis=0)[::-1]), nothing])
    heads = np.concatenate([nothing, np.cumsum(rest, axis=0)])
    return np.asarray((each[linear].sum(axis=0) + (heads + spread * tails).min(axis=0)).reshape(node.shape))


def _sketched(
    values: Values, numbers: SideBySide, own: Mapping[Node, Real], u: float, spread: float, judged: int, seed: int
) -> dict[Node, Real]:
    """The statistical bound of every node, from its norms' upper confidence limits."""
    rng = np.random.default_rng(seed)
    chance = FALSE_ALARM / 4 / judged
    inner = {one for node in values for one in node.inputs} & set(own)  # an end's own rounding is known

    def gaussian(node: Node) -> Tangent:
        if node not in inner or node.rule in LINEAR:
            return None
        cell = cells(values[node], u)
        repeated = (np.bincount(cell) > 1)[cell]
        shared = rng.standard_normal((DRAWS, int(cell.max()) + 1))[:, cell]
        if repeated.any():  # alike, or as if by chance: both
            shared[:, repeated] += rng.standard_normal((DRAWS, int(repeated.sum())))
        return own[node] * shared.reshape(DRAWS, *node.shape)

    def cauchy(node: Node) -> Tangent:
        if node not in inner or node.rule not in LINEAR:
            return None
        return own[node] * rng.standard_cauchy((DRAWS, *node.shape))

    def norm(node: Node, tangents: Tangent) -> Real:
        last = 0.0 if node in inner else own.get(node, 0.0)
        return np.hypot(_root_mean_square(tangents, node) * wide, last)

    wide, wider = 1 / math.sqrt(_chi_square(chance)), 1 / _root_moment(chance)
    two = {node: spread * norm(node, t) for node, t in read(values, Tangents(numbers, values, gaussian)).items()}
    if not any(node.rule in LINEAR for node in inner):
        return two
    one = read(values, Tangents(numbers, values, cauchy))
    return {node: two[node] + wider * _mean_root_square(t, node) for node, t in one.items()}


def _root_mean_square(tangents: Tangent, node: Node) -> Real:
    if tangents is None:
        return np.zeros(node.shape)
    norm = np.asarray(np.sqrt(np.einsum("k...,k...->...", tangents, tangents) / DRAWS))
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


@cache
def _root_moment(chance: float) -> float:
    """c² such that the mean of √|C| over K Cauchy numbers of scale 1 is below c with at most this chance, by Chernoff's
    bound: (min over h of e^(hc) E e^(−h√|C|))^K.
    """
    angles = (np.arange(20000) + 0.5) / 20000 * math.pi / 2  # |C| = tan of a uniform angle
    roots = np.sqrt(np.tan(angles))
    rates = np.geomspace(0.1, 300, 400)
    transforms = np.array([np.exp(-rate * roots).mean() for rate in rates])
    wanted = math.log(chance) / DRAWS
    # for each rate the c at which the bound is the chance; the best of them
    return float(np.max((wanted - np.log(transforms)) / rates)) ** 2
