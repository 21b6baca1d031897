"""What equations with a mistake in them give: the recursion as a graph, and its reading over error bounds.

`Recursion` runs any :mod:`refimpl.equations` on nodes (:mod:`refimpl.truth.graph`), so that a changed
equation is a changed graph. `Reader` bounds how far an implementation that computes *these* operations in a declared
arithmetic may lie from them (:mod:`refimpl.truth.rounding`): a mistake brings its own tolerance along.

What it does not do: certify. The numbers that errors are bounded around are computed in float64, and the bounds cover
that too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.equations import EQUATIONS, Equations
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.documents import Function
from refimpl.network.functions import ACTIVATIONS, ELEMENTARY, LOSSES
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import number as nearest
from refimpl.truth.elementwise import Elementwise, activation
from refimpl.truth.gradients import gradients
from refimpl.truth.graph import Node, apply, extend, given, order
from refimpl.truth.network import LOSS_DEFINITIONS, activate
from refimpl.truth.numbers import BITS, NumberAlgebra, derivatives
from refimpl.truth.precision import working_precision
from refimpl.truth.rounding import Bounded as Pair
from refimpl.truth.rounding import RoundingAlgebra
from refimpl.truth.suprema import Local, Suprema, suprema

Array = NDArray[Any]
Real = NDArray[np.float64]
FLOAT64_ROUNDOFF = 2.0**-53
ROOM = 2**22  # for elements that are kept
RIGHT = frozenset(vars(EQUATIONS).values())


# --------------------------------------------------------------------------------------------------------------
# The recursion


@dataclass(frozen=True)
class ForwardPass:
    """The nodes of a forward pass: the parameters by name and, from the first layer to the last, z and a (x before
    them); the losses and their derivatives by s.
    """

    params: Mapping[str, Node]
    z: Sequence[Node]
    a: Sequence[Node]
    losses: Node
    dlosses_ds: Node


class Recursion:
    """The recursion for targets y (N, n_out). What the right equations make of one another is made once, so that
    networks with mistakes in them have the nodes in common that no mistake reaches.
    """

    def __init__(self, y: Real) -> None:
        self.y = y
        self._made: dict[Any, Node] = {}
        self._right: set[Node] = set()

    def forward(self, spec: NetworkSpec, equations: Sequence[Equations]) -> ForwardPass:
        """The forward pass over `equations`, one a layer."""
        params = {parameter.name: self._once(given, parameter.name, parameter.shape) for parameter in spec.parameters}
        a, z = [self._once(given, "x", (len(self.y), spec.n_in))], []
        for number, (layer, equation) in enumerate(zip(spec.layers, equations, strict=True), start=1):
            z.append(self._run(equation.weighted_input, a[-1], params[f"W{number}"], params.get(f"b{number}")))
            a.append(self._run(equation.activation, z[-1], _activation(layer.activation)))
        losses = self._once(self._losses, a[-1], spec.loss)
        return ForwardPass(params, z, a, losses, self._once(_slope, losses, a[-1]))

    def cost(self, spec: NetworkSpec, known: ForwardPass, equations: Sequence[Equations]) -> Node:
        """The loss from a forward pass."""
        return self._run(equations[-1].cost, known.losses, spec.reduction)

    def backward(
        self, spec: NetworkSpec, known: ForwardPass, equations: Sequence[Equations]
    ) -> Iterator[tuple[str, Node]]:
        """The gradients by name from a forward pass, in backward order; none is made before it is asked for."""
        a, z, last = known.a, known.z, equations[-1]
        vjps = [_vjp(layer.activation) for layer in spec.layers]
        dC_ds = self._run(last.cost_gradient, known.dlosses_ds, spec.reduction)
        delta = self._run(last.output_error, dC_ds, z[-1], a[-1], vjps[-1])
        for number in range(spec.depth, 0, -1):
            equation, W = equations[number - 1], known.params[f"W{number}"]
            yield f"W{number}", self._run(equation.weight_gradient, delta, a[number - 1])
            if spec.layers[number - 1].bias:
                yield f"b{number}", self._run(equation.bias_gradient, delta)
            if number > 1:
                delta = self._run(equation.hidden_error, W, delta, z[number - 2], a[number - 1], vjps[number - 2])

    def _losses(self, s: Node, loss: Function) -> Node:
        losses = LOSS_DEFINITIONS[loss.name](s, self.y, loss.kwargs)
        return losses / s.shape[1] if LOSSES[loss.name].averages_outputs else losses

    def _run(self, equation: Callable[..., Any], *operands: Any) -> Node:
        """An equation on operands of any kind: the operators are all it needs of them."""
        made: Node = self._once(equation, *operands) if equation in RIGHT else equation(*operands)
        return made

    def _once(self, make: Callable[..., Node], *operands: Any) -> Node:
        key = make, *operands
        node = self._made.get(key)
        if node is None:
            node = make(*operands)
            if all(one in self._right for one in operands if isinstance(one, Node)):
                self._made[key] = node
                self._right.add(node)
        return node


def _slope(losses: Node, s: Node) -> Node:
    return gradients(losses, [s])[0]


@cache
def _activation(function: Function) -> Callable[[Node], Node]:
    """a of z."""
    return partial(activate, function) if function.name != "identity" else lambda z: z


@cache
def _vjp(function: Function) -> Callable[[Node, Node, Node], Node]:
    """∂C/∂z of z, a and ∂C/∂a."""
    if function.name == "identity":
        return lambda z, a, dC_da: dC_da
    if ACTIVATIONS[function.name].elementwise:
        f = activation(function.name, tuple(function.kwargs.items()))
        return lambda z, a, dC_da: dC_da * apply(f, z, 1)
    return lambda z, a, dC_da: a * (dC_da - (a * dC_da).sum(axis=1, keepdims=True))


# --------------------------------------------------------------------------------------------------------------
# Formulas as floating-point arithmetic computes them

Exponential = Callable[[Array], Array]
Form = Callable[[Array, Exponential], Array]


def computed(form: Form, z: Any) -> Any:
    """A formula of z and of an exponential that it is given: of an array its value, of a node one that has the same
    roundings. Between two numbers it must have no values but those between its own of them.
    """
    return Node("computed", (z,), z.shape, form) if isinstance(z, Node) else form(z, np.exp)


def nearest_exponential(z: Array) -> Array:
    """e^z, rounded as it should be."""
    with working_precision(BITS):
        values = [nearest(flint.arb(one).exp()) if math.isfinite(one) else math.exp(one) for one in z.ravel().tolist()]
    return np.array(values, dtype=np.float64).reshape(z.shape).astype(z.dtype)


# as it is rounded here, and at its best: libraries differ in the last bit, each in its own places
EXPONENTIALS: tuple[Exponential, ...] = (np.exp, nearest_exponential)


# --------------------------------------------------------------------------------------------------------------
# Its reading


class Bounded(NamedTuple):
    """mid ± err, two float64 arrays of one shape."""

    mid: Real
    err: Real

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both."""
        return self.mid.shape


class Reader:
    """Reads nodes in an arithmetic at given numbers by name; formulas are computed with an `exponential` in `dtype`."""

    def __init__(
        self,
        arithmetic: Arithmetic,
        numbers: Mapping[str, Array],
        exponential: Exponential = np.exp,
        dtype: str = "float64",
    ) -> None:
        self.numbers = _Numbers(numbers, exponential, dtype)
        bounds = _Bounds(arithmetic, self._mids, across_kinks=True, mids_roundoff=FLOAT64_ROUNDOFF)
        self.algebra = _Remembering(Casts(bounds))

    def __call__(self, end: Node, values: dict[Node, Any] | None = None) -> Bounded:
        """A node, which is read as far as it has not been into `values`, with what it is made from."""
        values = {} if values is None else values
        extend(values, order([end], values), self.algebra)
        return Bounded(*values[end])

    def _mids(self, node: Node, *mids: Real) -> Real:
        return np.asarray(getattr(self.numbers, node.rule)(node, *mids))


class Casts:
    """`RoundingAlgebra`s, one an arithmetic: a node is read in the coarsest of `own`'s and those that what it is made
    from was cast to.
    """

    def __init__(self, own: RoundingAlgebra) -> None:
        self.own = own
        self.coarser: dict[Node, RoundingAlgebra] = {}

    def __getattr__(self, rule: str) -> Callable[..., Pair]:
        return lambda node, *inputs: getattr(self._reading(node), rule)(node, *inputs)

    def _reading(self, node: Node) -> RoundingAlgebra:
        if not self.coarser and node.rule != "cast":
            return self.own
        found = max((self.coarser.get(one, self.own) for one in node.inputs), key=lambda one: one.u, default=self.own)
        after = found
        if node.rule == "cast" and node.static.unit_roundoff > found.arithmetic.unit_roundoff:
            after = replace(found, arithmetic=node.static)
        if after is not self.own:
            self.coarser[node] = after
        return found


class _Remembering:
    """An algebra that does an operation on the same arrays once: mistakes leave most of a network as it is."""

    def __init__(self, algebra: Any) -> None:
        self.algebra = algebra
        self.done: dict[Any, tuple[Any, Any]] = {}
        self.room = ROOM

    def __getattr__(self, rule: str) -> Callable[..., Any]:
        run = getattr(self.algebra, rule)

        def remembering(node: Node, *values: Any) -> Any:
            key = rule, node.shape, _hashable(node.static), *map(id, values)
            found = self.done.get(key)
            if found is None:
                found = run(node, *values), values
                if self.room > 0:
                    self.done[key] = found
                    self.room -= node.size
            return found[0]

        self.__dict__[rule] = run if rule == "cast" else remembering
        return self.__dict__[rule]


def _hashable(static: Any) -> Any:
    if isinstance(static, tuple):
        return tuple(map(_hashable, static))
    return static.tobytes() if isinstance(static, np.ndarray) else static


class _Numbers(NumberAlgebra):
    """Evaluates a function once at the same number."""

    def __init__(self, known: Mapping[str, Array], exponential: Exponential, dtype: str) -> None:
        super().__init__(known)
        self.exponential, self.dtype = exponential, dtype
        self.rows: dict[Elementwise, dict[float, list[float]]] = {}

    def computed(self, node: Node, z: Real) -> Real:
        return np.asarray(node.static(z.astype(self.dtype), self.exponential), dtype=np.float64)

    def derivatives(self, where: Node, function: Elementwise, a: Real, times: int = 1) -> Real:
        def evaluated(numbers: list[float]) -> list[list[float]]:
            with working_precision(BITS):
                return [derivatives(function, number, 1) for number in numbers]

        rows = _looked_up(self.rows.setdefault(function, {}), a.ravel().tolist(), evaluated)
        return np.array(rows, dtype=np.float64).T.reshape(2, *a.shape)


class _Bounds(RoundingAlgebra):
    """Bounds a function once over the same ball."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rows: dict[Elementwise, dict[tuple[float, float], Suprema]] = {}

    def computed(self, node: Node, z: tuple[Real, Real]) -> tuple[Real, Real]:
        mid, *ends = (self.mids(node, z[0] + side * z[1]) for side in (0.0, -1.0, 1.0))
        err = np.max([np.abs(end - mid) for end in ends], axis=0)
        return self._made(mid, err + (ELEMENTARY + 2) * self.u * np.abs(mid))

    def _local(self, where: Node, function: Elementwise, a: tuple[Real, Real]) -> Local:
        def bounded(balls: list[tuple[float, float]]) -> list[Suprema]:
            local = suprema(function, *np.array(balls).T)
            return list(zip(*vars(local).values(), strict=True))

        balls = list(zip(a[0].ravel().tolist(), a[1].ravel().tolist(), strict=True))
        return Local.of(_looked_up(self.rows.setdefault(function, {}), balls, bounded), a[0].shape)


def _looked_up(known: dict[Any, Any], keys: list[Any], evaluated: Callable[[list[Any]], list[Any]]) -> list[Any]:
    new = [key for key in dict.fromkeys(keys) if key not in known]
    if new:
        known.update(zip(new, evaluated(new), strict=True))
    return [known[key] for key in keys]
