"""A small training run that writes checkpoints, and its file operations one by one, for tests that stop it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from refimpl import backend as backends
from refimpl.formats import files
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.checkpoints import Checkpoints
from refimpl.training.config import TrainingConfig
from refimpl.training.datasets import Dataset
from refimpl.training.preparation import Prepared, prepare
from refimpl.training.run import Run

SPEC = NetworkSpec((3,), (LayerSpec(4, "tanh"), LayerSpec(2, "identity")), "cross_entropy", name="small")
CONFIG = TrainingConfig(update="adam", learning_rate=0.05, batch_size=4, max_epochs=6, patience=50)
OPERATIONS = ("open", "write", "fsync", "close", "replace", "unlink")

Before = Callable[..., None]


def data() -> Prepared:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((19, 3))
    y = np.where(x[:, 0] * x[:, 1] > 0, "same", "other")
    return prepare(Dataset("quadrants", x, y, ("a", "b", "c"), ("class",)), SPEC, validation=0.2, standardise=True)


def run(folder: Path, config: TrainingConfig = CONFIG, **options: Any) -> Run:
    return Run(SPEC, data(), config, backends.load("numpy"), checkpoints=Checkpoints(folder), **options)


def finish(training: Run) -> Run:
    for _ in training.reports():
        pass
    return training


class WatchedOs:
    """`os`, whose operations on files are announced to `before`, with their arguments, before they are done."""

    def __init__(self, before: Before) -> None:
        self.before = before

    def __getattr__(self, name: str) -> Any:
        operation = getattr(os, name)
        if name not in OPERATIONS:
            return operation

        def announced(*arguments: Any) -> Any:
            self.before(name, *arguments)
            return operation(*arguments)

        return announced


@contextmanager
def watched(before: Before) -> Iterator[None]:
    """Every operation by which files are written and old checkpoints removed is announced."""
    unlink = Path.unlink

    def announced(path: Path) -> None:
        before("unlink", path)
        unlink(path)

    with patch.object(files, "os", WatchedOs(before)), patch.object(Path, "unlink", announced):
        yield


def operations(folder: Path) -> list[str]:
    """The operations of an uninterrupted run."""
    found: list[str] = []
    with watched(lambda operation, *arguments: found.append(operation)):
        finish(run(folder))
    return found
