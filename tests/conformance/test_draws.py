"""What is drawn for an implementation that few cases of the suite fit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from theirs import Theirs

from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.draws import Draws
from refimpl.conformance.report import ConformanceReport
from refimpl.conformance.run import WANTED, conform
from refimpl.conformance.vectors import Suite, load
from refimpl.judge.report import FAIL, PASS
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.spec import NetworkSpec
from refimpl_numpy import NumpyBackend

Fits = Callable[[NetworkSpec], bool]
SUITE = load()
SIGMOID = ("sigmoid",)


def all_of(*activations: str) -> Fits:
    return lambda spec: all(layer.activation.name in activations for layer in spec.layers)


CORNERS: dict[str, Fits] = {
    "the article's": lambda spec: spec.sizes == (4, 2, 2, 1) and all_of("sigmoid")(spec),
    "sigmoids and a mean": lambda spec: spec.loss.name == "mean_squared_error" and all_of("sigmoid")(spec),
    "one output": lambda spec: spec.n_out == 1,
    "no bias": lambda spec: not any(layer.bias for layer in spec.layers),
    "two layers of relu": lambda spec: spec.depth == 2 and all_of("relu")(spec),
    "sum": lambda spec: spec.reduction == "sum",
    "square": lambda spec: len(set(spec.sizes)) == 1,
    **{f"only {name}": all_of(name) for name in ACTIVATIONS},
    **{f"only {name}": lambda spec, name=name: spec.loss.name == name for name in LOSSES},
}
FEW = ("the article's", "sigmoids and a mean", "one output", "only softmax", "only gelu", "only huber")


class Corner(NumpyBackend):
    """Right where it fits; with `wrong` only in the last layer."""

    def __init__(self, name: str, fits: Fits, wrong: bool = False) -> None:
        super().__init__()
        self.name, self.fits, self.wrong = name, fits, wrong

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        return True if self.fits(spec) else f"not {self.name}"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        run = super().gradient_function(spec, dtype=dtype, device=device)

        def gradients(params: Any, x: Any, y: Any) -> Any:
            loss, grads = run(params, x, y)
            below = [name for name in grads if name[1:] != str(spec.depth)]
            return loss, {name: 0 * grad if self.wrong and name in below else grad for name, grad in grads.items()}

        return gradients


def draws(fits: Fits, seed: int = 0, **options: Any) -> Draws:
    return Draws(lambda spec: "" if fits(spec) else "does not fit", "float64", seed, **options)


def found(name: str, wrong: bool) -> ConformanceReport:
    door = BackendDoor(Corner(name, CORNERS[name], wrong))
    drawn = Draws(lambda spec: door.lacks(spec, "float64"), "float64", others=[case.spec for case in SUITE.cases])
    results = list(conform(door, SUITE, diagnosed=False, draws=drawn))
    return ConformanceReport(name, "", "float64", "float64", results)


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.soak) for n in CORNERS])
def test_in_every_corner_a_right_one_conforms_and_one_that_stops_at_the_last_layer_fails(name: str) -> None:
    right, wrong = found(name, False), found(name, True)
    assert right.conforms, right.summary
    assert sum(result.hidden_layers for result in right.judged) >= WANTED
    assert all(CORNERS[name](case.spec) for case in SUITE.cases if case.id in {r.case for r in right.judged})
    assert sum(result.verdict == FAIL for result in wrong.results if result.hidden_layers) >= WANTED // 2


class Float32Only(Theirs):
    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        return dtype == "float32" or "float32 only"


DECLARED: dict[str, tuple[type[Theirs], dict[str, Any], str]] = {
    "no loss": (Theirs, {"loss": False}, "float64"),
    "labels only": (Theirs, {"labels_only": True}, "float64"),
    "one activation": (Theirs, {"one_activation": True}, "float64"),
    "update only": (Theirs, {"learning_rate": 0.5, "loss": False}, "float64"),
    "float32 only": (Float32Only, {}, "float32"),
}


@pytest.mark.parametrize("how", DECLARED)
def test_so_it_is_where_more_is_declared_than_networks(how: str) -> None:
    make, declared, dtype = DECLARED[how]

    def run(wrong: bool) -> ConformanceReport:
        door = BackendDoor(make(declared, wrong))
        drawn = Draws(lambda spec: door.lacks(spec, dtype), dtype, others=[case.spec for case in SUITE.cases])
        results = list(conform(door, Suite.of(SUITE.cases[::6]), dtype, diagnosed=False, draws=drawn))
        return ConformanceReport(how, "", dtype, dtype, results)

    right, wrong = run(False), run(True)
    assert not right.wrong
    assert right.enough
    assert sum(result.hidden_layers for result in right.judged) >= WANTED
    assert sum(result.verdict == FAIL for result in wrong.results if result.hidden_layers) >= WANTED // 2


def test_draws_are_a_function_of_the_seed() -> None:
    def numbers(seed: int) -> list[Any]:
        return [(case.spec, case.x.tolist()) for case in islice(draws(all_of("tanh"), seed), 5)]

    assert numbers(1) == numbers(1) != numbers(2)


def test_a_drawn_case_is_certified_and_can_be_decided() -> None:
    for case in islice(draws(lambda spec: True), 8):
        run = NumpyBackend().gradient_function(case.spec, dtype="float64", device="cpu")
        rows = case.judge("float64").judge_answer("numpy", run(*case.data("float64")))
        assert {row.verdict for row in rows} == {PASS}
        assert case.spec.depth > 1


def test_what_the_suite_shows_to_fit_is_drawn_first() -> None:
    tried: list[NetworkSpec] = []

    def lacks(spec: NetworkSpec) -> str:
        tried.append(spec)
        return "" if spec.loss.name == "squared_error" and all_of("tanh")(spec) else "no"

    others = [case.spec for case in SUITE.cases]
    assert len(list(islice(Draws(lacks, "float64", others=others), 5))) == 5
    assert len(tried) < len(others) + 100


def test_where_nothing_fits_it_is_said_why() -> None:
    none = draws(lambda spec: spec.depth == 1)
    assert list(none) == []
    assert none.why_not.startswith("does not fit (of 10,000 of the 10,000 networks")


def test_a_case_may_be_declined_from_inside_with_a_reason() -> None:
    class Declining(Corner):
        def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
            run = super().gradient_function(spec, dtype=dtype, device=device)

            def gradients(params: Any, x: Any, y: Any) -> Any:
                if len(x) > 1:
                    raise NotImplementedError("one sample only")
                return run(params, x, y)

            return gradients

    door = BackendDoor(Declining("declining", all_of("softsign")))
    drawn = Draws(lambda spec: door.lacks(spec, "float64"), "float64")
    results = list(conform(door, SUITE, draws=drawn))
    report = ConformanceReport("declining", "", "float64", "float64", results)
    assert {result.reason for result in results if "Drawn" in result.flags and not result.judged} == {"one sample only"}
    assert not report.conforms  # a sixth of a hundred draws, and what the suite has
    assert report.ok
    bare = NumpyBackend()
    bare.gradient_function = lambda spec, **_: (_ for _ in ()).throw(NotImplementedError)  # type: ignore[method-assign]
    (failed,) = conform(BackendDoor(bare), SUITE.of(SUITE.cases[:1]))
    assert failed.verdict == FAIL


def test_numbers_are_exact_in_float32() -> None:
    for case in islice(draws(lambda spec: True), 5):
        for array in (*case.params.values(), case.x):
            np.testing.assert_array_equal(array.astype(np.float32), array)
