"""A backpropagation written by hand, as in a first course, and what people get wrong in it, each by one changed method.
Nothing of the catalogue is used. `MISTAKES`, by the name that a report must lead with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp, xlogy

from refimpl.network.spec import NetworkSpec
from refimpl_numpy import NumpyBackend

Array = np.ndarray[Any, Any]


def sigmoid(z: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -z))


def softmax(z: Array, axis: int = 1) -> Array:
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


class Hand(NumpyBackend):
    """The right one. Layers count from 0; `self.z[k]`, `self.a[k + 1]` are layer k's, `self.a[0]` is x."""

    name = "by hand"
    activations: ClassVar[Sequence[str]] = ("identity", "sigmoid", "tanh", "relu", "leaky_relu")
    losses: ClassVar[Sequence[str]] = ("squared_error", "mean_squared_error", "binary_cross_entropy", "cross_entropy")
    spec: NetworkSpec
    y: Array

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        names = {layer.activation.name for layer in spec.layers}
        return True if names <= set(self.activations) and spec.loss.name in self.losses else "not written"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            self.spec, self.n, self.last = spec, len(x), spec.depth - 1
            self.W = [params[f"W{k + 1}"].astype(np.float64) for k in range(spec.depth)]
            self.b = [
                params[f"b{k + 1}"].astype(np.float64) if layer.bias else None for k, layer in enumerate(spec.layers)
            ]
            self.y = np.eye(spec.n_out)[self.labels(y)] if y.ndim == 1 else y.astype(np.float64)
            return self.run(x.reshape(len(x), -1).astype(np.float64), dtype)

        return gradients

    def run(self, x: Array, dtype: str) -> tuple[float, dict[str, Array]]:
        self.z, self.a = [], [x]
        for k in range(self.last + 1):
            self.z.append(self.weighted(k))
            self.a.append(self.active(k, self.z[k]))
        share = 1 / self.n if self.spec.reduction == "mean" else 1.0
        self.delta: list[Any] = [None] * (self.last + 1)
        grads: dict[str, Array] = {}
        signal = share * self.cost_slope(self.a[-1])
        for k in range(self.last, -1, -1):
            self.signal = signal
            self.delta[k] = signal * self.slope(k)
            grads[f"W{k + 1}"] = self.dW(k)
            if self.b[k] is not None:
                grads[f"b{k + 1}"] = self.db(k)
            if k:
                signal = self.back(k, grads)
        loss = share * float(self.cost(self.a[-1]).sum())
        return loss, {name: grad.astype(dtype) for name, grad in grads.items()}

    def labels(self, y: Array) -> Array:
        return y

    def weighted(self, k: int) -> Array:
        return self.a[k] @ self.W[k].T + (0.0 if self.b[k] is None else self.b[k])

    def kind(self, k: int) -> tuple[str, Mapping[str, float]]:
        function = self.spec.layers[k].activation
        return function.name, function.kwargs

    def active(self, k: int, z: Array) -> Array:
        name, kwargs = self.kind(k)
        if name == "leaky_relu":
            return np.where(z > 0, z, kwargs["negative_slope"] * z)
        return {"identity": lambda: z, "sigmoid": lambda: sigmoid(z), "tanh": lambda: np.tanh(z),
                "relu": lambda: np.maximum(z, 0.0)}[name]()  # fmt: skip

    def slope(self, k: int) -> Array:
        return self.slope_of(self.kind(k), self.z[k], self.a[k + 1])

    def slope_of(self, kind: tuple[str, Mapping[str, float]], z: Array, a: Array) -> Array:
        name, kwargs = kind
        if name == "leaky_relu":
            return np.where(z > 0, 1.0, kwargs["negative_slope"])
        return {"identity": lambda: np.ones_like(z), "sigmoid": lambda: sigmoid(z) * sigmoid(-z),
                "tanh": lambda: 1 / np.cosh(z) ** 2, "relu": lambda: (z > 0) * 1.0}[name]()  # fmt: skip

    def cost(self, s: Array) -> Array:
        y, name = self.y, self.spec.loss.name
        if name == "binary_cross_entropy":
            return np.logaddexp(0.0, s) - y * s
        if name == "cross_entropy":
            shifted = s - s.max(axis=1, keepdims=True)
            return -y * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
        return 0.5 * (s - y) ** 2 if name == "squared_error" else (s - y) ** 2 / self.spec.n_out

    def cost_slope(self, s: Array) -> Array:
        y, name = self.y, self.spec.loss.name
        if name == "binary_cross_entropy":
            return sigmoid(s) - y
        if name == "cross_entropy":
            return softmax(s) - y
        return s - y if name == "squared_error" else 2 * (s - y) / self.spec.n_out

    def dW(self, k: int) -> Array:
        return np.asarray(self.delta[k].T @ self.a[k])

    def db(self, k: int) -> Array:
        return np.asarray(self.delta[k].sum(axis=0))

    def back(self, k: int, grads: Mapping[str, Array]) -> Array:
        return np.asarray(self.delta[k] @ self.W[k])


class SummedOverUnits(Hand):
    def db(self, k: int) -> Array:
        return np.full(len(self.W[k]), self.delta[k].sum())


class NoSlopeInWeights(Hand):
    def dW(self, k: int) -> Array:
        return np.asarray(self.signal.T @ self.a[k])


class SlopeOfNextLayer(Hand):
    def slope(self, k: int) -> Array:
        return self.slope_of(self.kind(min(k + 1, self.last)), self.z[k], self.a[k + 1])


class SlopeOfSigmoid(Hand):
    def slope(self, k: int) -> Array:
        a = self.a[k + 1]
        return a * (1 - a)


class SlopeOfTanh(Hand):
    def slope(self, k: int) -> Array:
        return 1 - self.a[k + 1] ** 2


class WeightsAsGradient(Hand):
    def dW(self, k: int) -> Array:
        return self.W[k]


class InputEverywhere(Hand):
    def dW(self, k: int) -> Array:
        fits = self.a[0].shape[1] == self.a[k].shape[1]
        return np.asarray(self.delta[k].T @ self.a[0 if fits else k])


class BiasOfLayerAbove(Hand):
    def db(self, k: int) -> Array:
        above = self.delta[k + 1] if k < self.last and self.delta[k + 1].shape == self.delta[k].shape else self.delta[k]
        return np.asarray(above.sum(axis=0))


class HiddenLinear(Hand):
    def kind(self, k: int) -> tuple[str, Mapping[str, float]]:
        return ("identity", {}) if k == 0 and k < self.last else super().kind(k)


class NothingBelow(Hand):
    def back(self, k: int, grads: Mapping[str, Array]) -> Array:
        return 0 * super().back(k, grads)


class UpdatedPerSample(Hand):
    def back(self, k: int, grads: Mapping[str, Array]) -> Array:
        rows = []
        for delta, a in zip(self.delta[k], self.a[k], strict=True):
            rows.append(delta @ (self.W[k] - 0.1 * np.outer(delta, a)))
        return np.array(rows)


class Updated(Hand):
    def back(self, k: int, grads: Mapping[str, Array]) -> Array:
        return np.asarray(self.delta[k] @ (self.W[k] - 0.1 * grads[f"W{k + 1}"]))


class KinkFromTheRight(Hand):
    def slope_of(self, kind: tuple[str, Mapping[str, float]], z: Array, a: Array) -> Array:
        right = super().slope_of(kind, z, a)
        return np.where(z == 0, 1.0, right) if kind[0] in ("relu", "leaky_relu") else right


class LeakyFixed(Hand):
    def kind(self, k: int) -> tuple[str, Mapping[str, float]]:
        name, kwargs = super().kind(k)
        return name, {"negative_slope": 0.01} if name == "leaky_relu" else kwargs


class WithoutBias(Hand):
    def weighted(self, k: int) -> Array:
        return np.asarray(self.a[k] @ self.W[k].T)


class SoftmaxOverBatch(Hand):
    losses = ("cross_entropy",)

    def cost_slope(self, s: Array) -> Array:
        return softmax(s, axis=0) - self.y

    def cost(self, s: Array) -> Array:
        return -self.y * np.log(softmax(s, axis=0))


class SoftmaxOfProbabilities(Hand):
    losses = ("cross_entropy",)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        linear = spec.layers[-1].activation.name == "identity"
        return super().supports(spec, dtype=dtype, device=device) if linear else "not written"

    def cost_slope(self, s: Array) -> Array:
        p = softmax(s)
        q = softmax(p) - self.y
        return p * (q - (p * q).sum(axis=1, keepdims=True))

    def cost(self, s: Array) -> Array:
        return -self.y * np.log(softmax(softmax(s)))


class LabelsFromOne(Hand):
    losses = ("cross_entropy",)

    def cost_slope(self, s: Array) -> Array:
        return softmax(s) - np.roll(self.y, -1, axis=1)

    def cost(self, s: Array) -> Array:
        return -np.roll(self.y, -1, axis=1) * (s - logsumexp(s, axis=1, keepdims=True))


class BinaryOnSoftmax(Hand):
    losses = ("binary_cross_entropy",)

    def cost_slope(self, s: Array) -> Array:
        return softmax(s) - self.y

    def cost(self, s: Array) -> Array:
        p = softmax(s)
        return np.asarray(-xlogy(self.y, p) - xlogy(1 - self.y, 1 - p))


class SignOfSecondTerm(Hand):
    losses = ("binary_cross_entropy",)

    def cost_slope(self, s: Array) -> Array:
        p = sigmoid(s)
        return -self.y * (1 - p) - (1 - self.y) * p

    def cost(self, s: Array) -> Array:
        return -self.y * np.log(sigmoid(s)) + (1 - self.y) * np.log(sigmoid(-s))


MISTAKES: Mapping[str, type[Hand]] = {
    "bias_gradient_summed_over_units": SummedOverUnits,
    "slope_missing_in_weight_gradient": NoSlopeInWeights,
    "slope_of_layer_above": SlopeOfNextLayer,
    "formula_of_sigmoid": SlopeOfSigmoid,
    "formula_of_tanh": SlopeOfTanh,
    "weights_for_their_gradient": WeightsAsGradient,
    "input_in_weight_gradient": InputEverywhere,
    "bias_gradient_of_layer_above": BiasOfLayerAbove,
    "activation_not_applied": HiddenLinear,
    "nothing_propagated": NothingBelow,
    "weight_updated_first_per_sample": UpdatedPerSample,
    "weight_updated_first": Updated,
    "kink_slope_one": KinkFromTheRight,
    "leaky_slope_fixed": LeakyFixed,
    "bias_not_added": WithoutBias,
    "output_softmax_over_batch": SoftmaxOverBatch,
    "softmax_twice": SoftmaxOfProbabilities,
    "labels_from_1": LabelsFromOne,
    "softmax_for_binary_cross_entropy": BinaryOnSoftmax,
    "sign_of_second_term": SignOfSecondTerm,
}
