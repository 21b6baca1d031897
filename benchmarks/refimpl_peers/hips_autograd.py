"""HIPS autograd as a backend: the forward pass written here, differentiated by `autograd`. float64."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.scipy.special import erf

from refimpl import NetworkSpec
from refimpl_peers.placed import Peer, PlacedArrays

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


ACTIVATIONS: dict[str, Any] = {
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


LOSSES: dict[str, Any] = {
    "squared_error": lambda s, y: (s - y) ** 2 / 2,
    "mean_squared_error": lambda s, y: (s - y) ** 2 / s.shape[1],
    "absolute_error": lambda s, y: anp.abs(s - y),
    "huber": _huber,
    "cross_entropy": lambda s, y: -y * _log_softmax(s),
    "binary_cross_entropy": lambda s, y: _softplus(s) - y * s,
    "negative_log_likelihood": lambda s, y: -y * anp.log(anp.where(y == 0, 1.0, s)),
}


class AutogradBackend(Peer):
    """HIPS autograd, float64."""

    name = "autograd"

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        return True if (dtype, device) == ("float64", "cpu") else "float64 on the CPU only"

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> PlacedArrays:
        cost, target = partial(_cost, spec), np.eye(spec.n_out)[y] if y.ndim == 1 else y
        differentiated = autograd.value_and_grad(cost)
        return PlacedArrays(
            {name: array.copy() for name, array in params.items()},
            lambda params: cost(params, x, target),
            lambda params: differentiated(params, x, target),
            learning_rate,
        )


def _cost(spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any) -> Any:
    a = x.reshape(len(x), -1)
    for layer, own in zip(spec.layers, spec.by_layer(params), strict=True):
        z = anp.dot(a, own["W"].T)
        z = z + own["b"] if layer.bias else z
        a = ACTIVATIONS[layer.activation.name](z, **layer.activation.kwargs)
    total = anp.sum(LOSSES[spec.loss.name](a, y, **spec.loss.kwargs))
    return total / len(x) if spec.reduction == "mean" else total


backend = AutogradBackend()
