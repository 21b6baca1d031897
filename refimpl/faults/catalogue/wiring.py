"""The right operations on the wrong arrays, or in the wrong order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refimpl.faults.mistaken import (
    WHOLE,
    Fault,
    Mistaken,
)
from refimpl.faults.plants import (
    Noted,
    bias_gradient,
    noting,
)
from refimpl.faults.where import (
    batch,
    biased,
    deep,
    earlier_fits,
    layers,
    leading_back,
    own_output_fits,
    reversible,
    square,
    swappable,
    whole,
    whole_and_layers,
    wide,
)
from refimpl.network.spec import NetworkSpec


def _transpose(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, a).T)


def _column_major(m: Mistaken, layer: int, parameter: Any) -> None:
    def columns_first(grad: Any) -> Any:
        return grad.T.reshape(*grad.shape)

    m.change(layer, "weight_gradient", lambda right: lambda delta, a: columns_first(right(delta, a)))


def _propagate_untransposed(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "hidden_error", lambda right: lambda W, delta, z, a, vjp: right(W.T, delta, z, a, vjp))


def _bias_from_row_sums(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()
    m.change(layer, "weight_gradient", noting(seen, lambda dW, delta, a: dW))
    m.change(layer, "bias_gradient", lambda right: lambda delta: seen.value.sum(axis=1))


def _z_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    _recall(m, layer, layer - 1, "weighted_input", lambda z, a_in: z)


def _output_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    _recall(m, layer, layer, "activation", lambda a, z: a)


def _earlier_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    _recall(m, layer, layer - 1, "weighted_input", lambda z, a_in: a_in)


def _recall(m: Mistaken, layer: int, other: int, equation: str, choose: Callable[[Any, Any], Any]) -> None:
    """dW of a layer from something that the forward pass met at another: `choose(result, first operand)` there."""
    seen = Noted()
    m.change(other, equation, noting(seen, lambda result, *operands: choose(result, operands[0])))
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, seen.value))


def _updated_first(m: Mistaken, layer: int, parameter: Any) -> None:
    for number in [layer] if layer else leading_back(m.spec, m.n):
        _update_first(m, number, parameter)


def _update_first(m: Mistaken, layer: int, rate: Any) -> None:
    seen = Noted()
    m.change(layer, "weight_gradient", noting(seen, lambda dW, delta, a: dW))
    m.change(
        layer,
        "hidden_error",
        lambda right: lambda W, delta, z, a, vjp: right(W - seen.value * rate, delta, z, a, vjp),
    )


def _updated_first_per_sample(m: Mistaken, layer: int, parameter: Any) -> None:
    def step(right: Callable[..., Any]) -> Callable[..., Any]:
        def hidden_error(W: Any, delta: Any, z: Any, a: Any, vjp: Any) -> Any:
            # δ (W − η δᵀ a) of each sample alone
            moved = (delta * delta).sum(axis=1, keepdims=True) * parameter
            return right(W, delta, z, a, lambda z, a, d: vjp(z, a, d - a * moved))

        return hidden_error

    for number in [layer] if layer else leading_back(m.spec, m.n):
        m.change(number, "hidden_error", step)


def _regularised(m: Mistaken, layer: int, parameter: Any) -> None:
    for number in [layer] if layer else layers(m.spec, m.n):
        _regularise(m, number, parameter)


def _regularise(m: Mistaken, layer: int, strength: Any) -> None:
    seen = Noted()
    m.change(layer, "weighted_input", noting(seen, lambda z, a, W, b: W))
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, a) + seen.value * strength)


def _swapped(m: Mistaken, layer: int, parameter: Any) -> None:
    other = {layer: layer + 1, layer + 1: layer}
    m.names = {name: _renumbered(source, other) for name, source in m.names.items()}


def _reversed(m: Mistaken, layer: int, parameter: Any) -> None:
    other = {number: m.spec.depth + 1 - number for number in range(1, m.spec.depth + 1)}
    m.names = {name: _renumbered(source, other) for name, source in m.names.items()}


def _renumbered(name: str, other: Mapping[int, int]) -> str:
    number = int(name[1:])
    return f"{name[0]}{other.get(number, number)}"


def _summed_over_units(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "bias_gradient", lambda right: lambda delta: right(delta) * 0.0 + delta.sum())


def _input_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()
    m.change(1, "weighted_input", noting(seen, lambda z, a, W, b: a))
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, seen.value))


def _weights_returned(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()
    m.change(layer, "weighted_input", noting(seen, lambda z, a, W, b: W))
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: seen.value)


def _bias_from_layer_above(m: Mistaken, layer: int, parameter: Any) -> None:
    seen = Noted()
    m.change(layer + 1, "weight_gradient", noting(seen, lambda dW, delta, a: delta))
    m.change(layer, "bias_gradient", lambda right: lambda delta: right(seen.value))


def _nothing_propagated(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(m.spec.depth, "hidden_error", lambda right: lambda *operands: right(*operands) * 0.0)


def _without_bias(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "weighted_input", lambda right: lambda a, W, b: right(a, W, None))


def _whole_or_leading_back(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE, *leading_back(spec, n)) if spec.depth > 2 else leading_back(spec, n)


def _input_fits(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in range(2, spec.depth + 1) if spec.sizes[number - 1] == spec.n_in]


def _bias_above_fits(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in biased(spec, n) if spec.sizes[number : number + 2] == (spec.sizes[number],) * 2]


def _several_units(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in biased(spec, n) if spec.sizes[number] > 1]


FAULTS = (
    Fault(
        "bias_gradient_not_summed",
        "The gradient of b is the error signal of every sample, not their sum.",
        "Sum δ over the batch: db = δ.sum(axis=0).",
        biased, bias_gradient(lambda db, delta: delta),
    ),
    Fault(
        "bias_gradient_from_row_sums",
        "The gradient of b is the row sums of dW, which weighs every sample by its inputs.",
        "db is the sum of δ itself: δ.sum(axis=0).",
        biased, _bias_from_row_sums,
    ),
    Fault(
        "bias_gradient_missing",
        "The gradient of b is zero: it was never computed.",
        "db = δ.sum(axis=0).",
        biased, bias_gradient(lambda db, delta: db * 0.0),
    ),
    Fault(
        "weight_gradient_transposed",
        "dW is transposed.",
        "dW = δᵀ a with the shape (n_out, n_in) of W.",
        layers, _transpose,
    ),
    Fault(
        "weight_gradient_column_major",
        "dW is written column by column; its numbers belong row by row.",
        "Write dW row after row (C order); libraries that store columns first need a transpose.",
        wide, _column_major,
    ),
    Fault(
        "weight_not_transposed",
        "The error signal is propagated with W in place of its transpose.",
        "For rows of samples, δ W; for a column, Wᵀ δ.",
        square, _propagate_untransposed,
    ),
    Fault(
        "z_in_weight_gradient",
        "dW is formed with the weighted inputs z of the layer before in place of its activations a.",
        "dW = δᵀ a.",
        leading_back, _z_in_weight_gradient,
    ),
    Fault(
        "output_in_weight_gradient",
        "dW is formed with the layer's own output in place of what came in.",
        "dW of layer l takes the activations that layer l was given.",
        own_output_fits, _output_in_weight_gradient,
    ),
    Fault(
        "earlier_activation_in_weight_gradient",
        "dW is formed with the activations one layer too early.",
        "dW of layer l takes the activations that layer l was given.",
        earlier_fits, _earlier_in_weight_gradient,
    ),
    Fault(
        "weight_updated_first",
        "W is updated before the error signal is propagated through it.",
        "Compute every gradient from the same parameters, then update all of them.",
        _whole_or_leading_back, _updated_first, parameter="learning rate", example=0.1,
    ),
    Fault(
        "weight_updated_first_per_sample",
        "Every sample updates W before its error signal is propagated through it.",
        "Compute every gradient from the same parameters, then update all of them.",
        batch(_whole_or_leading_back), _updated_first_per_sample, parameter="learning rate", example=0.1,
    ),
    Fault(
        "regulariser_added",
        "The gradient of a regulariser, a multiple of W, is added.",
        "Leave weight decay out, or to the optimiser: it is not part of this loss.",
        whole_and_layers, _regularised, parameter="strength", example=0.01,
    ),
    Fault(
        "layers_swapped",
        "The gradients of this layer and the next are returned under each other's names.",
        "Return the gradients in the parameters' order.",
        swappable, _swapped,
    ),
    Fault(
        "layers_reversed",
        "The gradients are returned in the order of the backward pass, last layer first.",
        "Reverse the list of gradients before returning it.",
        reversible, _reversed,
    ),
    Fault(
        "bias_gradient_summed_over_units",
        "The gradient of b is one number: δ is summed over the units too.",
        "Sum δ over the samples alone: db = δ.sum(axis=0).",
        _several_units, _summed_over_units,
    ),
    Fault(
        "input_in_weight_gradient",
        "dW is formed with the network's input in place of what came into this layer.",
        "dW of layer l takes the activations that layer l was given.",
        _input_fits, _input_in_weight_gradient,
    ),
    Fault(
        "weights_for_their_gradient",
        "What is returned for dW is W.",
        "Return dW = δᵀ a.",
        layers, _weights_returned,
    ),
    Fault(
        "bias_gradient_of_layer_above",
        "db is formed with the next layer's δ.",
        "db of a layer sums that layer's δ.",
        _bias_above_fits, _bias_from_layer_above,
    ),
    Fault(
        "nothing_propagated",
        "Nothing is propagated below the last layer: all gradients there are zero.",
        "δ of a hidden layer is (δ W) ⊙ f'(z), with the δ of the layer after it.",
        deep(whole), _nothing_propagated,
    ),
    Fault(
        "bias_not_added",
        "The forward pass leaves b out.",
        "z = a Wᵀ + b.",
        biased, _without_bias,
    ),
)  # fmt: skip
