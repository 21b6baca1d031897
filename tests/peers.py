"""Two third-party backends, each through the door that anyone has: HIPS autograd, and scikit-learn's MLP.

autograd differentiates the forward pass written here. scikit-learn has its own forward and backward pass in
`MLPRegressor._backprop`, which is run as it is on the given parameters; it has one activation for all hidden layers,
three losses with their canonical outputs, a bias everywhere and the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.scipy.special import erf
from sklearn.neural_network import MLPRegressor

from refimpl.spec import NetworkSpec

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _sigmoid(z: Any) -> Any:
    t = anp.exp(anp.where(z > 0, -z, z))
    return anp.where(z > 0, 1 / (1 + t), t / (1 + t))


def _softplus(z: Any) -> Any:
    return anp.where(z > 0, z, 0.0) + anp.log1p(anp.exp(anp.where(z > 0, -z, z)))


def _log_softmax(z: Any) -> Any:
    shifted = z - anp.max(z, axis=1, keepdims=True)
    return shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))


def _elu(z: Any, alpha: float = 1.0) -> Any:
    return anp.where(z > 0, z, alpha * anp.expm1(anp.where(z > 0, 0.0, z)))


def _gelu_tanh(z: Any) -> Any:
    return z * _sigmoid(2 * anp.sqrt(2 / anp.pi) * (z + 0.044715 * z * z * z))


ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: anp.where(z > 0, z, 0.0),
    "leaky_relu": lambda z, negative_slope: anp.where(z > 0, z, negative_slope * z),
    "elu": _elu,
    "selu": lambda z: SELU_SCALE * _elu(z, SELU_ALPHA),
    "gelu": lambda z: z * (1 + erf(z / anp.sqrt(2.0))) / 2,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
    "sigmoid": _sigmoid,
    "tanh": anp.tanh,
    "silu": lambda z: z * _sigmoid(z),
    "softsign": lambda z: z / (1 + anp.where(z > 0, z, -z)),
    "softmax": lambda z: anp.exp(_log_softmax(z)),
}


def _huber(s: Any, y: Any, delta: float) -> Any:
    r = anp.abs(s - y)
    return anp.where(r <= delta, r * r / 2, delta * (r - delta / 2))


LOSSES = {
    "squared_error": lambda s, y: (s - y) ** 2 / 2,
    "mean_squared_error": lambda s, y: (s - y) ** 2 / s.shape[1],
    "absolute_error": lambda s, y: anp.abs(s - y),
    "huber": _huber,
    "cross_entropy": lambda s, y: -y * _log_softmax(s),
    "binary_cross_entropy": lambda s, y: _softplus(s) - y * s,
    "negative_log_likelihood": lambda s, y: -y * anp.log(anp.where(y == 0, 1.0, s)),
}


class AutogradBackend:
    """HIPS autograd, float64."""

    name = "autograd"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        return True if (dtype, device) == ("float64", "cpu") else "float64 on the CPU only"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        def cost(params: Mapping[str, Any], x: Any, y: Any) -> Any:
            a = x.reshape(len(x), -1)
            for number, layer in enumerate(spec.layers, start=1):
                z = anp.dot(a, params[f"W{number}"].T)
                z = z + params[f"b{number}"] if layer.bias else z
                a = ACTIVATIONS[layer.activation.name](z, **layer.activation.kwargs)
            total = anp.sum(LOSSES[spec.loss.name](a, y, **spec.loss.kwargs))
            return total / len(x) if spec.reduction == "mean" else total

        def gradients(params: Mapping[str, Any], x: Any, y: Any) -> tuple[float, dict[str, Any]]:
            target = np.eye(spec.n_out)[y] if y.ndim == 1 else y
            loss, grads = autograd.value_and_grad(cost)(dict(params), x, target)
            return float(loss), {name: np.asarray(grad) for name, grad in grads.items()}

        return gradients


HIDDEN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
# loss: (scikit-learn's loss, the output activation that it goes with)
SCIKIT_LOSSES = {
    "squared_error": ("squared_error", "identity"),
    "cross_entropy": ("log_loss", "softmax"),
    "binary_cross_entropy": ("log_loss", "logistic"),
}


class ScikitLearnBackend:
    """scikit-learn's `_backprop`, as `MLPRegressor` and `MLPClassifier` run it."""

    name = "scikit-learn"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        activations = {layer.activation.name for layer in spec.layers[:-1]}
        if spec.loss.name not in SCIKIT_LOSSES or spec.layers[-1].activation.name != "identity":
            return "squared error, cross-entropy and binary cross-entropy of linear outputs only"
        if len(activations) > 1 or not activations <= set(HIDDEN):
            return "one of identity, logistic, tanh and relu for all hidden layers"
        if spec.reduction != "mean" or not all(layer.bias for layer in spec.layers):
            return "the mean over the batch, and a bias in every layer"
        if spec.loss.name == "cross_entropy" and spec.n_out == 1:
            return "at least two classes"
        return True if device == "cpu" else "the CPU only"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        def gradients(params: Mapping[str, Any], x: Any, y: Any) -> tuple[float, dict[str, Any]]:
            model = MLPRegressor(alpha=0.0)
            model.activation = HIDDEN[spec.layers[0].activation.name] if spec.depth > 1 else "identity"
            model.loss, model.out_activation_ = SCIKIT_LOSSES[spec.loss.name]
            model.n_layers_, model.n_outputs_ = spec.depth + 1, spec.n_out
            numbers = range(1, spec.depth + 1)
            model.coefs_ = [np.ascontiguousarray(params[f"W{n}"].T) for n in numbers]
            model.intercepts_ = [params[f"b{n}"] for n in numbers]
            x = x.reshape(len(x), -1)
            target = np.eye(spec.n_out, dtype=dtype)[y] if y.ndim == 1 else y
            activations = [x, *(np.empty((len(x), size), dtype) for size in spec.sizes[1:])]
            deltas = [np.empty_like(a) for a in activations[1:]]
            coefs, intercepts = ([np.empty_like(a) for a in arrays] for arrays in (model.coefs_, model.intercepts_))
            loss, coefs, intercepts = model._backprop(x, target, None, activations, deltas, coefs, intercepts)
            grads = {f"W{n}": coefs[n - 1].T for n in numbers} | {f"b{n}": intercepts[n - 1] for n in numbers}
            return float(loss), {name: grads[name] for name in spec.parameter_shapes}

        return gradients
