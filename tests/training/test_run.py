"""Training runs: what they learn, how they stop, and that they are the same on every backend."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor
from small_runs import finish

from refimpl import backend as backends
from refimpl import certify, examples
from refimpl.formats.errors import DataError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL
from refimpl.network.batch import validate
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.config import TrainingConfig
from refimpl.training.datasets import Dataset, read
from refimpl.training.preparation import Prepared, prepare
from refimpl.training.run import Run, summary

BACKENDS = ("numpy", "torch", "jax")
DIGITS = TrainingConfig(update="adam", learning_rate=0.003, batch_size=32, max_epochs=25)


def finished(spec: NetworkSpec, data: Prepared, config: TrainingConfig, backend: str = "numpy") -> Run:
    return finish(Run(spec, data, config, backends.load(backend)))


@pytest.fixture(scope="module")
def digits() -> Prepared:
    return prepare(read("digits"), examples.digits(), validation=0.2, seed=0)


def table(x: Any, y: Any) -> Dataset:
    x = np.asarray(x, np.float64)
    return Dataset("table", x, np.asarray(y), tuple(f"x{i}" for i in range(x.shape[1])), ("y",))


BITS = np.array([[i >> k & 1 for k in range(4)] for i in range(16)], float)


# What is learned


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("bits", "seed"), [(2, 1), (3, 1), (4, 2)], ids=["exclusive or", "parity of 3", "parity of 4"])
def test_the_article_s_network_learns_parity(bits: int, seed: int, backend: str) -> None:
    spec = examples.article()
    data = prepare(table(BITS, BITS[:, :bits].sum(axis=1, keepdims=True) % 2), spec)
    config = TrainingConfig(update="adam", learning_rate=0.1, max_epochs=4000, target_loss=1e-3, seed=seed)
    run = finished(spec, data, config, backend)
    assert run.progress.stopped == ("target_loss",)
    assert run.progress.history[-1].loss <= 1e-3
    assert run.progress.history[-1].metric > 0.99


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_digits_are_learned(backend: str, digits: Prepared) -> None:
    run = finished(examples.digits(), digits, DIGITS, backend)
    assert run.progress.history[-1].held_out_metric is not None
    assert run.progress.history[-1].held_out_metric >= 0.96


def against_scikit_learn(name: str, estimator: Any, spec: NetworkSpec, target: dict[str, Any]) -> tuple[float, float]:
    """Our metric and scikit-learn's on held-out data, from one start, with all samples in every step."""
    data = prepare(read(name), spec, validation=0.25, standardise=True, **target)
    run = finished(spec, data, TrainingConfig(update="adam", learning_rate=0.01, max_epochs=150, report_every=150))
    y = data.y.ravel()
    mlp = estimator(
        hidden_layer_sizes=(8,), activation="tanh", solver="adam", alpha=0.0, batch_size=len(y),
        learning_rate_init=0.01, max_iter=1, tol=0.0, n_iter_no_change=10**6, warm_start=True, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        mlp.fit(data.x, y)
        params = spec.init(0)
        mlp.coefs_ = [params["W1"].T.copy(), params["W2"].T.copy()]
        mlp.intercepts_ = [params["b1"].copy(), params["b2"].copy()]
        mlp.max_iter = 150
        mlp.fit(data.x, y)
    ours = run.progress.history[-1].held_out_metric
    assert ours is not None
    return ours, mlp.score(data.held_out_x, data.held_out_y.ravel())


def test_diabetes_is_within_one_percent_of_scikit_learn() -> None:
    spec = NetworkSpec((10,), (LayerSpec(8, "tanh"), LayerSpec(1, "identity")), "squared_error", name="diabetes")
    ours, theirs = against_scikit_learn("diabetes", MLPRegressor, spec, {"standardise_target": True})
    assert ours == pytest.approx(theirs, abs=0.01)
    assert ours > 0.2


def test_breast_cancer_is_within_one_percent_of_scikit_learn() -> None:
    spec = NetworkSpec((30,), (LayerSpec(8, "tanh"), LayerSpec(1, "identity")), "binary_cross_entropy", name="cancer")
    ours, theirs = against_scikit_learn("breast_cancer", MLPClassifier, spec, {"coded": True})
    assert ours == pytest.approx(theirs, abs=0.01)
    assert ours > 0.9


# One run, three backends


@pytest.mark.parametrize("update", ["gradient_descent", "momentum", "nesterov", "adam"])
def test_every_backend_takes_the_same_course(update: str, digits: Prepared) -> None:
    """Two runs part by the rounding of each step, grown by those after it: the growth is measured, as the distance
    that the same run takes from a start moved by one unit in the last place.
    """
    spec = examples.digits()
    config = TrainingConfig(update=update, learning_rate=0.002, batch_size=64, max_epochs=3)
    courses = {name: finished(spec, digits, config, name) for name in BACKENDS}
    moved = Run(spec, digits, config, backends.load("numpy"))
    moved.state = {
        name: np.nextafter(array, np.inf) if "." not in name else array for name, array in moved.state.items()
    }
    finish(moved)
    steps = courses["numpy"].progress.step
    for name in spec.parameter_shapes:
        numpy = courses["numpy"].params[name]
        growth = np.abs(numpy - moved.params[name]).max()
        for other in ("torch", "jax"):
            assert np.abs(numpy - courses[other].params[name]).max() <= steps * growth


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_along_the_way_is_the_certified_one(backend: str) -> None:
    spec = examples.article()
    x, y = examples.article_batch(6)
    data = prepare(table(x, y), spec)
    for steps in (1, 10, 100):
        run = finished(spec, data, TrainingConfig(max_steps=steps, max_epochs=steps), backend)
        truth = certify(spec, run.params, x, y)
        assert run.progress.history[-1].loss == pytest.approx(float(truth.loss.mid), rel=1e-12)
        norm = math.sqrt(sum(float((truth.grads[name].mid ** 2).sum()) for name in spec.parameter_shapes))
        assert run.progress.history[-1].gradient_norm == pytest.approx(norm, rel=1e-12)
        rows = Judge(spec, validate(spec, run.params, x, y)).rows(backends.load(backend))
        assert not [row for row in rows if row.verdict == FAIL]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_seed_gives_one_result(backend: str, digits: Prepared) -> None:
    def digest() -> str:
        run = finished(examples.digits(), digits, replace(DIGITS, max_epochs=2), backend)
        return hashlib.sha256(b"".join(run.params[name].tobytes() for name in run.params)).hexdigest()

    assert len({digest() for _ in range(20 if backend == "numpy" else 5)}) == 1
    other = finished(examples.digits(), digits, replace(DIGITS, max_epochs=2, seed=1), backend)
    assert hashlib.sha256(b"".join(other.params[name].tobytes() for name in other.params)).hexdigest() != digest()


def test_a_third_party_s_backend_trains_by_its_gradient_function() -> None:
    spec = examples.article()
    data = prepare(table(*examples.article_batch(6)), spec)
    config = TrainingConfig(max_epochs=20, report_every=5)
    theirs = finished(spec, data, config, "refimpl_peers.hips_autograd:AutogradBackend")
    ours = finished(spec, data, config)
    assert theirs.progress.history[-1].loss == pytest.approx(ours.progress.history[-1].loss, rel=1e-12)


def test_every_sample_is_taken_once_an_epoch(digits: Prepared) -> None:
    run = Run(examples.digits(), digits, DIGITS, backends.load("numpy"))
    first, second = run._batches(0), run._batches(1)
    for batches in (first, second):
        assert [batch.shape for batch in batches] == [(44, 32), (1, 30)]
        together = np.concatenate([batch.ravel() for batch in batches])
        np.testing.assert_array_equal(np.sort(together), np.arange(1438))
    assert not np.array_equal(first[0], second[0])


# How runs stop


def small(**options: Any) -> tuple[NetworkSpec, Prepared, TrainingConfig]:
    spec = NetworkSpec((4,), (LayerSpec(5, "tanh"), LayerSpec(3, "identity")), "cross_entropy", name="iris")
    data = prepare(read("iris"), spec, validation=0.3, standardise=True)
    return spec, data, TrainingConfig(**{"learning_rate": 0.3, "max_epochs": 400, **options})


@pytest.mark.parametrize("batch", [None, 16])
@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        ({"max_epochs": 7}, ("max_epochs",)),
        ({"max_steps": 9}, ("max_steps",)),
        ({"max_epochs": 0}, ("max_epochs",)),
        ({"target_loss": 0.3}, ("target_loss",)),
        ({"gradient_norm": 0.2}, ("gradient_norm",)),
        ({"change": 1e-3}, ("change",)),
        ({"patience": 5, "learning_rate": 3.0}, ("patience",)),
        ({"target_loss": 5.0, "gradient_norm": 10.0}, ("target_loss", "gradient_norm")),
        ({"max_epochs": 5, "max_steps": 5}, None),
        ({"max_loss": 0.5}, ("diverged",)),
    ],
)
def test_every_criterion_stops_a_run(batch: int | None, options: dict[str, Any], reasons: tuple[str, ...]) -> None:
    spec, data, config = small(batch_size=batch, **options)
    run = finished(spec, data, config)
    if reasons is None:
        reasons = ("max_epochs", "max_steps") if batch is None else ("max_steps",)
    assert run.progress.stopped == reasons
    last = run.progress.history[-1]
    assert summary(run)["stopped"] == list(reasons)
    if "target_loss" in options:
        assert last.loss <= options["target_loss"]
        assert all(report.loss > options["target_loss"] for report in run.progress.history[:-1])
    if "gradient_norm" in options:
        assert last.gradient_norm <= options["gradient_norm"]
    if "max_steps" in options:
        assert run.progress.step == options["max_steps"]
    if "patience" in options:
        held_out = [report.held_out_loss for report in run.progress.history]
        assert held_out.index(min(held_out)) == len(held_out) - 1 - options["patience"]


def test_patience_keeps_the_best_parameters() -> None:
    spec, data, config = small(patience=5, learning_rate=3.0, batch_size=16)
    run = finished(spec, data, config)
    best = min(report.held_out_loss or math.inf for report in run.progress.history)
    loss, _ = backends.value_and_grad(spec, run.params, data.held_out_x, data.held_out_y)
    assert loss == pytest.approx(best, rel=1e-12)
    with pytest.raises(DataError, match="patience needs held-out data"):
        Run(spec, prepare(read("iris"), spec), config, backends.load("numpy"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [None, 4])
def test_a_diverging_run_keeps_the_last_finite_parameters(backend: str, batch: int | None) -> None:
    spec = examples.article()
    data = prepare(table(*examples.article_batch(10)), spec)
    run = finished(spec, data, TrainingConfig(learning_rate=1e6, batch_size=batch), backend)
    assert run.progress.stopped == ("diverged",)
    assert all(np.isfinite(array).all() for array in run.params.values())
    assert math.isfinite(run.progress.history[-1].loss)
