"""A file of answers (`refimpl.answers/1`), in the suite's order or any other: a line
{"format":"refimpl.answers/1","name":"…","dtype":"float64"} and then a line {"case":"…","loss":…,"gradients":{…}} a
case, or {"case":"…","unsupported":"the reason"}. With "partial":true in the first line, a case without one is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from refimpl.conformance.doors import Answered, declared
from refimpl.conformance.doors.program import heard
from refimpl.conformance.messages import AnswersHead, CaseAnswer, CaseUnsupported
from refimpl.conformance.vectors import Asked
from refimpl.formats import files
from refimpl.formats.errors import ConformanceError
from refimpl.formats.validation import checked
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.spec import NetworkSpec

MAX_BYTES = 2**26
BOM = b"\xef\xbb\xbf"


class AnswersDoor:
    """A file of answers. Its lines are kept as they are, and read as arrays when their case is asked for."""

    def __init__(self, path: Path, dtype: str | None, known: Callable[[str], bool]) -> None:
        """Reads the file; `dtype`: what it must be in, None for any; `known`: whether there is a case of that name.
        Raises ConformanceError.
        """
        self.lines: dict[str, bytes] = {}
        raw = files.read(path, MAX_BYTES, ConformanceError, "a file of answers").removeprefix(BOM)
        first, *rest = raw.split(b"\n")
        try:
            head = checked(AnswersHead, heard(first, "the first line"), ConformanceError, "the first line")
            self.dtype = head.dtype or dtype or "float64"
            if dtype not in (None, self.dtype):
                raise ConformanceError(f"the answers are {self.dtype}; ask with --dtype {self.dtype}, or leave it out")
        except ConformanceError as error:
            raise ConformanceError(f"{path}: line 1: {error}") from None
        self.name = head.name or str(path)
        self.conventions, self.partial = head.conventions, head.partial
        self.description = f"answers of {self.name}{declared(self.conventions)}"
        for number, line in enumerate(rest, start=2):
            try:
                if line.strip():
                    self._add(line, known)
            except ConformanceError as error:
                raise ConformanceError(f"{path}: line {number}: {error}") from None

    def _add(self, line: bytes, known: Callable[[str], bool]) -> None:
        message = heard(line, "a line of answers")
        case = message.get("case") if isinstance(message, dict) else None
        if not isinstance(case, str) or not known(case):
            raise ConformanceError(f"case {str(case)[:60]!r} is not one of the suite's")
        if case in self.lines:
            raise ConformanceError(f"case {case!r} is answered twice")
        self._read(message, self.dtype)  # it must be an answer
        self.lines[case] = line

    def arithmetic(self, dtype: str) -> Arithmetic:
        """IEEE's of the dtype."""
        return ARITHMETICS[dtype]

    def lacks(self, spec: NetworkSpec, dtype: str) -> str:
        """All but what it was made for."""
        return "a file answers the suite's cases only"

    def answer(self, case: Asked, dtype: str) -> Answered:
        """What the file holds for a case."""
        if case.id not in self.lines and self.partial:
            return Answered(skipped="is not answered in the file")
        if case.id not in self.lines:
            return Answered(failed="is not answered in the file")
        answered = self._read(heard(self.lines[case.id], "a line of answers"), dtype)
        lacking = self.conventions.lacks(case.spec) or self.conventions.declines(case.spec, case.y)
        if lacking or answered.answer is None:
            return Answered(skipped=lacking or answered.skipped)
        return Answered(self.conventions.returned(answered.answer, case.params, dtype))

    def close(self) -> None:
        """Nothing is held."""

    def _read(self, message: dict[str, Any], dtype: str) -> Answered:
        """A line of answers. Raises ConformanceError."""
        if "unsupported" in message:
            skipped = checked(CaseUnsupported, message, ConformanceError, "it").unsupported
            return Answered(skipped=skipped or "no reason given")
        answer = checked(CaseAnswer, message, ConformanceError, "it")
        return Answered(answer.submission(dtype, self.conventions))
