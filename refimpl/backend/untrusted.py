"""Other people's code, called: what it does to the process does not outlast the call, and what it raises is told in one
line.

Whoever names a backend trusts it; but it has bugs, and may print, change NumPy's settings or the working folder, and
raise anything, SystemExit included, which must not end a run with exit code 0.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FRAMES = 3  # of a traceback that are told
OURS = Path(__file__).parents[1]
# and Python's own, of which the import is frozen
LIBRARIES = {"site-packages", "dist-packages", Path(contextlib.__file__).parent.name, "<frozen importlib._bootstrap>"}
FAILURES = (Exception, SystemExit)  # what other people's code may raise and be judged for


def described(error: BaseException) -> str:
    """The kind of an error, the first line of its message, and the last lines of its own code on the way there."""
    frames = ((Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__))
    own = [
        f"{path.name}:{frame.lineno} in {frame.name}"
        for path, frame in frames
        if OURS not in path.parents and LIBRARIES.isdisjoint(path.parts)
    ]
    place = f" (at {printable(', '.join(reversed(own[-FRAMES:])))})" if own else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return printable(next(iter(str(error).splitlines()), "")[:200]) or "(no message)"


def printable(text: str) -> str:
    """A text without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """NumPy's error handling and the working folder as they were; what is printed goes to stderr."""
    with np.errstate(), contextlib.chdir("."), contextlib.redirect_stdout(sys.stderr):
        yield
