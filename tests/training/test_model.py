"""A trained network as a file: it reads back, predicts the same on every backend, and is refused where it is damaged
or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
from small_runs import finish

from refimpl import backend as backends
from refimpl.formats import archive
from refimpl.formats.errors import CheckpointError, DataError
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.config import TrainingConfig
from refimpl.training.datasets import Dataset, read
from refimpl.training.model import FORMAT, Model
from refimpl.training.preparation import Preparation, prepare
from refimpl.training.run import Run, summary

SPEC = NetworkSpec((4,), (LayerSpec(5, "tanh"), LayerSpec(3, "identity")), "cross_entropy", name="iris")


@pytest.fixture(scope="module")
def model() -> Model:
    data = prepare(read("iris"), SPEC, validation=0.3, standardise=True)
    run = finish(Run(SPEC, data, TrainingConfig(learning_rate=0.3, max_epochs=200), backends.load("numpy")))
    return Model(SPEC, run.params, data.preparation, {"summary": summary(run)})


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_reads_back(model: Model, saved: Path) -> None:
    again = Model.load(saved)
    assert (again.spec, again.preparation, again.dtype) == (model.spec, model.preparation, "float64")
    assert again.trained["summary"]["stopped"] == ["max_epochs"]
    for name, array in model.params.items():
        np.testing.assert_array_equal(again.params[name], array, strict=True)


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_a_model_predicts_the_same_on_every_backend(backend: str, model: Model, saved: Path) -> None:
    dataset, again = read("iris"), Model.load(saved)
    assert np.mean(again.predict(dataset, backend) == dataset.y) > 0.93
    np.testing.assert_allclose(again.outputs(dataset, backend), model.outputs(dataset), rtol=1e-12)


def test_values_are_predicted_in_the_units_of_the_target() -> None:
    spec = NetworkSpec((1,), (LayerSpec(2),), "squared_error")
    preparation = Preparation(
        ("a",), ("p", "q"), mean=(1.0,), scale=(2.0,), target_mean=(10.0, 20.0), target_scale=(3.0, 0.5)
    )
    params = {"W1": np.array([[1.0], [-2.0]]), "b1": np.zeros(2)}
    dataset = Dataset("d", np.array([[1.0], [5.0]]), np.zeros((2, 0)), ("a",), ())
    np.testing.assert_array_equal(Model(spec, params, preparation).predict(dataset), [[10.0, 20.0], [16.0, 18.0]])


@pytest.mark.parametrize("at", [0, 9, 200, -1])
def test_a_damaged_model_is_refused_with_its_name(saved: Path, at: int) -> None:
    raw = bytearray(saved.read_bytes())
    raw[at] ^= 64
    saved.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError) as caught:
        Model.load(saved)
    assert str(saved) in str(caught.value)


def test_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    finish(small_runs.run(tmp_path))
    checkpoint = next(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=rf"{checkpoint}: .*(model|format)"):
        Model.load(checkpoint)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match=rf"cannot read {path}: "):
            Model.load(path)


@pytest.mark.parametrize(
    ("arrays", "metadata", "words"),
    [
        ({}, {"format": "refimpl.model/2"}, "format.*refimpl.model/1"),
        ({}, {"more": 1}, "unknown key 'more'"),
        ({}, {"spec": {**SPEC.to_dict(), "loss": "guess"}}, "loss must be one of"),
        ({}, {"preparation": {"features": ["a"]}}, "targets"),
        ({}, {"preparation": {"features": ["a"], "targets": ["b"], "mean": ["x"]}}, r"mean\[0\]"),
        ({}, {"preparation": {"features": ["a"], "targets": ["b"], "colour": 1}}, "colour"),
        ({"W1": np.ones((5, 3))}, {}, r"W1 has shape \(5, 3\); it must be \(5, 4\)"),
        ({"W1": np.ones((5, 4), np.float32)}, {}, "float32"),
        ({"W1": np.ones((5, 4), np.int64)}, {}, "int64"),
        ({"W1": np.full((5, 4), np.nan)}, {}, r"W1\[1,1\] is nan"),
        ({"W3": np.ones(1)}, {}, "W3, which the network has not"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused_with_its_name(
    arrays: Mapping[str, Any], metadata: Mapping[str, Any], words: str, model: Model, tmp_path: Path
) -> None:
    given = {"format": FORMAT, "spec": SPEC.to_dict(), "preparation": model.preparation.to_dict(), "trained": {}}
    path = tmp_path / "model"
    archive.save(path, {**model.params, **arrays}, {**given, **metadata})
    with pytest.raises(CheckpointError, match=words) as caught:
        Model.load(path)
    assert str(path) in str(caught.value)


def test_data_that_the_model_was_not_trained_on_is_refused(model: Model) -> None:
    with pytest.raises(DataError, match="has 64 features, and the network 4 inputs"):
        model.predict(read("digits"))
