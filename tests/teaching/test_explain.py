"""Explanations: the chain rule with the numbers put in is the certified derivative, and reads as the article has it."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from networks import BACKENDS, DTYPES, article, judge, network, one_of_each, problem, sampled
from typer.testing import CliRunner

import refimpl
from refimpl import certify, examples, explain, trace
from refimpl.cli import app
from refimpl.formats.errors import BackendError, DataError
from refimpl.judge.report import FAIL, PASS
from refimpl.network.random_problems import Problem
from refimpl.teaching.chain import chain, count, paths
from refimpl.teaching.notation import Quantity, parse


def quantities(p: Problem) -> list[Quantity]:
    """Every element of every W and b."""
    return [
        Quantity(name[0], int(name[1:]), index)
        for name, shape in p.spec.parameter_shapes.items()
        for index in np.ndindex(shape)
    ]


@pytest.mark.parametrize("index", sampled(100, default=30))
def test_the_chain_rule_gives_the_certified_derivative_of_every_parameter(index: int) -> None:
    p = one_of_each(index, "float64")
    found, truth = trace(p.spec, p.params, p.x, p.y), judge(p)
    for quantity in quantities(p):
        value = math.fsum(chain(found, quantity, n)[0].value for n in range(found.n))
        assert truth.judge_element("explain", quantity.array, value, quantity.index).verdict != FAIL, quantity.name
        products = [path.value for n in range(found.n) for path in paths(found, quantity, n) or []]
        assert len(products) == found.n * count(found, quantity)
        scale = math.fsum(map(abs, products))
        assert abs(math.fsum(products) - value) <= 1e-14 * max(scale, 1e-290), quantity.name


@pytest.mark.parametrize("index", sampled(40, default=15))
def test_every_line_is_true(index: int) -> None:
    """Each line's value is the sum of its products, and the certified derivative it says it is."""
    p = one_of_each(index, "float64")
    found, truth = trace(p.spec, p.params, p.x, p.y), certify(p.spec, p.params, p.x, p.y)
    for name in ("x", "z", "a", "delta"):
        for layer in range(2, p.spec.depth + 2) if name != "x" else [1]:
            quantity = Quantity("a" if name == "x" else name, layer, (0,))
            n = found.n - 1
            value = chain(found, quantity, n)[0].value
            balls = truth.grads["x"] if name == "x" else truth.values[f"{'da' if name == 'a' else 'delta'}{layer}"]
            mid = balls.mid.reshape(found.n, -1)
            assert abs(value - mid[n, 0]) <= 1e-11 * np.abs(mid).max(initial=1e-290), quantity.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["W2[2,1]", "b1[2]", "z3[1]", "a2[2]", "a4[1]", "delta2[1]", "x[3]"])
def test_every_backend_and_the_difference_quotient_agree(name: str, dtype: str) -> None:
    p = problem(network([3, 2, 2, 2], ["tanh", "softmax", "identity"], "cross_entropy"), 3, dtype=dtype)
    found = explain(p.spec, p.params, p.x, p.y, name, sample=2)
    assert {row.backend for row in found.witnesses} == set(BACKENDS)
    assert {row.verdict for row in found.witnesses} == {PASS}
    assert found.ok
    assert found.quotient_error <= 1e-8
    assert abs(found.value - found.mid) <= 50 * np.finfo(dtype).eps * max(1.0, abs(found.mid))
    assert 0 < found.tolerance < 1e-4
    assert found.rad < 1e-15


def test_the_worked_example_comes_out_as_the_article_writes_it() -> None:
    p = article()
    found = explain(p.spec, p.params, p.x, p.y, "W2[2,2]", names=["numpy"])
    said = [f"{line.left.plain} = {line.right.plain}" for line in found.lines]
    assert said == ["∂C/∂w²₂₂ = ∂C/∂a³₂ · f′(z³₂) · a²₂", "∂C/∂a³₂ = ∂C/∂s · w³₁₂", "∂C/∂s = s − y"]
    assert found.lines[0].right.latex == r"\frac{\partial C}{\partial a^{3}_{2}} \cdot f'(z^{3}_{2}) \cdot a^{2}_{2}"
    values = trace(p.spec, p.params, p.x, p.y).values
    by_hand = (
        (values["a4"][0, 0] - p.y[0, 0]) * p.params["W3"][0, 1]
        * (values["a3"][0, 1] * (1 - values["a3"][0, 1])) * values["a2"][0, 1]
    )  # fmt: skip
    assert found.value == pytest.approx(by_hand, rel=1e-14)
    assert found.latex().startswith(r"\begin{align*}" + "\n" + r"\frac{\partial C}{\partial w^{2}_{22}} &= ")


def test_the_paths_of_a_first_layer_s_weight() -> None:
    p = article()
    found = explain(p.spec, p.params, p.x, p.y, "W1[2,3]", names=["numpy"])
    assert found.paths is not None
    assert {path.through for path in found.paths} == {"a²₂ → a³₁ → a⁴₁ → C", "a²₂ → a³₂ → a⁴₁ → C"}
    assert math.fsum(path.value for path in found.paths) == pytest.approx(found.mid, rel=1e-14)
    assert [abs(path.value) for path in found.paths] == sorted((abs(path.value) for path in found.paths), reverse=True)
    assert "2 paths lead to the cost; what they carry adds up" in str(found)


def test_a_batch_is_a_sum_over_its_samples() -> None:
    p = article(5)
    found = explain(p.spec, p.params, p.x, p.y, "b2[1]", sample=4, names=["numpy"])
    assert len(found.contributions) == 5
    assert math.fsum(found.contributions) == found.value
    assert found.lines[0].value == found.contributions[3]
    assert "the sum over the samples" in str(found)
    assert "in sample 4:" in str(found)
    z = explain(p.spec, p.params, p.x, p.y, "z2[1]", sample=4, names=["numpy"])
    assert z.forward is not None
    assert z.forward.right.plain.startswith("w¹₁₁ · a¹₁ + ")
    assert z.forward.value == trace(p.spec, p.params, p.x, p.y).values["z2"][3, 0]


def test_a_wide_network_shows_the_largest_terms() -> None:
    p = problem(network([20, 30, 25, 12], ["tanh", "relu", "identity"], "cross_entropy"), 2)
    found = explain(p.spec, p.params, p.x, p.y, "W1[3,11]", names=["numpy"])
    assert found.path_count == 25 * 12
    assert "(25 terms)" in str(found)
    assert "∂C/∂w¹₃,₁₁" in str(found)
    assert len(str(found).splitlines()) < 60
    assert found.ok
    assert "292 smaller ones" in str(found)


def test_too_many_paths_are_counted_and_not_listed() -> None:
    p = problem(network([3, 40, 40, 40, 2], ["tanh"] * 3 + ["identity"], "cross_entropy"), 1)
    found = explain(p.spec, p.params, p.x, p.y, "x[1]", names=["numpy"])
    assert found.path_count == 40**3 * 2
    assert found.paths is None
    assert "128,000 paths lead from there to the cost: too many to list" in str(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("W2", "write W2"),
        ("w2[1,1]", "write W2"),
        ("W4[1,1]", "there is no W4; the network has W1, W2, W3"),
        ("b3[1]", "there is no b3; the network has b1, b2"),
        ("W2[3,1]", r"W2 goes from \[1,1\] to \[2,2\]"),
        ("W2[0,1]", r"W2 goes from \[1,1\] to \[2,2\]"),
        ("W2[1]", r"W2 goes from \[1,1\] to \[2,2\]"),
        ("z1[1]", "there is no z1; the network has z2, z3, z4"),
        ("a5[1]", "there is no a5; the network has a1, a2, a3, a4"),
        ("x2[1]", "write W2"),
        ("z[1]", "write W2"),
        ("x[5]", r"a1 goes from \[1\] to \[4\]"),
        ("W2[1,,1]", "cannot be read"),
        ("W2[1,1]; import os", "is none"),
        ("", "is none"),
    ],
)
def test_a_quantity_that_is_none_is_said(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(text, examples.article())


def test_what_cannot_be_asked_is_said() -> None:
    p = article(2)
    for sample in (0, 3, True):
        with pytest.raises(DataError, match="sample must be from 1 to 2"):
            explain(p.spec, p.params, p.x, p.y, "b1[1]", sample=sample)
    with pytest.raises(BackendError, match="there is no backend 'nobody'"):
        explain(p.spec, p.params, p.x, p.y, "b1[1]", names=["nobody"])


def test_a_wrong_backend_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved:
        name = "halved"

        def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
            return True

        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            def gradients(params: Any, x: Any, y: Any) -> Any:
                loss, grads = refimpl.value_and_grad(spec, params, x, y)
                return loss, {name: array / 2 for name, array in grads.items()}

            return gradients

    monkeypatch.setitem(sys.modules, "halving", SimpleNamespace(Halved=Halved))
    p = article()
    found = explain(p.spec, p.params, p.x, p.y, "W1[1,1]", names=["halving:Halved"])
    assert [row.verdict for row in found.witnesses] == [FAIL]
    assert not found.ok
    with pytest.raises(BackendError, match="does not show delta"):
        explain(p.spec, p.params, p.x, p.y, "z2[1]", names=["halving:Halved"])


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["explain", *arguments])

    text = run("W2[2,2]", "--backend", "numpy")
    assert text.exit_code == 0, text.output
    assert "∂C/∂w²₂₂ = ∂C/∂a³₂ · f′(z³₂) · a²₂" in text.stdout
    written = json.loads(run("W2[2,2]", "--backend", "numpy", "--json").stdout)
    assert written["format"] == "refimpl.explanation/1"
    assert written["quantity"] == "W2[2,2]"
    assert abs(written["value"] - written["certified"]["mid"]) <= written["tolerance"]
    assert written["backends"][0]["verdict"] == PASS
    assert run("W2[2,2]", "--format", "latex", "--backend", "numpy").stdout.startswith(r"\begin{align*}")
    page = run("W2[2,2]", "--format", "html", "--backend", "numpy").stdout
    assert "<math" in page
    assert "certified" in page
    spec = tmp_path / "net.json"
    network([3, 2, 2], ["relu", "identity"], "cross_entropy").save(spec)
    assert run(str(spec), "b2[1]", "--batch", "3", "--backend", "numpy").exit_code == 0
    assert isinstance(run(str(spec), "W3[1,1]").exception, DataError)
    assert isinstance(run("a", "b", "c").exception, DataError)


def test_lines_go_from_the_number_to_the_cost() -> None:
    p = article()
    lines = explain(p.spec, p.params, p.x, p.y, "x[1]", names=["numpy"]).lines
    for before, after in pairwise(lines):
        said = [line.right.plain for line in lines[: lines.index(after)]]
        assert any(after.left.plain in right for right in said), (before, after)
