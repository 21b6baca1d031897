"""The catalogue of faults: each known way to get backpropagation wrong, as a runnable change to the equations.

A `Fault` has a name, what it is in one sentence, the remedy, the layers it can act on, and `plant`, which changes a
`Mistaken`: a network's equations, one set a layer, and what stands around them. What a changed network computes is run
by any runner of :mod:`refimpl.equations`: NumPy's (`PlantedBackend`), or the nodes of a graph, which brings the fault's
own tolerance along (:mod:`refimpl.faults.prediction`).

Layers count from 1, as in the article: layer l owns Wl, bl and the activation after them. `WHOLE` (0) stands for a
fault that is one line for the whole network. A fault with an unknown number in it (a learning rate, the strength of a
regulariser) names it in `parameter`.

What it does not do: decide which fault explains a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import EquationsBackend, GradientFunction
from refimpl.equations import EQUATIONS, Equations
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.batch import one_hot
from refimpl.network.documents import Function
from refimpl.network.functions import ACTIVATIONS
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.truth.elementwise import AT_ZERO
from refimpl.truth.graph import Node, apply, cast

WHOLE = 0

Array = NDArray[Any]
Jacobian = Callable[[Any, Any, Any], Any]


@dataclass
class Mistaken:
    """A network about to be got wrong.

    `spec` is what is computed in place of the right network, `equations` how, one entry a layer, and `names` under
    which name each gradient is returned. `y` (N, n_out) are the targets. With a `step`, there is no backward pass,
    but the difference quotients of the loss over it, two-sided or (`one_sided`) not.
    """

    spec: NetworkSpec
    equations: list[Equations]
    names: dict[str, str]
    y: Array
    step: float = 0.0
    one_sided: bool = False

    @classmethod
    def right(cls, spec: NetworkSpec, y: Array) -> Mistaken:
        """Nothing wrong yet; y (N, n_out)."""
        names = {name: name for name in spec.parameter_shapes}
        return cls(spec, [EQUATIONS] * spec.depth, names, np.asarray(y, dtype=np.float64))

    @property
    def n(self) -> int:
        """The batch size."""
        return len(self.y)

    @property
    def changes(self) -> frozenset[tuple[int, str]]:
        """The equations that are not as they should be, as (layer, name). Faults that change different ones may be
        planted in any order, as long as they leave the network as it is.
        """
        return frozenset(
            (layer, equation.name)
            for layer, equations in enumerate(self.equations, start=1)
            for equation in fields(Equations)
            if getattr(equations, equation.name) is not getattr(EQUATIONS, equation.name)
        )

    def change(self, layer: int, equation: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `make(the equation as it is)` in the place of one equation of a layer."""
        present = self.equations[layer - 1]
        changed: dict[str, Any] = {equation: make(getattr(present, equation))}
        self.equations[layer - 1] = replace(present, **changed)

    def change_vjp(self, layer: int, make: Callable[[Jacobian], Jacobian]) -> None:
        """Change the step through a layer's activation, wherever that is taken."""
        if layer == self.spec.depth:
            self.change(layer, "output_error", lambda right: lambda d, z, a, vjp: right(d, z, a, make(vjp)))
        else:
            self.change(
                layer + 1, "hidden_error", lambda right: lambda W, delta, z, a, vjp: right(W, delta, z, a, make(vjp))
            )

    def returned(self, grads: Mapping[str, Any]) -> dict[str, Any]:
        """The gradients under the names that the mistaken code gives them."""
        return {name: grads[source] for name, source in self.names.items()}


Plant = Callable[[Mistaken, int, Any], None]
Where = Callable[[NetworkSpec, int], Sequence[int]]


@dataclass(frozen=True)
class Fault:
    """One known mistake.

    `where(spec, N)` are the layers it can act on, or (`WHOLE`,); empty where it cannot. `plant(mistaken, layer,
    parameter)` makes it. `parameter` names the unknown number in it, `example` a usual value of it. `evidence`, where
    it is given, is a trace that the fault leaves in all the wrong numbers. `dtype` is the only one it can act in,
    where there is one. `on_loss`: it is the loss that is wrong, and no gradient. `quotient`: there is no backward
    pass, but difference quotients.
    """

    name: str
    explanation: str
    remedy: str
    where: Where = field(repr=False)
    plant: Plant = field(repr=False)
    parameter: str = ""
    example: float = 0.0
    evidence: Callable[[Array], bool] | None = field(default=None, repr=False)
    dtype: str = ""
    on_loss: bool = False
    quotient: bool = False

    @property
    def exact(self) -> bool:
        """Whether what it computes says enough before any rounding."""
        return not (self.evidence or self.quotient)


# --------------------------------------------------------------------------------------------------------------
# Where a fault can act


def _averaging(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE,) if spec.reduction == "mean" and n > 1 else ()


def _summing(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE,) if spec.reduction == "sum" and n > 1 else ()


def _whole(spec: NetworkSpec, n: int) -> Sequence[int]:
    return (WHOLE,)


def _layers(spec: NetworkSpec, n: int) -> Sequence[int]:
    return range(1, spec.depth + 1)


def _wide(spec: NetworkSpec, n: int) -> Sequence[int]:
    """Layers whose W has several rows and several columns."""
    return [layer for layer in _layers(spec, n) if min(spec.sizes[layer - 1 : layer + 1]) > 1]


def _whole_and_layers(spec: NetworkSpec, n: int) -> Sequence[int]:
    return range(spec.depth + 1) if spec.depth > 1 else (WHOLE,)


def _batch(where: Where) -> Where:
    """Only where there is more than one sample."""
    return lambda spec, n: where(spec, n) if n > 1 else ()


def _averaged(where: Where) -> Where:
    """Only where the loss is the mean over more than one sample."""
    return lambda spec, n: where(spec, n) if _averaging(spec, n) else ()


def _biased(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number, layer in enumerate(spec.layers, start=1) if layer.bias]


def _leading_back(spec: NetworkSpec, n: int) -> Sequence[int]:
    return range(2, spec.depth + 1)


def _with_loss(*names: str) -> Where:
    return lambda spec, n: (WHOLE,) if spec.loss.name in names else ()


def _with_activation(*names: str, last: bool = True) -> Where:
    return lambda spec, n: [
        number
        for number, layer in enumerate(spec.layers, start=1)
        if layer.activation.name in names and (last or number < spec.depth)
    ]


SMOOTH = tuple(name for name, entry in ACTIVATIONS.items() if entry.elementwise and name not in ("identity", "relu"))
SLOPED = tuple(name for name in ACTIVATIONS if name != "identity")
KINKED = ("relu", "leaky_relu", "elu", "selu")


def _deep(where: Where) -> Where:
    return lambda spec, n: where(spec, n) if spec.depth > 1 else ()


def _square(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in _leading_back(spec, n) if spec.sizes[number] == spec.sizes[number - 1] > 1]


def _own_output_fits(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in _layers(spec, n) if spec.sizes[number] == spec.sizes[number - 1]]


def _earlier_fits(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in _leading_back(spec, n) if spec.sizes[number - 1] == spec.sizes[number - 2]]


def _last_layer(condition: Callable[[NetworkSpec], bool]) -> Where:
    return lambda spec, n: (spec.depth,) if condition(spec) else ()


def _one_output(spec: NetworkSpec, n: int) -> Sequence[int]:
    known = ("squared_error", "mean_squared_error", "binary_cross_entropy")
    return (WHOLE,) if spec.n_out == 1 and n > 1 and spec.loss.name in known else ()


def _swappable(spec: NetworkSpec, n: int) -> Sequence[int]:
    return [number for number in range(1, spec.depth) if spec.layers[number - 1].bias == spec.layers[number].bias]


def _reversible(spec: NetworkSpec, n: int) -> Sequence[int]:
    biases = [layer.bias for layer in spec.layers]
    return (WHOLE,) if spec.depth > 2 and biases == biases[::-1] else ()


# --------------------------------------------------------------------------------------------------------------
# Ways to change the equations


def _cost_gradient(change: Callable[[Any, Mistaken], Any]) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: change(right(d, reduction), m))

    return plant


def _gradients(factor: Callable[[Mistaken], float]) -> Plant:
    """The layer's dW and db times a number; for the whole network, of every layer."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        for number in [layer] if layer else range(1, m.spec.depth + 1):
            for name in ("weight_gradient", "bias_gradient"):
                m.change(number, name, lambda right: lambda *operands: right(*operands) * factor(m))

    return plant


def times(*places: str) -> Plant:
    """The parameter as a factor on what is named: the gradients of "W" or of "b" of the layer or of all, the error
    signal "delta" from the layer down or "every delta", the "loss", or "both" loss and gradients.
    """

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        def scaled(number: int, equation: str) -> None:
            m.change(number, equation, lambda right: lambda *operands: right(*operands) * parameter)

        for place in places:
            if place in ("loss", "both"):
                scaled(m.spec.depth, "cost")
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


def _bias_gradient(change: Callable[[Any, Any], Any]) -> Plant:
    """db changed: `change(db, delta)`."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.change(layer, "bias_gradient", lambda right: lambda delta: change(right(delta), delta))

    return plant


def _weight_gradient(change: Callable[[Any, Any], Any]) -> Plant:
    """dW changed: `change(dW, delta)`."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.change(layer, "weight_gradient", lambda right: lambda delta, a: change(right(delta, a), delta))

    return plant


def _transpose(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, a).T)


def _column_major(m: Mistaken, layer: int, parameter: Any) -> None:
    def columns_first(grad: Any) -> Any:
        return grad.T.reshape(*grad.shape)

    m.change(layer, "weight_gradient", lambda right: lambda delta, a: columns_first(right(delta, a)))


def _printed(form: str, absolute: float = 0.0, relative: float = 0.0) -> Plant:
    """Every number that is returned, as text and back, which moves it by so much at most."""
    decimals = Arithmetic(form, relative, 0.0, 2 * absolute, math.inf)

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        def as_text(right: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *operands: read_back(right(*operands))

        def read_back(values: Any) -> Any:
            return cast(values, decimals) if isinstance(values, Node) else _as_printed(values, form)

        for number in _layers(m.spec, m.n):
            for name in ("weight_gradient", "bias_gradient"):
                m.change(number, name, as_text)
        m.change(m.spec.depth, "cost", as_text)

    return plant


def _as_printed(values: Any, form: str) -> Array:
    array = np.asarray(values)
    texts = [format(value, form) for value in array.ravel().tolist()]
    return np.array([float(text) for text in texts], dtype=array.dtype).reshape(array.shape)


def _is_printed(form: str) -> Callable[[Array], bool]:
    """Whether all numbers are what printing makes of them, and enough of them are no others' too."""

    def trace(values: Array) -> bool:
        # what has few bits has few digits, whoever computed it
        telling = [value for value in values.tolist() if not are_short(np.array([value]))]
        return len(telling) > 1 and bool((_as_printed(values, form) == values).all())

    return trace


def _propagate_untransposed(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "hidden_error", lambda right: lambda W, delta, z, a, vjp: right(W.T, delta, z, a, vjp))


def _ones(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d * 0.0 + 1.0, reduction))


def _difference_quotients(one_sided: bool) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.step, m.one_sided = float(parameter), one_sided

    return plant


def _loss(factor: Callable[[Mistaken], float]) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        m.change(m.spec.depth, "cost", lambda right: lambda losses, reduction: right(losses, reduction) * factor(m))

    return plant


def _vjp(change: Callable[[Jacobian], Jacobian]) -> Plant:
    return lambda m, layer, parameter: m.change_vjp(layer, change)


def _undo_average(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, "sum"))


def _over_n_minus_1(m: Mistaken, layer: int, parameter: Any) -> None:
    more = m.n / (m.n - 1)
    m.change(m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, reduction) * more)
    m.change(m.spec.depth, "cost", lambda right: lambda losses, reduction: right(losses, reduction) * more)


def _average_every_layer(m: Mistaken, layer: int, parameter: Any) -> None:
    for number in _leading_back(m.spec, m.n):
        m.change(number, "hidden_error", lambda right: lambda *operands: right(*operands) / m.n)


def _bias_from_row_sums(m: Mistaken, layer: int, parameter: Any) -> None:
    seen: list[Any] = []

    def remembering(right: Callable[..., Any]) -> Callable[..., Any]:
        def weight_gradient(delta: Any, a: Any) -> Any:
            seen[:] = [right(delta, a)]
            return seen[0]

        return weight_gradient

    m.change(layer, "weight_gradient", remembering)
    m.change(layer, "bias_gradient", lambda right: lambda delta: seen[0].sum(axis=1))


def _formula_fed_z(m: Mistaken, layer: int, parameter: Any) -> None:
    wrong: Jacobian = {
        "sigmoid": lambda z, a, d: d * (z * (1.0 - z)),
        "tanh": lambda z, a, d: d * (1.0 - z * z),
        "softmax": lambda z, a, d: z * (d - (z * d).sum(axis=1, keepdims=True)),
    }[m.spec.layers[layer - 1].activation.name]
    m.change_vjp(layer, lambda vjp: wrong)


def _z_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    _recall(m, layer, layer - 1, "weighted_input", lambda z, a_in: z)


def _output_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    _recall(m, layer, layer, "activation", lambda a, z: a)


def _earlier_in_weight_gradient(m: Mistaken, layer: int, parameter: Any) -> None:
    _recall(m, layer, layer - 1, "weighted_input", lambda z, a_in: a_in)


def _recall(m: Mistaken, layer: int, other: int, equation: str, choose: Callable[[Any, Any], Any]) -> None:
    """dW of a layer from something that the forward pass met at another: `choose(result, first operand)` there."""
    seen: list[Any] = []

    def remembering(right: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*operands: Any) -> Any:
            result = right(*operands)
            seen[:] = [choose(result, operands[0])]
            return result

        return forward

    m.change(other, equation, remembering)
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, seen[0]))


def _updated_first(m: Mistaken, layer: int, parameter: Any) -> None:
    for number in [layer] if layer else _leading_back(m.spec, m.n):
        _update_first(m, number, parameter)


def _update_first(m: Mistaken, layer: int, rate: Any) -> None:
    seen: list[Any] = []

    def remembering(right: Callable[..., Any]) -> Callable[..., Any]:
        def weight_gradient(delta: Any, a: Any) -> Any:
            seen[:] = [right(delta, a)]
            return seen[0]

        return weight_gradient

    m.change(layer, "weight_gradient", remembering)
    m.change(
        layer,
        "hidden_error",
        lambda right: lambda W, delta, z, a, vjp: right(W - seen[0] * rate, delta, z, a, vjp),
    )


def _regularised(m: Mistaken, layer: int, parameter: Any) -> None:
    for number in [layer] if layer else _layers(m.spec, m.n):
        _regularise(m, number, parameter)


def _regularise(m: Mistaken, layer: int, strength: Any) -> None:
    seen: list[Any] = []

    def remembering(right: Callable[..., Any]) -> Callable[..., Any]:
        def weighted_input(a: Any, W: Any, b: Any) -> Any:
            seen[:] = [W]
            return right(a, W, b)

        return weighted_input

    m.change(layer, "weighted_input", remembering)
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta, a) + seen[0] * strength)


def _with_layer(m: Mistaken, layer: int, activation: str | Function) -> None:
    layers = list(m.spec.layers)
    layers[layer - 1] = LayerSpec(layers[layer - 1].size, activation, layers[layer - 1].bias)
    m.spec = NetworkSpec(m.spec.input_shape, layers, m.spec.loss, m.spec.reduction, m.spec.name)


def _softmax_twice(m: Mistaken, layer: int, parameter: Any) -> None:
    _with_layer(m, layer, "softmax")
    m.spec = NetworkSpec(m.spec.input_shape, m.spec.layers, "cross_entropy", m.spec.reduction, m.spec.name)


def _other_gelu(m: Mistaken, layer: int, parameter: Any) -> None:
    present = m.spec.layers[layer - 1].activation.name
    _with_layer(m, layer, "gelu_tanh" if present == "gelu" else "gelu")


def _wrong_side(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "activation", lambda right: lambda z, f: -right(-z, f))
    m.change_vjp(layer, lambda vjp: lambda z, a, d: vjp(-z, a, d))


def _sigmoid_kept(m: Mistaken, layer: int, parameter: Any) -> None:
    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        def cost_gradient(d: Any, reduction: str) -> Any:
            p = d + like(d, m.y)
            return right(d, reduction) * (p * (1.0 - p))

        return cost_gradient

    m.change(m.spec.depth, "cost_gradient", change)


def _softmax_kept(m: Mistaken, layer: int, parameter: Any) -> None:
    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        def cost_gradient(d: Any, reduction: str) -> Any:
            p, g = d + like(d, m.y), right(d, reduction)
            return p * (g - (p * g).sum(axis=1, keepdims=True))

        return cost_gradient

    m.change(m.spec.depth, "cost_gradient", change)


def _broadcast(share: Callable[[int], float]) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        slope = 2.0 if m.spec.loss.name == "mean_squared_error" else 1.0
        # Σ_k (s − y_k) over all targets in place of s − y
        others = slope * (m.n * m.y - m.y.sum())
        m.change(
            m.spec.depth,
            "cost_gradient",
            lambda right: lambda d, reduction: right((d * float(m.n) + like(d, others)) * share(m.n), reduction),
        )

    return plant


def _last_sample(scale: Callable[[Mistaken], float]) -> Plant:
    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        chosen = np.zeros((m.n, 1))
        chosen[-1] = scale(m)
        m.change(
            m.spec.depth, "cost_gradient", lambda right: lambda d, reduction: right(d, reduction) * like(d, chosen)
        )

    return plant


def _last_sample_of_weights(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "weight_gradient", lambda right: lambda delta, a: right(delta[-1:], a[-1:]))


def _last_sample_of_bias(m: Mistaken, layer: int, parameter: Any) -> None:
    m.change(layer, "bias_gradient", lambda right: lambda delta: right(delta[-1:]))


def _last_sample_of_layer(m: Mistaken, layer: int, parameter: Any) -> None:
    _last_sample_of_weights(m, layer, parameter)
    _last_sample_of_bias(m, layer, parameter)


def _swapped(m: Mistaken, layer: int, parameter: Any) -> None:
    other = {layer: layer + 1, layer + 1: layer}
    m.names = {name: _renumbered(source, other) for name, source in m.names.items()}


def _reversed(m: Mistaken, layer: int, parameter: Any) -> None:
    other = {number: m.spec.depth + 1 - number for number in range(1, m.spec.depth + 1)}
    m.names = {name: _renumbered(source, other) for name, source in m.names.items()}


def _renumbered(name: str, other: Mapping[int, int]) -> str:
    number = int(name[1:])
    return f"{name[0]}{other.get(number, number)}"


def _in_float32(m: Mistaken, layer: int, parameter: Any) -> None:
    """Every operand of the layer's equations rounded to float32 first; for the whole network, of every equation."""

    def rounded(right: Callable[..., Any]) -> Callable[..., Any]:
        def equation(*operands: Any) -> Any:
            return right(*(_single(operand) for operand in operands))

        return equation

    if layer:
        m.change(layer, "weight_gradient", rounded)
        return
    for number in _layers(m.spec, m.n):
        for name in ("weighted_input", "activation", "cost_gradient", "output_error", "hidden_error"):
            m.change(number, name, rounded)
        for name in ("weight_gradient", "bias_gradient"):
            m.change(number, name, rounded)


def _single(operand: Any) -> Any:
    return operand.astype(np.float32) if hasattr(operand, "astype") else operand


def _is_float32(values: Array) -> bool:
    """Whether all numbers are among float32's, and enough of them to tell, and they are of no shorter format."""
    with np.errstate(over="ignore"):
        single = bool((values.astype(np.float32).astype(values.dtype) == values).all())
    return values.size > 1 and single and not are_short(values)


def are_short(values: Array) -> bool:
    """Whether all numbers have no more significant bits than float16's; bfloat16's have fewer."""
    mantissas = np.frexp(values)[0] * 2.0**11
    return bool((mantissas == np.rint(mantissas)).all())


def _kink_slope(share: float) -> Plant:
    """`share` of the right derivative and the rest of the left one at a kink."""

    def plant(m: Mistaken, layer: int, parameter: Any) -> None:
        function = m.spec.layers[layer - 1].activation
        left, right_slope = {
            "relu": (0.0, 1.0),
            "leaky_relu": (function.kwargs.get("negative_slope", 0.0), 1.0),
        }[function.name]
        jump = share * (right_slope - left)
        m.change_vjp(layer, lambda vjp: lambda z, a, d: vjp(z, a, d) + d * like(d, jump * _at_zero(z)))

    return plant


def like(other: Any, values: Array) -> Array:
    """Given numbers in the dtype that is being computed in."""
    return values.astype(other.dtype) if isinstance(other, np.ndarray) else values


def _at_zero(z: Any) -> Any:
    return apply(AT_ZERO, z) if isinstance(z, Node) else np.asarray(z == 0, dtype=np.float64)


def _mean_of_outputs(m: Mistaken) -> float:
    return 1.0 / m.spec.n_out


# --------------------------------------------------------------------------------------------------------------
# The catalogue, in the order in which equal explanations are named


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "not_averaged",
            "The gradient is the sum over the batch; the loss is its mean.",
            "Divide ∂C/∂s by N, once, where the loss is averaged.",
            _averaging, _undo_average,
        ),
        Fault(
            "averaged_over_n_minus_1",
            "The sum over the batch is divided by N − 1, as an unbiased variance is; the loss is the mean.",
            "Divide by N.",
            _averaging, _over_n_minus_1,
        ),
        Fault(
            "averaged_twice",
            "The gradient is divided by N twice: once with the loss and once more when it is summed over the batch.",
            "Divide by N in one place only; sum over the batch everywhere else.",
            _averaging, _cost_gradient(lambda d, m: d / m.n),
        ),
        Fault(
            "averaged_sum",
            "The gradient is divided by N, though the loss is a sum over the batch.",
            "Do not divide by N where the reduction is a sum.",
            _summing, _cost_gradient(lambda d, m: d / m.n),
        ),
        Fault(
            "averaged_at_every_layer",
            "The error signal is divided by N again at every layer it is propagated through.",
            "Divide by N at the loss alone; δ already carries it.",
            _batch(_deep(_whole)), _average_every_layer,
        ),
        Fault(
            "layer_averaged_again",
            "The gradients of this layer are averaged over the batch although δ already carries the 1/N.",
            "Sum dW and db over the batch: dW = δᵀa, db = Σδ.",
            _batch(_deep(_layers)), _gradients(lambda m: 1.0 / m.n),
        ),
        Fault(
            "accumulated_twice",
            "The gradients are added up twice, as when they are not zeroed between two backward passes.",
            "Set the gradients to zero before each backward pass.",
            _whole_and_layers, _gradients(lambda m: 2.0),
        ),
        Fault(
            "squared_error_without_half",
            "The gradient is that of (s − y)²; the loss is ½(s − y)².",
            "∂/∂s of ½(s − y)² is s − y, without the 2.",
            _with_loss("squared_error"), _cost_gradient(lambda d, m: d * 2.0),
        ),
        Fault(
            "squared_error_with_half",
            "The gradient lacks the 2 of the derivative of (s − y)².",
            "∂/∂s of (s − y)² is 2(s − y).",
            _with_loss("mean_squared_error"), _cost_gradient(lambda d, m: d * 0.5),
        ),
        Fault(
            "averaged_over_outputs",
            "The gradient is divided by the number of outputs; the loss is summed over them.",
            "Do not divide by n_out, or use mean_squared_error.",
            lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name != "mean_squared_error" else (),
            _cost_gradient(lambda d, m: d * _mean_of_outputs(m)),
        ),
        Fault(
            "not_averaged_over_outputs",
            "The gradient is summed over the outputs; mean_squared_error averages over them.",
            "Divide ∂C/∂s by n_out.",
            lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name == "mean_squared_error" else (),
            _cost_gradient(lambda d, m: d * float(m.spec.n_out)),
        ),
        Fault(
            "wrong_sign",
            "The gradient has the wrong sign: it points downhill, as with y − s in place of s − y.",
            "∂C/∂s of a squared error is s − y; the minus belongs to the update, not to the gradient.",
            _whole_and_layers, _gradients(lambda m: -1.0),
        ),
        Fault(
            "bias_gradient_not_summed",
            "The gradient of b is the error signal of every sample, not their sum.",
            "Sum δ over the batch: db = δ.sum(axis=0).",
            _biased, _bias_gradient(lambda db, delta: delta),
        ),
        Fault(
            "bias_gradient_averaged",
            "The gradient of b is averaged over the batch although δ already carries the 1/N.",
            "db = δ.sum(axis=0), not the mean.",
            _batch(_biased), _bias_gradient(lambda db, delta: db / float(len(delta))),
        ),
        Fault(
            "weight_gradient_averaged",
            "The gradient of W is averaged over the batch although δ already carries the 1/N.",
            "dW = δᵀ a, not divided by N.",
            _batch(_biased), _weight_gradient(lambda dW, delta: dW / float(len(delta))),
        ),
        Fault(
            "bias_gradient_not_averaged",
            "The gradient of b is the sum over the batch; the loss is its mean, and dW's 1/N is not in δ.",
            "Divide ∂C/∂s by N, once, so that dW and db both have it; or divide both.",
            _averaged(_biased), _bias_gradient(lambda db, delta: db * float(len(delta))),
        ),
        Fault(
            "weight_gradient_not_averaged",
            "The gradient of W is the sum over the batch; the loss is its mean.",
            "Divide ∂C/∂s by N, once, so that dW and db both have it; or divide both.",
            _averaged(_layers), _weight_gradient(lambda dW, delta: dW * float(len(delta))),
        ),
        Fault(
            "bias_gradient_from_row_sums",
            "The gradient of b is the row sums of dW, which weighs every sample by its inputs.",
            "db is the sum of δ itself: δ.sum(axis=0).",
            _biased, _bias_from_row_sums,
        ),
        Fault(
            "bias_gradient_missing",
            "The gradient of b is zero: it was never computed.",
            "db = δ.sum(axis=0).",
            _biased, _bias_gradient(lambda db, delta: db * 0.0),
        ),
        Fault(
            "slope_dropped",
            "The error signal goes through this layer's activation without f'(z).",
            "Multiply by f'(z): δ = (δ W) ⊙ f'(z).",
            _with_activation(*SLOPED, last=False), _vjp(lambda vjp: lambda z, a, d: d),
        ),
        Fault(
            "output_slope_dropped",
            "The error signal of the output lacks f'(z), as if it cancelled with the loss; it does so only for "
            "a sigmoid with cross-entropy and a softmax with cross-entropy.",
            "δ = ∂C/∂s ⊙ f'(z) for this loss, e.g. σ'(z) with the squared error.",
            _last_layer(lambda spec: spec.layers[-1].activation.name != "identity"),
            _vjp(lambda vjp: lambda z, a, d: d),
        ),
        Fault(
            "slope_at_activation",
            "The derivative of the activation is taken at a instead of at z.",
            "Give f' the weighted input: f'(z).",
            _with_activation(*SMOOTH), _vjp(lambda vjp: lambda z, a, d: vjp(a, a, d)),
        ),
        Fault(
            "activation_formula_fed_z",
            "The formula for the derivative in terms of a (such as a(1 − a)) is fed z.",
            "Either f'(z) from z, or a(1 − a) and 1 − a² from a.",
            _with_activation("sigmoid", "tanh", "softmax"), _formula_fed_z,
        ),
        Fault(
            "slope_twice",
            "The error signal is multiplied by f'(z) twice at this layer.",
            "Multiply by f'(z) once a layer.",
            _with_activation(*SMOOTH), _vjp(lambda vjp: lambda z, a, d: vjp(z, a, vjp(z, a, d))),
        ),
        Fault(
            "relu_mask_on_gradient",
            "The ReLU's mask is the sign of the incoming gradient, not of z.",
            "Let the gradient through where z > 0.",
            _with_activation("relu"), _vjp(lambda vjp: lambda z, a, d: vjp(d, a, d)),
        ),
        Fault(
            "kink_slope_one",
            "At z = 0 the derivative is taken from the right (1), as torch.clamp does; the network's is the left one.",
            "Use z > 0, not z ≥ 0, in the mask.",
            _with_activation("relu", "leaky_relu"), _kink_slope(1.0),
        ),
        Fault(
            "kink_slope_half",
            "At z = 0 the derivative is the mean of both sides, as jax.numpy.maximum gives; the network's is the "
            "left one.",
            "Use z > 0 in the mask, or jax.nn.relu in place of jax.numpy.maximum.",
            _with_activation("relu", "leaky_relu"), _kink_slope(0.5),
        ),
        Fault(
            "weight_gradient_transposed",
            "dW is transposed.",
            "dW = δᵀ a with the shape (n_out, n_in) of W.",
            _layers, _transpose,
        ),
        Fault(
            "weight_gradient_column_major",
            "dW is written column by column; its numbers belong row by row.",
            "Write dW row after row (C order); libraries that store columns first need a transpose.",
            _wide, _column_major,
        ),
        Fault(
            "weight_not_transposed",
            "The error signal is propagated with W in place of its transpose.",
            "For rows of samples, δ W; for a column, Wᵀ δ.",
            _square, _propagate_untransposed,
        ),
        Fault(
            "z_in_weight_gradient",
            "dW is formed with the weighted inputs z of the layer before in place of its activations a.",
            "dW = δᵀ a.",
            _leading_back, _z_in_weight_gradient,
        ),
        Fault(
            "output_in_weight_gradient",
            "dW is formed with the layer's own output in place of what came in.",
            "dW of layer l takes the activations that layer l was given.",
            _own_output_fits, _output_in_weight_gradient,
        ),
        Fault(
            "earlier_activation_in_weight_gradient",
            "dW is formed with the activations one layer too early.",
            "dW of layer l takes the activations that layer l was given.",
            _earlier_fits, _earlier_in_weight_gradient,
        ),
        Fault(
            "weight_updated_first",
            "W is updated before the error signal is propagated through it.",
            "Compute every gradient from the same parameters, then update all of them.",
            lambda spec, n: (WHOLE, *range(2, spec.depth + 1)) if spec.depth > 2 else _leading_back(spec, n),
            _updated_first, parameter="learning rate", example=0.1,
        ),
        Fault(
            "softmax_twice",
            "Softmax is applied twice: the network ends in softmax, and the cross-entropy takes logits.",
            "Give cross-entropy the logits, or use the negative log-likelihood on the probabilities.",
            _last_layer(lambda spec: spec.n_out > 1 and (
                (spec.loss.name == "cross_entropy" and spec.layers[-1].activation.name == "identity")
                or (spec.loss.name == "negative_log_likelihood" and spec.layers[-1].activation.name == "softmax")
            )),
            _softmax_twice,
        ),
        Fault(
            "diagonal_softmax_jacobian",
            "Only the diagonal a(1 − a) of softmax's Jacobian is used.",
            "δ = a ⊙ (d − Σ a d): every output depends on every z.",
            _with_activation("softmax"), _vjp(lambda vjp: lambda z, a, d: d * (a * (1.0 - a))),
        ),
        Fault(
            "sigmoid_slope_kept",
            "σ'(s) is multiplied in although it has cancelled: ∂C/∂s of binary cross-entropy is σ(s) − y.",
            "Drop the σ' at the output.",
            _with_loss("binary_cross_entropy"), _sigmoid_kept,
        ),
        Fault(
            "softmax_jacobian_kept",
            "The softmax's Jacobian is multiplied in although it has cancelled: ∂C/∂s of cross-entropy is "
            "softmax(s) − y.",
            "Drop the Jacobian at the output.",
            lambda spec, n: (WHOLE,) if spec.loss.name == "cross_entropy" and spec.n_out > 1 else (), _softmax_kept,
        ),
        Fault(
            "last_sample_only",
            "Only the last sample contributes: each sample's gradient overwrites the one before.",
            "Add the samples' gradients up (+=).",
            _batch(_whole), _last_sample(lambda m: 1.0),
        ),
        Fault(
            "last_sample_alone",
            "The gradient is that of the last sample alone, not even divided by N.",
            "Average the gradients of all samples.",
            _averaging, _last_sample(lambda m: float(m.n)),
        ),
        Fault(
            "layer_last_sample_only",
            "Only the last sample contributes to the gradients of this layer.",
            "Add the samples' gradients up (+=).",
            _batch(_deep(_layers)), _last_sample_of_layer,
        ),
        Fault(
            "weight_gradient_last_sample_only",
            "Only the last sample contributes to dW of this layer: each sample's overwrites the one before.",
            "Add the samples' dW up (+=).",
            _batch(_biased), _last_sample_of_weights,
        ),
        Fault(
            "bias_gradient_last_sample_only",
            "Only the last sample contributes to db of this layer: each sample's overwrites the one before.",
            "Add the samples' db up (+=).",
            _batch(_biased), _last_sample_of_bias,
        ),
        Fault(
            "regulariser_added",
            "The gradient of a regulariser, a multiple of W, is added.",
            "Leave weight decay out, or to the optimiser: it is not part of this loss.",
            _whole_and_layers, _regularised, parameter="strength", example=0.01,
        ),
        Fault(
            "gradient_of_output",
            "The gradient is that of the network's output, not of the loss.",
            "Start the backward pass from ∂C/∂s, not from 1.",
            _whole, _ones,
        ),
        Fault(
            "other_gelu",
            "The other GELU is computed: the tanh approximation in place of z Φ(z), or the other way round.",
            "torch.nn.GELU() is exact, jax.nn.gelu approximates by default: say which (approximate=…).",
            _with_activation("gelu", "gelu_tanh"), _other_gelu,
        ),
        Fault(
            "leaky_slope_wrong_side",
            "The leaky ReLU's small slope is on the positive side.",
            "z where z > 0, negative_slope · z elsewhere.",
            _with_activation("leaky_relu"), _wrong_side,
        ),
        Fault(
            "layers_swapped",
            "The gradients of this layer and the next are returned under each other's names.",
            "Return the gradients in the parameters' order.",
            _swappable, _swapped,
        ),
        Fault(
            "layers_reversed",
            "The gradients are returned in the order of the backward pass, last layer first.",
            "Reverse the list of gradients before returning it.",
            _reversible, _reversed,
        ),
        Fault(
            "float32_inside",
            "The answer is float64, but it was computed in float32 or rounded to it.",
            "Cast the parameters and the data to float64 before computing, and the result to nothing else.",
            _whole_and_layers, _in_float32, evidence=_is_float32, dtype="float64",
        ),
        Fault(
            "printed_with_six_decimals",
            "The numbers are right, but rounded to six decimals, as %f prints them.",
            "Print every digit: %.17g, or the hexadecimal %a.",
            _whole, _printed(".6f", absolute=0.5e-6), evidence=_is_printed(".6f"), dtype="float64",
        ),
        Fault(
            "printed_with_six_digits",
            "The numbers are right, but rounded to six digits, as %g and C++'s streams print them.",
            "Print every digit: %.17g, or std::setprecision(17).",
            _whole, _printed(".6g", relative=0.5e-5), evidence=_is_printed(".6g"), dtype="float64",
        ),
        Fault(
            "broadcast_residual_mean",
            "s − y was broadcast: s is (N, 1) and y is (N,), so every prediction meets every target (mean over all).",
            "Give y the shape (N, 1).",
            _one_output, _broadcast(lambda n: 1.0 / n),
        ),
        Fault(
            "broadcast_residual_sum",
            "s − y was broadcast: s is (N, 1) and y is (N,), so every prediction meets every target (summed).",
            "Give y the shape (N, 1).",
            _one_output, _broadcast(lambda n: 1.0),
        ),
        Fault(
            "finite_differences",
            "The gradient is not derived but a central difference quotient of the loss.",
            "Derive it: a difference quotient is good for about half the digits.",
            _whole, _difference_quotients(one_sided=False), parameter="step", example=1e-5, quotient=True,
        ),
        Fault(
            "one_sided_differences",
            "The gradient is not derived but a one-sided difference quotient of the loss.",
            "Derive it: a difference quotient is good for about half the digits.",
            _whole, _difference_quotients(one_sided=True), parameter="step", example=1e-7, quotient=True,
        ),
        Fault(
            "loss_not_averaged",
            "The loss is the sum over the batch; the network's is the mean.",
            "Divide the loss by N.",
            _averaging, _loss(lambda m: float(m.n)), on_loss=True,
        ),
        Fault(
            "loss_averaged",
            "The loss is divided by N; the network's is the sum over the batch.",
            "Do not divide the loss by N.",
            _summing, _loss(lambda m: 1.0 / m.n), on_loss=True,
        ),
        Fault(
            "loss_averaged_over_outputs",
            "The loss is divided by the number of outputs, and the gradient is not: the two belong to different "
            "losses.",
            "Sum the loss over the outputs, or divide the gradient by n_out too and use mean_squared_error.",
            lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name != "mean_squared_error" else (),
            _loss(lambda m: 1.0 / m.spec.n_out), on_loss=True,
        ),
        Fault(
            "loss_not_averaged_over_outputs",
            "The loss is summed over the outputs; mean_squared_error averages over them.",
            "Divide the loss by n_out.",
            lambda spec, n: (WHOLE,) if spec.n_out > 1 and spec.loss.name == "mean_squared_error" else (),
            _loss(lambda m: float(m.spec.n_out)), on_loss=True,
        ),
        Fault(
            "loss_without_half",
            "The loss is (s − y)²; the network's is ½(s − y)².",
            "Multiply the loss by ½.",
            _with_loss("squared_error"), _loss(lambda m: 2.0), on_loss=True,
        ),
        Fault(
            "loss_with_half",
            "The loss is ½(s − y)²; the network's is (s − y)².",
            "Leave the ½ out of the loss.",
            _with_loss("mean_squared_error"), _loss(lambda m: 0.5), on_loss=True,
        ),
        Fault(
            "loss_wrong_sign",
            "The loss has the wrong sign.",
            "Minimise: the cross-entropy is −Σ y log p.",
            _whole, _loss(lambda m: -1.0), on_loss=True,
        ),
    )
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# A backend with faults in it


@dataclass(frozen=True)
class PlantedBackend:
    """A backend that runs given equations, with faults planted: (fault, layer, parameter) in turn."""

    plantings: tuple[tuple[Fault, int, float], ...]
    runner: EquationsBackend

    @property
    def name(self) -> str:
        """What is wrong with it."""
        return "+".join(f"{fault.name}@{layer}" if layer else fault.name for fault, layer, _ in self.plantings)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """As the backend that runs it."""
        return self.runner.with_equations([EQUATIONS] * spec.depth).supports(spec, dtype=dtype, device=device)

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (a wrong loss, wrong gradients)."""

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            mistaken = Mistaken.right(spec, y if y.ndim == 2 else one_hot(y, spec.n_out))
            for fault, layer, parameter in self.plantings:
                fault.plant(mistaken, layer, parameter)
            wrong = self.runner.with_equations(mistaken.equations)
            run = wrong.gradient_function(mistaken.spec, dtype=dtype, device=device)
            if mistaken.step:
                return _quotients(run, params, x, y, mistaken.step, mistaken.one_sided)
            loss, grads = run(params, x, y)
            return loss, {name: np.asarray(grad).astype(dtype) for name, grad in mistaken.returned(grads).items()}

        return gradients


def _quotients(
    run: GradientFunction, params: Mapping[str, Array], x: Array, y: Array, step: float, one_sided: bool
) -> tuple[float, dict[str, Array]]:
    loss = run(params, x, y)[0]
    grads = {}
    for name, array in params.items():
        grads[name] = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            up, down = moved(params, name, index, step), moved(params, name, index, -step)
            high = run(up, x, y)[0]
            grads[name][index] = (high - loss) / step if one_sided else (high - run(down, x, y)[0]) / (2 * step)
    return loss, grads


def moved(params: Mapping[str, Array], name: str, index: tuple[int, ...], by: float) -> dict[str, Array]:
    """The parameters with one element moved, rounded to its dtype."""
    array = params[name].copy()
    array[index] += by
    return {**params, name: array}


def places(spec: NetworkSpec, n: int, dtype: str) -> Iterator[tuple[Fault, int]]:
    """Every fault at every layer where it can act."""
    for fault in FAULTS.values():
        if fault.dtype in ("", dtype):
            for layer in fault.where(spec, n):
                yield fault, layer
