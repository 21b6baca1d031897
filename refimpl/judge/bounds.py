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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.judge.first_order import SideBySide, Tangent, Tangents
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.functions import SMALLEST
from refimpl.truth.balls import as_matrices
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import PRIMITIVES, Node, order, read
from refimpl.truth.numbers import NumberAlgebra
from refimpl.truth.rounding import Local, RoundingAlgebra, suprema

Real = NDArray[np.float64]
Values = Mapping[Node, Real]
Bounds = dict[str, Real]
FALSE_ALARM = 2.0**-40  # the probability of one or more false alarms in a report
DRAWS = 128
EXACT = 500  # roundings, up to which every sensitivity is computed
NEGLIGIBLE = 2.0**-20
ROUNDS = 3  # of looking for a reach that holds its own remainders
WIDE = 2.0**-8  # of a derivative: by how much more it may change within the worst case
MINOR = 2.0**-6  # of a bound: what comes on top
SMALL = 2.0**-30
LINEAR = frozenset({"apply"})
BILINEAR = frozenset({"mul", "contract"})
NONLINEAR = BILINEAR | {"div", "softmax", "log_sum_exp", "normalise", "inverse_deviation"}


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
        none = np.zeros_like(value)
        return Local(value, slope, curvature, none, none, none)

    def contract(self, node: Node, a: tuple[Real, Real], b: tuple[Real, Real]) -> tuple[Real, Real]:
        mid, err = super().contract(node, a, b)
        if self.repeated:
            left, right, placed = as_matrices(node.static, np.abs(a[0]), np.abs(b[0]))
            rows = [
                [(self._alike(terms := row * columns.T) * terms.sum(axis=-1, keepdims=True))[:, 0] for row in matrix]
                for matrix, columns in zip(left, right, strict=True)
            ]
            err = np.maximum(err, placed(np.array(rows)))
        return mid, err

    def _of_sums(self, terms: Real, more: int) -> Real:
        own = super()._of_sums(terms, more)
        return np.maximum(own, self._alike(terms)) if self.repeated else own

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
        return np.asarray(np.sqrt(n) * self.summing)


@dataclass(frozen=True)
class Tolerance:
    """How far a right implementation in an arithmetic may lie from the truth: bounds by name, each in the shape of what
    it bounds.

    `worst_case` holds for any that is on the right side of every kink, `across_kinks` for one on either side; so do
    `statistical` and `statistical_across`, but for the probability `FALSE_ALARM`. inf where the arithmetic may
    overflow.
    """

    worst_case: Bounds
    across_kinks: Bounds
    statistical: Bounds
    statistical_across: Bounds
    arithmetic: Arithmetic

    def mapped(self, change: Callable[[Bounds], Bounds]) -> Tolerance:
        """With every bound changed."""
        return Tolerance(
            change(self.worst_case), change(self.across_kinks), change(self.statistical),
            change(self.statistical_across), self.arithmetic,
        )  # fmt: skip

    def at(self, key: str, index: tuple[int, ...]) -> Tolerance:
        """Of one element, as arrays of shape (1,)."""
        return self.mapped(lambda bounds: {key: np.atleast_1d(bounds[key][index])})


def cells(values: Real, u: float) -> NDArray[np.intp]:
    """The places of values that store to the same number, numbered."""
    mantissas, exponents = np.frexp(values.ravel())
    _, inverse = np.unique(np.ldexp(np.rint(mantissas / (2 * u)), exponents), return_inverse=True)
    return inverse


@np.errstate(all="ignore")  # bounds may be infinite
def bounds(
    ends: Mapping[str, Node],
    given: Mapping[str, Real],
    arithmetic: Arithmetic,
    parts: int = 1,
    seed: int = 0,
    repeated: bool = False,
    theorem: bool = False,
    known: Values | None = None,
    slopes: Values | None = None,
) -> Tolerance:
    """The bounds of the named ends of a graph at the `given` numbers. `parts`: what may be divided by last; `seed`: of
    the sketches; `repeated`: whether to look in every sum for terms that repeat, which takes its time; `theorem`: the
    worst case alone, the statistical bounds being inf; `known`: values that are certified, and
    `slopes`: (f, f') of the function that is applied to a node.
    """
    numbers = NumberAlgebra(given)
    for node in order(ends.values()):
        if node.rule == "apply" and slopes and len(slopes.get(node.inputs[0], ())):
            numbers.evaluated[node.inputs[0], node.static[0]] = slopes[node.inputs[0]]
    found = read(ends.values(), numbers, known)
    values = {node: found[node] for node in order(ends.values())}
    walk = RoundingAlgebra(arithmetic, lambda node, *mids: values[node], parts=parts)
    worst = across = _errors(ends, walk)
    if walk.near_kinks:
        across = _errors(ends, replace(walk, across_kinks=True))
    if theorem:
        unknown = {name: np.full(node.shape, np.inf) for name, node in ends.items()}
        return Tolerance(_named(ends, worst), _named(ends, across), unknown, unknown, arithmetic)
    for key, local in walk.locals.items():
        begun = numbers.evaluated[key]
        if len(begun) == 2 and not (local.turn > WIDE * local.curvature).any():
            numbers.evaluated[key] = np.stack([*begun, local.bend])
    first_order = FirstOrder(values, walk, numbers, sum(node.size for node in ends.values()), seed, repeated)
    likely = first_order.statistical()
    # what is below float64's range is not 0, and may lie beside a kink
    reach = {node: np.where(worst[node] > 0, np.maximum(err, SMALLEST), 0.0) for node, err in likely.items()}
    beyond = Remainders(walk, numbers, reach)
    remainder = _errors(ends, beyond)
    jumps = _errors(ends, beyond.across()) if beyond.near_kinks else {}
    if any((remainder[node] > MINOR * reach[node]).any() for node in ends.values()):
        remainder = _through_the_graph(remainder, beyond, first_order)
    return Tolerance(
        _named(ends, worst),
        _named(ends, across),
        {name: np.minimum(worst[node], likely[node] + remainder[node]) for name, node in ends.items()},
        {
            name: np.minimum(across[node], likely[node] + jumps.get(node, remainder[node]))
            for name, node in ends.items()
        },
        arithmetic,
    )


def _through_the_graph(remainder: dict[Node, Real], beyond: Remainders, first_order: FirstOrder) -> dict[Node, Real]:
    """The remainders by their sensitivities, which do not wrap, where a wider reach is found that holds them too."""
    wider = {node: 2 * err for node, err in beyond.reach.items()}
    for _ in range(ROUNDS):
        own = beyond.within(wider).each(first_order.values)
        total = first_order.one_norm(own)
        holding = {node: beyond.reach[node] + err for node, err in total.items()}
        if all((err <= wider[node]).all() for node, err in holding.items()):
            return {node: np.minimum(err, total[node]) for node, err in remainder.items()}
        wider = {node: np.maximum(wider[node], 2 * err) for node, err in holding.items()}
    return remainder


def _named(ends: Mapping[str, Node], errors: Values) -> Bounds:
    return {name: errors[node] for name, node in ends.items()}


def _errors(ends: Mapping[str, Node], walk: RoundingAlgebra) -> dict[Node, Real]:
    return {node: _unbounded(err) for node, (_, err) in read(ends.values(), walk).items()}


def _unbounded(err: Real) -> Real:
    """What is not a number, 0 · inf and the like, is unbounded."""
    return np.where(np.isnan(err), np.inf, err)


# --------------------------------------------------------------------------------------------------------------
# Beyond first order


class Remainders(RoundingAlgebra):
    """What the first order leaves out, carried in absolute values: products of errors and curvature, within `reach` of
    each node, and the jumps of derivatives where a kink is; unbounded where a function or the arithmetic takes no more.
    """

    def __init__(
        self, walk: RoundingAlgebra, numbers: NumberAlgebra, reach: Values, across_kinks: bool = False
    ) -> None:
        exact = replace(walk.arithmetic, unit_roundoff=0.0, smallest_normal=0.0, smallest_subnormal=0.0)
        super().__init__(exact, walk.mids, across_kinks=across_kinks, parts=walk.parts)
        self.walk, self.numbers, self.reach = walk, numbers, reach

    def across(self) -> Remainders:
        """With the jumps."""
        return Remainders(self.walk, self.numbers, self.reach, across_kinks=True)

    def within(self, reach: Values) -> Remainders:
        """The same within another reach."""
        return Remainders(self.walk, self.numbers, reach)

    def each(self, values: Values) -> dict[Node, Real]:
        """What every node leaves out where its inputs do not, as far as that is not 0."""
        none = {node: np.zeros(node.shape) for node in values}
        own = {}
        for node in values:
            pairs = [(values[one], none[one]) for one in node.inputs]
            err = _unbounded(getattr(self, node.rule)(node, *pairs)[1])
            if err.any():
                own[node] = err
        return own

    def apply(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        (function, times), where = node.static, node.inputs[0]
        reach = a[1] + self.reach[where]
        local = self._within(where, function, a[0], reach)
        slope, curvature = np.abs(self.numbers.derivatives(where, function, a[0])[1:3])
        if times == 0:
            err = slope * a[1] + local.curvature * np.square(reach) / 2 + local.jump * reach
        else:
            err = curvature * a[1] + local.turn * reach + local.jump * self.across_kinks
        self.near_kinks |= bool(local.jump.any())
        return self._made(self.mids(node, a[0]), np.where((reach > 0) | np.isnan(reach), err, 0.0), local.value)

    def _within(self, where: Node, function: Elementwise, mid: Real, reach: Real) -> Local:
        """What the function does within reach: what it does within the worst case, where that says enough."""
        key = where, function
        if key not in self.locals:
            found = self.walk.locals[key]
            wide = np.isinf(found.value) | (found.jump > 0) | (found.curvature * reach > WIDE * found.slope)
            wide |= found.turn > WIDE * found.curvature
            if (wide & (reach > 0)).any():
                few = suprema(function, mid[wide], reach[wide])
                parts = {name: getattr(found, name).copy() for name in vars(found)}
                for name, part in parts.items():
                    part[wide] = getattr(few, name)
                found = Local(**parts)
            self.locals[key] = found
        return self.locals[key]

    def max(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        reach = a[1] + self.reach[node.inputs[0]]
        mid, widest = self.mids(node, a[0]), reach.max(axis=node.static, keepdims=True)
        others = (a[0] + reach >= mid - widest).sum(axis=node.static, keepdims=True) > 1
        return mid, np.where(others, 2 * widest, a[1].max(axis=node.static, keepdims=True))

    def first_largest(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        return super().first_largest(node, (a[0], a[1] + self.reach[node.inputs[0]]))


def _beyond_linear(rule: str) -> Any:
    """The rule's bound on errors within reach, less its linear part, and what the inputs' own remainders come to."""
    bound = getattr(Remainders, rule)

    def read(self: Remainders, node: Node, *inputs: tuple[Real, Real]) -> tuple[Real, Real]:
        def out(*errs: Real) -> Real:
            pairs = [(mid, err) for (mid, _), err in zip(inputs, errs, strict=True)]
            return np.asarray(bound(self, node, *pairs)[1])

        def linear(*errs: Real) -> Real:
            return out(*(SMALL * err for err in errs)) / SMALL

        carried = [err for _, err in inputs]
        if rule in NONLINEAR:
            err = linear(*carried) if any(one.any() for one in carried) else np.zeros(node.shape)
            reach = [one + self.reach[node_in] for one, node_in in zip(carried, node.inputs, strict=True)]
            if all(one.any() for one in reach) or rule not in BILINEAR:
                err = err + np.maximum(out(*reach) - linear(*reach), 0.0)
        else:
            err = out(*carried)
        mid = self.mids(node, *(mid for mid, _ in inputs))
        return self._made(mid, err, np.abs(mid) + self.reach[node] + err)

    return read


for _rule in PRIMITIVES:
    setattr(Remainders, _rule, _beyond_linear(_rule))


# --------------------------------------------------------------------------------------------------------------
# To first order


class FirstOrder:
    """Linear part + λ √Σ(∂output/∂node × rounding)² at the `values` of a graph's nodes, of which so many are `judged`.
    The linear part is of what has no mean of zero: library functions, flushing to zero, and all roundings of an
    arithmetic that is biased.
    """

    def __init__(
        self, values: Values, walk: RoundingAlgebra, numbers: NumberAlgebra, judged: int, seed: int, repeated: bool
    ) -> None:
        arithmetic = walk.arithmetic
        self.values, self.numbers = values, SideBySide(numbers.known, numbers.evaluated)
        self.u, self.seed = arithmetic.unit_roundoff, seed
        self.chance = FALSE_ALARM / 4 / judged
        self.spread = math.sqrt(2 * math.log(1 / self.chance))
        self.inner = {one for node in values for one in node.inputs}  # an end's own rounding is known
        point = PointRoundings(arithmetic, numbers, walk.parts, repeated)
        unlimited = replace(arithmetic, smallest_normal=0.0, smallest_subnormal=0.0, flushes_subnormals=False)
        nearest = PointRoundings(unlimited, numbers, walk.parts, repeated) if arithmetic.flushes_subnormals else point
        self.random: dict[Node, Real] = {}
        self.biased: dict[Node, Real] = {}
        for node, value in values.items():
            inputs = [values[one] for one in node.inputs]
            rounding = point.own(node, value, *inputs)
            # what may underflow in a number of usual size is nothing beside that number's roundings
            rounding = np.where(rounding > NEGLIGIBLE * self.u * np.abs(value), rounding, 0.0)
            if not rounding.any():
                continue
            if node.rule in LINEAR:
                self.biased[node] = rounding
                continue
            self.random[node] = rounding
            if nearest is not point:
                self.random[node] = np.minimum(nearest.own(node, value, *inputs), rounding)
                self.biased[node] = rounding - self.random[node]

    def statistical(self) -> dict[Node, Real]:
        """The bound of every node."""
        linear = self.one_norm(self.biased)
        return {node: _unbounded(err + linear[node]) for node, err in self._quadratic().items()}

    def one_norm(self, own: Mapping[Node, Real]) -> dict[Node, Real]:
        """Σ |∂node/∂source| × own, or its upper confidence limit."""
        if _few(own):
            return {node: _total(tangents, node) for node, tangents in self._sensitivities(own).items()}
        rng = np.random.Generator(np.random.SFC64([self.seed, 1]))

        def draws(node: Node) -> Tangent:
            if node not in self.inner or node not in own:
                return None
            above, below = (rng.standard_normal((DRAWS, *node.shape), np.float32) for _ in range(2))
            return own[node] * (above / below)

        wide, found = 1 / _root_moment(self.chance), self._tangents(draws)
        return {node: wide * _mean_root_square(found[node], node) + self._last(own, node) for node in self.values}

    def _quadratic(self) -> dict[Node, Real]:
        """λ √Σ(…)² of what is random, or its upper confidence limit."""
        own = self.random
        if _few(own):
            group = np.zeros(0, np.intp)
            for node in own:
                group = np.append(group, group.max(initial=-1) + 1 + cells(self.values[node], self.u))
            found = self._sensitivities(own)
            return {node: self.spread * _root_of_squares(t, group, node) for node, t in found.items()}
        rng = np.random.Generator(np.random.SFC64([self.seed, 2]))

        def draws(node: Node) -> Tangent:
            if node not in self.inner or node not in own:
                return None
            cell = cells(self.values[node], self.u)
            repeated = (np.bincount(cell) > 1)[cell]
            shared = rng.standard_normal((DRAWS, int(cell.max()) + 1), np.float32)[:, cell]
            if repeated.any():  # alike, or as if by chance: both
                shared[:, repeated] += rng.standard_normal((DRAWS, int(repeated.sum())), np.float32)
            return own[node] * shared.reshape(DRAWS, *node.shape)

        wide, found = 1 / math.sqrt(_chi_square(self.chance)), self._tangents(draws)
        return {
            node: self.spread * np.hypot(wide * _root_mean_square(found[node], node), self._last(own, node))
            for node in self.values
        }

    def _sensitivities(self, own: Mapping[Node, Real]) -> dict[Node, Tangent]:
        starts = dict(zip(own, np.cumsum([0, *(node.size for node in own)]).tolist(), strict=False))
        total = sum(node.size for node in own)

        def unit(node: Node) -> Tangent:
            if node not in own:
                return None
            units = np.zeros((total, node.size))
            units[starts[node] + np.arange(node.size), np.arange(node.size)] = own[node].ravel()
            return units.reshape(total, *node.shape)

        return self._tangents(unit)

    def _tangents(self, draws: Callable[[Node], Tangent]) -> dict[Node, Tangent]:
        return read(self.values, Tangents(self.numbers, self.values, draws))

    def _last(self, own: Mapping[Node, Real], node: Node) -> Real | float:
        return 0.0 if node in self.inner else own.get(node, 0.0)


def _few(own: Mapping[Node, Real]) -> bool:
    return sum(node.size for node in own) <= EXACT


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
