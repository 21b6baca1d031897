"""Where somebody's backpropagation comes in: each door is asked for one case at a time.

- :mod:`~refimpl.conformance.doors.backend`: a Python backend, in this process or in several
- :mod:`~refimpl.conformance.doors.program`: a program, over its standard input and output
- :mod:`~refimpl.conformance.doors.answers`: a file of answers

A door gives an `Answered`: an answer to be judged, or the reason why there is none, which is a FAIL or, where the
implementation declares that it lacks something, a SKIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from refimpl.conformance.vectors import Asked
from refimpl.judge.conventions import Conventions
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.spec import NetworkSpec


@dataclass(frozen=True)
class Answered:
    """What came back: `answer`, or why there is none (`failed`, `skipped`); and the seconds that it took."""

    answer: Submission | Unusable | None = None
    failed: str = ""
    skipped: str = ""
    seconds: float = 0.0


def declared(conventions: Conventions) -> str:
    """What a description says of them."""
    return f"; declared: {conventions}" if str(conventions) else ""


class Door(Protocol):
    """Somebody's backpropagation."""

    @property
    def name(self) -> str:
        """What to call it in reports."""
        ...

    @property
    def description(self) -> str:
        """Its versions and device."""
        ...

    def arithmetic(self, dtype: str) -> Arithmetic:
        """The arithmetic that it is judged by."""
        ...

    def lacks(self, spec: NetworkSpec, dtype: str) -> str:
        """What it declares that it lacks for a network; "" where it lacks nothing."""
        ...

    def answer(self, case: Asked, dtype: str) -> Answered:
        """Its loss and gradients for a case."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...
