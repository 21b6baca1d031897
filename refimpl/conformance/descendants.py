"""The processes that a program started, wherever they hid.

Where the process that asks adopts orphans (`adopt_orphans`, which `refimpl conform` calls on Linux), none escapes by
leaving its group, its session or its environment. Elsewhere those are found that still descend from the program when
it is ended. Without /proc there are none to be seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

SET_CHILD_SUBREAPER = 36  # of prctl(2)
PAUSE = 0.001

_adopting = False


def adopt_orphans() -> None:
    """From now on the orphans among this process's descendants become its children, and those in another session than
    its own are taken for strays: for a process that starts no others there.
    """
    global _adopting
    if sys.platform == "linux":
        _adopting = ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def descendants(pid: int) -> set[int]:
    """Those that a process started, and those that they did, as far as their parents live."""
    return _descending(_processes(), [pid]) - {pid}


def strays(kept: Collection[int] = ()) -> set[int]:
    """This process's children in another session than its own, but those that are kept, and all their descendants."""
    own, here, processes = os.getsid(0), os.getpid(), _processes()
    heads = [pid for pid, (parent, session) in processes.items() if parent == here and session != own]
    return _descending(processes, [pid for pid in heads if pid not in kept])


def _descending(processes: Mapping[int, tuple[int, int]], heads: Collection[int]) -> set[int]:
    """The heads and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    found, waiting = set(heads), list(heads)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), []) if pid not in found]
        found.update(new)
        waiting += new
    return found


def end_all(known: Collection[int], kept: Collection[int], seconds: float) -> list[int]:
    """Kill these processes, and where orphans are adopted all strays but what is kept, for at most so many seconds.
    Returns those that live nevertheless.
    """
    deadline = time.monotonic() + seconds
    while (living := _living(known, kept)) and time.monotonic() < deadline:
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # another's child: its turn comes when it is an orphan
                os.waitpid(pid, os.WNOHANG)
        time.sleep(PAUSE)
    return living


def _living(known: Collection[int], kept: Collection[int]) -> list[int]:
    found = {pid for pid in known if not _ended(pid)}
    return sorted(found | (strays(kept) - set(kept) if _adopting else set()))


def _ended(pid: int) -> bool:
    try:
        return _stat(Path("/proc") / str(pid))[0] in (b"Z", b"X")
    except OSError:
        return True


def _processes() -> dict[int, tuple[int, int]]:
    """Every process's parent and session, the dead that nobody has waited for among them; nothing without a /proc of
    this process's own.
    """
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        if os.readlink("/proc/self") != str(os.getpid()):
            return found
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = _stat(folder)
                found[int(folder.name)] = (int(fields[1]), int(fields[3]))
    return found


def _stat(folder: Path) -> list[bytes]:
    """State, parent, group, session … after the name, which may hold anything."""
    return (folder / "stat").read_bytes().rpartition(b")")[2].split()
