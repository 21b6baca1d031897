"""A benchmark's results as one HTML file that needs nothing else: plots as SVG, tables, and the conditions.

Raises ImportError without matplotlib or jinja2 (the extra ``bench``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from refimpl.benchmark.contenders import FLOOR
from refimpl.benchmark.measure import QUANTITIES
from refimpl.benchmark.report import claims, conditions, duration, gigaflops

TEMPLATE = Path(__file__).with_name("page.html")
BASELINE = "torch nn"  # what speed-up is measured against
# colours that remain apart for colour-blind readers (Okabe and Ito 2008)
COLOURS = {
    "numpy": "#D55E00",
    "torch": "#0072B2",
    "torch-compiled": "#56B4E9",
    "jax": "#009E73",
    "torch nn": "#999999",
    "jax jit": "#B5BD61",
    "autograd": "#CC79A7",
    "scikit-learn": "#E69F00",
    "floor": "#444444",
}


def page(result: Mapping[str, Any]) -> str:
    """The HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["duration"] = duration
    plots = [
        (title, _svg(draw))
        for title, draw in (
            ("Time of a gradient against the batch", lambda axes: _sweep(axes, result, "batch")),
            ("Time of a gradient against the width", lambda axes: _sweep(axes, result, "width")),
            ("GFLOP/s of the matrix products", lambda axes: _rates(axes, result)),
            (f"Speed of a gradient, {BASELINE} = 1", lambda axes: _speedups(axes, result)),
            ("GPU beside CPU", lambda axes: _devices(axes, result)),
        )
    ]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        result=result, conditions=conditions(result), quantities=QUANTITIES, gigaflops=gigaflops,
        plots=[(title, svg) for title, svg in plots if svg], claims=list(claims(result)),
    )  # fmt: skip


def _svg(draw: Callable[[Any], bool]) -> str:
    """What `draw` puts on the axes; empty where it has nothing to show."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    if not draw(figure.subplots()):
        return ""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]


def _measured(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in group.get("rows", []) if "gradients" in row]


def _style(name: str) -> dict[str, Any]:
    return {"color": COLOURS.get(name), "linestyle": "--" if name == FLOOR else "-", "label": name}


def _sweep(axes: Any, result: Mapping[str, Any], sweep: str) -> bool:
    groups = [group for group in result["groups"] if group.get("sweep") == sweep]
    points: dict[str, list[tuple[int, float]]] = {}
    for group in groups:
        size = group["batch"] if sweep == "batch" else group["network"]["input_shape"][0]
        for row in _measured(group):
            points.setdefault(row["contender"], []).append((size, row["gradients"]["median"]))
    for name, found in points.items():
        axes.loglog(*zip(*sorted(found), strict=True), marker="o", markersize=4, **_style(name))
    if points:
        name = groups[0]["network"]["name"]
        axes.set_xlabel(f"samples in the batch of {name}" if sweep == "batch" else "width of three layers, 64 samples")
        axes.set_ylabel("seconds")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend()
    return len(groups) > 1


def _rates(axes: Any, result: Mapping[str, Any]) -> bool:
    points: dict[str, list[tuple[float, float]]] = {}
    for group in result["groups"]:
        for row in _measured(group):
            if group["threads"] == 1 and group["dtype"] == "float32":
                points.setdefault(row["contender"], []).append((group["flops"], gigaflops(group, row) or 0.0))
    for name, found in points.items():
        axes.loglog(*zip(*sorted(found), strict=True), marker="o", markersize=4, **_style(name))
    if points:
        axes.set_xlabel("floating-point operations of a gradient (float32, one thread)")
        axes.set_ylabel("GFLOP/s")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend()
    return any(len(found) > 1 for found in points.values())


def _speedups(axes: Any, result: Mapping[str, Any]) -> bool:
    shown = [group for group in result["groups"] if not group.get("sweep") or group["batch"] == 64]
    names = [name for name in COLOURS if name != FLOOR]
    height = 0.8 / len(names)
    for line, group in enumerate(reversed(shown)):
        times = {row["contender"]: row["gradients"]["median"] for row in _measured(group)}
        for index, name in enumerate(reversed(names)):
            if name in times and BASELINE in times:
                width = times[BASELINE] / times[name]
                axes.barh(line - 0.4 + (index + 0.5) * height, width, height, color=COLOURS[name])
    axes.set_yticks(range(len(shown)), [_short(group) for group in reversed(shown)], fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast")
    from matplotlib.patches import Patch

    axes.legend(handles=[Patch(color=COLOURS[name], label=name) for name in names], fontsize=7, loc="lower right")
    return any(_measured(group) for group in shown)


def _short(group: Mapping[str, Any]) -> str:
    threads = "" if group["threads"] == 1 else f", {group['threads']} threads"
    return f"{group['network']['name']}, N = {group['batch']}\n{group['dtype']}{threads}"


def _devices(axes: Any, result: Mapping[str, Any]) -> bool:
    """The fastest contender on every device, for groups that ran on more than one."""
    times: dict[str, dict[str, float]] = {}
    for group in result["groups"]:
        measured = [row["gradients"]["median"] for row in _measured(group) if row["contender"] != FLOOR]
        if measured:
            key = f"{group['network']['name']}, N = {group['batch']}, {group['dtype']}"
            best = times.setdefault(key, {})
            best[group["device"]] = min([*measured, best.get(group["device"], float("inf"))])
    both = {key: found for key, found in times.items() if len(found) > 1}
    for line, (_, found) in enumerate(both.items()):
        for offset, (device, seconds) in zip((-0.2, 0.2), sorted(found.items()), strict=False):
            axes.barh(line + offset, seconds, 0.38, color={"cpu": "#E69F00", "cuda": "#009E73"}[device], label=device)
    axes.set_yticks(range(len(both)), list(both), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of the fastest contender's gradient (orange: CPU, green: GPU)")
    return bool(both)


def needs(names: Sequence[str] = ("jinja2", "matplotlib")) -> list[str]:
    """The packages that are missing."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]
