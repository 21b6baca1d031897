"""`refimpl bench`: fair before it is fast, and a report that holds what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from refimpl.backend import value_and_grad
from refimpl.benchmark import contenders, page, report
from refimpl.benchmark import run as runs
from refimpl.benchmark.contenders import FLOOR
from refimpl.benchmark.groups import ARTICLE, DIGITS, LARGE, MNIST, Group, classifier, groups
from refimpl.benchmark.measure import QUANTITIES, Judged, Wrong, measure, turned
from refimpl.cli import app
from refimpl.formats.errors import BackendError, DataError
from refimpl_numpy import backend
from refimpl_peers.floor import Floor
from refimpl_peers.placed import PlacedArrays

CONTENDERS = ["numpy", "torch", "jax", "torch nn", "jax jit", "autograd", "scikit-learn"]
ALL = [*CONTENDERS, pytest.param("torch-compiled", marks=pytest.mark.compiled)]
SMALL = Group(classifier((6, 5, 3)), 7, "float64")


class Factor:
    """The hand-derived backend, its gradients times a number."""

    def __init__(self, factor: float) -> None:
        self.factor, self.name = factor, f"times {factor}"

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
        return True

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        raise NotImplementedError

    def place(self, spec: Any, params: Any, x: Any, y: Any, *, device: str, learning_rate: float) -> PlacedArrays:
        def gradients(params: Any) -> Any:
            loss, grads = value_and_grad(spec, params, x, y)
            return loss, {name: grad * grad.dtype.type(self.factor) for name, grad in grads.items()}

        return PlacedArrays(dict(params), lambda params: gradients(params)[0], gradients, learning_rate)


wrong = Factor(1 + 1e-9)
unplaceable = type("Unplaceable", (), {"name": "u", "supports": lambda *a, **k: True, "gradient_function": None})()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("group", [SMALL, Group(ARTICLE, 5, "float64")], ids=["classifier", "article"])
def test_every_contender_is_right(name: str, group: Group) -> None:
    Judged(group).check(contenders.find(name))


@pytest.mark.parametrize("name", [name for name in ALL if name != "autograd"])
def test_every_contender_descends(name: str) -> None:
    params, x, y = SMALL.data()
    expected = {key: array.copy() for key, array in params.items()}
    for _ in range(4):
        _, grads = value_and_grad(SMALL.spec, expected, x, y)
        expected = {key: expected[key] - 0.1 * grads[key] for key in expected}
    placed = contenders.find(name).place(SMALL.spec, params, x, y, device="cpu", learning_rate=0.1)
    with placed:
        placed.wait(placed.descend(1))
        placed.wait(placed.descend(3))
    for key, array in placed.parameters().items():
        assert np.allclose(array, expected[key], rtol=1e-11)


def test_a_wrong_contender_is_not_timed() -> None:
    with pytest.raises(Wrong, match="W1 is wrong"):
        Judged(SMALL).check(wrong)  # type: ignore[arg-type]
    rows = measure(SMALL, [f"{__name__}:wrong", "numpy", FLOOR], 0.01)
    assert "Wrong: W1 is wrong" in rows[0]["error"]
    assert not set(QUANTITIES) & set(rows[0])
    assert set(QUANTITIES) <= set(rows[1])


def test_a_network_too_large_to_certify_is_held_against_float64() -> None:
    wide = Group(MNIST, 200, "float32")
    assert wide.spec.n_parameters * wide.batch > 10**7
    judged = Judged(wide)
    assert judged.small.batch == 10**7 // MNIST.n_parameters
    judged.check(backend)  # type: ignore[arg-type]
    judged.judge.judge_answer = lambda *ignored: []  # type: ignore[method-assign]
    with pytest.raises(Wrong, match="away from the gradient in float64"):
        judged.check(Factor(1.001))  # type: ignore[arg-type]


def test_what_may_turn_at_a_kink_is_allowed_for() -> None:
    smooth = Group(classifier([20, 30, 5], "tanh"), 50, "float32")
    assert turned(smooth) == 0
    kinked = Group(classifier([2000, 3000, 5], "relu"), 100, "float32")
    # z is about normal: a share of 4 u √n √2/π of them lies that near 0
    expected = 4 * 2.0**-24 * np.sqrt(2000) * np.sqrt(2 / np.pi)
    assert 0.5 * np.sqrt(expected) < turned(kinked) < 2 * np.sqrt(expected)
    assert turned(Group(kinked.spec, 100, "float64")) == 0


def test_the_data_are_nowhere_zero_and_the_same_for_all() -> None:
    for group in (*groups(quick=True), SMALL):
        params, x, y = group.data()
        assert all((array != 0).all() for array in (*params.values(), x))
        assert y.ndim == 1 or (y != 0).all()
        again = group.data()
        assert all((params[name] == again[0][name]).all() for name in params)


def test_a_row_has_every_quantity_and_its_ratio_to_the_floor() -> None:
    rows = measure(SMALL, ["numpy", "scikit-learn", FLOOR], 0.02)
    assert [row["contender"] for row in rows] == ["numpy", "scikit-learn", "floor"]
    assert [row["ours"] for row in rows] == [True, False, False]
    for row in rows:
        for quantity in QUANTITIES:
            times = row[quantity]
            assert 0 < times["low"] <= times["median"] <= times["high"]
            assert times["calls"] >= 1
            assert times["to_floor"] > 0
    assert rows[2]["gradients"]["to_floor"] == 1


def test_what_a_contender_does_not_support_is_said() -> None:
    (row, _) = measure(Group(ARTICLE, 2, "float32"), ["autograd", FLOOR], 0.01)
    assert row["skipped"] == "float64 on the CPU only"


def test_contenders_are_found_by_name_and_by_place() -> None:
    assert list(contenders.available())[-1] == FLOOR
    assert set(CONTENDERS) < set(contenders.available())
    assert contenders.find(f"{__name__}:wrong").name == "times 1.000000001"
    with pytest.raises(BackendError, match="there is no contender 'nobody'; known are "):
        contenders.find("nobody")
    with pytest.raises(BackendError):
        contenders.find(f"{__name__}:unplaceable")


def test_the_floor_is_every_product_of_forward_and_backward_pass() -> None:
    params, x, y = SMALL.data()
    placed = Floor().place(SMALL.spec, params, x, y, device="cpu", learning_rate=0.1)
    products: list[tuple[int, int, int]] = []

    def counting(left: Any, right: Any, out: Any) -> None:
        products.append((left.shape[0], left.shape[1], right.shape[1]))
        np.dot(left, right, out=out)

    placed.multiply = counting
    placed.gradients()
    assert sum(2 * a * b * c for a, b, c in products) == SMALL.flops
    assert len(products) == 3 * SMALL.spec.depth - 1


def test_all_groups_are_there() -> None:
    every = list(groups())
    assert len({group.name for group in every}) == len(every)
    assert {"article", "64-32-16-10", "784-128-64-10", LARGE.name, "64 layers of 64"} <= {g.spec.name for g in every}
    assert len([group for group in every if group.sweep == "width"]) >= 4
    assert len([group for group in every if group.sweep == "batch"]) >= 5
    assert all(Group.from_dict(json.loads(json.dumps(group.to_dict()))) == group for group in every)


NAME = Group(DIGITS, 32, "float64").name
SAVED = {"format": runs.FORMAT, "groups": [{"name": NAME, "rows": [{"contender": "numpy", "run": {"to_floor": 0.5}}]}]}


def test_the_command_measures_shows_saves_and_compares(tmp_path: Path) -> None:
    (tmp_path / "saved.json").write_text(json.dumps(SAVED))
    options = ("--quick", "--network", DIGITS.name, "--contender", "numpy", "--contender", "scikit-learn")
    compared = ("--out", str(tmp_path / "out"), "--compare", str(tmp_path / "saved.json"))
    outcome = CliRunner().invoke(app, ["bench", *options, "--seconds", "0.02", *compared])
    assert outcome.exit_code == 0, outcome.output
    assert "scikit-learn" in outcome.output
    found = runs.read(tmp_path / "out" / "bench.json")
    (group,) = found["groups"]
    assert group["frameworks"]["OMP_NUM_THREADS"] == "1"
    assert {row["contender"] for row in group["rows"]} == {"numpy", "scikit-learn", "floor"}
    assert "| **numpy** |" in (tmp_path / "out" / "bench.md").read_text()
    html = (tmp_path / "out" / "bench.html").read_text()
    assert html.count("<svg") >= 1
    assert "http-equiv" not in html
    assert "src=" not in html
    (change,) = runs.compare(found, SAVED)
    assert outcome.output.partition("against the saved run")[2].count(f"{change['change']:.2f}") >= 1
    assert len(runs.compare(found, found)) == 3 * len(QUANTITIES)


def test_the_largest_change_since_a_saved_run_comes_first() -> None:
    now = json.loads(json.dumps(SAVED))
    now["groups"][0]["rows"][0] |= {"step": {"to_floor": 3.0}, "run": {"to_floor": 0.6}}
    before = json.loads(json.dumps(SAVED))
    before["groups"][0]["rows"][0]["step"] = {"to_floor": 1.0}
    changes = runs.compare(now, before)
    assert [change["quantity"] for change in changes] == ["step", "run"]
    assert [change["change"] for change in changes] == pytest.approx([3, 1.2])


@pytest.mark.parametrize("text", ["[]", "{", '{"format": "refimpl.benchmark/1"}', '{"groups": []}'])
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    path.write_text(text)
    with pytest.raises(DataError):
        runs.read(path)


def test_first_calls_are_measured_in_a_process_of_their_own() -> None:
    benchmark = runs.Benchmark()
    todo = [runs.Task(SMALL, ["numpy", FLOOR]), runs.Task(SMALL, ["numpy"], first_call=True)]
    assert list(runs.run(benchmark, todo, 0.01)) == todo
    first = benchmark.groups[0]["rows"][0]["first"]
    assert first["first_call"] > 0
    assert first["second_call"] > 0
    assert first["peak_memory"] is None or first["peak_memory"] >= 0
    assert "ms" in report.duration(first["first_call"])


def test_a_process_that_fails_is_reported_and_the_rest_goes_on() -> None:
    benchmark = runs.Benchmark()
    broken = Group(SMALL.spec, -1, "float64")
    list(runs.run(benchmark, [runs.Task(broken, ["numpy"]), runs.Task(SMALL, ["numpy", FLOOR])], 0.01))
    assert "error" in benchmark.groups[0]
    assert benchmark.groups[1]["rows"]
    assert "Failed" in page.page(benchmark.to_dict())
    assert list(report.claims(benchmark.to_dict())) == []
