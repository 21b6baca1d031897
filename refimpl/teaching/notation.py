"""The article's notation: quantities a person types (`W2[2,1]`), and symbols in plain text and in LaTeX.

A `Symbol` is both at once: ``w²₂₁`` and ``w^{2}_{21}``. Indices count from 1, layers from the input, which is layer 1;
W^l and b^l lead from layer l to layer l+1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from refimpl.formats.errors import DataError
from refimpl.network.spec import NetworkSpec

RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LOWERED = str.maketrans("0123456789,", "₀₁₂₃₄₅₆₇₈₉,")
QUANTITY = re.compile(r"(?P<kind>W|b|z|a|delta|x)(?P<layer>\d{0,5})\[(?P<index>[\d\s,]{1,20})\]")


@dataclass(frozen=True)
class Symbol:
    """Something mathematical, as plain text and as LaTeX."""

    plain: str
    latex: str

    def __add__(self, other: Symbol) -> Symbol:
        return Symbol(self.plain + other.plain, self.latex + other.latex)


@dataclass(frozen=True)
class Quantity:
    """One number of a network: an element of a W or b (`kind` "W", "b"), or of z, a or delta in one sample.

    `layer` is the superscript; `index` counts from 0.
    """

    kind: str
    layer: int
    index: tuple[int, ...]

    @property
    def array(self) -> str:
        """The array it is in: "W2", "z3"."""
        return f"{self.kind}{self.layer}"

    @property
    def name(self) -> str:
        """As a person types it."""
        return f"{self.array}[{','.join(str(i + 1) for i in self.index)}]"

    @property
    def is_parameter(self) -> bool:
        """Whether it is shared by all samples."""
        return self.kind in ("W", "b")

    @property
    def symbol(self) -> Symbol:
        """w²₂₁, z³₁ …"""
        return symbol({"W": "w", "delta": "δ"}.get(self.kind, self.kind), self.layer, self.index)


def parse(text: str, spec: NetworkSpec) -> Quantity:
    """What `W2[2,1]`, `b1[2]`, `z3[1]`, `a2[2]`, `delta3[1]` or `x[4]` names in a network.

    Raises DataError, with what there is in its place.
    """
    match = QUANTITY.fullmatch(text.strip())
    form = "write W2[2,1], b1[2], z3[1], a2[2], delta3[1] or x[4], with indices that count from 1"
    if match is None or (match["kind"] == "x") != (not match["layer"]):
        raise DataError(f"quantity {text[:40]!r} is none; {form}")
    kind, layer = ("a", 1) if match["kind"] == "x" else (match["kind"], int(match["layer"]))
    try:
        index = tuple(int(part) - 1 for part in match["index"].split(","))
    except ValueError:
        raise DataError(f"quantity {text[:40]!r}: its index cannot be read; {form}") from None
    shape = _shapes(spec, kind).get(layer)
    if shape is None:
        known = ", ".join(f"{kind}{number}" for number in _shapes(spec, kind))
        raise DataError(f"quantity {text[:40]!r}: there is no {kind}{layer}; the network has {known}")
    if len(index) != len(shape) or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
        last = ",".join(map(str, shape))
        ones = ",".join("1" * len(shape))
        raise DataError(f"quantity {text[:40]!r} is outside; {kind}{layer} goes from [{ones}] to [{last}]")
    return Quantity(kind, layer, index)


def _shapes(spec: NetworkSpec, kind: str) -> dict[int, tuple[int, ...]]:
    if kind in ("W", "b"):
        return {parameter.layer: parameter.shape for parameter in spec.parameters if parameter.role == kind}
    first = 1 if kind == "a" else 2
    return {layer: (size,) for layer, size in enumerate(spec.sizes, start=1) if layer >= first}


def symbol(letter: str, layer: int | None = None, index: tuple[int, ...] = ()) -> Symbol:
    """A letter with a layer above and an index, counted from 0, below; `W`, `δ`, `z` …"""
    numbers = [str(i + 1) for i in index]
    below = ("" if all(len(n) == 1 for n in numbers) else ",").join(numbers)
    above = "" if layer is None else str(layer)
    latex = (
        {"δ": r"\delta"}.get(letter, letter) + (f"^{{{above}}}" if above else "") + (f"_{{{below}}}" if below else "")
    )
    return Symbol(letter + above.translate(RAISED) + below.translate(LOWERED), latex)


def derivative(of: Symbol) -> Symbol:
    """∂C/∂ of something."""
    return Symbol(f"∂C/∂{of.plain}", rf"\frac{{\partial C}}{{\partial {of.latex}}}")


def slope(of: Symbol) -> Symbol:
    """f′ of something."""
    return Symbol(f"f′({of.plain})", f"f'({of.latex})")


def number(value: float, digits: int = 5) -> Symbol:
    """A number with so many significant digits."""
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    return Symbol(text.replace("-", "−"), mantissa + (rf" \cdot 10^{{{int(exponent)}}}" if exponent else ""))


def product(factors: list[Symbol]) -> Symbol:
    """Factors joined by a dot."""
    return Symbol(" · ".join(f.plain for f in factors), r" \cdot ".join(f.latex for f in factors))


def numbers(values: list[float], digits: int = 5) -> Symbol:
    """A product of numbers, the negative ones in brackets after the first."""
    shown = [number(value, digits) for value in values]
    return product(
        [
            s if i == 0 or v >= 0 else Symbol(f"({s.plain})", f"({s.latex})")
            for i, (s, v) in enumerate(zip(shown, values, strict=True))
        ]
    )


def total(terms: list[Symbol]) -> Symbol:
    """Terms joined by a plus, or by a minus where one begins with it."""
    joined = terms[0]
    for term in terms[1:]:
        minus = term.plain.startswith("−")
        joined += (
            Symbol(f" − {term.plain[1:]}", f" - {term.latex[1:]}")
            if minus
            else Symbol(f" + {term.plain}", f" + {term.latex}")
        )
    return joined
