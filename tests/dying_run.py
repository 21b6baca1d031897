"""Runs that are killed: for every operation of the file system a child that dies before it, or half-way through a
write. Started by tests/test_checkpoints.py in a process of its own, in which no framework with threads is loaded.

Prints a line a child: the operation's number and how the child ended.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from small_runs import Counting, finish, operations, run

from refimpl.formats.files import Files


class Dying(Counting):
    """The process is killed before the operation of that number, or half-way through a write."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def before(self, operation: str) -> None:
        super().before(operation)
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, handle: int, data: memoryview) -> int:
        if self.count + 1 == self.at:
            Files.write(self, handle, data[: len(data) // 2])
        self.before("write")
        return Files.write(self, handle, data)


def main(folder: Path) -> None:
    for at in range(1, operations(folder / "counted") + 1):
        child = os.fork()
        if child == 0:
            finish(run(folder / str(at), Dying(at)))
            os._exit(0)
        print(at, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
