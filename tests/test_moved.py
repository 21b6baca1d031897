"""What was written against refimpl 0.1 goes on working: `third_party/backend_of_0_1.py` is kept as it was."""

from __future__ import annotations

import importlib
import runpy
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import finish

import refimpl
from refimpl import moved
from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.run import conform
from refimpl.conformance.vectors import load
from refimpl.training.config import TrainingConfig
from refimpl.training.datasets import read
from refimpl.training.preparation import prepare
from refimpl.training.run import Run

THIRD_PARTY = Path(__file__).parent / "third_party" / "backend_of_0_1.py"
SPEC = refimpl.NetworkSpec((10,), [refimpl.LayerSpec(4, "tanh"), refimpl.LayerSpec(1, "identity")], "squared_error")


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, list[str]]:
    """The backend, and the warnings that its imports give."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = runpy.run_path(str(THIRD_PARTY))["backend"]
    assert {warning.category for warning in given} == {DeprecationWarning}
    assert {warning.filename for warning in given} == {str(THIRD_PARTY)}
    return found, [str(warning.message) for warning in given]


@pytest.fixture
def backend(loaded: tuple[Any, list[str]]) -> Any:
    return loaded[0]


def test_every_old_import_is_answered_with_the_new_place(loaded: tuple[Any, list[str]]) -> None:
    assert set(loaded[1]) == {
        "refimpl.arithmetic is now refimpl.network.arithmetic",
        "refimpl.descent is now refimpl.backend.training",
        "refimpl.errors is now refimpl.formats.errors",
        "refimpl.functions is now refimpl.network.functions",
        "refimpl.spec is now refimpl.network.spec",
    }


def test_a_backend_of_0_1_is_checked_its_intermediate_values_and_input_gradient_too(backend: Any) -> None:
    x, y = np.random.default_rng(2).standard_normal((2, 5, 10))
    report = refimpl.check(SPEC, SPEC.init(seed=1), x, y[:, :1], backends=[backend], inputs=True, intermediates=True)
    assert report.ok
    assert {"z2", "a3", "delta3", "x", "loss"} <= {row.quantity for row in report.rows}


def test_a_backend_of_0_1_conforms_in_all_that_it_supports(backend: Any) -> None:
    verdicts = Counter(result.verdict for result in conform(BackendDoor(backend), load()))
    assert set(verdicts) == {"PASS", "SKIP"}
    assert verdicts["PASS"] == 59


def test_a_backend_of_0_1_trains_to_the_end_with_momentum(backend: Any) -> None:
    data = prepare(read("diabetes"), SPEC, validation=0.25, standardise=True, standardise_target=True)
    config = TrainingConfig(update="momentum", learning_rate=0.02, batch_size=32, max_epochs=8, patience=8)
    theirs, ours = (finish(Run(SPEC, data, config, one)) for one in (backend, refimpl.backend.load("numpy")))
    assert theirs.progress.stopped == ("max_epochs",)
    assert theirs.progress.history[-1].loss < 0.8 * theirs.progress.history[0].loss
    for name, array in ours.state.items():
        np.testing.assert_allclose(theirs.state[name], array, rtol=1e-8, atol=1e-10)
    with np.errstate(over="ignore", invalid="ignore"):
        diverged = finish(Run(SPEC, data, replace(config, learning_rate=1e6), backend))
    assert diverged.progress.stopped == ("diverged",)
    assert all(np.isfinite(array).all() for array in diverged.params.values())


NAMES = {
    "refimpl.arithmetic": ["ARITHMETICS", "FLUSHING", "Arithmetic"],
    "refimpl.batch": ["Batch", "one_hot", "validate", "validate_parameters"],
    "refimpl.descent": ["Leg", "Limits", "SCHEDULES", "UPDATE_RULES", "UpdateRule", "norm_of", "reached"],
    "refimpl.errors": ["BackendError", "CertificationError", "CheckpointError", "ConformanceError", "DataError",
                       "RefimplError", "SpecError"],
    "refimpl.examples": ["article", "article_batch", "digits", "digits_data"],
    "refimpl.functions": ["ACTIVATIONS", "Activation", "LOSSES", "Loss", "REDUCTIONS"],
    "refimpl.spec": ["FORMAT", "Function", "LayerSpec", "NetworkSpec", "SCHEMES"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_old_name_is_what_its_new_home_has_and_says_so(name: str) -> None:
    homes = [importlib.import_module(home) for home in moved.HOMES[name]]
    for public in NAMES[name]:
        with pytest.warns(DeprecationWarning, match=rf"^{name} is now ({'|'.join(moved.HOMES[name])})$"):
            found = getattr(importlib.import_module(name), public)
        assert any(found is getattr(home, public, None) for home in homes)


def test_every_old_module_is_known() -> None:
    assert set(moved.HOMES) == set(NAMES)


def test_an_old_module_has_nothing_that_it_never_had() -> None:
    with pytest.raises(ImportError, match="nonsense"):
        exec("from refimpl.spec import nonsense")
