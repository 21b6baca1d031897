"""scikit-learn's MLP as a backend: its own forward and backward pass, `MLPRegressor._backprop`, run as it is on the
given parameters.

It has one activation for all hidden layers, three losses with their canonical outputs, a bias everywhere and the mean
over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.neural_network import MLPRegressor

from refimpl import NetworkSpec
from refimpl_peers.placed import Peer, PlacedArrays

HIDDEN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
# loss: (scikit-learn's loss, the output activation that it goes with)
SCIKIT_LOSSES = {
    "squared_error": ("squared_error", "identity"),
    "cross_entropy": ("log_loss", "softmax"),
    "binary_cross_entropy": ("log_loss", "logistic"),
}


class ScikitLearnBackend(Peer):
    """scikit-learn's `_backprop`, as `MLPRegressor` and `MLPClassifier` run it. It has a bias everywhere: with
    `zero_bias`, a layer without one gets zeros, whose gradient is left out.
    """

    name = "scikit-learn"

    def __init__(self, zero_bias: bool = False) -> None:
        self.zero_bias = zero_bias

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        activations = {layer.activation.name for layer in spec.layers[:-1]}
        if spec.loss.name not in SCIKIT_LOSSES or spec.layers[-1].activation.name != "identity":
            return "squared error, cross-entropy and binary cross-entropy of linear outputs only"
        if len(activations) > 1 or not activations <= set(HIDDEN):
            return "one of identity, logistic, tanh and relu for all hidden layers"
        if spec.reduction != "mean":
            return "the mean over the batch"
        if not self.zero_bias and not all(layer.bias for layer in spec.layers):
            return "a bias in every layer"
        if spec.loss.name == "cross_entropy" and spec.n_out == 1:
            return "at least two classes"
        return True if device == "cpu" else "the CPU only"

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> PlacedArrays:
        model, backprop = _model(spec, {name: array.copy() for name, array in params.items()}, x, y)
        held = _named(spec, model.coefs_, model.intercepts_)  # what is updated must be what the model reads
        return PlacedArrays(held, lambda params: model.forward(), lambda params: backprop(), learning_rate)


class _Model(MLPRegressor):  # type: ignore[misc]
    """The regressor with the arrays that its `fit` would have made."""

    x: Any
    activations: list[Any]

    def forward(self) -> Any:
        return self._forward_pass(self.activations)[-1]


def _model(
    spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any
) -> tuple[_Model, Callable[[], tuple[float, dict[str, Any]]]]:
    """The model over the parameters, and its gradients of them."""
    model = _Model(alpha=0.0)
    model.activation = HIDDEN[spec.layers[0].activation.name] if spec.depth > 1 else "identity"
    model.loss, model.out_activation_ = SCIKIT_LOSSES[spec.loss.name]
    model.n_layers_, model.n_outputs_ = spec.depth + 1, spec.n_out
    layers = spec.by_layer(params)
    model.coefs_ = [np.ascontiguousarray(own["W"].T) for own in layers]
    model.intercepts_ = [own.get("b", np.zeros(len(own["W"]), x.dtype)) for own in layers]
    x = x.reshape(len(x), -1)
    target = np.eye(spec.n_out, dtype=x.dtype)[y] if y.ndim == 1 else y
    model.activations = [x, *(np.empty((len(x), size), x.dtype) for size in spec.sizes[1:])]
    deltas = [np.empty_like(a) for a in model.activations[1:]]
    coefs, intercepts = ([np.empty_like(a) for a in arrays] for arrays in (model.coefs_, model.intercepts_))

    def backprop() -> tuple[float, dict[str, Any]]:
        loss, dW, db = model._backprop(x, target, None, model.activations, deltas, coefs, intercepts)
        return float(loss), _named(spec, dW, db)

    return model, backprop


def _named(spec: NetworkSpec, coefs: Sequence[Any], intercepts: Sequence[Any]) -> dict[str, Any]:
    """scikit-learn's arrays, whose weights are transposed, by the parameters' names."""
    return spec.by_name([{"W": W.T, "b": b} for W, b in zip(coefs, intercepts, strict=True)])


backend = ScikitLearnBackend(zero_bias=True)
