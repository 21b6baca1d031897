"""Where a fault can act: (spec, N) → layers, or (`WHOLE`,); empty where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refimpl.faults.mistaken import WHOLE, Where
from refimpl.network.functions import ACTIVATIONS
from refimpl.network.spec import NetworkSpec


def averaging(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE,) if spec.reduction == "mean" and n > 1 else ()


def summing(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE,) if spec.reduction == "sum" and n > 1 else ()


def whole(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE,)


def layers(spec: NetworkSpec, n: int) -> Sequence[int]:
    return range(1, spec.depth + 1)


def wide(spec: NetworkSpec, n: int) -> Sequence[int]:
    """Layers whose W has several rows and several columns."""
    return [layer for layer in layers(spec, n) if min(spec.sizes[layer - 1 : layer + 1]) > 1]


def whole_and_layers(spec: NetworkSpec, n: int) -> Sequence[int]:
    return range(spec.depth + 1) if spec.depth > 1 else (WHOLE,)


def batch(where: Where) -> Where:
    """Only where there is more than one sample."""
    return lambda spec, n: where(spec, n) if n > 1 else ()


def averaged(where: Where) -> Where:
    """Only where the loss is the mean over more than one sample."""
    return lambda spec, n: where(spec, n) if averaging(spec, n) else ()


def biased(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number, layer in enumerate(spec.layers, start=1) if layer.bias]


def leading_back(spec: NetworkSpec, n: int) -> Sequence[int]:
    return range(2, spec.depth + 1)


def with_loss(*names: str) -> Where:
    return lambda spec, n: (WHOLE,) if spec.loss.name in names else ()


def with_activation(*names: str, last: bool = True) -> Where:
    return lambda spec, n: [
        number
        for number, layer in enumerate(spec.layers, start=1)
        if layer.activation.name in names and (last or number < spec.depth)
    ]


SMOOTH = tuple(name for name, entry in ACTIVATIONS.items() if entry.elementwise and name not in ("identity", "relu"))


SLOPED = tuple(name for name in ACTIVATIONS if name != "identity")


KINKED = ("relu", "leaky_relu", "elu", "selu")


def deep(where: Where) -> Where:
    return lambda spec, n: where(spec, n) if spec.depth > 1 else ()


def square(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in leading_back(spec, n) if spec.sizes[number] == spec.sizes[number - 1] > 1]


def own_output_fits(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in layers(spec, n) if spec.sizes[number] == spec.sizes[number - 1]]


def earlier_fits(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in leading_back(spec, n) if spec.sizes[number - 1] == spec.sizes[number - 2]]


def outputs_averaged(spec: NetworkSpec, n: int) -> Sequence[int]:
    """Where the loss is a mean over several outputs."""
    return (WHOLE,) if spec.n_out > 1 and spec.loss.name == "mean_squared_error" else ()


def outputs_summed(spec: NetworkSpec, n: int) -> Sequence[int]:
    """Where it is a sum over them."""
    return (WHOLE,) if spec.n_out > 1 and spec.loss.name != "mean_squared_error" else ()


def last_layer(condition: Callable[[NetworkSpec], bool]) -> Where:
    return lambda spec, n: (spec.depth,) if condition(spec) else ()


def one_output(spec: NetworkSpec, n: int) -> Sequence[int]:
    known = ("squared_error", "mean_squared_error", "binary_cross_entropy")
    return (WHOLE,) if spec.n_out == 1 and n > 1 and spec.loss.name in known else ()


def swappable(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in range(1, spec.depth) if spec.layers[number - 1].bias == spec.layers[number].bias]


def reversible(spec: NetworkSpec, n: int) -> Sequence[int]:
    biases = [layer.bias for layer in spec.layers]
    return (WHOLE,) if spec.depth > 2 and biases == biases[::-1] else ()
