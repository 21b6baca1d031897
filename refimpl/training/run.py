"""A training run: legs of steps between reports, criteria that stop it, and checkpoints from which it goes on.

A run is a function of the network, the data, the configuration, the backend and the machine; where it was stopped and
resumed does not change a bit of it. What a report says is measured at its parameters over the whole training data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import Backend, Trainer
from refimpl.backend.training import CHANGE, DIVERGED, GRADIENT_NORM, TARGET_LOSS, Limits, reached
from refimpl.formats.errors import CheckpointError, DataError
from refimpl.formats.strict_json import finite
from refimpl.network.spec import NetworkSpec
from refimpl.training.checkpoints import Checkpoints
from refimpl.training.config import LIMITS, TrainingConfig
from refimpl.training.gradient_trainer import initial_state, trainer
from refimpl.training.preparation import Prepared, metric

Array = NDArray[Any]
FORMAT = "refimpl.checkpoint/1"
REPORTS = 200  # of a run in which an epoch is one step
STEP_REASONS = {TARGET_LOSS: "target_loss", GRADIENT_NORM: "gradient_norm", CHANGE: "change", DIVERGED: "diverged"}
REASONS = {
    "max_epochs": "the last epoch is done",
    "max_steps": "the last step is done",
    "target_loss": "the loss is at most the target",
    "gradient_norm": "the norm of the gradient is at most what was asked for",
    "change": "the loss changed by at most what was asked for",
    "patience": "the loss on the held-out data has stopped falling",
    "diverged": "diverged: the loss is not finite or too large; the last good parameters are kept",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class Measurement:
    """The state of a run after `step` steps: loss and 2-norm of the gradient over the training data, accuracy or R²,
    loss and accuracy or R² on the held-out data where there is some, and the ε of the step before.
    """

    step: int
    epoch: int
    loss: float
    gradient_norm: float
    metric: float
    held_out_loss: float | None
    held_out_metric: float | None
    learning_rate: float


@dataclass(frozen=True)
class Progress:
    """Where a run is. `previous`: the loss of the last step; `best_loss`, `best_epoch`, `waited`: of the held-out data;
    `stopped`: why it ended.
    """

    step: int = 0
    epoch: int = 0
    previous: float | None = None
    best_loss: float | None = None
    best_epoch: int = 0
    waited: int = 0
    stopped: tuple[str, ...] = ()
    history: tuple[Measurement, ...] = ()


@dataclass
class Run:
    """One training run. Iterating over `reports` carries it out; `params` are then those to be kept."""

    spec: NetworkSpec
    data: Prepared
    config: TrainingConfig
    backend: Backend
    device: str = "cpu"
    checkpoints: Checkpoints | None = None
    checkpoint_every: int = 1  # reports
    interrupted: Callable[[], bool] = lambda: False
    progress: Progress = field(default_factory=Progress)
    state: dict[str, Array] = field(default_factory=dict)
    best: dict[str, Array] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.config.patience is not None and not len(self.data.held_out_x):
            raise DataError("patience needs held-out data; ask for --validation")
        if not self.state:
            params = self.spec.init(self.config.seed, self.config.dtype, self.config.scheme)
            self.state = initial_state(self.spec, params, self.config.rule)

    @property
    def steps_an_epoch(self) -> int:
        """Steps in one pass over the training data."""
        return -(-len(self.data.x) // (self.config.batch_size or 1)) if self.batched else 1

    @property
    def batched(self) -> bool:
        """Whether a step takes less than all samples."""
        return self.config.batch_size is not None and self.config.batch_size < len(self.data.x)

    @property
    def epochs(self) -> int:
        """The epochs that it may take."""
        return -(-self._most_steps() // self.steps_an_epoch)

    @property
    def diverged(self) -> bool:
        """Whether it ended so."""
        return "diverged" in self.progress.stopped

    @property
    def params(self) -> dict[str, Array]:
        """The parameters to be kept: those of the least loss on the held-out data where that ends the run, else the
        last good ones.
        """
        source = self.best if self.config.patience is not None and self.best else self.state
        return {name: source[name] for name in self.spec.parameter_shapes}

    # The loop

    def reports(self) -> Iterator[Measurement]:
        """Train, one report after the other, the first one before the first step."""
        with trainer(
            self.backend, self.spec, self.state, self.data.x, self.data.y, self.config.rule, self.device
        ) as training:
            if not self.progress.history:
                yield self._report(training, 0)
            elif not self.progress.stopped:
                self.progress = replace(self.progress, stopped=self._ended())
            while not self.progress.stopped:
                found = self._leg(training)
                yield self._report(training, found)

    def _leg(self, training: Trainer) -> int:
        """The steps up to the next report; which limits were reached at one of them."""
        epochs, steps = self._until_report()
        if not self.batched:
            return self._steps(training, None, steps, self.config.limits)
        diverges = Limits(bound=self.config.limits.bound)
        for epoch in range(self.progress.epoch, self.progress.epoch + epochs):
            done = self.progress.step - epoch * self.steps_an_epoch
            for part in self._batches(epoch):
                batches, done = part[done:], max(done - len(part), 0)
                if not len(batches):
                    continue
                left = steps if steps < len(batches) else len(batches)
                found = self._steps(training, batches[:left], left, diverges)
                steps -= left
                if found or not steps:
                    return found
        return 0

    def _until_report(self) -> tuple[int, int]:
        """Epochs and steps up to the next report or the end."""
        config, done, an_epoch = self.config, self.progress, self.steps_an_epoch
        every = config.report_every or (1 if self.batched else max(1, self._most_steps() // REPORTS))
        epochs = min(every - done.epoch % every, config.max_epochs - done.epoch)
        steps = epochs * an_epoch - done.step % an_epoch
        return epochs, steps if config.max_steps is None else min(steps, config.max_steps - done.step)

    def _most_steps(self) -> int:
        most = self.config.max_epochs * self.steps_an_epoch
        return most if self.config.max_steps is None else min(most, self.config.max_steps)

    def _batches(self, epoch: int) -> list[Array]:
        """The rows of an epoch's steps, of equal size, and those of a last, smaller one."""
        n, size = len(self.data.x), self.config.batch_size or len(self.data.x)
        order = np.random.Generator(np.random.PCG64([self.config.seed, epoch])).permutation(n)
        whole = n - n % size
        parts = [order[:whole].reshape(-1, size), order[None, whole:]]
        return [part for part in parts if part.size]

    def _steps(self, training: Trainer, batches: Array | None, steps: int, limits: Limits) -> int:
        done = self.progress
        coefficients = np.array([self.config.coefficients(done.step + index) for index in range(steps)])
        leg = training.run(batches, coefficients, limits, math.inf if done.previous is None else done.previous)
        step = done.step + leg.steps
        previous = float(leg.losses[leg.steps - 1]) if leg.steps else done.previous
        self.progress = replace(done, step=step, epoch=step // self.steps_an_epoch, previous=previous)
        return leg.reached

    # Reports, and what ends a run at one

    def _report(self, training: Trainer, found: int) -> Measurement:
        report, found = self._measured(training, found)
        if self.progress.history and not math.isfinite(report.loss):  # good for one batch, and not for all
            report = self.progress.history[-1]
            self.progress = replace(self.progress, step=report.step, epoch=report.epoch)
        else:
            self.state = training.state()
            self.progress = replace(self.progress, history=(*self.progress.history, report))
        done = self.progress
        if len(self.data.held_out_x) and not found & DIVERGED:
            self._compare(report)
        self.progress = replace(self.progress, stopped=self._ended(found))
        last = self.progress.stopped or done.step == 0
        if self.checkpoints and (last or len(done.history) % self.checkpoint_every == 0):
            self.checkpoints.save(done.step, *self.saved())
        return report

    def _measured(self, training: Trainer, found: int) -> tuple[Measurement, int]:
        """What holds at the parameters; where they have diverged, at those before."""
        before = self.progress.history[-1] if self.progress.history else None
        loss, norm = training.measure(self.data.x, self.data.y)
        previous = before.loss if self.batched and before else self.progress.previous
        here = reached(loss, norm, math.inf if previous is None else previous, self.config.limits)
        if here & DIVERGED and not found & DIVERGED and before:
            training.revert()
            loss, norm = training.measure(self.data.x, self.data.y)
        held_out = len(self.data.held_out_x) > 0
        return Measurement(
            self.progress.step, self.progress.epoch, loss, norm,
            self._metric(training, self.data.x, self.data.y),
            training.measure(self.data.held_out_x, self.data.held_out_y)[0] if held_out else None,
            self._metric(training, self.data.held_out_x, self.data.held_out_y) if held_out else None,
            self.config.coefficients(max(self.progress.step - 1, 0))[0],
        ), found | here  # fmt: skip

    def _metric(self, training: Trainer, x: Array, y: Array) -> float:
        return metric(self.data.preparation, self.spec, training.outputs(x), y)

    def _compare(self, report: Measurement) -> None:
        done, loss = self.progress, report.held_out_loss
        if loss is not None and (done.best_loss is None or loss < done.best_loss):
            self.best = {name: self.state[name] for name in self.spec.parameter_shapes}
            self.progress = replace(done, best_loss=loss, best_epoch=report.epoch, waited=0)
        else:
            self.progress = replace(done, waited=done.waited + 1)

    def _ended(self, found: int = 0) -> tuple[str, ...]:
        """Every reason to stop here."""
        done, config = self.progress, self.config
        reasons = [name for bit, name in STEP_REASONS.items() if found & bit]
        if config.patience is not None and done.waited >= config.patience:
            reasons.append("patience")
        if done.epoch >= config.max_epochs:
            reasons.append("max_epochs")
        if config.max_steps is not None and done.step >= config.max_steps:
            reasons.append("max_steps")
        if not reasons and self.interrupted():
            reasons.append("interrupted")
        return tuple(reasons)

    # Checkpoints

    def saved(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """All that the rest of the run depends on, as arrays and JSON. The order of the samples is a function of the
        seed and the epoch, so that no state of a generator is left over.
        """
        arrays = {**self.state, **{f"best.{name}": array for name, array in self.best.items()}}
        progress = asdict(self.progress)
        progress["stopped"] = [reason for reason in self.progress.stopped if reason != "interrupted"]
        return arrays, {
            "format": FORMAT,
            "spec": self.spec.to_dict(),
            "config": self.config.to_dict(),
            "backend": self.backend.name,
            "device": self.device,
            "preparation": self.data.preparation.to_dict(),
            "source": self.data.source,
            "digest": self.data.digest,
            "progress": finite(progress),
        }

    def resume(self) -> None:
        """Go on from the newest checkpoint that is whole; `notes` say what of it could not be used.

        Raises CheckpointError where there is none or where it is of another run; the limits may differ.
        """
        assert self.checkpoints is not None
        arrays, metadata, self.notes = self.checkpoints.newest()
        self.checkpoints.tidy()
        _, mine = self.saved()
        for key in ("format", "spec", "backend", "device", "digest", "preparation"):
            if metadata.get(key) != mine[key]:
                raise CheckpointError(_another(key, metadata.get(key), mine[key]))
        config = metadata.get("config")
        theirs = config if isinstance(config, dict) else {}
        differing = [key for key, value in mine["config"].items() if theirs.get(key) != value]
        if set(differing) - set(LIMITS):
            raise CheckpointError(_another(f"config: {min(set(differing) - set(LIMITS))}", None, None))
        shapes = {name: array.shape for name, array in self.state.items()}
        kept = {name: array for name, array in arrays.items() if not name.startswith("best.")}
        if {name: array.shape for name, array in kept.items()} != shapes:
            raise CheckpointError("the checkpoint holds other arrays than the network has")
        self.state = {name: kept[name] for name in shapes}
        self.best = {name[5:]: array for name, array in arrays.items() if name.startswith("best.")}
        self.progress = _progress(metadata["progress"])
        if differing:  # other limits: what ended it need not end it now
            self.progress = replace(self.progress, stopped=())


def _another(key: str, theirs: Any, mine: Any) -> str:
    said = f": {theirs} there, {mine} here" if key in ("backend", "device") else ""
    return f"the checkpoint is of another run: its {key} is not the same{said}; resume with what it was begun with"


def _progress(data: dict[str, Any]) -> Progress:
    return Progress(
        **{**data, "history": tuple(_report(row) for row in data["history"]), "stopped": tuple(data["stopped"])}
    )


def _report(row: Mapping[str, Any]) -> Measurement:
    numbers: dict[str, Any] = {
        key: math.nan if value is None and not key.startswith("held_out") else value for key, value in row.items()
    }
    return Measurement(**numbers)


def summary(run: Run) -> dict[str, Any]:
    """What a run came to, as JSON-able data."""
    done = run.progress
    last = done.history[-1]
    return finite(
        {
            "stopped": list(done.stopped), "steps": done.step, "epochs": done.epoch, "loss": last.loss,
            "gradient_norm": last.gradient_norm, "metric": "accuracy" if run.data.preparation.classes else "r2",
            "training": last.metric, "held_out": last.held_out_metric, "held_out_loss": last.held_out_loss,
            "best_epoch": done.best_epoch if done.best_loss is not None else None,
        }
    )  # fmt: skip
