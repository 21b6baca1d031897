"""Checkpoints lose nothing: whatever fails, whenever the process dies, and whatever is done to the files."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import CONFIG, Counting, finish, operations, run

from refimpl import backend as backends
from refimpl import examples
from refimpl.formats import archive
from refimpl.formats.errors import CheckpointError
from refimpl.training.checkpoints import KEPT, Checkpoints
from refimpl.training.config import TrainingConfig
from refimpl.training.data import Dataset, prepare
from refimpl.training.run import Run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(run(folder))
    return content(folder)


def test_the_last_two_are_kept(uninterrupted: dict[str, bytes]) -> None:
    assert list(uninterrupted) == [f"step-{step:012}.safetensors" for step in (20, 24)]
    assert len(uninterrupted) == KEPT


class Failing(Counting):
    """The operation of that number fails, and all after it: a full disk, a folder that has become read-only."""

    def __init__(self, at: int, error: int) -> None:
        super().__init__()
        self.at, self.error = at, error

    def before(self, operation: str) -> None:
        super().before(operation)
        if self.count >= self.at and operation != "remove":
            raise OSError(self.error, os.strerror(self.error))


def test_the_run_dies_at_every_operation_and_goes_on(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    program = [sys.executable, str(Path(__file__).with_name("dying_run.py")), str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert len(ended) > 30
    for line in ended:
        at, code = map(int, line.split())
        assert code == -signal.SIGKILL, at
        folder = tmp_path / str(at)
        resumed = run(folder)
        if resumed.checkpoints is not None and resumed.checkpoints.paths():
            resumed.resume()
            assert resumed.notes == [], at
        finish(resumed)
        assert content(folder) == uninterrupted, at


@pytest.mark.parametrize("error", [28, 30])
def test_every_operation_fails_and_the_older_ones_remain(
    tmp_path: Path, uninterrupted: dict[str, bytes], error: int
) -> None:
    for at in range(1, operations(tmp_path / "counted") + 1):
        folder = tmp_path / f"{error}-{at}"
        files = Failing(at, error)
        try:
            finish(run(folder, files))
        except CheckpointError as failure:
            assert os.strerror(error) in str(failure)  # noqa: PT017
            assert len(str(failure).splitlines()) == 1  # noqa: PT017
        resumed = run(folder)
        if resumed.checkpoints is not None and resumed.checkpoints.paths():
            resumed.resume()
        finish(resumed)
        assert content(folder) == uninterrupted, at


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot make the folder"):
        Checkpoints(tmp_path / "file" / "below")


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    for name, raw in uninterrupted.items():
        (tmp_path / name).write_bytes(raw)
    newest = tmp_path / max(uninterrupted)
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = run(tmp_path)
    resumed.resume()
    assert resumed.progress.step == 20
    assert len(resumed.notes) == 1
    assert newest.name in resumed.notes[0]
    finish(resumed)
    assert content(tmp_path) == uninterrupted
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used: step-000000000024.*begin anew"):
        run(tmp_path).resume()


def test_no_flipped_bit_goes_unnoticed(uninterrupted: dict[str, bytes]) -> None:
    raw = max(uninterrupted.items())[1]
    arrays, metadata = archive.loads(raw)
    rng = np.random.default_rng(1)
    for at in rng.choice(8 * len(raw), 2000, replace=False):
        damaged = bytearray(raw)
        damaged[at // 8] ^= 1 << (at % 8)
        try:
            others, other = archive.loads(bytes(damaged))
        except CheckpointError:
            continue
        # what is no part of the content, such as a space in the header
        assert other == metadata
        assert all(np.array_equal(others[name], array, equal_nan=True) for name, array in arrays.items())
        assert set(others) == set(arrays)


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_refused_by_our_own_error(raw: bytes) -> None:
    with pytest.raises(CheckpointError):
        archive.loads(raw)


@given(
    st.dictionaries(st.text("abcW123.", min_size=1, max_size=8), st.sampled_from(["float64", "float32", "int64"])),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.booleans() | st.none()),
)
def test_what_is_written_reads_back(names: dict[str, str], metadata: dict[str, Any]) -> None:
    metadata = {k: v for k, v in metadata.items() if not isinstance(v, int) or abs(v) < 10**18}
    arrays = {name: np.asfortranarray(np.arange(12.0).reshape(3, 4).astype(dtype)).T for name, dtype in names.items()}
    raw = archive.dumps(arrays, metadata)
    assert raw == archive.dumps(arrays, metadata)
    found, said = archive.loads(raw)
    assert said == metadata
    assert set(found) == set(arrays)
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items()
    )


def test_a_resumed_run_must_be_the_same(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    for name, raw in uninterrupted.items():
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(CheckpointError, match="config: learning_rate is not the same"):
        run(tmp_path, config=replace(CONFIG, learning_rate=0.06)).resume()
    other = run(tmp_path)
    other.data = replace(other.data, x=other.data.x + 1)
    with pytest.raises(CheckpointError, match="its digest is not the same"):
        other.resume()
    done = run(tmp_path)
    done.resume()
    assert done.progress.stopped == ("max_epochs",)
    assert list(done.reports()) == []
    longer = replace(CONFIG, max_epochs=9)
    resumed = run(tmp_path, config=longer)
    resumed.resume()
    finish(resumed)
    straight = finish(run(tmp_path / "straight", config=longer))
    assert resumed.progress == straight.progress
    assert all(np.array_equal(resumed.state[name], array) for name, array in straight.state.items())


def test_a_run_that_ended_within_an_epoch_goes_on_there(tmp_path: Path) -> None:
    for batch, steps in ((4, 6), (4, 7), (7, 4)):
        folder = tmp_path / f"{batch}-{steps}"
        whole = replace(CONFIG, batch_size=batch, patience=None)
        ended = finish(run(folder, config=replace(whole, max_steps=steps)))
        assert ended.progress.stopped == ("max_steps",)
        assert ended.progress.step % ended.steps_an_epoch
        resumed = run(folder, config=whole)
        resumed.resume()
        straight = finish(run(tmp_path / f"straight-{batch}-{steps}", config=whole))
        assert all(np.array_equal(finish(resumed).state[name], array) for name, array in straight.state.items())
        assert resumed.progress.step == straight.progress.step


def test_json_has_no_infinity(tmp_path: Path) -> None:
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
