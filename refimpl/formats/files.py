"""Files: read with a limit, and written whole or not at all, also when the machine stops in the middle."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from refimpl.formats.errors import RefimplError


def why(error: OSError | ValueError) -> str:
    """Why a file could not be used."""
    return (error.strerror if isinstance(error, OSError) else None) or "not a name that a file can have"


def read(path: Path | str, limit: int, error: type[RefimplError], what: str) -> bytes:
    """The bytes of a file, a pipe or a device; at most `limit`, the most `what` may take. Raises `error`."""
    try:
        with open(path, "rb") as file:
            raw = bytearray()  # in pieces: to read `limit` takes memory for all of it at once
            while len(raw) <= limit and (piece := file.read(2**20)):
                raw += piece
    except (OSError, ValueError) as reason:
        raise error(f"cannot read {shown(path)}: {why(reason)}; name {what}") from None
    if len(raw) > limit:
        raise error(f"{shown(path)} is larger than {limit:,} bytes, the most {what} may take")
    return bytes(raw)


def write(path: Path | str, data: bytes, error: type[RefimplError]) -> None:
    """Write to a temporary file in the same folder, fsync it, rename it, fsync the folder: through links, with the
    permissions of the file that is replaced. What is no regular file (/dev/stdout, a pipe) is written to as it is.

    Raises `error`; at `path` is then what was there before, whole.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target, data)
    except (OSError, ValueError) as reason:
        remedy = "name a file in a folder that exists and may be written to"
        raise error(f"cannot write {shown(path)}: {why(reason)}; {remedy}") from None


def _replace(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.tmp")
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name != "nt":  # which has no handles of folders
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def make_folder(path: Path, error: type[RefimplError]) -> None:
    """Make a folder, unless it is there, and see that it can be written to. Raises `error`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as reason:
        raise error(f"cannot write to {shown(path)}: {why(reason)}; name another folder") from None


def shown(path: str | os.PathLike[str]) -> str:
    """A file's name, printable."""
    text = os.fspath(path)
    return text if text and text.isprintable() else ascii(text)
