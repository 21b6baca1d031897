"""A stranger's code: called so that what it does to the process does not outlast the call, and what it raises is told
in one line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import numpy as np

from refimpl.signals import ended_by


def told(error: BaseException) -> str:
    """The kind of an error and the first line of its message, without control characters."""
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, whatever its __str__ does."""
    try:
        line = next(iter(str(error).splitlines()), "")
    except KeyboardInterrupt:
        raise
    except BaseException:
        line = ""
    return printable(line[:200]) or "(no message)"


def printable(text: str) -> str:
    """A stranger's text without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """NumPy's error handling and the working folder as they were; what is printed goes to stderr. A signal to end that
    came meanwhile is heard, also where the stranger's code took it for an error of its own.
    """
    folder, signals = _folder(), len(ended_by)
    try:
        with np.errstate(), contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)
        if len(ended_by) > signals:
            raise KeyboardInterrupt


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None
