"""Checkpoints of a run: the last two, each whole, each with a checksum."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from refimpl.formats import archive, files
from refimpl.formats.errors import CheckpointError

Array = NDArray[Any]
KEPT = 2
NAME = re.compile(r"step-(\d{12})\.safetensors")
LEFT_OVER = re.compile(r"\.step-\d{12}\.safetensors\.[0-9a-f]{16}\.tmp")


class Checkpoints:
    """The checkpoints in a folder, which is made where it is not there."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where the folder cannot be made."""
        self.folder = folder
        files.make_folder(folder, CheckpointError)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The folder, for one training at a time: two would remove each other's files. Raises CheckpointError."""
        try:
            lock = FileLock(self.folder / ".lock").acquire(blocking=False)
        except Timeout:
            raise CheckpointError(f"another training holds {self.folder}; wait for it, or name another") from None
        with lock:
            yield

    def paths(self) -> list[Path]:
        """The checkpoints, the newest first."""
        try:
            return sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)
        except OSError as error:
            raise CheckpointError(f"cannot read the folder {self.folder}: {error.strerror}") from None

    def save(self, step: int, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> Path:
        """Write one, and remove those before the last two. Raises CheckpointError; the older ones are then still
        there.
        """
        path = self.folder / f"step-{step:012}.safetensors"
        archive.save(path, arrays, metadata)
        self.tidy()
        return path

    def tidy(self) -> None:
        """Remove all but the last two, and what a run that was killed left half-written."""
        # what cannot be removed does no harm
        with contextlib.suppress(OSError, CheckpointError):
            left_over = [path for path in self.folder.iterdir() if LEFT_OVER.fullmatch(path.name)]
            for path in (*self.paths()[KEPT:], *left_over):
                path.unlink()

    def newest(self) -> tuple[dict[str, Array], dict[str, Any], list[str]]:
        """The newest one that is whole, and what is to be said of those that are not.

        Raises CheckpointError where there is none.
        """
        wrong: list[str] = []
        for path in self.paths():
            try:
                return *archive.read(path), wrong
            except CheckpointError as error:
                wrong.append(f"{path.name} cannot be used: {error}")
        told = "; ".join(wrong) or "there is none"
        raise CheckpointError(f"no checkpoint in {self.folder} can be used: {told}; begin anew in another folder")
