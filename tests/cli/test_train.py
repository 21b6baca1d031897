"""`refimpl train` as a person meets it: what it writes, how it stops, and that nothing stops it for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import finished, kills, newest, result, start
from typer.testing import CliRunner

from refimpl import examples
from refimpl.cli import app
from refimpl.formats.errors import CheckpointError, RefimplError
from refimpl.training.model import Model

QUICK = ("--update", "adam", "--learning-rate", "0.003", "--batch", "32", "--epochs", "3", "--validation", "0.2")
WRITTEN = ["checkpoints", "history.jsonl", "loss.png", "loss.svg", "model.safetensors"]


def refimpl(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def train(folder: Path, *arguments: str) -> Any:
    return refimpl("train", "--example", "digits", "--data", "digits", "--out", str(folder), *arguments)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nobody disturbs leaves."""
    return finished(tmp_path_factory.mktemp("straight"))


def disturbed(folder: Path) -> subprocess.Popen[str]:
    """The same run, as soon as its first steps are saved."""
    program = start(folder)
    while newest(folder) == 0:
        assert program.poll() is None, program.communicate()
        time.sleep(0.005)
    return program


def test_training_writes_the_model_its_history_and_curves_and_goes_on_only_when_asked_to(tmp_path: Path) -> None:
    outcome = train(tmp_path, *QUICK)
    assert outcome.exit_code == 0, outcome.output
    assert "stopped: the last epoch is done" in outcome.output
    assert "on 359 held-out samples" in outcome.output
    assert sorted(path.name for path in tmp_path.iterdir()) == WRITTEN
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    again = train(tmp_path, *QUICK)
    assert isinstance(again.exception, CheckpointError)
    assert str(tmp_path) in str(again.exception)
    assert "--resume" in str(again.exception)
    assert train(tmp_path, *QUICK, "--resume").exit_code == 0


def test_reports_as_lines_of_json(tmp_path: Path) -> None:
    outcome = train(tmp_path, *QUICK, "--json")
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [line["epoch"] for line in lines[:-1]] == [0, 1, 2, 3]
    assert lines[-1]["summary"]["stopped"] == ["max_epochs"]


def test_a_diverging_run_is_exit_code_1_and_keeps_a_model(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    x, y = examples.article_batch(10)
    np.savetxt(path, np.hstack([x, y]), delimiter=",", header="a,b,c,d,y", comments="")
    outcome = refimpl("train", "--data", str(path), "--learning-rate", "1e6", "--out", str(tmp_path / "out"))
    assert outcome.exit_code == 1, outcome.output
    assert "the last good parameters are kept" in outcome.output
    model = Model.load(tmp_path / "out" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in model.params.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--data is missing", ".csv"]),
        (["--data", ""], ["--data is missing", ".csv"]),
        (["--data", "nothing"], ["--data", "'nothing'", "digits", ".csv"]),
        (["--data", "none.csv"], ["cannot read none.csv", "No such file"]),
        (["--data", "iris"], ["squared_error takes numbers", "--one-hot"]),
        (["none.json", "--data", "iris"], ["cannot read none.json"]),
        (["none.json", "--example", "digits", "--data", "iris"], ["none.json", "not both"]),
        (["--data", "diabetes"], ["10 features", "4 inputs"]),
        (["--data", "diabetes", "--update-parameter", "x"], ["--update-parameter must be NAME=NUMBER", "'x'"]),
        (["--data", "diabetes", "--schedule-parameter", "a=b"], ["--schedule-parameter must be NAME=NUMBER", "'a=b'"]),
        (["--data", "diabetes", "--update", "sgd"], ["update", "'sgd'", "momentum"]),
        (["--data", "diabetes", "--validation", "1"], ["--validation"]),
        (["--example", "digits", "--data", "digits", "--backend", "nothing"], ["no backend 'nothing'"]),
        (["--example", "digits", "--data", "digits", "--patience", "3"], ["patience", "--validation"]),
    ],
)
def test_a_wrong_request_is_one_line_and_makes_no_folder(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    outcome = refimpl("train", *arguments, "--out", str(tmp_path / "out"))
    assert isinstance(outcome.exception, RefimplError), outcome.output
    said = str(outcome.exception)
    assert said.isprintable()
    assert [word for word in words if word not in said] == []
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_s_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = refimpl("train", "--data", "iris", "--out", "")
    assert outcome.exit_code == 2
    assert "'--out': is empty; name a folder" in outcome.output
    assert list(tmp_path.iterdir()) == []


def test_the_working_folder_can_be_trained_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = refimpl("train", "--example", "digits", "--data", "digits", "--out", ".", *QUICK)
    assert outcome.exit_code == 0, outcome.exception
    assert sorted(path.name for path in tmp_path.iterdir()) == WRITTEN


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_made_is_said_before_the_training(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = train(tmp_path / place, *QUICK)
    assert isinstance(outcome.exception, CheckpointError), outcome.output
    assert place in str(outcome.exception)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_there_is_nothing_to_resume_from_is_said(tmp_path: Path) -> None:
    outcome = train(tmp_path, *QUICK, "--resume")
    assert isinstance(outcome.exception, CheckpointError), outcome.output
    assert "there is none; begin anew" in str(outcome.exception)


@pytest.mark.parametrize("name", ["RANK", "JAX_PROCESS_ID"])
def test_a_rank_without_a_world_size_is_no_further_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("WORLD_SIZE", "JAX_NUM_PROCESSES"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    outcome = train(tmp_path, *QUICK)
    assert outcome.exit_code == 0, outcome.output
    assert "stopped: the last epoch is done" in outcome.stdout
    assert (tmp_path / "model.safetensors").exists()
    printed = subprocess.run([sys.executable, "-m", "refimpl", "--version"], capture_output=True, text=True, check=True)
    assert printed.stdout.startswith("refimpl ")


def test_two_trainings_in_one_folder_the_second_is_refused_and_the_first_unharmed(
    tmp_path: Path, straight: dict[str, bytes]
) -> None:
    first = disturbed(tmp_path)
    first.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
    for more in ([], ["--resume"]):
        second = start(tmp_path, *more)
        out, err = second.communicate(timeout=120)
        assert (second.returncode, out) == (2, "")
        assert err.startswith("refimpl: ")
        assert len(err.splitlines()) == 1
        assert str(tmp_path) in err
        assert "another training" in err
    first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert result(tmp_path) == straight


def test_ctrl_c_saves_and_resume_goes_on_to_the_same_bits(tmp_path: Path, straight: dict[str, bytes]) -> None:
    program = disturbed(tmp_path)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=120)
    assert program.returncode == 130, err
    assert "stopping at the next report" in err
    assert "the same command with --resume goes on" in out
    assert finished(tmp_path, "--resume") == straight


@pytest.mark.kills
def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, seed: int) -> None:
    assert len(list(kills(tmp_path, 3, seed))) == 3
