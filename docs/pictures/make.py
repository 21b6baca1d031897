"""The pictures of the README, made by the code they show: `make pictures`.

The terminal is a real report of `refimpl check`, the lesson a page in a real browser, the benchmark the committed run.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright
from rich.console import Console

import refimpl
from refimpl import backend
from refimpl.benchmark.page import COLOURS
from refimpl.faults.catalogue import FAULTS
from refimpl.faults.mistaken import PlantedBackend

HERE = Path(__file__).parent
RESULT = HERE.parent.parent / "benchmarks" / "results" / "cpu.json"
GROUPS = {
    "article, N = 1, float64, cpu, 1 thread": "4-2-2-1, one sample",
    "784-128-64-10, N = 64, float32, cpu, 1 thread": "784-128-64-10, 64 samples",
    "1024-4096-4096-1024, N = 512, float32, cpu, 2 threads": "1024-4096-4096-1024, 512 samples",
}
SHOWN = ("numpy", "jax", "jax jit", "torch-compiled", "torch", "torch nn", "scikit-learn")


class Yours(PlantedBackend):
    """A backend with a mistake in it."""

    name = "yours"


def terminal() -> None:
    """A report with three right backends and a wrong one."""
    spec = refimpl.examples.article()
    x, y = refimpl.examples.article_batch(8)
    wrong = Yours(((FAULTS["slope_dropped"], 1, 0.0),), backend.load("numpy"))
    report = refimpl.check(spec, spec.init(seed=0), x, y, ["numpy", "torch", "jax", wrong])
    console = Console(record=True, width=150, file=io.StringIO())
    console.print(report)
    console.save_svg(str(HERE / "check.svg"), title="refimpl check")


def lesson() -> None:
    """The article's network in the middle of the backward pass."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "lesson.html")
        subprocess.run([sys.executable, "-m", "refimpl", "lesson", str(path)], check=True, stdout=subprocess.DEVNULL)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1180, "height": 760})
        page.goto(path.as_uri())
        page.evaluate("go(12)")
        page.screenshot(path=str(HERE / "lesson.png"))
        browser.close()


def benchmark() -> None:
    """Gradients a second beside the floor, of three networks."""
    groups = {group["name"]: group for group in json.loads(RESULT.read_text())["groups"]}
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "refimpl"
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(GROUPS)), GROUPS.items(), strict=True):
        rows = {row["contender"]: row for row in groups[name]["rows"] if "gradients" in row}
        shown = [contender for contender in SHOWN if contender in rows]
        ratios = [rows[contender]["gradients"]["to_floor"] for contender in shown]
        bars = axes.barh(shown, ratios, color=[COLOURS[contender] for contender in shown])
        axes.bar_label(
            bars, [f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" for ratio in ratios], padding=3, fontsize=9
        )
        axes.axvline(1, color=COLOURS["floor"], linestyle="--")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * max(ratios))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("time of a gradient / matrix products alone", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "benchmark.svg", metadata={"Date": None})


if __name__ == "__main__":
    terminal()
    lesson()
    benchmark()
