"""Training runs that are killed at random moments and go on. Run by `make training-measure`; the suite does a few.

With kill -9 nothing may be lost but what came after the last checkpoint, and the finished run must be, byte for byte,
that of an uninterrupted one. The second part of the measurement: runs with one seed give one result.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track

LATEST = 0.5  # seconds after its first checkpoint that a run is killed at
# where the tests run in the background or under nohup, signals are ignored, and that is inherited
HEARING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); from refimpl.cli import command; command()"
)
COMPARED = ("model.safetensors", "history.jsonl")


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """`refimpl train` on the digits, 40 epochs, a checkpoint each."""
    arguments = [
        "train", "--example", "digits", "--data", "digits", "--out", str(folder), "--update", "adam",
        "--learning-rate", "0.003", "--batch", "32", "--epochs", "40", "--validation", "0.2", *more,
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", HEARING, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(folder: Path, *more: str) -> dict[str, bytes]:
    """What a run that nobody kills leaves behind."""
    program = start(folder, *more)
    _, err = program.communicate(timeout=300)
    assert program.returncode == 0, err
    return result(folder)


def result(folder: Path) -> dict[str, bytes]:
    """The files that must be the same."""
    return {name: (folder / name).read_bytes() for name in COMPARED}


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, 0 if there is none."""
    found = [re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in folder.glob("checkpoints/*")]
    return max((int(match[1]) for match in found if match), default=0)


def kills(parent: Path, count: int, seed: int, *more: str) -> Iterator[int]:
    """Kill runs at random moments until that many were, each going on from where the last was killed; the step each
    was killed at. A run that finishes before its moment is compared with an uninterrupted one, and another begins.

    Raises:
        AssertionError: one did not go on, lost a checkpoint, or finished otherwise.
    """
    rng = random.Random(seed)
    straight = finished(parent / "straight", *more)
    number, step, killed = 0, 0, 0
    while killed < count:
        folder = parent / f"killed-{number}"
        program = start(folder, *more, *(["--resume"] if step else []))
        try:
            if rng.random() < 0.9:  # otherwise while it starts
                while program.poll() is None and newest(folder) <= step:
                    time.sleep(0.002)
            _, err = program.communicate(timeout=rng.uniform(0, LATEST))
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate(timeout=60)
            assert newest(folder) >= step, (seed, killed, "a checkpoint was lost")
            step, killed = newest(folder), killed + 1
            yield step
            continue
        assert program.returncode == 0, (seed, killed, err)
        assert result(folder) == straight, (seed, killed)
        number, step = number + 1, 0
    if step:
        assert finished(parent / f"killed-{number}", *more, "--resume") == straight, (seed, killed)


def main() -> int:
    """Print what was found."""
    parser = argparse.ArgumentParser(description="Kill training runs; repeat them.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", action="append", choices=["numpy", "torch", "jax"])
    asked = parser.parse_args()
    same = True
    for backend in asked.backend or ["numpy", "torch", "jax"]:
        with tempfile.TemporaryDirectory() as name:
            steps = kills(Path(name), asked.kills, asked.seed, "--backend", backend, "--epochs", "200")
            reached = list(track(steps, f"{backend}: kill -9", asked.kills))
            print(f"{backend}: {len(reached)} kills, {len(set(reached))} different steps; nothing was lost", flush=True)
            hashes = set()
            for run in track(range(asked.runs), f"{backend}: one seed"):
                files = finished(Path(name) / f"run-{run}", "--backend", backend)
                hashes.add(hashlib.sha256(b"".join(files.values())).hexdigest())
            print(f"{backend}: {asked.runs} runs with one seed, {len(hashes)} hash(es)", flush=True)
            same = same and len(hashes) == 1
    return 0 if same else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
