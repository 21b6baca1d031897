"""Runs that are killed: for every operation on files a child that dies before it, or half-way through a write. Started
by tests/training/test_checkpoints.py in a process of its own, in which no framework with threads is loaded.

Prints a line a child: the operation's number and how the child ended.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from small_runs import finish, operations, run, watched


def dies(folder: Path, at: int) -> None:
    """Run until the operation of that number."""
    count = 0

    def before(operation: str, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            if operation == "write":
                handle, data = arguments
                os.write(handle, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(before):
        finish(run(folder))


def main(folder: Path) -> None:
    for at in range(1, len(operations(folder / "counted")) + 1):
        child = os.fork()
        if child == 0:
            dies(folder / str(at), at)
            os._exit(0)
        print(at, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
