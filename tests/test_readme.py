"""What the README says is so: its Python runs, and every number in it and in its pictures is the code's."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
from networks import article
from planted import Everywhere, report

import refimpl
from refimpl import examples, explain
from refimpl.cli import app
from refimpl.conformance.vectors import Suite, load
from refimpl.faults.catalogue import FAULTS

ROOT = Path(refimpl.__file__).parent.parent
README = (ROOT / "README.md").read_text()
PICTURES = ROOT / "docs" / "pictures"


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def block(text: str, containing: str) -> str:
    """The indented block that contains something."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return textwrap.dedent(next(found for found in blocks if containing in found))


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(block(section("In Python"), "import refimpl"), names)
    assert capsys.readouterr().out == "True\n"
    with torch.random.fork_rng():
        exec(block(section("A backward pass that you wrote"), "import refimpl"), names)
    assert capsys.readouterr().out == "True\n"
    exec(block(section("How fast"), "placed.gradients()"), names)


def test_the_explanation_is_the_one_that_is_printed() -> None:
    p = article()
    said = str(explain(p.spec, p.params, p.x, p.y, "W2[2,2]", names=["numpy"]))
    shown = block(README, "∂C/∂a³₂ · f′(z³₂) · a²₂")
    assert shown.strip() in "\n".join(line[2:] for line in said.splitlines())


@pytest.mark.soak
def test_the_verdict_on_a_forgotten_slope_is_the_one_that_is_given() -> None:
    """By the cases that the adapter in C supports, from which the README's was got."""
    known = {"identity", "sigmoid", "tanh", "relu"}
    cases = [
        case for case in load().cases
        if case.spec.loss.name == "squared_error" and {layer.activation.name for layer in case.spec.layers} <= known
    ]  # fmt: skip
    found = report(Everywhere("slope_dropped"), Suite.of(cases))
    shown = " ".join(block(README, "FAIL slope_dropped in").split())
    assert shown == f"FAIL {found.causes()[0].text}"
    assert f"of {len(cases)} cases that the program supports" in README


def test_the_counts_are_true() -> None:
    assert set(re.findall(r"(\d+) cases with certified", README)) == {str(len(load().cases))}
    assert f"{len(FAULTS)} known mistakes" in (ROOT / "CHANGELOG.md").read_text()
    assert f"suite has {len(load().cases)} of them" in (ROOT / "docs" / "tutorial.md").read_text()
    assert f"runs {len(load().cases)} cases" in (ROOT / "docs" / "conformance.md").read_text()


def test_the_terminal_s_picture_shows_the_certified_numbers() -> None:
    spec = examples.article()
    x, y = examples.article_batch(8)
    truth = refimpl.certify(spec, spec.init(seed=0), x, y)
    text = html.unescape(re.sub(r"<[^>]+>", " ", (PICTURES / "check.svg").read_text())).replace("\xa0", " ")
    true = {f"{float(v):.9g}" for v in (truth.loss.mid, *(v for g in truth.grads.values() for v in g.mid.ravel()))}
    rows = re.findall(r"(PASS|FAIL)\s.*?(loss|[Wb]\d\[[\d,]+\])\s+(-?[\d.]+)\s+(-?[\d.]+)", text)
    assert len(rows) == 4 * 6
    for verdict, _, value, certified in rows:
        assert certified in true
        assert (value == certified) == (verdict == "PASS")
    assert "slope_dropped at layer 1" in text


def test_the_benchmark_s_picture_shows_the_committed_run() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    ratios = [row["gradients"]["to_floor"] for group in result["groups"] for row in group["rows"] if "gradients" in row]
    known = {f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" for ratio in ratios}
    picture = (PICTURES / "benchmark.svg").read_text()
    labels = re.findall(r"<text[^>]*>(\d+\.\d\d|\d\d)</text>", picture)
    assert len(labels) >= 3 * 7 - 1
    assert set(labels) - {f"{tick:.2f}" for tick in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)} - {"20", "40", "60"} <= known


def test_the_benchmarks_summary_is_that_of_the_committed_run() -> None:
    found = importlib.util.spec_from_file_location("save", ROOT / "benchmarks" / "save.py")
    assert found is not None
    assert found.loader is not None
    save = importlib.util.module_from_spec(found)
    found.loader.exec_module(save)
    text = save.README.read_text()
    assert text == save.updated(text, json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text()))


def test_every_command_and_file_that_is_named_is_there() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    commands |= {group.name for group in app.registered_groups if group.name}
    named = set(re.findall(r"^    refimpl (\w+)", README, re.MULTILINE)) | set(re.findall(r"`refimpl (\w+)", README))
    assert named <= commands
    assert commands <= named | {"predict"}
    for target in re.findall(r"\]\(([^)#]+)(?:#\w+)?\)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
