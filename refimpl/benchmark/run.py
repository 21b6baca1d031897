"""A whole benchmark: every group and every first call in a process of its own, and the results as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refimpl.benchmark.contenders import FLOOR
from refimpl.benchmark.groups import ARTICLE, LARGE, MNIST, Group
from refimpl.benchmark.machine import machine
from refimpl.formats import files
from refimpl.formats.errors import DataError
from refimpl.formats.strict_json import parse

FORMAT = "refimpl.benchmark/1"
MAX_BYTES = 2**24  # of a saved result
TIME_LIMIT = 3600  # seconds for a group
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# memory that was freed stays with the process: whether glibc hands it back is luck, and decides a twentieth of a time
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
FIRST_CALLS = {(ARTICLE.name, 1), (MNIST.name, 64), (LARGE.name, 512)}  # of these: each takes a process


@dataclass
class Task:
    """What one process is asked."""

    group: Group
    contenders: Sequence[str]
    first_call: bool = False


@dataclass
class Benchmark:
    """Results as they come in."""

    machine: Mapping[str, Any] = field(default_factory=machine)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    groups: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"format": FORMAT, "started": self.started, "machine": self.machine, "groups": self.groups}


def tasks(groups: Sequence[Group], contenders: Sequence[str]) -> list[Task]:
    """All that is to be done, in order."""
    made = []
    for group in groups:
        made.append(Task(group, contenders))
        if (group.spec.name, group.batch) in FIRST_CALLS and group.dtype == ("float64", "float32")[group.batch > 1]:
            made += [Task(group, [name], first_call=True) for name in contenders if name != FLOOR]
    return made


def run(benchmark: Benchmark, todo: Sequence[Task], seconds: float) -> Iterator[Task]:
    """Do them, one after the other; each is yielded when its result is in."""
    for task in todo:
        answer = _ask(task, seconds)
        if not task.first_call:
            group = task.group.to_dict() | {"name": task.group.name, "flops": task.group.flops}
            benchmark.groups.append(group | answer)
        else:
            rows = benchmark.groups[-1].get("rows", [])
            for row in rows:
                if row["contender"] == task.contenders[0]:
                    row["first"] = answer
        yield task


def _ask(task: Task, seconds: float) -> dict[str, Any]:
    request = {
        "task": "first call" if task.first_call else "group",
        "group": task.group.to_dict(),
        "contenders": list(task.contenders),
        "seconds": seconds,
    }
    threads = {name: str(task.group.threads) for name in THREADS}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "refimpl.benchmark.worker"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            env={**os.environ, **threads, **ALLOCATOR},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {TIME_LIMIT} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with exit code {done.returncode}"]
        return {"error": last[0][:300]}
    return dict(json.loads(done.stdout))


def read(path: Path) -> dict[str, Any]:
    """A saved result. Raises DataError."""
    found = parse(files.read(path, MAX_BYTES, DataError, "a benchmark's result"), DataError, "JSON", MAX_BYTES)
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("groups"), list):
        raise DataError(
            f"{path} is no benchmark's result: it must have the format {FORMAT}; save one with refimpl bench"
        )
    return found


def compare(now: Mapping[str, Any], saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the ratios to the floor changed, for all that was measured in both; the largest change first."""
    before = dict(_ratios(saved))
    changes = [
        {"group": group, "contender": name, "quantity": quantity, "saved": before[key], "now": ratio,
         "change": ratio / before[key]}
        for key, ratio in _ratios(now)
        if before.get(key)
        for group, name, quantity in [key]
    ]  # fmt: skip
    return sorted(changes, key=lambda change: -change["change"])


def _ratios(result: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], float]]:
    for group in result["groups"]:
        for row in group.get("rows", []):
            for quantity, times in row.items():
                if isinstance(times, dict) and "to_floor" in times:
                    yield (group["name"], row["contender"], quantity), times["to_floor"]
