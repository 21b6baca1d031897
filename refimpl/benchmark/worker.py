"""The process in which a group is measured: `python -m refimpl.benchmark.worker`, one JSON request on stdin, one JSON
answer on stdout.

Threads are limited before NumPy or a framework is imported: by the variables that they read and by the processor
cores that the process may use, which binds those that read none.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Measure what stdin asks for."""
    request = json.loads(sys.stdin.read())
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: request["group"]["threads"]])
    answer = os.dup(1)
    os.dup2(2, 1)  # what a framework prints is no part of the answer
    result = _first_call(request) if request["task"] == "first call" else _group(request)
    with os.fdopen(answer, "w") as stream:
        json.dump(result, stream)


def _group(request: dict[str, Any]) -> dict[str, Any]:
    from refimpl.benchmark.groups import Group
    from refimpl.benchmark.machine import frameworks
    from refimpl.benchmark.measure import measure

    group = Group.from_dict(request["group"])
    rows = measure(group, request["contenders"], request["seconds"])
    return {"rows": rows, "frameworks": frameworks()}


def _first_call(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the first call, the network's placing, tracing and compiling included, and of the second; and by how
    many bytes the process's memory grew at most. Importing the framework is not in it.
    """
    import time

    from refimpl.benchmark import contenders
    from refimpl.benchmark.groups import LEARNING_RATE, Group

    group = Group.from_dict(request["group"])
    contender = contenders.find(request["contenders"][0])
    params, x, y = group.data()
    supports = contender.supports(group.spec, dtype=group.dtype, device=group.device)
    if supports is not True:
        return {"skipped": str(supports)}
    before = _memory("VmRSS", reset=True)
    start = time.perf_counter()
    placed = contender.place(group.spec, params, x, y, device=group.device, learning_rate=LEARNING_RATE)
    with placed:
        placed.wait(placed.gradients())
        first = time.perf_counter() - start
        start = time.perf_counter()
        placed.wait(placed.gradients())
        second = time.perf_counter() - start
    peak = _memory("VmHWM")
    return {
        "first_call": first,
        "second_call": second,
        "peak_memory": None if before is None or peak is None else max(0, peak - before),
    }


def _memory(entry: str, reset: bool = False) -> int | None:
    """Bytes of resident memory, now or at most since the reset; None where the system has no /proc."""
    try:
        if reset:
            with open("/proc/self/clear_refs", "w") as stream:
                stream.write("5")
        with open("/proc/self/status") as stream:
            lines = dict(line.split(":", 1) for line in stream)
    except OSError:
        return None
    return int(lines[entry].split()[0]) * 1024


if __name__ == "__main__":
    main()
