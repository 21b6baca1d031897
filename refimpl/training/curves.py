"""The course of a training run as a picture: loss, norm of the gradient, and accuracy or R² against the epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refimpl.formats import files
from refimpl.formats.errors import CheckpointError
from refimpl.training.run import Measurement

LARGEST = 1e100  # of what is drawn: matplotlib's axes end with float64, where a diverging run may go
TRAINING, HELD_OUT, GRADIENT = "#0072B2", "#D55E00", "#777777"  # Okabe and Ito 2008


def available() -> bool:
    """Whether matplotlib, which draws, is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def write(history: Sequence[Measurement], metric: str, title: str, folder: Path) -> list[Path]:
    """`loss.svg` and `loss.png` in the folder. Raises CheckpointError, ImportError without matplotlib."""
    with np.errstate(all="ignore"):  # the axes of a run that diverged
        pictures = _drawn(history, metric, title)
    for path in (paths := [folder / f"loss.{kind}" for kind in pictures]):
        files.write(path, pictures[path.suffix[1:]], CheckpointError)
    return paths


def _drawn(history: Sequence[Measurement], metric: str, title: str) -> dict[str, bytes]:
    """The picture by its format."""
    from matplotlib.figure import Figure

    history = [r for r in history if max(abs(r.loss), r.gradient_norm) < LARGEST] or history[:1]
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [report.epoch for report in history]
    above.set_title(title, loc="left", fontsize=10)
    above.plot(epochs, [r.loss for r in history], color=TRAINING, label="loss, training")
    above.plot(epochs, [r.gradient_norm for r in history], color=GRADIENT, lw=1, ls="--", label="norm of the gradient")
    below.plot(epochs, [r.metric for r in history], color=TRAINING, label=f"{metric}, training")
    if history[0].held_out_loss is not None:
        held_out = [r for r in history if r.held_out_loss is not None and r.held_out_metric is not None]
        there = [r.epoch for r in held_out]
        above.plot(there, [r.held_out_loss or 0.0 for r in held_out], color=HELD_OUT, label="loss, held out")
        below.plot(there, [r.held_out_metric or 0.0 for r in held_out], color=HELD_OUT, label=f"{metric}, held out")
    if all(report.loss > 0 for report in history):
        above.set_yscale("log")
    below.set_xlabel("epoch")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
    pictures = {}
    for kind in ("svg", "png"):
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
        pictures[kind] = file.getvalue()
    return pictures
