"""`refimpl train` and `refimpl predict`: gradient descent on real data, and what came of it used."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refimpl.cli.check import Dtype, Example
from refimpl.cores import speaks
from refimpl.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from refimpl.training.data import Dataset
    from refimpl.training.run import Report, Run

FINISHED, DIVERGED, INTERRUPTED = 0, 1, 130
DATA = "digits, iris, breast_cancer, diabetes, or a .csv or .npz file."


def train(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC.json]", help="The network. Default: the article's.", show_default=False),
    ] = None,
    data: Annotated[str, typer.Option(metavar="DATA", help=DATA)] = "",
    example: Annotated[
        Example | None, typer.Option(help="A network that comes with refimpl, in place of a file.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where checkpoints, the model and the curves go.")] = Path(
        "refimpl-training"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column to predict; may be given again. Default: the last."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Column to leave out; may be given again.")
    ] = None,
    classes: Annotated[
        bool | None, typer.Option("--classes/--values", help="What the target is. Default: classes where it is text.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="Between the columns of a CSV file.")] = ",",
    validation: Annotated[float, typer.Option(help="The part of the samples that is held out.")] = 0.0,
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Every feature to mean 0 and variance 1 over the training data.")
    ] = False,
    standardise_target: Annotated[bool, typer.Option("--standardise-target", help="The target likewise.")] = False,
    one_hot: Annotated[bool, typer.Option("--one-hot", help="Classes as rows of a one and zeros.")] = False,
    update: Annotated[str, typer.Option(help="gradient_descent, momentum, nesterov or adam.")] = "gradient_descent",
    update_parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Of the update rule; may be given again.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="ε.")] = 0.1,
    schedule: Annotated[str, typer.Option(help="Of ε: constant, step, exponential or cosine.")] = "constant",
    schedule_parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Of the schedule; may be given again.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a step. Default: all.", show_default=False)] = None,
    epochs: Annotated[int, typer.Option(help="Stop after so many passes over the training data.")] = 1000,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.", show_default=False)] = None,
    target_loss: Annotated[float | None, typer.Option(help="Stop at this loss.", show_default=False)] = None,
    gradient_norm: Annotated[
        float | None, typer.Option(help="Stop at this norm of the gradient.", show_default=False)
    ] = None,
    change: Annotated[
        float | None, typer.Option(help="Stop when the loss changes by no more.", show_default=False)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many reports without a lower held-out loss.", show_default=False),
    ] = None,
    max_loss: Annotated[float | None, typer.Option(help="A loss above this is divergence.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of initial values, the order of samples, and the split.")] = 0,
    scheme: Annotated[str, typer.Option(help="Of the initial values.")] = "glorot_uniform",
    dtype: Annotated[Dtype, typer.Option(help="The arithmetic.")] = Dtype.float64,
    backend: Annotated[str, typer.Option(help="numpy, torch, jax, another's name, or module:attribute.")] = "numpy",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    report_every: Annotated[int | None, typer.Option(help="Epochs between two reports.", show_default=False)] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Reports between two checkpoints.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print every report as a line of JSON.")] = False,
) -> None:
    """Train a network by gradient descent, with checkpoints from which it goes on after whatever stopped it."""
    from refimpl import backend as backends
    from refimpl import examples
    from refimpl.spec import NetworkSpec
    from refimpl.training import data as reading
    from refimpl.training.checkpoints import Checkpoints
    from refimpl.training.config import TrainingConfig
    from refimpl.training.run import Run

    if spec is not None and example is not None:
        raise DataError(f"--example {example.value} and {spec}: give a network file or an example, not both")
    if not data:
        raise DataError(f"--data is missing; it may be {DATA}")
    config = TrainingConfig(
        update, _parameters(update_parameter, "--update-parameter"), learning_rate, schedule,
        _parameters(schedule_parameter, "--schedule-parameter"), batch, seed, scheme, dtype.value, epochs, steps,
        target_loss, gradient_norm, change, patience, max_loss, report_every,
    )  # fmt: skip
    network = NetworkSpec.load(spec) if spec else getattr(examples, example.value if example else "article")()
    dataset = reading.load(data, target or (), ignore or (), classes, delimiter)
    prepared = reading.prepare(
        dataset, network, dtype.value, validation=validation, seed=seed, standardise=standardise,
        standardise_target=standardise_target, coded=one_hot,
    )  # fmt: skip
    chosen, asked = backends.load(backend), _Interrupts()
    checkpoints = Checkpoints(out.absolute() / "checkpoints")
    run = Run(network, prepared, config, chosen, device, checkpoints, checkpoint_every, asked.seen)
    if resume:
        run.resume()
        for note in run.notes:
            typer.echo(note, err=True)
    elif checkpoints.paths():
        raise CheckpointError(f"{out} holds the checkpoints of a run; --resume goes on with it, --out names another")
    if not speaks():
        run.checkpoints = None
    with asked.caught():
        for report in _shown(run, as_json):
            if as_json:
                typer.echo(json.dumps(_line(report)))
    if speaks():
        _finish(run, out.absolute(), data, as_json)
    raise typer.Exit(DIVERGED if run.diverged else INTERRUPTED if "interrupted" in run.progress.stopped else FINISHED)


def _parameters(given: list[str] | None, option: str) -> dict[str, float]:
    found = {}
    for text in given or []:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise DataError(f"{option} must be NAME=NUMBER, got {text!r}") from None
    return found


class _Interrupts:
    """Ctrl-C and SIGTERM, which end the run at its next report; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.count = 0

    def seen(self) -> bool:
        """Whether one has come."""
        return self.count > 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Until the end of the run."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        print("stopping at the next report; once more to stop at once", file=sys.stderr)


def _line(report: Report) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(report).items()
    }


def _shown(run: Run, quiet: bool) -> Iterator[Report]:
    """The reports, with a bar on stderr that shows loss, norm of the gradient and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet or not speaks()) as bar:
        task = bar.add_task("", total=run.epochs)
        for report in run.reports():
            text = f"loss {report.loss:.4g}, gradient {report.gradient_norm:.3g}"
            bar.update(task, completed=report.epoch, description=text)
            yield report


def _finish(run: Run, out: Path, data: str, as_json: bool) -> None:
    """Write the model, the history and the curves, and say what came of it."""
    from refimpl.training import archive, curves
    from refimpl.training.data import metric_name
    from refimpl.training.model import Model
    from refimpl.training.run import REASONS, summary

    found = summary(run)
    preparation = run.data.preparation
    trained = {
        "data": run.data.source, "config": run.config.to_dict(), "backend": run.backend.name, "summary": found,
    }  # fmt: skip
    Model(run.spec, run.params, preparation, trained).save(out / "model.safetensors")
    lines = "".join(json.dumps(_line(report)) + "\n" for report in run.progress.history)
    archive.write(out / "history.jsonl", lines.encode())
    name = metric_name(preparation)
    if curves.available():
        curves.write(run.progress.history, name, f"{run.spec.name or 'network'} on {data}, {run.backend.name}", out)
    if as_json:
        typer.echo(json.dumps({"summary": found, "folder": str(out)}))
        return
    last = run.progress.history[-1]
    typer.echo("stopped: " + "; ".join(REASONS[reason] for reason in run.progress.stopped))
    typer.echo(
        f"{last.step} steps, {last.epoch} epochs: loss {last.loss:.6g}, norm of the gradient {last.gradient_norm:.3g}"
    )
    typer.echo(f"{name} {last.metric:.4f} on {len(run.data.x)} training samples")
    if last.held_out_metric is not None and last.held_out_loss is not None:
        typer.echo(
            f"{name} {last.held_out_metric:.4f}, loss {last.held_out_loss:.6g} "
            f"on {len(run.data.held_out_x)} held-out samples"
        )
    if run.config.patience is not None and run.progress.best_loss is not None:
        typer.echo(
            f"kept: the parameters of epoch {run.progress.best_epoch}, loss {run.progress.best_loss:.6g} held out"
        )
    if "interrupted" in run.progress.stopped:
        typer.echo("the same command with --resume goes on")
    typer.echo(f"model: {out / 'model.safetensors'}")


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")],
    data: Annotated[str, typer.Option(metavar="DATA", help=DATA)] = "",
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Column to leave out; may be given again.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="Between the columns of a CSV file.")] = ",",
    backend: Annotated[str, typer.Option(help="numpy, torch, jax, another's name, or module:attribute.")] = "numpy",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a sample.")] = False,
) -> None:
    """Print a trained network's prediction for every sample. A target column, if there is one, is left out."""
    from refimpl.training.model import Model

    loaded = Model.load(model)
    if not data:
        raise DataError(f"--data is missing; it may be {DATA}")
    dataset = _unlabelled(data, loaded.preparation.targets, ignore or (), delimiter)
    preparation = loaded.preparation
    predicted = loaded.predict(dataset, backend, device)
    names = preparation.targets or ("prediction",)
    if not as_json:
        typer.echo(",".join(names))
    for row in predicted.tolist():
        cells = row if isinstance(row, list) else [row]
        if as_json:
            typer.echo(json.dumps(dict(zip(names, cells, strict=True))))
        else:
            typer.echo(",".join(str(cell) for cell in cells))


def _unlabelled(data: str, targets: Sequence[str], ignored: Sequence[str], delimiter: str) -> Dataset:
    """The samples, without the target's column where the file has one."""
    from refimpl.training import data as reading

    header = reading.columns(data, delimiter)
    return reading.load(data, (), [*ignored, *(t for t in targets if t in header)], None, delimiter, labelled=False)
