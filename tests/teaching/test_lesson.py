"""The lesson: its own backpropagation is right and its mistakes are the catalogue's; the page does what it says in a
real browser.

The browser tests need Chromium, and axe-core for accessibility (`make browser`); without them they are skipped, unless
REFIMPL_REQUIRE_BROWSER is set.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnosis_measure import planted_backend
from mpmath import erfc, mpf, workdps
from networks import article, network, one_of_each, problem
from typer.testing import CliRunner

import refimpl
from refimpl import trace
from refimpl.cli import app
from refimpl.conformance.doors.program import ProgramDoor, say
from refimpl.conformance.run import conform
from refimpl.conformance.vectors import load
from refimpl.faults.catalogue import FAULTS, places
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import DataError
from refimpl.judge.report import PASS
from refimpl.network.random_problems import Problem
from refimpl.teaching import lesson as lessons
from refimpl.teaching.lesson import lesson

PROGRAM = Path(__file__).parents[1] / "lesson_program.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(sys.prefix, "node", "node_modules", "axe-core", "axe.min.js")
NODE = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def asked(*messages: dict[str, Any]) -> list[Any]:
    """What the lesson's program answers."""
    done = subprocess.run(
        ["node", str(PROGRAM)], input=b"".join(say(message) for message in messages), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


# --------------------------------------------------------------------------------------------------------------
# Its backpropagation


@NODE
def test_its_backpropagation_passes_every_case() -> None:
    door = ProgramDoor(["node", str(PROGRAM)], "float64", 60.0)
    try:
        assert [(r.case, r.verdict, r.text) for r in conform(door, load()) if r.verdict != PASS] == []
    finally:
        door.close()


@NODE
def test_its_erfc_is_right_everywhere() -> None:
    x = [*np.linspace(-6, 27, 4001), 0.0, 1e-300, -1e-17, 5.92, 26.54, 26.6, 27.2, 30.0, -40.0]
    found = asked({"type": "erfc", "x": [float(value) for value in x]})[0]
    with workdps(40):
        for value, got in zip(x, found, strict=True):
            true = erfc(mpf(float(value)))
            # 8 u, what the tolerance grants a library's erfc
            assert abs(got - true) <= 8 * 2.0**-53 * abs(true) + mpf(2) ** -1073, (value, got, true)


@NODE
@pytest.mark.parametrize("index", range(26))
def test_its_mistakes_are_the_catalogue_s(index: int) -> None:
    p = one_of_each(index, "float64")
    planted = [(fault, layer) for fault, layer in places(p.spec, len(p.x), "float64") if fault.name in lessons.FAULTS]
    messages = [
        {
            "type": "evaluate", "id": number, "network": p.spec.to_dict(),
            "parameters": {name: tensor(array) for name, array in p.params.items()},
            "x": tensor(p.x), "y": tensor(p.y),
            "fault": {"name": fault.name, "layer": layer, "parameter": fault.example},
        }
        for number, (fault, layer) in enumerate(planted)
    ]  # fmt: skip
    for (fault, layer), answer in zip(planted, asked(*messages), strict=True):
        wrong = planted_backend((fault, layer, fault.example))
        loss, grads = wrong.gradient_function(p.spec, dtype="float64", device="cpu")(p.params, p.x, p.y)
        assert answer["loss"] == pytest.approx(loss, rel=1e-12)
        for name, grad in grads.items():
            got = np.array(answer["gradients"][name]["data"]).reshape(answer["gradients"][name]["shape"])
            assert got.shape == grad.shape, (fault.name, layer, name)
            scale = max(np.abs(grad).max(), 1e-290)
            assert np.abs(got - grad).max() <= 1e-11 * scale, (fault.name, layer, name)


@NODE
def test_the_page_knows_every_mistake_that_is_offered() -> None:
    program = (
        f"console.log(JSON.stringify(Object.keys(require({json.dumps(str(lessons.PAGE / 'backprop.js'))}).FAULTS)))"
    )
    known = json.loads(subprocess.run(["node", "-e", program], capture_output=True, check=True).stdout)
    assert sorted(known) == sorted(lessons.FAULTS)
    assert set(known) <= set(FAULTS)


# --------------------------------------------------------------------------------------------------------------
# The file


def page(p: Problem, **options: Any) -> str:
    return lesson(p.spec, p.params, p.x, p.y, **options)


def test_the_file_is_small_and_asks_for_nothing() -> None:
    text = page(article())
    assert len(text.encode()) <= 300_000
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_markup_in_a_name_stays_text() -> None:
    name = "</script><script>alert(1)</script>"
    spec = refimpl.NetworkSpec((2,), [refimpl.LayerSpec(2)], "squared_error", name=name)
    p = problem(spec, 1)
    assert "<script>alert" not in page(p)


@pytest.mark.parametrize(
    ("sizes", "n", "message"),
    [
        ([4, 9, 1], 1, "a layer of 9 neurons is more than 8"),
        ([9, 2, 1], 1, "a layer of 9 neurons is more than 8"),
        ([1] * 8, 1, "7 layers of weights are more than 6"),
        ([2, 2, 1], 17, "17 samples are more than 16"),
        ([2, 8, 8, 8, 8, 8, 8], 1, "32,768 paths lead from one weight to the cost, more than 4,096"),
    ],
)
def test_what_does_not_fit_on_a_screen_is_refused(sizes: list[int], n: int, message: str) -> None:
    p = problem(network(sizes, ["tanh"] * (len(sizes) - 1)), n)
    with pytest.raises(DataError, match=message):
        page(p)


def test_as_many_paths_as_may_be_are_a_small_file_still() -> None:
    text = page(problem(network([2, 8, 8, 8, 8, 8], ["tanh"] * 5), 1))  # 8⁴ = 4,096
    assert len(text.encode()) <= 300_000


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_a_learning_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(DataError, match="learning_rate must be a finite number"):
        page(article(), learning_rate=rate)


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "lesson.html"
    run = CliRunner().invoke(app, ["lesson", str(out)])
    assert run.exit_code == 0, run.output
    assert f"{out} written" in run.stdout
    assert out.read_text() == page(article())
    spec = tmp_path / "net.json"
    network([40, 2], ["tanh"]).save(spec)
    nowhere = CliRunner().invoke(app, ["lesson", str(tmp_path / "none" / "lesson.html")])
    assert isinstance(nowhere.exception, DataError)
    assert "cannot write" in str(nowhere.exception)
    refused = CliRunner().invoke(app, ["lesson", str(out), str(spec)])
    assert isinstance(refused.exception, DataError)
    assert out.read_text() == page(article())


# --------------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    required = os.environ.get("REFIMPL_REQUIRE_BROWSER")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if required:
            raise
        pytest.skip("needs playwright: make browser")
    if CHROMIUM is None:
        assert not required, "Chromium is missing"
        pytest.skip("needs Chromium: make browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


class Shown:
    """A lesson in the browser, with what it complained about and what it asked the network for."""

    def __init__(self, browser: Any, text: str, folder: Path, **options: Any) -> None:
        path = folder / "lesson.html"
        path.write_text(text)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def table(self, name: str) -> np.ndarray:
        """The numbers that a table of the present step shows, with all their digits."""
        cells = self.page.locator(f'#values table[data-name="{name}"] td').all()
        numbers = {cell.get_attribute("data-index"): float(cell.get_attribute("data-value")) for cell in cells}
        rows, columns = (max(int(key.split(",")[axis]) for key in numbers) + 1 for axis in (0, 1))
        return np.array([[numbers[f"{n},{j}"] for j in range(columns)] for n in range(rows)])

    def done(self) -> None:
        """Nothing was complained about, and nothing but the file was asked for."""
        assert self.complaints == []
        assert len(self.requests) == 1
        self.page.close()


@pytest.mark.parametrize("n", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_every_step_shows_the_numbers_of_the_trace(browser: Any, tmp_path: Path, n: int) -> None:
    p = article(n)
    shown, found = Shown(browser, page(p), tmp_path), trace(p.spec, p.params, p.x, p.y)
    written = json.loads(json.dumps(found.to_dict()))
    for number, step in enumerate(written["steps"], start=1):
        assert f"Step {number} of {len(written['steps'])}, {step['phase']} pass" in shown.page.inner_text("#where")
        assert shown.page.inner_text("#code") == step["code"]["source"]
        assert f"line {step['code']['line']}: {step['code']['function']}" in shown.page.inner_text("#place")
        assert shown.page.locator("#equation math").count() == 1
        for name, array in {step["name"]: step["value"], **step["operands"]}.items():
            if name in ("losses", "dlosses_ds"):
                continue
            true = np.array(array["data"]).reshape(array["shape"])
            got = shown.table(name)
            # an exponential of the browser's may differ by an ulp from NumPy's
            assert np.abs(got - true.reshape(got.shape)).max() <= 1e-14 * np.abs(true).max(), name
            text = shown.page.locator(f'#values table[data-name="{name}"] td').first.inner_text()
            assert float(text.replace("−", "-")) == pytest.approx(float(true.ravel()[0]), rel=1e-4)
        if number < len(written["steps"]):
            shown.page.click("#forward")
    assert shown.page.is_disabled("#forward")
    shown.done()


def test_stepping_by_key_slider_and_button_is_one(browser: Any, tmp_path: Path) -> None:
    shown = Shown(browser, page(article()), tmp_path)
    where = lambda: int(re.findall(r"\d+", shown.page.inner_text("#where"))[0])  # noqa: E731
    assert where() == 1
    shown.page.keyboard.press("ArrowRight")
    assert where() == 2
    shown.page.click("#forward")
    shown.page.keyboard.press("ArrowLeft")
    assert where() == 2
    shown.page.fill("#position", "12")
    assert where() == 12
    shown.page.click("#back")
    assert where() == 11
    shown.page.click("#first")
    assert where() == 1
    shown.done()


def test_a_weight_is_chosen_by_click_key_and_list_and_its_paths_add_up(browser: Any, tmp_path: Path) -> None:
    p = article()
    shown, grads = Shown(browser, page(p), tmp_path), refimpl.value_and_grad(p.spec, p.params, p.x, p.y)[1]
    at = shown.page.locator('[data-weight="W1[2,3]"]')
    at.focus()
    shown.page.keyboard.press("Enter")
    assert shown.page.input_value("#chosen") == "W1[2,3]"
    assert "2 paths lead from the weight to the cost" in shown.page.inner_text("#count")
    total = float(shown.page.get_attribute("#count", "data-value"))
    assert total == pytest.approx(grads["W1"][1, 2], rel=1e-13)
    assert len(shown.page.inner_text("#paths").splitlines()) == 2
    ways = [line.get_attribute("data-weight") for line in shown.page.locator("line.way").all()]
    assert ways == ["W2[1,2]", "W2[2,2]", "W3[1,1]", "W3[1,2]"]
    shown.page.locator('[data-weight="W3[1,2]"]').click(force=True)
    assert shown.page.input_value("#chosen") == "W3[1,2]"
    for name, grad in grads.items():
        if name.startswith("W"):
            for j, k in np.ndindex(grad.shape):
                shown.page.select_option("#chosen", f"{name}[{j + 1},{k + 1}]")
                assert float(shown.page.get_attribute("#lines", "data-value")) == pytest.approx(grad[j, k], rel=1e-13)
                assert float(shown.page.get_attribute("#count", "data-value")) == pytest.approx(grad[j, k], rel=1e-12)
    shown.done()


def test_a_changed_number_changes_everything(browser: Any, tmp_path: Path) -> None:
    p = article()
    shown = Shown(browser, page(p), tmp_path)
    shown.page.fill('[data-field="x[1,2]"]', "2.5")
    shown.page.fill('[data-field="W2[2,1]"]', "-0.75")
    shown.page.fill('[data-field="b1[1,2]"]', "0.125")
    x, params = p.x.copy(), {name: array.copy() for name, array in p.params.items()}
    x[0, 1], params["W2"][1, 0], params["b1"][1] = 2.5, -0.75, 0.125
    found = trace(p.spec, params, x, p.y)
    shown.page.fill("#position", str(len(found.steps)))
    assert shown.table("dx") == pytest.approx(found.grads["x"], rel=1e-13)
    assert float(shown.page.get_attribute("#loss", "data-value")) == pytest.approx(found.loss, rel=1e-13)
    shown.page.fill('[data-field="x[1,2]"]', "")
    assert shown.page.get_attribute('[data-field="x[1,2]"]', "aria-invalid") == "true"
    assert float(shown.page.get_attribute("#loss", "data-value")) == pytest.approx(found.loss, rel=1e-13)
    shown.done()


def test_gradient_descent_is_gradient_descent(browser: Any, tmp_path: Path) -> None:
    p = article(4)
    shown = Shown(browser, page(p, learning_rate=0.25), tmp_path)
    shown.page.click("#descend")
    shown.page.fill("#rate", "0.5")
    shown.page.click("#descend10")
    params = {name: array.copy() for name, array in p.params.items()}
    for step in range(11):
        _, grads = refimpl.value_and_grad(p.spec, params, p.x, p.y)
        params = {name: params[name] - (0.25 if step == 0 else 0.5) * grads[name] for name in params}
    loss, _ = refimpl.value_and_grad(p.spec, params, p.x, p.y)
    assert float(shown.page.get_attribute("#loss", "data-value")) == pytest.approx(loss, rel=1e-12)
    assert shown.page.inner_text("#loss").startswith("11 steps taken")
    assert len(shown.page.get_attribute("#curve polyline", "points").split()) == 12
    field = float(shown.page.input_value('[data-field="W2[1,2]"]'))
    assert field == pytest.approx(params["W2"][0, 1], rel=1e-12)
    shown.page.click("#again")
    assert shown.page.inner_text("#loss").startswith("0 steps taken")
    shown.done()


def test_a_mistake_shows_what_goes_wrong_first(browser: Any, tmp_path: Path) -> None:
    p = article(3)
    shown = Shown(browser, page(p), tmp_path)

    def wrong(label: str) -> list[str]:
        shown.page.select_option("#fault", label=label)
        return (shown.page.get_attribute("#verdict", "data-wrong") or "").split()

    assert wrong("slope_dropped at layer 1") == ["delta2", "dW1", "db1", "dx"]
    assert "First wrong: δ²" in shown.page.inner_text("#verdict")
    assert FAULTS["slope_dropped"].remedy in shown.page.inner_text("#explanation")
    assert wrong("slope_dropped at layer 2")[:3] == ["delta3", "dW2", "db2"]
    assert wrong("bias_gradient_missing at layer 2") == ["db2"]
    assert wrong("not_averaged")[0] == "da4"
    shown.page.select_option("#fault", label="bias_gradient_missing at layer 2")
    names = [step.name for step in trace(p.spec, p.params, p.x, p.y).steps]
    shown.page.fill("#position", str(names.index("db2") + 1))
    assert shown.table("db2").tolist() == [[0, 0]]
    right = refimpl.value_and_grad(p.spec, p.params, p.x, p.y)[1]["b2"]
    assert shown.table("db2 should be")[0] == pytest.approx(right, rel=1e-13)
    shown.page.select_option("#fault", label="none")
    assert shown.table("db2")[0] == pytest.approx(right, rel=1e-13)
    shown.done()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_it_is_accessible_and_fits(browser: Any, tmp_path: Path, scheme: str, width: int, height: int) -> None:
    if not AXE.exists():
        assert not os.environ.get("REFIMPL_REQUIRE_BROWSER"), "axe-core is missing"
        pytest.skip("needs axe-core: make browser")
    shown = Shown(
        browser, page(article(2)), tmp_path, viewport={"width": width, "height": height}, color_scheme=scheme,
        bypass_csp=True,
    )  # fmt: skip
    shown.page.add_script_tag(path=str(AXE))
    for position, fault in ((1, "none"), (11, "slope_dropped at layer 2"), (18, "none")):
        shown.page.fill("#position", str(position))
        shown.page.select_option("#fault", label=fault)
        violations = shown.page.evaluate("async () => (await axe.run()).violations")
        assert [(v["id"], [node["html"] for node in v["nodes"]][:3]) for v in violations] == []
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.complaints == []
    shown.page.close()


@pytest.mark.parametrize("index", [3, 12, 24])
def test_any_small_network_has_a_lesson(browser: Any, tmp_path: Path, index: int) -> None:
    p = one_of_each(index, "float64")
    shown, found = Shown(browser, page(p), tmp_path), trace(p.spec, p.params, p.x, p.y)
    for step in found.steps:
        shown.page.fill("#position", str(step.number))
        got = shown.table(step.name)
        scale = max(float(np.abs(step.value).max()), 1e-290)
        assert np.abs(got - np.asarray(step.value).reshape(got.shape)).max() <= 1e-12 * scale, step.name
    shown.done()
