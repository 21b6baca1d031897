"""Sharded gradients and training, by torch.distributed and by JAX: the same certified answer, unequal shares included,
the same runs, and a clear end where a process dies.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from refimpl import backend as backends
from refimpl import check, examples
from refimpl.formats.errors import BackendError
from refimpl_torch.distributed import share

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--master-addr", "127.0.0.1"]
REFIMPL = [sys.executable, "-m", "refimpl"]
TORCH, JAX = "refimpl_torch.distributed:backend", "refimpl_jax.sharded:backend"
TRAIN = [
    "train", "--example", "digits", "--data", "digits", "--update", "adam", "--learning-rate", "0.003", "--batch", "33",
    "--validation", "0.2",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def torchrun(processes: int, *arguments: str) -> list[str]:
    return [*TORCHRUN, "--master-port", str(free_port()), "--nproc-per-node", str(processes), *REFIMPL, *arguments]


def finished(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )


def test_every_row_is_taken_once() -> None:
    for rows in (0, 1, 2, 7, 8, 1000):
        for processes in (1, 2, 3, 8):
            shares = [share(rows, rank, processes) for rank in range(processes)]
            assert np.concatenate([np.arange(rows)[part] for part in shares]).tolist() == list(range(rows))
            sizes = [part.stop - part.start for part in shares]
            assert max(sizes) - min(sizes) <= 1


def judged(outcome: subprocess.CompletedProcess[str], backend: str) -> None:
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    report = json.loads(outcome.stdout)
    assert report["ok"]
    assert {row["backend"] for row in report["rows"]} == {backend}


@pytest.mark.distributed
@pytest.mark.parametrize(("processes", "batch"), [(2, 7), (3, 2)])
def test_torch_s_shares_add_up_to_the_certified_gradient(processes: int, batch: int) -> None:
    arguments = ("check", "--backend", TORCH, "--batch", str(batch), "--json")
    judged(finished(torchrun(processes, *arguments)), "torch-distributed")


@pytest.mark.distributed
@pytest.mark.parametrize("batch", [1, 8, 13])
def test_jax_s_shards_add_up_to_the_certified_gradient(batch: int) -> None:
    flags = "--xla_force_host_platform_device_count=8"
    outcome = finished([*REFIMPL, "check", "--backend", JAX, "--batch", str(batch), "--json"], XLA_FLAGS=flags)
    judged(outcome, "jax-sharded")


@pytest.mark.distributed
def test_several_processes_of_jax() -> None:
    address = f"127.0.0.1:{free_port()}"
    command = [*REFIMPL, "check", "--backend", JAX, "--batch", "5", "--json"]
    joined = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "OMP_NUM_THREADS": "1"}
    programs = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **joined, "JAX_PROCESS_ID": str(number)},
        )
        for number in range(2)
    ]  # fmt: skip
    outputs = [program.communicate(timeout=120) for program in programs]
    assert [program.returncode for program in programs] == [0, 0], [err[-1000:] for _, err in outputs]
    assert json.loads(outputs[0][0])["ok"]
    assert outputs[1][0] == ""


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.distributed
def test_sharded_training_is_training(tmp_path: Path) -> None:
    epochs = ("--epochs", "2")
    alone = finished([*REFIMPL, *TRAIN, *epochs, "--out", str(tmp_path / "alone"), "--backend", "torch"])
    assert alone.returncode == 0, alone.stderr
    together = finished(torchrun(3, *TRAIN, *epochs, "--out", str(tmp_path / "torch"), "--backend", TORCH))
    assert together.returncode == 0, together.stderr[-2000:]
    flags = "--xla_force_host_platform_device_count=8"
    sharded = finished([*REFIMPL, *TRAIN, *epochs, "--out", str(tmp_path / "jax"), "--backend", JAX], XLA_FLAGS=flags)
    assert sharded.returncode == 0, sharded.stderr[-2000:]
    for name in ("torch", "jax"):
        for ours, theirs in zip(history(tmp_path / name), history(tmp_path / "alone"), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-9)
            assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-7)


@pytest.mark.distributed
def test_a_worker_that_dies_ends_the_run_with_a_clear_message(tmp_path: Path) -> None:
    program = subprocess.Popen(
        torchrun(2, *TRAIN, "--epochs", "100000", "--out", str(tmp_path / "out"), "--backend", TORCH),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder, deadline = tmp_path / "out" / "checkpoints", time.monotonic() + 60
    while len(list(folder.glob("step-*.safetensors"))) < 2:
        assert time.monotonic() < deadline, "no checkpoint"
        assert program.poll() is None, program.communicate()
        time.sleep(0.05)
    workers = {int(child.environ()["RANK"]): child for child in psutil.Process(program.pid).children()}
    assert set(workers) == {0, 1}
    workers[1].kill()
    _, err = program.communicate(timeout=60)
    assert program.returncode != 0
    assert "another process of the distributed run died" in err or "SIGKILL" in err or "Signal 9" in err
    assert not any(worker.is_running() for worker in workers.values())


@pytest.mark.distributed
@pytest.mark.parametrize("beginning", ["torchrun", "XLA_FLAGS="])
def test_the_readme_s_command_runs_as_it_stands(beginning: str, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (line,) = [line.strip() for line in readme.splitlines() if line.strip().startswith(beginning)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert "19 PASS, 0 FAIL, 0 UNDETERMINED of 19 elements" in outcome.stdout


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = examples.article()
    given = spec.init(seed=0), *examples.article_batch(2, 0)
    with pytest.raises(BackendError, match="torchrun"):
        check(spec, *given, backends=[TORCH])
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(BackendError, match=r"JAX_COORDINATOR_ADDRESS.* set all three, or none"):
        backends.load(JAX).supports(spec, dtype="float64", device="cpu")
