"""`refimpl train`: gradient descent on real data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refimpl.cli.interruption import interruption
from refimpl.cli.requested import Arithmetic, Device, Dtype, ExampleName, OneBackend, SpecFile, folder, network
from refimpl.cli.terminal import INTERRUPTED, main_process, progress_bar
from refimpl.formats.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from refimpl.training.run import Measurement, Run

FINISHED, DIVERGED = 0, 1
DATA = "digits, iris, breast_cancer, diabetes, or a .csv or .npz file."

Data = Annotated[str, typer.Option("--data", metavar="DATA", help=DATA)]
Ignored = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="Column to leave out; may be given again.")
]
Delimiter = Annotated[str, typer.Option("--delimiter", help="Between the columns of a CSV file.")]
Lines = Annotated[bool, typer.Option("--json", help="Print a line of JSON a report.")]


def train(
    spec: SpecFile = None,
    data: Data = "",
    example: ExampleName = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", parser=folder, help="Where checkpoints, the model and the curves go.")
    ] = Path("refimpl-training"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column to predict; may be given again. Default: the last."),
    ] = None,
    ignore: Ignored = None,
    classes: Annotated[
        bool | None, typer.Option("--classes/--values", help="What the target is. Default: classes where it is text.")
    ] = None,
    delimiter: Delimiter = ",",
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
    dtype: Arithmetic = Dtype.float64,
    backend: OneBackend = None,
    device: Device = "cpu",
    report_every: Annotated[int | None, typer.Option(help="Epochs between two reports.", show_default=False)] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Reports between two checkpoints.")] = 1,
    as_json: Lines = False,
) -> None:
    """Train a network by gradient descent.

    With checkpoints from which it goes on after whatever stopped it.
    """
    from refimpl.backend import resolve
    from refimpl.formats.strict_json import finite
    from refimpl.training.checkpoints import Checkpoints
    from refimpl.training.config import TrainingConfig
    from refimpl.training.datasets import read
    from refimpl.training.preparation import prepare
    from refimpl.training.run import Run

    if not data:
        raise DataError(f"--data is missing; it may be {DATA}")
    config = TrainingConfig(
        update, _parameters(update_parameter, "--update-parameter"), learning_rate, schedule,
        _parameters(schedule_parameter, "--schedule-parameter"), batch, seed, scheme, dtype.value, epochs, steps,
        target_loss, gradient_norm, change, patience, max_loss, report_every,
    )  # fmt: skip
    trained = network(spec, example)
    dataset = read(data, target or (), ignore or (), classes, delimiter)
    prepared = prepare(
        dataset, trained, dtype.value, validation=validation, seed=seed, standardise=standardise,
        standardise_target=standardise_target, coded=one_hot,
    )  # fmt: skip
    run = Run(
        trained, prepared, config, resolve(backend), device, checkpoint_every=checkpoint_every,
        interrupted=lambda: bool(interruption.number),
    )  # fmt: skip
    speaks = main_process()
    run.checkpoints = checkpoints = Checkpoints(out.absolute() / "checkpoints")
    with checkpoints.held() if speaks else contextlib.nullcontext():
        if resume:
            run.resume()
            for note in run.notes:
                typer.echo(note, err=True)
        elif checkpoints.paths():
            raise CheckpointError(f"{out} holds the checkpoints of a run; --resume continues it, --out names another")
        if not speaks:
            run.checkpoints = None
        with interruption.bearing(1, "stopping at the next report; once more to stop at once"):
            for measured in _shown(run, as_json or not speaks):
                if as_json:
                    typer.echo(json.dumps(finite(asdict(measured))))
        if speaks:
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


def _shown(run: Run, quiet: bool) -> Iterator[Measurement]:
    """The reports, with a bar on stderr that shows loss, norm of the gradient and the time left."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with progress_bar(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=run.epochs)
        for report in run.reports():
            text = f"loss {report.loss:.4g}, gradient {report.gradient_norm:.3g}"
            bar.update(task, completed=report.epoch, description=text)
            yield report


def _finish(run: Run, out: Path, data: str, as_json: bool) -> None:
    """Write the model, the history and the curves, and say what came of it."""
    from refimpl.formats import files
    from refimpl.formats.strict_json import finite
    from refimpl.training import curves
    from refimpl.training.model import Model
    from refimpl.training.preparation import metric_name
    from refimpl.training.run import REASONS, summary

    found = summary(run)
    preparation = run.data.preparation
    trained = {
        "data": run.data.source, "config": run.config.to_dict(), "backend": run.backend.name, "summary": found,
    }  # fmt: skip
    Model(run.spec, run.params, preparation, trained).save(out / "model.safetensors")
    lines = "".join(json.dumps(finite(asdict(measured))) + "\n" for measured in run.progress.history)
    files.write(out / "history.jsonl", lines.encode(), CheckpointError)
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
