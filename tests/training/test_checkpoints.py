"""Checkpoints lose nothing: whatever fails, whenever the process dies, and whatever is done to the files."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import CONFIG, OPERATIONS, finish, operations, run, watched

from refimpl import backend as backends
from refimpl import examples
from refimpl.formats.errors import CheckpointError
from refimpl.training.checkpoints import KEPT, Checkpoints
from refimpl.training.config import TrainingConfig
from refimpl.training.datasets import Dataset
from refimpl.training.preparation import prepare
from refimpl.training.run import Run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(run(folder))
    return content(folder)


@pytest.fixture
def finished(tmp_path: Path, uninterrupted: dict[str, bytes]) -> Path:
    folder = tmp_path / "finished"
    folder.mkdir()
    for name, raw in uninterrupted.items():
        (folder / name).write_bytes(raw)
    return folder


def name(step: int) -> str:
    return f"step-{step:012}.safetensors"


def test_the_last_two_are_kept(uninterrupted: dict[str, bytes]) -> None:
    assert list(uninterrupted) == [name(20), name(24)]
    assert len(uninterrupted) == KEPT


def goes_on(folder: Path, before: list[str], uninterrupted: dict[str, bytes]) -> None:
    """After these operations nothing that was saved is lost, and the run goes on from there to the same bytes."""
    resumed = run(folder)
    saved = before.count("replace")
    assert [path.name for path in Checkpoints(folder).paths()][:1] == [name(4 * (saved - 1))][:saved], before
    if saved:
        resumed.resume()
        assert resumed.notes == []
        assert resumed.progress.step == 4 * (saved - 1)
    finish(resumed)
    assert content(folder) == uninterrupted, before


def test_the_run_dies_at_every_operation_and_goes_on(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    program = [sys.executable, str(Path(__file__).parents[1] / "dying_run.py"), str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    whole = operations(tmp_path / "whole")
    assert [line.split() for line in ended] == [[str(at), str(-signal.SIGKILL)] for at in range(1, len(whole) + 1)]
    for at in range(1, len(whole) + 1):
        goes_on(tmp_path / str(at), whole[: at - 1], uninterrupted)


def failing(at: int, error: int, operations: tuple[str, ...]) -> Callable[..., None]:
    """The operation of that number fails, and so do all of `operations` after it."""
    count = 0

    def before(operation: str, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count >= at and operation in operations:
            if operation == "close":
                os.close(*arguments)
            raise OSError(error, os.strerror(error))

    return before


@pytest.mark.parametrize(
    ("error", "fail"), [(errno.ENOSPC, OPERATIONS[:-1]), (errno.EROFS, OPERATIONS)], ids=["full disk", "read-only"]
)
def test_every_operation_fails_and_the_older_checkpoints_remain(
    error: int, fail: tuple[str, ...], tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    whole = operations(tmp_path / "whole")
    for at in range(1, len(whole) + 1):
        folder = tmp_path / str(at)
        # an old checkpoint that cannot be removed does no harm
        harmless = set(whole[at - 1 :]) == {"unlink"}
        refused = pytest.raises(CheckpointError, match=os.strerror(error))
        with watched(failing(at, error, fail)), contextlib.nullcontext() if harmless else refused:
            finish(run(folder))
        goes_on(folder, whole[: at - 1], uninterrupted)


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/below: Not a directory; name another"):
        Checkpoints(tmp_path / "file" / "below")


def test_a_folder_is_held_by_one_training_at_a_time(tmp_path: Path) -> None:
    with Checkpoints(tmp_path).held():
        with pytest.raises(CheckpointError, match="another training holds") as caught, Checkpoints(tmp_path).held():
            pass
        assert str(tmp_path) in str(caught.value)
    with Checkpoints(tmp_path).held():
        pass


def test_a_damaged_checkpoint_is_passed_over(finished: Path, uninterrupted: dict[str, bytes]) -> None:
    newest = finished / name(24)
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = run(finished)
    resumed.resume()
    assert resumed.progress.step == 20
    assert len(resumed.notes) == 1
    assert newest.name in resumed.notes[0]
    finish(resumed)
    assert content(finished) == uninterrupted


def test_where_no_checkpoint_is_whole_each_is_named(finished: Path) -> None:
    for path in finished.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{name(24)}.*{name(20)}.*begin anew"):
        run(finished).resume()


def test_a_resumed_run_must_be_the_same(finished: Path) -> None:
    with pytest.raises(CheckpointError, match="config: learning_rate is not the same"):
        run(finished, replace(CONFIG, learning_rate=0.06)).resume()
    other = run(finished)
    other.data = replace(other.data, x=other.data.x + 1)
    with pytest.raises(CheckpointError, match="its digest is not the same"):
        other.resume()


def test_a_finished_run_goes_on_only_where_its_limits_allow_more(finished: Path, tmp_path: Path) -> None:
    done = run(finished)
    done.resume()
    assert done.progress.stopped == ("max_epochs",)
    assert list(done.reports()) == []
    longer = replace(CONFIG, max_epochs=9)
    resumed = run(finished, longer)
    resumed.resume()
    finish(resumed)
    straight = finish(run(tmp_path / "straight", longer))
    assert resumed.progress == straight.progress
    assert all(np.array_equal(resumed.state[name], array) for name, array in straight.state.items())


@pytest.mark.parametrize(("batch", "steps"), [(4, 6), (4, 7), (7, 4)])
def test_a_run_that_ended_within_an_epoch_goes_on_there(batch: int, steps: int, tmp_path: Path) -> None:
    whole = replace(CONFIG, batch_size=batch, patience=None)
    ended = finish(run(tmp_path / "ended", replace(whole, max_steps=steps)))
    assert ended.progress.stopped == ("max_steps",)
    assert ended.progress.step % ended.steps_an_epoch
    resumed = run(tmp_path / "ended", whole)
    resumed.resume()
    straight = finish(run(tmp_path / "straight", whole))
    assert all(np.array_equal(finish(resumed).state[name], array) for name, array in straight.state.items())
    assert resumed.progress.step == straight.progress.step


def test_a_run_that_diverged_reads_back(tmp_path: Path) -> None:
    x, y = examples.article_batch()
    given = prepare(Dataset("random", x, y, tuple("abcd"), ("y",)), examples.article())

    def article() -> Run:
        config = TrainingConfig(learning_rate=1e6)
        return Run(examples.article(), given, config, backends.load("numpy"), checkpoints=Checkpoints(tmp_path))

    assert finish(article()).diverged
    resumed = article()
    resumed.resume()
    assert resumed.diverged
    assert math.isfinite(resumed.progress.history[0].loss)
