"""The three doors: a Python backend, a program, and a file of answers, each an `Implementation`.

An implementation is asked for one case at a time and gives an `Answered`: an answer to be judged, or the reason why
there is none, which is a FAIL or, where it declares that it lacks something, a SKIP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from refimpl import backend as backends
from refimpl.answers import settled
from refimpl.arithmetic import ARITHMETICS, Arithmetic
from refimpl.backend import ArithmeticBackend, Backend
from refimpl.conformance import messages
from refimpl.conformance.causes import NOT_ASKED
from refimpl.conformance.messages import ANSWERS_FORMAT, MAX_LINE, Hello, one_line
from refimpl.conformance.process import Program, ProgramError, shown
from refimpl.conformance.vectors import ARITHMETIC_NAMES, Case
from refimpl.errors import BackendError, ConformanceError
from refimpl.files import opened
from refimpl.strangers import kept, printable, told

MAX_STARTS = 5  # of a program that must be killed, one after the other without a usable answer between
MAX_ANSWERS_BYTES = 2**26
MAX_ANSWERS_LINES = 10_000
T = TypeVar("T")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Answered:
    """What came back: `answer` (loss, gradients), or why there is none (`failed`, `skipped`). `seconds` that it took,
    where that was measured elsewhere.
    """

    answer: Any = None
    failed: str = ""
    skipped: str = ""
    seconds: float | None = None


class Implementation(Protocol):
    """Somebody's backpropagation, behind one of the doors."""

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

    def answer(self, case: Case, dtype: str) -> Answered:
        """Its loss and gradients for a case."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class BackendDoor:
    """A Python backend."""

    def __init__(self, backend: Backend, device: str = "cpu") -> None:
        self.backend, self.device = backend, device
        self.name = backend.name
        module = printable(str(type(backend).__module__).partition(".")[0])
        self.description = f"backend {backend.name} ({module}) on {device}"

    def arithmetic(self, dtype: str) -> Arithmetic:
        """IEEE's of the dtype, or what the backend declares. Raises BackendError where that is none."""
        declared: Any = ARITHMETICS[dtype]
        if isinstance(self.backend, ArithmeticBackend):
            try:
                with kept():
                    declared = self.backend.arithmetic(dtype=dtype, device=self.device)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a stranger's code may raise anything
                raise BackendError(f"backend {self.name!r} cannot be judged: arithmetic raised {told(error)}") from None
        if not isinstance(declared, Arithmetic):
            raise BackendError(
                f"backend {self.name!r} cannot be judged: arithmetic returned a {type(declared).__name__}; "
                "return a refimpl.arithmetic.Arithmetic"
            )
        return declared

    def answer(self, case: Case, dtype: str) -> Answered:
        """What the backend returns; what it raises is a failure."""
        supported = backends.supported(self.backend, case.spec, dtype, self.device)
        if supported is not True:
            return Answered(skipped=str(supported))
        try:
            with kept():
                function = self.backend.gradient_function(case.spec, dtype=dtype, device=self.device)
                return Answered(settled(function(*case.data(dtype))))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's code may raise anything, and its verdict is FAIL
            return Answered(failed=f"raised {told(error)}")

    def close(self) -> None:
        """Nothing is held."""


class ProcessDoor:
    """A program that is asked line by line (:mod:`refimpl.conformance.messages`)."""

    def __init__(self, command: Sequence[str], dtype: str, seconds: float) -> None:
        """Starts the program. Raises ConformanceError where it cannot be started or does not say hello."""
        self.command, self.dtype, self.seconds = list(command), dtype, seconds
        self.asked = self.wasted = 0
        self.program: Program | None = None
        self.hello = self._start()
        self.name = self.hello.name
        self.description = f"{self.hello.name} {self.hello.version}".strip() + f" ({' '.join(command)})"

    def arithmetic(self, dtype: str) -> Arithmetic:
        """IEEE's of the dtype, or what the hello declares."""
        return ARITHMETIC_NAMES[self.hello.arithmetic or dtype]

    def answer(self, case: Case, dtype: str) -> Answered:
        """What the program answers; whatever else it does is a failure, and it is started anew."""
        supported = self.hello.supports(case.spec, dtype)
        if supported is not True:
            return Answered(skipped=str(supported))
        if self.wasted >= MAX_STARTS:
            return Answered(failed=f"{NOT_ASKED}: the program failed {MAX_STARTS} times in a row")
        try:
            answered = self._ask(case, dtype)
        except (ProgramError, ConformanceError) as error:
            self._discard()
            self.wasted += 1
            return Answered(failed=str(error))
        self.wasted = 0
        return answered

    def _ask(self, case: Case, dtype: str) -> Answered:
        since = time.monotonic()
        if self.program is None:
            self._start()
        assert self.program is not None
        self.asked += 1
        line = self.program.ask(messages.evaluate(self.asked, case, dtype), self.seconds, since)
        message = _understood(line, partial(messages.heard, what="the answer"), ", and stdout is for answers alone")
        if message.get("id") != self.asked or isinstance(message["id"], bool):
            raise ConformanceError(f"answered id {message.get('id')!r:.20} when {self.asked} was asked")
        kind = message.get("type")
        if kind == "unsupported":
            return Answered(skipped=repr(str(message.get("reason", "no reason given"))[:200])[1:-1])
        if kind == "error":
            return Answered(failed=f"said: {str(message.get('message', 'no message'))[:200]!r}")
        if kind != "answer":
            raise ConformanceError(f"wrote a message of type {str(kind)[:20]!r} where an answer was due")
        return Answered(messages.read_answer(message, dtype))

    def _start(self) -> Hello:
        self.program = Program(self.command)
        try:
            greeting = messages.say({"type": "hello", "format": messages.FORMAT, "dtype": self.dtype})
            return _understood(self.program.ask(greeting, self.seconds), messages.read_hello)
        except (ProgramError, ConformanceError) as error:
            self._discard()
            advice = "" if "first line" in str(error) else "; the first line must be its hello"
            raise ConformanceError(f"{self.command[0]}: {error}{advice}") from None
        except BaseException:  # a signal
            self._discard()
            raise

    def _discard(self) -> None:
        if self.program is not None:
            self.program.kill()
            self.program = None

    def close(self) -> None:
        """Say bye and leave nothing behind."""
        if self.program is not None:
            self.program.close()
            self.program = None


def _understood(line: bytes, read: Callable[[bytes], T], advice: str = "") -> T:
    """What a line says. Raises ConformanceError, with the line."""
    try:
        return read(line)
    except ConformanceError as error:
        raise ConformanceError(f"{error}; it wrote {shown(line)}{advice}") from None


class AnswersDoor:
    """A file of answers, in the suite's order or any other. Its lines are kept as they are, and read as arrays when
    their case is asked for.
    """

    def __init__(self, path: Path, dtype: str | None, known: Callable[[str], bool]) -> None:
        """Reads the file; `dtype`: what it must be in, None for any; `known`: whether there is a case of that name.
        Raises ConformanceError.
        """
        self.lines: dict[str, bytes] = {}
        self.name, self.description, self.dtype = str(path), "", dtype or ""
        left = MAX_ANSWERS_BYTES
        with opened(path, ConformanceError) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
                left -= len(line)
                if left < 0 or number > MAX_ANSWERS_LINES:
                    raise ConformanceError(
                        f"{path} is larger than {MAX_ANSWERS_BYTES:,} bytes or {MAX_ANSWERS_LINES:,} lines; split it"
                    )
                try:
                    if line.strip():
                        self._line(line.removeprefix(BOM).rstrip(b"\r\n"), dtype, known)
                except ConformanceError as error:
                    raise ConformanceError(f"{path}: line {number}: {error}") from None
        if not self.description:
            raise ConformanceError(f"{path} is empty; its first line must be a hello")

    def _line(self, line: bytes, dtype: str | None, known: Callable[[str], bool]) -> None:
        message = messages.heard(line, "a line of answers")
        if not self.description:
            self._head(message, dtype)
            return
        case = message.get("case")
        if not isinstance(case, str) or not known(case):
            raise ConformanceError(f"case {str(case)[:60]!r} is not one of the suite's")
        if case in self.lines:
            raise ConformanceError(f"case {case!r} is answered twice")
        _read(message, self.dtype)  # it must be an answer
        self.lines[case] = line

    def _head(self, message: dict[str, Any], dtype: str | None) -> None:
        if message.get("format") != ANSWERS_FORMAT:
            raise ConformanceError(f'the first line must hold "format":"{ANSWERS_FORMAT}"')
        self.dtype = message.get("dtype", dtype or "float64")
        if self.dtype not in list(ARITHMETICS):
            raise ConformanceError(f"dtype must be one of {', '.join(ARITHMETICS)}, got {self.dtype!r:.40}")
        if dtype not in (None, self.dtype):
            raise ConformanceError(f"the answers are {self.dtype}; ask with --dtype {self.dtype}, or leave it out")
        self.name = one_line(message.get("name", self.name), "name")
        self.description = f"answers of {self.name}"

    def arithmetic(self, dtype: str) -> Arithmetic:
        """IEEE's of the dtype."""
        return ARITHMETICS[dtype]

    def answer(self, case: Case, dtype: str) -> Answered:
        """What the file holds for a case."""
        if case.id not in self.lines:
            return Answered(failed="is not answered in the file")
        return _read(messages.heard(self.lines[case.id], "a line of answers"), dtype)

    def close(self) -> None:
        """Nothing is held."""


def _read(message: dict[str, Any], dtype: str) -> Answered:
    """A line of answers. Raises ConformanceError."""
    if "unsupported" in message:
        return Answered(skipped=one_line(message["unsupported"], "unsupported") or "no reason given")
    return Answered(messages.read_answer(message, dtype))
