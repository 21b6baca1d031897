"""What the first order leaves out: `Remainders`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.network.arithmetic import Arithmetic
from refimpl.network.functions import SMALLEST
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import PRIMITIVES, Node
from refimpl.truth.numbers import NumberAlgebra
from refimpl.truth.rounding import RoundingAlgebra, unbounded
from refimpl.truth.suprema import Local, suprema

Real = NDArray[np.float64]
Values = Mapping[Node, Real]
WIDE = 2.0**-8  # of a derivative: by how much more it may change within the worst case
SMALL = 2.0**-30
BILINEAR = frozenset({"mul", "contract"})
NONLINEAR = BILINEAR | {"div", "normalise", "inverse_deviation"}


class Remainders(RoundingAlgebra):
    """What the first order leaves out, carried in absolute values: products of errors and curvature, within `reach` of
    each node, and the jumps of derivatives where a kink is; unbounded where a function or the arithmetic takes no more.
    `kinks_only`: what is smooth is not left out.
    """

    def __init__(
        self, walk: RoundingAlgebra, numbers: NumberAlgebra, reach: Values, kinks_only: bool = False,
        across_kinks: bool = False,
    ) -> None:  # fmt: skip
        exact = Arithmetic("exact", 0.0, 0.0, 0.0, walk.arithmetic.largest)
        super().__init__(exact, walk.mids, across_kinks=across_kinks, parts=walk.parts)
        self.walk, self.numbers, self.reach, self.kinks_only = walk, numbers, reach, kinks_only

    def across(self) -> Remainders:
        """With the jumps."""
        return Remainders(self.walk, self.numbers, self.reach, self.kinks_only, across_kinks=True)

    def within(self, reach: Values) -> Remainders:
        """The same within another reach."""
        return Remainders(self.walk, self.numbers, reach)

    def each(self, values: Values) -> dict[Node, Real]:
        """What every node leaves out where its inputs do not, as far as that is not 0."""
        none = {node: np.zeros(node.shape) for node in values}
        own = {}
        for node in values:
            pairs = [(values[one], none[one]) for one in node.inputs]
            err = unbounded(getattr(self, node.rule)(node, *pairs)[1])
            if err.any():
                own[node] = err
        return own

    def apply(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        (function, times), where = node.static, node.inputs[0]
        reach = a[1] + self.reach[where]
        if self.kinks_only and not function.kinks and not a[1].any():
            return self._made(self.mids(node, a[0]), np.zeros(node.shape))
        local = self._within(where, function, a[0], reach)
        if self.kinks_only:  # what came from a kink meets a function that is off within reach already
            err = (local.curvature if times else local.slope) * a[1]
        else:
            derivative = np.abs(self.numbers.derivatives(where, function, a[0])[times + 1])
            err = derivative * a[1] + (local.turn * reach if times else local.curvature * np.square(reach) / 2)
        err = err + local.jump * (self.across_kinks if times else reach)
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
                known = self.numbers.derivatives(where, function, mid)[:, wide]
                found = found.but(wide, suprema(function, mid[wide], reach[wide], known))
            self.locals[key] = found
        return self.locals[key]

    def cast(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        return self.mids(node, a[0]), a[1]

    def softmax(self, node: Node, a: tuple[Real, Real], total: tuple[Real, Real]) -> tuple[Real, Real]:
        carried = a[1] + total[1]
        reach = carried + sum(self.reach[one] for one in node.inputs)
        mid = self.mids(node, a[0], total[0])
        bent = 0.0 if self.kinks_only else np.expm1(reach) - reach
        err = np.maximum(mid, SMALLEST) * (carried + bent)
        return mid, np.where(node.static, err, 0.0)

    def log_sum_exp(self, node: Node, a: tuple[Real, Real]) -> tuple[Real, Real]:
        """Hoeffding's lemma: log Σ s e^d is at most Σ s d + (largest d − smallest d)²/8."""
        mid, err = super().log_sum_exp(node, a)
        if self.kinks_only:
            return mid, err
        reach = np.where(node.static, a[1] + self.reach[node.inputs[0]], 0.0)
        return mid, err + np.square(reach.max(axis=-1, keepdims=True)) / 2

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
            crossed = any(one.any() for one in carried)
            err = linear(*carried) if crossed else np.zeros(node.shape)
            smooth = [self.reach[node_in] for node_in in node.inputs]
            reach = [one + other for one, other in zip(carried, smooth, strict=True)]
            if self.kinks_only:
                err = np.maximum(err, out(*reach) - out(*smooth)) if crossed else err
            elif all(one.any() for one in reach) or rule not in BILINEAR:
                err = err + np.maximum(out(*reach) - linear(*reach), 0.0)
        else:
            err = out(*carried)
        mid = self.mids(node, *(mid for mid, _ in inputs))
        return self._made(mid, err, np.abs(mid) + self.reach[node] + err)

    return read


for _rule in PRIMITIVES:
    setattr(Remainders, _rule, _beyond_linear(_rule))
