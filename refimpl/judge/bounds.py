"""How far a right implementation may lie from the truth: bounds from one statement of what each primitive rounds.

- *worst case*: the errors walked through the graph node by node (:mod:`refimpl.truth.rounding`), a theorem;
- *statistical*: linear part + λ √Σ(∂output/∂node × rounding)², λ from the probability of a false alarm, and *first
  order*: Σ|∂output/∂node| × rounding, which assumes nothing of how roundings are distributed
  (:mod:`refimpl.judge.first_order`); both with what the first order leaves out (:mod:`refimpl.judge.remainders`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from refimpl.judge.first_order import FirstOrder
from refimpl.judge.remainders import Remainders
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.functions import SMALLEST
from refimpl.truth.graph import Node, cast, order, read
from refimpl.truth.numbers import NumberAlgebra, blas_in_one_thread
from refimpl.truth.rounding import RoundingAlgebra, unbounded

Real = NDArray[np.float64]
Values = Mapping[Node, Real]
Bounds = dict[str, Real]
BOTH, FIRST_ORDER, THEOREM = "both", "first-order", "worst-case"
ROUNDS = 3  # of looking for a reach that holds its own remainders
MINOR = 2.0**-6  # of a bound: what comes on top
LOST = 2.0**-1000  # below which float64 may have lost what an estimate is made of
COARSE = 2.0**-14  # roundings above this are followed to all orders


@dataclass(frozen=True)
class Tolerance:
    """How far a right implementation in an arithmetic may lie from the truth: bounds by name, each in the shape of what
    it bounds.

    `worst_case` holds for any that is on the right side of every kink, `across_kinks` for one on either side; so do
    `statistical` and `statistical_across`, but for the probability `FALSE_ALARM`; where `kind` is "first order" without
    an assumption about roundings. inf where the arithmetic may overflow. `saturated`: 1 where 0 would
    be within, since a derivative is only known to the absolute accuracy of its formula (tanh' as 1 − a²).
    """

    worst_case: Bounds
    across_kinks: Bounds
    statistical: Bounds
    statistical_across: Bounds
    arithmetic: Arithmetic
    kind: str = "statistical"
    saturated: Bounds = field(default_factory=dict)

    def mapped(self, change: Callable[[Bounds], Bounds]) -> Tolerance:
        """With every bound changed."""
        return Tolerance(
            change(self.worst_case), change(self.across_kinks), change(self.statistical),
            change(self.statistical_across), self.arithmetic, self.kind,
            change(self.saturated),
        )  # fmt: skip

    def plus(self, slack: Mapping[str, Real] | None) -> Tolerance:
        """With so much more by name."""
        if not slack:
            return self
        return replace(
            self.mapped(lambda bounds: {name: bound + slack.get(name, 0.0) for name, bound in bounds.items()}),
            saturated=self.saturated,
        )

    def at(self, key: str, index: tuple[int, ...]) -> Tolerance:
        """Of one element, as arrays of shape (1,)."""
        return self.mapped(lambda bounds: {key: np.atleast_1d(bounds[key][index])} if key in bounds else {})


def bounds(
    ends: Mapping[str, Node],
    given: Mapping[str, Real],
    arithmetic: Arithmetic,
    parts: int = 1,
    seed: int = 0,
    repeated: bool = False,
    by: str = BOTH,
    known: Values | None = None,
    slopes: Values | None = None,
) -> Tolerance:
    """The bounds of the named ends of a graph at the `given` numbers. `parts`: what may be divided by last; `seed`: of
    the sketches; `repeated`: whether to look in every sum for terms that repeat, which takes its time; `by`: `BOTH`,
    or `FIRST_ORDER` in place of the statistical bounds, or the `THEOREM` alone, the others being inf; `known`: values
    that are certified, and `slopes`: (f, f', f'') of the function that is applied to a node.
    """
    with blas_in_one_thread(), np.errstate(all="ignore"):  # bounds may be infinite
        return _bounds(ends, given, arithmetic, parts, seed, repeated, by, known or {}, slopes or {})


def _bounds(
    ends: Mapping[str, Node], given: Mapping[str, Real], arithmetic: Arithmetic, parts: int, seed: int,
    repeated: bool, by: str, known: Values, slopes: Values,
) -> Tolerance:  # fmt: skip
    ends, known, slopes = computed_in(arithmetic, ends, known, slopes)
    numbers = NumberAlgebra(given)
    nodes = order(ends.values())
    for node in nodes:
        if node.rule == "apply" and len(slopes.get(node.inputs[0], ())):
            numbers.evaluated[node.inputs[0], node.static[0]] = slopes[node.inputs[0]]
    found = read(nodes, numbers, known)
    values = {node: found[node] for node in nodes}
    walk = RoundingAlgebra(arithmetic, lambda node, *mids: values[node], {}, numbers.derivatives, parts=parts)
    worst = across = _errors(ends, walk)
    if walk.near_kinks:
        across = _errors(ends, replace(walk, across_kinks=True))
    saturated: Bounds = {}
    if walk.saturated:
        relative = _errors(ends, replace(walk, relative=True))
        for name, node in ends.items():
            size, bound = np.abs(values[node]), worst[node]
            saturated[name] = ((size > 0) & (size <= bound) & (2 * relative[node] < bound)).astype(np.float64)
    if by == THEOREM:
        unknown = {name: np.full(node.shape, np.inf) for name, node in ends.items()}
        return Tolerance(_named(ends, worst), _named(ends, across), unknown, unknown, arithmetic, saturated=saturated)
    first_order = FirstOrder(values, walk, numbers, seed, repeated, by == FIRST_ORDER)
    coarse = by == BOTH and arithmetic.coarsest > COARSE
    likely = first_order.displaced() if coarse else first_order.statistical()
    # what is below float64's range is not 0, and may lie beside a kink
    reach = {node: np.where(worst[node] > 0, np.maximum(err, SMALLEST), 0.0) for node, err in likely.items()}
    beyond = Remainders(walk, numbers, reach, kinks_only=coarse)
    remainder = _errors(ends, beyond)
    jumps = _errors(ends, beyond.across()) if beyond.near_kinks else {}
    if not coarse and any((remainder[node] > MINOR * reach[node]).any() for node in ends.values()):
        remainder = _through_the_graph(remainder, beyond, first_order)
    likely = {
        node: np.where((values[node] != 0) & (np.maximum(np.abs(values[node]), err) < LOST), np.inf, err)
        for node, err in ((node, likely[node]) for node in ends.values())
    }
    statistical = {node: np.minimum(worst[node], likely[node] + remainder[node]) for node in ends.values()}
    jumped = {node: np.minimum(across[node], likely[node] + jumps.get(node, remainder[node])) for node in ends.values()}
    return Tolerance(
        _named(ends, worst), _named(ends, across), _named(ends, statistical), _named(ends, jumped), arithmetic,
        "first order" if by == FIRST_ORDER else "statistical", saturated,
    )  # fmt: skip


def computed_in(
    arithmetic: Arithmetic, ends: Mapping[str, Node], known: Values, slopes: Values
) -> tuple[dict[str, Node], dict[Node, Real], dict[Node, Real]]:
    """The graph with what an arithmetic stores, multiplies and returns in other numbers cast to them, and what is known
    of its nodes.
    """
    made: dict[Node, Node] = {}
    short: dict[Node, Node] = {}
    factors = replace(arithmetic, unit_roundoff=arithmetic.products, smallest_normal=0.0, smallest_subnormal=0.0)
    for node in order(ends.values()):
        inputs = tuple(made[one] for one in node.inputs)
        if node.rule == "contract" and arithmetic.products:
            inputs = tuple(short.setdefault(one, cast(one, factors)) for one in inputs)
        made[node] = node if inputs == node.inputs else replace(node, inputs=inputs)
        if node.rule in ("given", "constant") and arithmetic.given:
            made[node] = cast(node, arithmetic.given)
    results = {name: made[end] for name, end in ends.items()}
    if arithmetic.returned:
        results = {name: cast(end, arithmetic.returned) for name, end in results.items()}
    return (
        results,
        {made[node]: value for node, value in known.items() if node in made},
        {made[node]: value for node, value in slopes.items() if node in made},
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
    return {node: unbounded(err) for node, (_, err) in read(ends.values(), walk).items()}
