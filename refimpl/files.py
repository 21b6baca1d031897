"""Files that are there whole or not at all, also when the machine stops in the middle; and files of strangers, read
without waiting for what never comes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from refimpl.errors import RefimplError


def why(error: OSError | ValueError) -> str:
    """Why a file could not be used."""
    return (error.strerror if isinstance(error, OSError) else None) or "not a name that a file can have"


class Files:
    """What is asked of the file system, call by call; tests put one in its place that fails or dies at any of them."""

    def create(self, path: Path, mode: int) -> int:
        """A new file, opened for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)

    def write(self, handle: int, data: memoryview) -> int:
        """Write some of the data; how much."""
        return os.write(handle, data)

    def fsync(self, handle: int) -> None:
        """Return when what was written is on the disk."""
        os.fsync(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another's name."""
        os.replace(source, target)

    def fsync_folder(self, folder: Path) -> None:
        """Return when the folder's names are on the disk."""
        if os.name == "nt":  # which has no such thing
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)


def write_whole(path: Path, data: bytes, files: Files | None = None) -> None:
    """Write to a temporary file in the same folder, fsync it, rename it, fsync the folder: through links, with the
    permissions of the file that is replaced. What is no regular file (a device, a pipe) is written to as it is.

    Raises OSError, ValueError; what was at `path` before is then still there.
    """
    system, target = files or Files(), Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.tmp")
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666
    handle = system.create(temporary, mode)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[system.write(handle, rest) :]
            system.fsync(handle)
        finally:
            os.close(handle)
        system.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            system.remove(temporary)
        raise
    system.fsync_folder(target.parent)


@contextlib.contextmanager
def opened(path: Path | str, error: type[RefimplError]) -> Iterator[BinaryIO]:
    """A regular file, opened for reading. Raises `error`, with the file's name, for any other and where reading
    fails.
    """
    try:
        # a pipe that nobody writes to is not waited for
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as reason:
        raise error(f"cannot read {path}: {why(reason)}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise error(f"cannot read {path}: it is no regular file; write what it holds to one")
    with open(handle, "rb") as file:
        try:
            yield file
        except OSError as reason:
            raise error(f"cannot read {path}: {why(reason)}") from None


def read_whole(path: Path | str, limit: int, error: type[RefimplError], what: str) -> bytes:
    """The bytes of a regular file of at most `limit`, the most `what` may take. Raises `error`, with its name."""
    with opened(path, error) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise error(f"{path} is larger than {limit:,} bytes, the most {what} may take")
    return raw
