"""Backpropagations that are wrong in ways of their own, each written without the catalogue: what a right backend's
answers to a batch, or to parts of it, become. `WRONG`, by what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from refimpl.equations import EQUATIONS, Equations
from refimpl.network.spec import NetworkSpec
from refimpl_numpy import NumpyBackend

Array = np.ndarray[Any, Any]
Grads = dict[str, Array]
RIGHT = NumpyBackend()


class Implementation(NumpyBackend):
    """`change(spec, params, x, y, loss, gradients)` is what it answers."""

    def __init__(self, name: str, change: Callable[..., tuple[float, Grads]]) -> None:
        super().__init__()
        self.name, self.change = name, change

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        right = RIGHT.gradient_function(spec, dtype=dtype, device=device)
        return lambda params, x, y: self.change(spec, params, x, y, *right(params, x, y))


class Sloped(NumpyBackend):
    """With `slope(activation's name, z, right vjp, z's a, incoming)` in place of the step through a hidden activation,
    or ∂C/∂s changed by `cost(∂ℓ/∂s)`.
    """

    def __init__(self, name: str, slope: Callable[..., Array] | None = None, cost: Any = None) -> None:
        super().__init__()
        self.name, self.slope, self.cost = name, slope, cost

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        equations = [EQUATIONS] * spec.depth
        for number in range(2, spec.depth + 1) if self.slope else ():
            equations[number - 1] = self._with_slope(spec.layers[number - 2].activation.name)
        if self.cost:
            changed = lambda d, reduction: EQUATIONS.cost_gradient(self.cost(d), reduction)  # noqa: E731
            equations[-1] = replace(equations[-1], cost_gradient=changed)
        return NumpyBackend(equations).gradient_function(spec, dtype=dtype, device=device)

    def _with_slope(self, activation: str) -> Equations:
        def hidden_error(W: Array, delta: Array, z: Array, a: Array, vjp: Any) -> Array:
            assert self.slope is not None
            return self.slope(activation, z, a, delta @ W, vjp)

        return replace(EQUATIONS, hidden_error=hidden_error)


def _of(spec: NetworkSpec, params: Any, x: Array, y: Array, summed: bool = False) -> Grads:
    spec = NetworkSpec(spec.input_shape, spec.layers, spec.loss, "sum") if summed else spec
    grads: Grads = RIGHT.gradient_function(spec, dtype=str(x.dtype), device="cpu")(params, x, y)[1]
    return grads


def _share(spec: NetworkSpec, n: int) -> float:
    return 1 / n if spec.reduction == "mean" else 1.0


def rows(chosen: slice, divided: bool = False) -> Any:
    """Only these rows contribute; `divided`: by their own number."""

    def change(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
        if not len(x[chosen]):
            return loss, grads
        own = _of(spec, params, x[chosen], y[chosen], summed=not divided)
        return loss, own if divided else {name: _share(spec, len(x)) * grad for name, grad in own.items()}

    return change


def batches(size: int) -> Any:
    """The mean of the means of batches of this size."""

    def change(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
        if spec.reduction == "sum":
            return loss, grads
        parts = [_of(spec, params, x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]
        return loss, {name: sum(part[name] for part in parts) / len(parts) for name in grads}

    return change


def first_again(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
    own = _of(spec, params, x[:1], y[:1], summed=True)
    return loss, {name: grad + _share(spec, len(x)) * own[name] for name, grad in grads.items()}


def plus(strength: Callable[[int], float], of: Callable[[Array], Array], kinds: str = "Wb") -> Any:
    """A regulariser's gradient added."""

    def change(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
        added = {name: strength(len(x)) * of(params[name]) for name in grads if name[0] in kinds}
        return loss, {name: grad + added.get(name, 0.0) for name, grad in grads.items()}

    return change


def each(change: Callable[[Array], Array]) -> Any:
    """Every gradient changed by itself."""
    return lambda spec, params, x, y, loss, grads: (loss, {name: change(grad) for name, grad in grads.items()})


def scaled(factor: Callable[[int, int], float], where: str) -> Any:
    """Times a number of N and n_out: "all", the "gradients", the "loss", of the "first" or the "last" layer."""

    def change(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
        times = factor(len(x), spec.n_out)
        layer = {"first": "1", "last": str(spec.depth)}.get(where, "")
        chosen = [name for name in grads if where in ("all", "gradients") or name[1:] == layer]
        wrong = {name: times * grad if name in chosen else grad for name, grad in grads.items()}
        return (times * loss if where in ("all", "loss") else loss), wrong

    return change


def to_norm(limit: float) -> Any:
    """All gradients together scaled to a norm."""

    def change(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
        norm = float(np.sqrt(sum(np.square(grad).sum() for grad in grads.values())))
        return loss, {name: grad * min(1.0, limit / norm) if norm else grad for name, grad in grads.items()}

    return change


def _digits(form: str) -> Callable[[Array], Array]:
    return np.vectorize(lambda value: float(format(value, form)), otypes=[np.float64])


def _bits(bits: int) -> Callable[[Array], Array]:
    def rounded(array: Array) -> Array:
        significand, exponent = np.frexp(array)
        return np.asarray(np.ldexp(np.rint(np.ldexp(significand, bits)), exponent - bits))

    return rounded


def _sigmoid_slope(name: str, z: Array, a: Array, arriving: Array, vjp: Any) -> Array:
    s = 1 / (1 + np.exp(-z))
    return np.asarray(arriving * s * (1 - s) if name == "tanh" else vjp(z, a, arriving))


def _zero_far_out(name: str, z: Array, a: Array, arriving: Array, vjp: Any) -> Array:
    right = vjp(z, a, arriving)
    return np.asarray(right * (np.abs(z) < 1.0) if name == "tanh" else right)


def _clipped(name: str, z: Array, a: Array, arriving: Array, vjp: Any) -> Array:
    if name != "sigmoid":
        return np.asarray(vjp(z, a, arriving))
    inner = np.clip(z, -0.8, 0.8)
    return np.asarray(vjp(inner, 1 / (1 + np.exp(-inner)), arriving))


def equal_ones(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
    """Parameters of equal values are one, as where they are keys of a dictionary."""

    def key(name: str) -> Any:
        return params[name].shape, params[name].tobytes()

    return loss, {name: sum(grads[other] for other in grads if key(other) == key(name)) for name in grads}


class Kept(NumpyBackend):
    """Returns `mixed(what it returned before for a gradient of this name and shape, gradient)`."""

    def __init__(self, name: str, mixed: Callable[[Array, Array], Array]) -> None:
        super().__init__()
        self.name, self.mixed = name, mixed
        self.held: dict[Any, Array] = {}

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        right = RIGHT.gradient_function(spec, dtype=dtype, device=device)

        def gradients(params: Any, x: Array, y: Array) -> Any:
            loss, grads = right(params, x, y)
            for name, grad in grads.items():
                key = name, grad.shape, dtype
                self.held[key] = self.mixed(self.held[key], grad) if key in self.held else grad
            return loss, {name: self.held[name, grad.shape, dtype].copy() for name, grad in grads.items()}

        return gradients


def with_losses(of: Callable[[Any, Any], Any]) -> Any:
    """The loss of logits and targets as PyTorch code, and what autograd makes of it."""

    def change(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
        functions = {"identity": lambda z: z, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
        leaves = {name: torch.tensor(array, requires_grad=True) for name, array in params.items()}
        a = torch.tensor(x.reshape(len(x), -1))
        for number, layer in enumerate(spec.layers, start=1):
            if layer.activation.name not in functions:
                return loss, grads
            a = functions[layer.activation.name](F.linear(a, leaves[f"W{number}"], leaves.get(f"b{number}")))
        targets = torch.tensor(np.eye(spec.n_out)[y] if y.ndim == 1 else y)
        total = of(a, targets).sum() * _share(spec, len(x))
        total.backward()
        return float(total.detach()), {name: leaf.grad.numpy() for name, leaf in leaves.items()}

    return change


class RoundedFactors(NumpyBackend):
    """Every product of matrices with factors of so many bits."""

    def __init__(self, name: str, bits: int) -> None:
        super().__init__()
        self.name, self.rounded = name, _bits(bits)

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        r, right = self.rounded, EQUATIONS
        own = replace(
            right,
            weighted_input=lambda a, W, b: right.weighted_input(r(a), r(W), b),
            weight_gradient=lambda delta, a: right.weight_gradient(r(delta), r(a)),
            hidden_error=lambda W, delta, z, a, vjp: right.hidden_error(r(W), r(delta), z, a, vjp),
        )
        return NumpyBackend([own] * spec.depth).gradient_function(spec, dtype=dtype, device=device)


def other_gelu_in_loss(spec: Any, params: Any, x: Array, y: Array, loss: float, grads: Grads) -> Any:
    other = {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}
    layers = [replace(layer, activation=other.get(layer.activation.name, layer.activation)) for layer in spec.layers]
    changed = NetworkSpec(spec.input_shape, layers, spec.loss, spec.reduction)
    return RIGHT.gradient_function(changed, dtype=str(x.dtype), device="cpu")(params, x, y)[0], grads


# by what is wrong: the implementation, and what the leading line of a report must begin with
WRONG: Mapping[str, tuple[NumpyBackend, str]] = {
    name: (Implementation(name, change), said)
    for name, change, said in (
        ("the last row lost", rows(slice(-1)), "samples_left_out all but the last"),
        ("the mean of the rest", rows(slice(1, None), True), "samples_left_out all but the first, as if"),
        ("only the last row", rows(slice(-1, None), True), "samples_left_out only the last, as if"),
        ("the first row twice", first_again, "sample_counted_again the first"),
        ("batches of two", batches(2), "batches_averaged of 2"),
        ("decay of b", plus(lambda n: 0.01, np.array, "b"), "bias_decay_added × 0.01"),
        ("decay of all", plus(lambda n: 0.01, np.array), "decay_of_all_added × 0.01"),
        ("decay over N", plus(lambda n: 0.1 / n, np.array), "decay_of_all_added × 0.1/N"),
        ("decay of W", plus(lambda n: 0.01, np.array, "W"), "regulariser_added"),
        ("signs of W", plus(lambda n: 0.01, np.sign, "W"), "signs_added × 0.01"),
        ("clipped", each(lambda grad: np.clip(grad, -0.5, 0.5)), "gradients_clipped ± 0.5"),
        ("clipped to a norm", to_norm(1.0), "gradients_clipped_by_norm 1"),
        (
            "each clipped to a norm", each(lambda grad: grad * min(1.0, 0.5 / max(np.linalg.norm(grad), 1e-300))),
            "each_gradient_clipped_by_norm 0.5",
        ),
        ("four decimals", each(lambda grad: np.round(grad, 4)), "rounded_to_decimals 4"),
        ("seven digits", each(_digits(".7g")), "rounded_to_digits 7"),
        ("bfloat16", each(_bits(8)), "rounded_to_format bfloat16"),
        ("equal ones merged", equal_ones, "equal_parameters_merged"),
        (
            "log(p + 1e-7)", with_losses(lambda s, y: -y * torch.log(torch.softmax(s, 1) + 1e-7)),
            "number_added_in_logarithm 1e-07",
        ),
        ("the other gelu in the loss", other_gelu_in_loss, "other_gelu in the loss alone"),
    )
} | {
    wrong.name: (wrong, said)
    for wrong, said in (
        (Sloped("the slope of sigmoid", _sigmoid_slope), "slope_of_another_function sigmoid for tanh"),
        (Sloped("no slope far out", _zero_far_out), "slope_wrong_far_out tanh, z large in magnitude"),
        (Sloped("z clipped", _clipped), "slope_wrong_far_out sigmoid, z large in magnitude"),
        (Kept("not zeroed", lambda held, grad: held + grad), "earlier_gradients_added once"),
        (Kept("momentum", lambda held, grad: 0.9 * held + grad), "earlier_gradients_added × 9/10"),
        (Kept("never written again", lambda held, grad: held), "earlier_gradients_returned"),
        (RoundedFactors("TF32", 11), "products_of_rounded_factors TF32"),
        (RoundedFactors("products in bfloat16", 8), "products_of_rounded_factors bfloat16"),
        (
            Sloped("a loss of one side", cost=lambda d: np.where(d <= -1, 1.7 * d, d)),
            "cost_gradient_wrong_far_out s − y small",
        ),
    )
}  # fmt: skip
