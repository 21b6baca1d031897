"""Networks as torch.nn.Sequential and scikit-learn's MLP, and back: equal weights, outputs within the tolerance."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

from refimpl import backend as backends
from refimpl.formats.errors import SpecError
from refimpl.judge.judge import Judge
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import validate
from refimpl.network.functions import ACTIVATIONS
from refimpl.network.random_problems import random_problem
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.datasets import read
from refimpl.training.model import Model
from refimpl.training.preparation import prepare
from refimpl.training.scikit_learn import from_scikit_learn, to_scikit_learn
from refimpl_torch.modules import MODULES, from_sequential, to_sequential


def test_every_activation_has_a_module() -> None:
    assert set(MODULES) == set(ACTIVATIONS) - {"identity"}


@given(st.integers(0, 3000), st.sampled_from(["float64", "float32"]))
def test_any_network_goes_to_torch_and_back(index: int, dtype: str) -> None:
    problem = random_problem(11, index, dtype)
    spec = problem.spec
    module = to_sequential(spec, problem.params)
    again, params = from_sequential(
        module, {"name": spec.loss.name, **spec.loss.kwargs}, spec.input_shape, reduction=spec.reduction, name=spec.name
    )
    assert again == spec
    assert all(np.array_equal(params[name], array) and params[name].dtype == array.dtype
               for name, array in problem.params.items())  # fmt: skip
    judge = Judge(spec, validate(spec, problem.params, problem.x, problem.y))
    with torch.no_grad():
        s = module(torch.tensor(np.ascontiguousarray(problem.x).reshape(problem.x.shape))).numpy()
    last = f"a{spec.depth + 1}"
    bound = judge.tolerance(ARITHMETICS[dtype]).worst_case[last]
    inside = np.isfinite(bound)
    # PyTorch's own functions may be an ulp or two off where ours are not
    slack = 16 * ARITHMETICS[dtype].unit_roundoff * np.abs(judge.truth.values[last].mid)
    assert (np.abs(s - judge.truth.values[last].mid) <= 2 * bound + slack)[inside].all()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(), "no Linear layer"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "ReLU stands where a Linear layer must"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh()), "a layer has one activation"),
        (
            nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 1)),
            "take [2, 2] inputs, where the layers before them give [2, 3]",
        ),
        (nn.Sequential(nn.Linear(2, 3), nn.Dropout()), "Dropout is no activation of the catalogue"),
        (nn.Sequential(nn.Linear(2, 3), nn.Softplus(beta=2)), "Softplus with beta 2"),
        (nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=0)), "Softmax over the dimension 0"),
    ],
)
def test_a_module_that_no_spec_describes_is_refused(module: nn.Sequential, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_sequential(module, "squared_error")
    assert message in str(caught.value)


def fitted(name: str, spec: NetworkSpec, **options: Any) -> Model:
    prepared = prepare(read(name), spec, standardise=True, **options)
    return Model(spec, spec.init(4), prepared.preparation)


@pytest.mark.parametrize(
    ("name", "spec", "options"),
    [
        (
            "diabetes",
            NetworkSpec((10,), (LayerSpec(7, "tanh"), LayerSpec(3, "tanh"), LayerSpec(1)), "squared_error"),
            {},
        ),
        ("iris", NetworkSpec((4,), (LayerSpec(5, "relu"), LayerSpec(3)), "cross_entropy"), {}),
        (
            "breast_cancer",
            NetworkSpec((30,), (LayerSpec(5, "sigmoid", bias=False), LayerSpec(1)), "binary_cross_entropy"),
            {"coded": True},
        ),
    ],
)
def test_a_model_goes_to_scikit_learn_and_back(name: str, spec: NetworkSpec, options: dict[str, Any]) -> None:
    model, dataset = fitted(name, spec, **options), read(name)
    mlp = to_scikit_learn(model)
    x = model.preparation.inputs(dataset, spec, "float64")
    if isinstance(mlp, MLPRegressor):
        np.testing.assert_allclose(mlp.predict(x), model.outputs(dataset)[:, 0], rtol=1e-12, atol=1e-14)
    else:
        np.testing.assert_array_equal(mlp.predict(x), model.predict(dataset))
    again, params = from_scikit_learn(mlp)
    for key, array in model.params.items():
        np.testing.assert_array_equal(params[key], array)
    s = backends.load("numpy").forward_function(again, dtype="float64", device="cpu")(params, x)  # type: ignore[attr-defined]
    np.testing.assert_allclose(s, model.outputs(dataset), rtol=1e-14)


def test_a_fitted_mlp_becomes_a_network() -> None:
    dataset = read("iris")
    mlp = MLPClassifier((6,), activation="logistic", max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        mlp.fit(dataset.x, dataset.y)
    spec, params = from_scikit_learn(mlp, "iris")
    s = backends.load("torch").forward_function(spec, dtype="float64", device="cpu")(params, dataset.x)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(mlp.classes_[s.argmax(axis=1)], mlp.predict(dataset.x))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            NetworkSpec((4,), (LayerSpec(5, "elu"), LayerSpec(3)), "cross_entropy"),
            "one activation for all hidden layers",
        ),
        (
            NetworkSpec((4,), (LayerSpec(3, "tanh"), LayerSpec(3, "relu"), LayerSpec(3)), "cross_entropy"),
            "one activation",
        ),
        (NetworkSpec((2, 2), (LayerSpec(3),), "cross_entropy"), "takes vectors"),
        (
            NetworkSpec((4,), (LayerSpec(3),), "negative_log_likelihood"),
            "has no negative_log_likelihood with 3 outputs",
        ),
    ],
)
def test_a_network_that_scikit_learn_has_not_is_refused(spec: NetworkSpec, message: str) -> None:
    model = Model(
        spec, spec.init(), prepare(read("iris"), NetworkSpec((4,), (LayerSpec(3),), "cross_entropy")).preparation
    )
    with pytest.raises(SpecError) as caught:
        to_scikit_learn(model)
    assert message in str(caught.value)
    with pytest.raises(SpecError, match="has not been fitted"):
        from_scikit_learn(MLPClassifier())
