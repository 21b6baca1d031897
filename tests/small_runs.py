"""A small training run that writes checkpoints, for tests that stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from refimpl import backend as backends
from refimpl.formats.files import Files
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.checkpoints import Checkpoints
from refimpl.training.config import TrainingConfig
from refimpl.training.data import Dataset, Prepared, prepare
from refimpl.training.run import Run

SPEC = NetworkSpec((3,), (LayerSpec(4, "tanh"), LayerSpec(2, "identity")), "cross_entropy", name="small")
CONFIG = TrainingConfig(update="adam", learning_rate=0.05, batch_size=4, max_epochs=6, patience=50)
OPERATIONS = ("create", "write", "fsync", "replace", "fsync_folder", "remove")


def data() -> Prepared:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((19, 3))
    y = np.where(x[:, 0] * x[:, 1] > 0, "same", "other")
    return prepare(Dataset("quadrants", x, y, ("a", "b", "c"), ("class",)), SPEC, validation=0.2, standardise=True)


def run(folder: Path, files: Files | None = None, config: TrainingConfig = CONFIG, **options: Any) -> Run:
    return Run(SPEC, data(), config, backends.load("numpy"), checkpoints=Checkpoints(folder, files), **options)


def finish(training: Run) -> Run:
    for _ in training.reports():
        pass
    return training


class Counting(Files):
    """Counts what is asked of the file system."""

    def __init__(self) -> None:
        self.count = 0

    def before(self, operation: str) -> None:
        self.count += 1


def _counted(operation: str) -> Any:
    def call(self: Counting, *arguments: Any) -> Any:
        self.before(operation)
        return getattr(Files, operation)(self, *arguments)

    return call


for _operation in OPERATIONS:
    setattr(Counting, _operation, _counted(_operation))


def operations(folder: Path) -> int:
    """How many operations of the file system an uninterrupted run takes."""
    files = Counting()
    finish(run(folder, files))
    return files.count
