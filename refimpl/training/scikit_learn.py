"""A trained network as scikit-learn's MLP, and back: equal weights, the same function."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import SpecError
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.model import Model

Array = NDArray[Any]
NAMES = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


def to_scikit_learn(model: Model) -> Any:
    """A fitted `MLPClassifier` or `MLPRegressor` with the model's weights, for prepared data.

    Squared error makes a regressor; cross-entropy over three or more classes and binary cross-entropy over one output
    make a classifier. Raises SpecError for a network that scikit-learn has not, ImportError without scikit-learn.
    """
    spec = model.spec
    hidden = {layer.activation.name for layer in spec.layers[:-1]}
    if len(hidden) > 1 or not hidden <= set(NAMES) or spec.layers[-1].activation.name != "identity":
        raise SpecError(
            f"scikit-learn's MLP has one activation for all hidden layers, of {', '.join(NAMES)}, and none "
            "at the output"
        )
    if len(spec.input_shape) != 1:
        raise SpecError(f"scikit-learn's MLP takes vectors; this network takes {spec.input_shape}")
    mlp = _estimator(model)
    sizes = tuple(layer.size for layer in spec.layers)
    mlp.set_params(hidden_layer_sizes=sizes[:-1], activation=NAMES[min(hidden, default="identity")])
    layers = spec.by_layer(model.params)
    mlp.coefs_ = [own["W"].T.copy() for own in layers]
    mlp.intercepts_ = [np.array(own.get("b", np.zeros(len(own["W"]), model.dtype))) for own in layers]
    mlp.n_layers_, mlp.n_outputs_, mlp.n_features_in_ = spec.depth + 1, spec.n_out, spec.n_in
    return mlp


def _estimator(model: Model) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import LabelBinarizer

    loss, n_out = model.spec.loss.name, model.spec.n_out
    if loss == "squared_error" and not model.preparation.classes:
        mlp = MLPRegressor()
        mlp.out_activation_ = "identity"
        return mlp
    if (loss, n_out) != ("binary_cross_entropy", 1) and not (loss == "cross_entropy" and n_out > 2):
        raise SpecError(
            f"scikit-learn's MLP has no {loss} with {n_out} outputs; it has squared_error, cross_entropy with three or "
            "more, and binary_cross_entropy with one"
        )
    mlp = MLPClassifier()
    mlp.out_activation_ = "logistic" if n_out == 1 else "softmax"
    mlp.classes_ = np.array(model.preparation.classes or range(max(n_out, 2)))
    mlp._label_binarizer = LabelBinarizer().fit(mlp.classes_)
    return mlp


def from_scikit_learn(mlp: Any, name: str = "") -> tuple[NetworkSpec, dict[str, Array]]:
    """The spec and the parameters of a fitted `MLPClassifier` or `MLPRegressor`. Raises SpecError."""
    if not hasattr(mlp, "coefs_"):
        raise SpecError(f"this {type(mlp).__name__} has not been fitted; call its fit first")
    activation = {theirs: ours for ours, theirs in NAMES.items()}[mlp.activation]
    losses = {"identity": "squared_error", "softmax": "cross_entropy", "logistic": "binary_cross_entropy"}
    last = len(mlp.coefs_)
    layers = [
        LayerSpec(W.shape[1], activation if number < last else "identity")
        for number, W in enumerate(mlp.coefs_, start=1)
    ]
    spec = NetworkSpec((mlp.coefs_[0].shape[0],), layers, losses[mlp.out_activation_], name=name)
    arrays = zip(mlp.coefs_, mlp.intercepts_, strict=True)
    return spec, spec.by_name([{"W": np.ascontiguousarray(W.T), "b": np.array(b)} for W, b in arrays])
