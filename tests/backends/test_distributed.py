"""Sharded gradients and training, by torch.distributed and by JAX: the same certified answer, unequal shares included,
the same runs, and a clear end where a process dies.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize(("processes", "batch"), [(2, 7), (3, 2)])
def test_torch_s_shares_add_up_to_the_certified_gradient(processes: int, batch: int) -> None:
    arguments = ("check", "--backend", TORCH, "--batch", str(batch), "--json")
    judged(finished(torchrun(processes, *arguments)), "torch-distributed")


@pytest.mark.parametrize("batch", [1, 8, 13])
def test_jax_s_shards_add_up_to_the_certified_gradient(batch: int) -> None:
    flags = "--xla_force_host_platform_device_count=8"
    outcome = finished([*REFIMPL, "check", "--backend", JAX, "--batch", str(batch), "--json"], XLA_FLAGS=flags)
    judged(outcome, "jax-sharded")


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


def test_a_worker_that_dies_ends_the_run_with_a_clear_message(tmp_path: Path) -> None:
    program = subprocess.Popen(
        torchrun(2, *TRAIN, "--epochs", "100000", "--out", str(tmp_path / "out"), "--backend", TORCH),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder = tmp_path / "out" / "checkpoints"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder.is_dir() and len(os.listdir(folder)) >= 2):
        time.sleep(0.05)
    children = [int(child) for child in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]
    workers = [child for child in children if b"refimpl" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(workers) == 2
    rank = {int(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0RANK=")[1].split(b"\0")[0]): pid for pid in workers}
    killed = time.monotonic()
    os.kill(rank[1], signal.SIGKILL)
    _, err = program.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert program.returncode != 0
    assert "another process of the distributed run died" in err or "SIGKILL" in err or "Signal 9" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.parametrize("beginning", ["torchrun", "XLA_FLAGS="])
def test_the_readme_s_command_runs_as_it_stands(beginning: str, tmp_path: Path) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (line,) = [line.strip() for line in readme.splitlines() if line.strip().startswith(beginning)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert "19 PASS, 0 FAIL, 0 UNDETERMINED of 19 elements" in outcome.stdout


def test_what_is_missing_is_said() -> None:
    alone = finished([*REFIMPL, "check", "--backend", TORCH])
    assert alone.returncode == 2
    assert "torchrun" in alone.stderr
    half = finished([*REFIMPL, "check", "--backend", JAX], JAX_PROCESS_ID="0")
    assert half.returncode == 2
    assert "set all three, or none" in half.stderr
