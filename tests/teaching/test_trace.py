"""A trace: its numbers are the backend's, its code lines are the code's, and whoever reads its JSON can rely on it."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from networks import DTYPES, judge, network, one_of_each, problem
from typer.testing import CliRunner

import refimpl
from refimpl import backend as backends
from refimpl import examples, trace
from refimpl.cli import app
from refimpl.cli.schema import Name, made
from refimpl.equations import EQUATIONS, dense
from refimpl.formats.errors import DataError
from refimpl.judge.report import FAIL
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.random_problems import random_batch, random_problem
from refimpl.teaching.record import traced

ROOT = Path(refimpl.__file__).parent.parent


@pytest.fixture(scope="module")
def published() -> Any:
    return Draft202012Validator(made(Name.trace))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", range(39))
def test_its_values_are_the_backend_s_bit_for_bit(index: int, dtype: str) -> None:
    for p in (one_of_each(index, dtype), random_problem(0, 4 * index, dtype)):
        found = trace(p.spec, p.params, p.x, p.y)
        loss, grads = refimpl.value_and_grad(p.spec, p.params, p.x, p.y, inputs=True)
        assert found.loss == loss or (np.isnan(found.loss) and np.isnan(loss))
        assert {name: array.tobytes() for name, array in found.grads.items()} == {
            name: array.tobytes() for name, array in grads.items()
        }
        numpy = backends.load("numpy")
        shown = numpy.intermediates_function(p.spec, dtype=dtype, device="cpu")(p.params, p.x, p.y)  # type: ignore[attr-defined]
        for name, array in shown.items():
            assert found.values[name].tobytes() == array.tobytes(), name
        by_name = {step.name: step.value for step in found.steps}
        for name, array in p.params.items():
            assert by_name[f"d{name}"].tobytes() == grads[name].tobytes()
            assert by_name[f"d{name}"].shape == array.shape


@pytest.mark.parametrize("index", range(26))
def test_its_values_are_true(index: int) -> None:
    p = one_of_each(index, "float64")
    found, truth = trace(p.spec, p.params, p.x, p.y), judge(p)
    rows = truth.judge_answer("trace", (found.loss, dict(found.grads)), inputs=True)
    assert not [row for row in rows if row.verdict == FAIL]
    bounds = truth.tolerance(ARITHMETICS["float64"]).across_kinks
    for name, balls in truth.truth.values.items():
        if name in bounds:
            assert (balls.distance(found.values[name]) <= bounds[name] + balls.rad).all(), name
        else:  # ∂C/∂a, for which there is no bound of its own
            scale = np.abs(balls.mid).max(initial=1e-300)
            assert (balls.distance(found.values[name]) <= 1e-11 * scale).all(), name


def test_every_operand_is_a_value_that_was_there_before() -> None:
    p = one_of_each(4, "float64")
    found = trace(p.spec, p.params, p.x, p.y)
    known = {"a1": found.values["a1"], **found.params}
    for step in found.steps:
        for name, array in step.operands.items():
            if name in known:
                assert array.tobytes() == known[name].tobytes(), (step.number, name)
            else:  # computed within the step: f'(z), ∂C/∂a, the losses of the samples
                assert name in found.values or name in ("losses", "dlosses_ds"), (step.number, name)
        known[step.name] = step.value
    assert [step.number for step in found.steps] == list(range(1, len(found.steps) + 1))
    assert [step.phase for step in found.steps] == sorted((step.phase for step in found.steps), reverse=True)


def test_its_code_lines_stand_there() -> None:
    p = one_of_each(1, "float64")
    functions = set()
    for step in trace(p.spec, p.params, p.x, p.y).steps:
        lines = (ROOT / step.code.file).read_text().splitlines()
        shown = step.code.source.splitlines()
        there = lines[step.code.line - 1 : step.code.line - 1 + len(shown)]
        assert [line.strip() for line in there] == [line.strip() for line in shown]
        source, first = inspect.getsourcelines(getattr(dense, step.code.function))
        assert first < step.code.line < first + len(source)
        functions.add(step.code.function)
    assert functions == set(vars(EQUATIONS))


@pytest.mark.parametrize("index", range(0, 40, 5))
def test_its_json_has_the_published_form_and_all_digits(published: Any, index: int) -> None:
    p = one_of_each(index, ("float64", "float32")[index % 2])
    found = trace(p.spec, p.params, p.x, p.y)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    published.validate(written)
    for step, read in zip(found.steps, written["steps"], strict=True):
        array = np.array(read["value"]["data"], dtype=found.dtype).reshape(read["value"]["shape"])
        assert array.tobytes() == step.value.tobytes()


def test_what_overflows_is_written_in_words(published: Any) -> None:
    p = problem(network([2, 2, 1], ["identity", "identity"]), 1)
    big = {name: array * 1e300 for name, array in p.params.items()}
    written = json.dumps(trace(p.spec, big, p.x, p.y).to_dict(), allow_nan=False)
    assert '"Infinity"' in written
    published.validate(json.loads(written))


def test_a_planted_mistake_shows_where_it_is() -> None:
    p = problem(examples.article(), 3)
    wrong = replace(EQUATIONS, bias_gradient=lambda delta: delta.mean(axis=0))
    broken = traced(p.spec, p.params, p.x, p.y, [EQUATIONS, wrong, EQUATIONS])
    right = trace(p.spec, p.params, p.x, p.y)
    different = [
        b.name for a, b in zip(right.steps, broken.steps, strict=True) if a.value.tobytes() != b.value.tobytes()
    ]
    assert different == ["db2"]


def test_an_image_keeps_its_shape() -> None:
    p = problem(refimpl.NetworkSpec((2, 3), [refimpl.LayerSpec(2, "tanh")], "squared_error"), 2)
    found = trace(p.spec, p.params, p.x, p.y)
    assert found.x.shape == found.grads["x"].shape == (2, 2, 3)
    assert found.values["a1"].shape == (2, 6)


def test_a_trace_that_nobody_could_read_is_refused() -> None:
    spec = network([1000, 1000, 1], ["relu", "identity"])
    p = problem(spec, 1)
    with pytest.raises(DataError, match=r"a trace of 1,00\d,\d+ numbers is too long to read"):
        trace(p.spec, p.params, p.x, p.y)


def test_as_text_and_in_a_notebook() -> None:
    p = problem(examples.article(), 2)
    found = trace(p.spec, p.params, p.x, p.y)
    text = str(found)
    for step in found.steps:
        assert f"({step.equation}) {step.text}" in text
        assert step.code.source.splitlines()[-1] in text
    assert "δ³ = (W³ᵀ δ⁴) ⊙ f′(z³)" in text
    shown = found._repr_html_()
    assert shown.count("<tr>") == len(found.steps) + 1
    assert shown.count("<circle") == 9
    assert shown.count("<line") == 4 * 2 + 2 * 2 + 2
    assert "<math" in shown
    assert repr(found).startswith("<Trace of article: 17 steps, loss ")


def test_the_command() -> None:
    run = CliRunner().invoke(app, ["trace", "--json", "--batch", "2", "--seed", "3"])
    assert run.exit_code == 0
    written = json.loads(run.stdout)
    spec = examples.article()
    found = trace(spec, spec.init(seed=3), *random_batch(spec, np.random.default_rng(3), 2, "float64"))
    assert written == json.loads(json.dumps(found.to_dict()))
    text = CliRunner().invoke(app, ["trace"]).stdout
    assert text.startswith("article 4-2-2-1 · squared_error, mean · batch 1 · float64")
