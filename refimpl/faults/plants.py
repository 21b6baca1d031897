"""Ways to change the equations, shared by families of faults."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from refimpl.faults.mistaken import (
    Jacobian,
    Mistaken,
    Plant,
)
from refimpl.network.documents import Function
from refimpl.network.spec import LayerSpec, NetworkSpec


def bias_gradient(change: Callable[[Any, Any], Any]) -> Plant:
    """db changed: `change(db, delta)`."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.change(layer, "bias_gradient", lambda right: lambda delta: change(right(delta), delta))

    return plant


def each_gradient(change: Callable[[Any, Any], Any], names: Collection[str] | None = None) -> Plant:
    """Every gradient, or those of these names, changed by itself: `change(gradient, parameter)`."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        for number in range(1, m.spec.depth + 1):
            for kind, equation in (("W", "weight_gradient"), ("b", "bias_gradient")):
                if names is None or f"{kind}{number}" in names:
                    m.change(number, equation, lambda right: lambda *operands: change(right(*operands), parameter))

    return plant


class Noted:
    """What was made where an equation was run."""

    made: Any = None

    @property
    def value(self) -> Any:
        """It. Raises ValueError where that has not been run: this code would not either."""
        if self.made is None:
            raise ValueError("used before it is made")
        return self.made

    @value.setter
    def value(self, made: Any) -> None:
        self.made = made


def noting(seen: Noted, of: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An equation as it is, which notes `of(result, *operands)` when it is run."""

    def make(right: Callable[..., Any]) -> Callable[..., Any]:
        def equation(*operands: Any) -> Any:
            result = right(*operands)
            seen.value = of(result, *operands)
            return result

        return equation

    return make


def vjp(change: Callable[[Jacobian], Jacobian]) -> Plant:
    return lambda m, layer, parameter: m.change_vjp(layer, change)


def with_layer(m: Mistaken, layer: int, activation: str | Function) -> None:
    layers = list(m.spec.layers)
    layers[layer - 1] = LayerSpec(layers[layer - 1].size, activation, layers[layer - 1].bias)
    m.spec = NetworkSpec(m.spec.input_shape, layers, m.spec.loss, m.spec.reduction, m.spec.name)


def times(*places: str, by: Callable[[Mistaken], float] | None = None) -> Plant:
    """A number, the parameter or what `by` makes of the network, as a factor on what is named: the gradients of "W" or
    of "b" of the layer or of all, the error signal "delta" from the layer down or "every delta", "∂C/∂s", the "loss",
    or "both" loss and gradients.
    """

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        factor = by(m) if by else parameter

        def scaled(number: int, equation: str) -> None:
            m.change(number, equation, lambda right: lambda *operands: right(*operands) * factor)

        for place in places:
            if place in ("loss", "both"):
                scaled(m.spec.depth, "cost")
            if place == "∂C/∂s":
                scaled(m.spec.depth, "cost_gradient")
            for number in [layer] if layer else range(1, m.spec.depth + 1):
                if place in ("W", "both"):
                    scaled(number, "weight_gradient")
                if place in ("b", "both"):
                    scaled(number, "bias_gradient")
                if place == "every delta" and number > 1:
                    scaled(number, "hidden_error")
            if place == "delta":
                scaled(layer + 1, "hidden_error")

    return plant
