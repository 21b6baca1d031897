"""The processes that a program started, wherever they hid: where the system is Linux, orphans become the children of
the process that asks, and none of them escapes by leaving its group, its session or its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SET_CHILD_SUBREAPER = 36  # of prctl(2)
PAUSE = 0.001


def adopt_orphans() -> set[int]:
    """From now on the orphans among this process's descendants become its children. Returns those that it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return {pid for pid, (parent, _) in _processes().items() if parent == os.getpid()}


def end_strays(kept: set[int], seconds: float) -> list[int]:
    """Kill all descendants of this process that are in another session than it, but `kept` and theirs, for at most so
    many seconds. Returns those that live nevertheless.
    """
    deadline = time.monotonic() + seconds
    while (strays := list(_strays(kept))) and time.monotonic() < deadline:
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # a stray's child: its turn comes when it is an orphan
                os.waitpid(pid, os.WNOHANG)
        time.sleep(PAUSE)
    return strays


def _strays(kept: set[int]) -> Iterator[int]:
    processes, here = _processes(), os.getpid()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    own = os.getsid(0)
    waiting = [pid for pid in children.get(here, []) if pid not in kept and processes[pid][1] != own]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _processes() -> dict[int, tuple[int, int]]:
    """Every process's parent and session, the dead that nobody has waited for among them; nothing without /proc."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group session …; a name may hold anything
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            found[int(folder.name)] = (int(fields[1]), int(fields[3]))
    return found
