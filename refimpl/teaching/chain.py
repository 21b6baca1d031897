"""The chain rule for one number of a network, with the numbers of a trace put in.

`chain` gives it as the article writes it, one `Line` a derivative, from the number asked for to the cost; `paths` as a
sum over every way that leads from the number to the cost, each a product of local derivatives. Both are of one sample.

What it does not do: the sum over a batch, and any comparison (:mod:`refimpl.teaching.explain`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod

from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.teaching.display import value_text
from refimpl.teaching.notation import Quantity, Symbol, derivative, number, numbers, product, slope, symbol, total
from refimpl.teaching.trace import Trace

LONG = 6  # terms: of a longer sum a line shows the largest
SHOWN_OF_LONG = 3
WIDE = 4  # neurons: of a wider layer only the one with the largest term is followed
MOST_PATHS = 10_000
NOTHING = Symbol("", "")

Factors = list[tuple[Symbol, float]]


@dataclass(frozen=True)
class Line:
    """left = right = numbers = value. `right` is symbolic; `numbers` has its numbers put in, and may be empty."""

    left: Symbol
    right: Symbol
    numbers: Symbol
    value: float

    @property
    def whole(self) -> Symbol:
        """left = right = numbers."""
        parts = [self.left, *(part for part in (self.right, self.numbers) if part.plain)]
        return Symbol(" = ".join(part.plain for part in parts), " = ".join(part.latex for part in parts))

    def parts(self, form: str) -> list[str]:
        """right, numbers and value in the form "plain" or "latex", those that say something new."""
        value = {"plain": value_text(self.value), "latex": number(self.value, 9).latex}[form]
        said = [getattr(self.right, form), getattr(self.numbers, form), value]
        return [part for i, part in enumerate(said) if part and part not in said[:i]]

    def to_dict(self) -> dict[str, object]:
        """As JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Path:
    """One way from a number to the cost: the neurons it goes through as (layer, index), and the product of the
    local derivatives along it.
    """

    neurons: tuple[tuple[int, int], ...]
    factors: Symbol
    numbers: Symbol
    value: float

    @property
    def through(self) -> str:
        """The neurons in words: a³₂ → a⁴₁ → C."""
        return " → ".join([*(symbol("a", layer, (j,)).plain for layer, j in self.neurons), "C"])

    def to_dict(self) -> dict[str, object]:
        """As JSON-able data; neurons count from 1."""
        return {
            "neurons": [{"layer": layer, "neuron": j + 1} for layer, j in self.neurons],
            "through": self.through,
            "factors": vars(self.factors),
            "numbers": vars(self.numbers),
            "value": self.value,
        }


@dataclass(frozen=True)
class Chain:
    """The local derivatives of one sample of a trace; the sample counts from 0."""

    trace: Trace
    sample: int

    @property
    def last(self) -> int:
        """The number of the output layer."""
        return self.trace.spec.depth + 1

    def value(self, kind: str, layer: int, *index: int) -> float:
        """One number of the trace: of a parameter, or of this sample's "z", "a", "da" (∂C/∂a), "slope" or "delta"."""
        name = f"{kind}{layer}"
        if name in self.trace.params:
            return float(self.trace.params[name][index])
        return float(self.trace.values[name][self.sample][index])

    def factor(self, kind: str, layer: int, *index: int) -> tuple[Symbol, float]:
        """A number of the trace with its symbol."""
        return Quantity(kind, layer, index).symbol, self.value(kind, layer, *index)

    def activation(self, layer: int) -> str:
        """The activation of a layer, which counts from 1 at the input."""
        return self.trace.spec.layers[layer - 2].activation.name

    def slope_factors(self, layer: int, j: int) -> list[tuple[Symbol, float]]:
        """f′(z) of a neuron; nothing where f is the identity."""
        if self.activation(layer) == "identity":
            return []
        return [(slope(symbol("z", layer, (j,))), self.value("slope", layer, j))]

    def elementwise(self, layer: int) -> bool:
        """Whether a neuron's a depends on its own z alone."""
        return ACTIVATIONS[self.activation(layer)].elementwise

    def dC_da(self, layer: int, j: int) -> Symbol:
        """∂C/∂a of a neuron; at the output ∂C/∂s."""
        if layer < self.last:
            return derivative(symbol("a", layer, (j,)))
        return derivative(symbol("s", None, (j,) if self.trace.spec.n_out > 1 else ()))

    def jacobian(self, layer: int, i: int, j: int) -> tuple[Symbol, float]:
        """∂a_i/∂z_j of softmax."""
        a, z = symbol("a", layer, (i,)), symbol("z", layer, (j,))
        value = self.value("a", layer, i) * ((i == j) - self.value("a", layer, j))
        return Symbol(f"∂{a.plain}/∂{z.plain}", rf"\frac{{\partial {a.latex}}}{{\partial {z.latex}}}"), value

    def error_factors(self, layer: int, j: int) -> list[tuple[Symbol, float]]:
        """What δ of a neuron is a product of: ∂C/∂a and f′(z); δ itself where the layer is not elementwise."""
        if not self.elementwise(layer):
            return [self.factor("delta", layer, j)]
        return [(self.dC_da(layer, j), self.value("da", layer, j)), *self.slope_factors(layer, j)]


def chain(trace: Trace, quantity: Quantity, sample: int) -> list[Line]:
    """The lines of the chain rule for ∂C/∂quantity in one sample, from the quantity to the cost."""
    at = Chain(trace, sample)
    if quantity.kind == "a":
        return list(_activation_lines(at, [(quantity.layer, quantity.index[0])]))
    layer = quantity.layer + 1 if quantity.is_parameter else quantity.layer
    j = quantity.index[0]
    factors = at.error_factors(layer, j)
    if quantity.kind == "W":
        k = quantity.index[1]
        factors.append(at.factor("a", quantity.layer, k))
    first = symbol("δ", layer, (j,)) if quantity.kind == "delta" else derivative(quantity.symbol)
    if len(factors) == 1 and factors[0][0] == first:  # δ of a softmax layer
        return list(_error_lines(at, layer, [j]))
    lines = [_product(first, factors)]
    return [
        *lines,
        *(_error_lines(at, layer, [j]) if not at.elementwise(layer) else _activation_lines(at, [(layer, j)])),
    ]


def forward_line(trace: Trace, quantity: Quantity, sample: int) -> Line | None:
    """How a z or an a came about; None for anything else, and for x."""
    at, layer = Chain(trace, sample), quantity.layer
    if quantity.kind not in ("z", "a") or (quantity.kind == "a" and layer == 1):
        return None
    j, value = quantity.index[0], at.value(quantity.kind, layer, *quantity.index)
    if quantity.kind == "a":
        name = at.activation(layer)
        escaped = name.replace("_", r"\_")
        z, shown = symbol("z", layer, (j,) if at.elementwise(layer) else ()), number(at.value("z", layer, j))
        applied = Symbol(f"{name}({z.plain})", rf"\operatorname{{{escaped}}}({z.latex})")
        if not at.elementwise(layer):
            return Line(quantity.symbol, applied + symbol("", None, (j,)), NOTHING, value)
        put_in = Symbol(f"{name}({shown.plain})", rf"\operatorname{{{escaped}}}({shown.latex})")
        return Line(quantity.symbol, applied, put_in, value)
    before = layer - 1
    terms: list[Factors] = [
        [at.factor("W", before, j, k), at.factor("a", before, k)] for k in range(trace.spec.sizes[before - 1])
    ]
    if trace.spec.layers[before - 1].bias:
        terms.append([at.factor("b", before, j)])
    return _sum(quantity.symbol, terms, value)


def paths(trace: Trace, quantity: Quantity, sample: int) -> list[Path] | None:
    """Every way from a number to the cost in one sample, the largest product first; their products add up to
    ∂C/∂quantity of that sample. None where there are more than `MOST_PATHS`.
    """
    at = Chain(trace, sample)
    layer = quantity.layer + 1 if quantity.is_parameter else quantity.layer
    if count(trace, quantity) > MOST_PATHS:
        return None
    j = quantity.index[0]
    ending: Factors = []
    if quantity.kind == "W":
        ending = [at.factor("a", quantity.layer, quantity.index[1])]
    start = _from_activation(at, layer, j) if quantity.kind == "a" else _from_weighted_input(at, layer, j)
    found = [
        Path(neurons, product([s for s, _ in factors]), numbers([v for _, v in factors]), prod(v for _, v in factors))
        for neurons, factors in ((neurons, [*leading, *ending]) for neurons, leading in start)
    ]
    return sorted(found, key=lambda path: -abs(path.value))


def count(trace: Trace, quantity: Quantity) -> int:
    """How many ways there are."""
    at = Chain(trace, 0)
    layer = quantity.layer + 1 if quantity.is_parameter else quantity.layer
    sizes = trace.spec.sizes
    later = prod(sizes[layer:])  # the neurons of layer+1 … each
    first = layer + 1 if quantity.kind == "a" else layer
    return later * prod(sizes[number - 1] for number in range(first, at.last + 1) if not at.elementwise(number))


def _from_weighted_input(at: Chain, layer: int, j: int) -> Iterator[tuple[tuple[tuple[int, int], ...], Factors]]:
    """The ways from z of a neuron, through its activation."""
    if at.elementwise(layer):
        for neurons, factors in _from_activation(at, layer, j):
            yield neurons, [*factors, *at.slope_factors(layer, j)]
        return
    for i in range(at.trace.spec.sizes[layer - 1]):
        for neurons, factors in _from_activation(at, layer, i):
            yield neurons, [*factors, at.jacobian(layer, i, j)]


def _from_activation(at: Chain, layer: int, j: int) -> Iterator[tuple[tuple[tuple[int, int], ...], Factors]]:
    """The ways from a of a neuron."""
    if layer == at.last:
        yield ((layer, j),), [(at.dC_da(layer, j), at.value("da", layer, j))]
        return
    for i in range(at.trace.spec.sizes[layer]):
        weight = at.factor("W", layer, i, j)
        for neurons, factors in _from_weighted_input(at, layer + 1, i):
            yield ((layer, j), *neurons), [*factors, weight]


def _activation_lines(at: Chain, neurons: list[tuple[int, int]]) -> Iterator[Line]:
    """∂C/∂a of neurons of one layer, and on to the cost."""
    layer = neurons[0][0]
    if layer == at.last:
        for _, j in neurons:
            yield _loss_line(at, j)
        return
    following: dict[int, None] = {}
    for _, j in neurons:
        terms = [
            [*at.error_factors(layer + 1, i), at.factor("W", layer, i, j)] for i in range(at.trace.spec.sizes[layer])
        ]
        yield _sum(derivative(symbol("a", layer, (j,))), terms, at.value("da", layer, j))
        following |= dict.fromkeys(_followed(terms))
    yield from _error_lines(at, layer + 1, list(following)[:WIDE])


def _error_lines(at: Chain, layer: int, neurons: list[int]) -> Iterator[Line]:
    """What stands behind the error of neurons: ∂C/∂a, and for softmax δ before it."""
    if at.elementwise(layer):
        yield from _activation_lines(at, [(layer, j) for j in neurons])
        return
    following: dict[int, None] = {}
    for j in neurons:
        terms = [
            [(at.dC_da(layer, i), at.value("da", layer, i)), at.jacobian(layer, i, j)]
            for i in range(at.trace.spec.sizes[layer - 1])
        ]
        yield _sum(symbol("δ", layer, (j,)), terms, at.value("delta", layer, j))
        following |= dict.fromkeys(_followed(terms))
    yield from _activation_lines(at, [(layer, i) for i in list(following)[:WIDE]])


def _loss_line(at: Chain, j: int) -> Line:
    """∂C/∂s of one output."""
    spec, n = at.trace.spec, at.trace.n
    entry = LOSSES[spec.loss.name]
    averaged = spec.reduction == "mean" and n > 1
    text = f"({entry.derivative_text})/{n}" if averaged else entry.derivative_text
    latex = rf"\tfrac{{1}}{{{n}}}\left({entry.derivative_latex}\right)" if averaged else entry.derivative_latex
    put_in = NOTHING
    if spec.loss.name == "squared_error":
        s, y = number(at.value("a", at.last, j)), -float(at.trace.y[at.sample, j])
        put_in = total([s, number(y)])
        if averaged:
            put_in = Symbol(f"({put_in.plain})/{n}", rf"\tfrac{{1}}{{{n}}}({put_in.latex})")
    return Line(at.dC_da(at.last, j), Symbol(text, latex), put_in, at.value("da", at.last, j))


def _product(left: Symbol, factors: Factors) -> Line:
    values = [value for _, value in factors]
    return Line(left, product([s for s, _ in factors]), numbers(values), prod(values))


def _followed(terms: list[Factors]) -> list[int]:
    """All terms of a short sum, the largest of a long one."""
    if len(terms) <= WIDE:
        return list(range(len(terms)))
    return [max(range(len(terms)), key=lambda i: abs(prod(value for _, value in terms[i])))]


def _sum(left: Symbol, terms: list[Factors], value: float) -> Line:
    """A sum of products; of a long one the largest terms."""
    shown = terms
    if len(terms) > LONG:
        shown = sorted(terms, key=lambda term: -abs(prod(v for _, v in term)))[:SHOWN_OF_LONG]
    right = total([product([s for s, _ in term]) for term in shown])
    put_in = total([numbers([v for _, v in term]) for term in shown])
    if len(terms) > LONG:
        more = Symbol(f" + … ({len(terms)} terms)", rf" + \dots\ (\text{{{len(terms)} terms}})")
        right, put_in = right + more, put_in + Symbol(" + …", r" + \dots")
    return Line(left, right, put_in, value)
