"""A Python backend: `BackendDoor`; and `ParallelDoor`, which asks one in several processes at once where what takes
time is its own (JAX compiles every case anew). The answers come back in the order of the cases and are judged in the
process that asked.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path

from refimpl import backend as backends
from refimpl.backend.gradients import declared_arithmetic
from refimpl.backend.protocols import Backend
from refimpl.backend.untrusted import FAILURES, contained, described, first_line, printable
from refimpl.conformance import vectors
from refimpl.conformance.doors import Answered, declared
from refimpl.conformance.vectors import Asked, Case, Suite
from refimpl.judge.conventions import declared_conventions
from refimpl.judge.submission import Submission
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.spec import NetworkSpec

CHUNK = 8  # cases that are asked here before deciding, and that a process is given at a time
WORTHWHILE = 8.0  # seconds of work that pay for starting processes


class BackendDoor:
    """A Python backend."""

    def __init__(self, backend: Backend, device: str = "cpu") -> None:
        """Raises BackendError where what it declares is none of the conventions."""
        self.backend, self.device = backend, device
        self.name = backend.name
        self.conventions = declared_conventions(backend)
        self.description = f"backend {backend.name} ({type(backend).__module__.partition('.')[0]}) on {device}"
        self.description += declared(self.conventions)

    def arithmetic(self, dtype: str) -> Arithmetic:
        """IEEE's of the dtype, or what the backend declares. Raises BackendError where that is none."""
        return declared_arithmetic(self.backend, dtype, self.device)

    def lacks(self, spec: NetworkSpec, dtype: str) -> str:
        """Why `supports` is not True."""
        supported = backends.supported(self.backend, spec, dtype, self.device)
        return self.conventions.lacks(spec) if supported is True else str(supported)

    def answer(self, case: Asked, dtype: str) -> Answered:
        """What the backend returns; what it raises is a failure, but for NotImplementedError with a reason. A text
        in place of an answer is a reason too.
        """
        started = time.perf_counter()
        answered = self._answer(case, dtype)
        return replace(answered, seconds=time.perf_counter() - started)

    def _answer(self, case: Asked, dtype: str) -> Answered:
        lacking = self.lacks(case.spec, dtype) or self.conventions.declines(case.spec, case.y)
        if lacking:
            return Answered(skipped=lacking)
        try:
            with contained():
                run = self.backend.gradient_function(case.spec, dtype=dtype, device=self.device)
                returned = run(*self.conventions.given(*case.data(dtype)))
            if isinstance(returned, str):
                return Answered(skipped=printable(returned[:200]) or "no reason given")
            answer = Submission.of(returned)
            return Answered(self.conventions.returned(answer, case.params, dtype))
        except FAILURES as error:
            if isinstance(error, NotImplementedError) and error.args:
                return Answered(skipped=first_line(error))
            return Answered(failed=f"raised {described(error)}")

    def close(self) -> None:
        """Nothing is held."""


_door: BackendDoor
_suite: Suite


def _begin(place: str, device: str, folder: Path | None) -> None:
    global _door, _suite
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the one that asked ends this one
    _door, _suite = BackendDoor(backends.load(place), device), vectors.load(folder)


def _answer(name: str, dtype: str) -> tuple[str, Answered]:
    return name, _door.answer(_suite.by_id[name], dtype)


class ParallelDoor(BackendDoor):
    """`BackendDoor` for the backend at `place` (a name, or `module:attribute`), asked for `cases` of the vectors in
    `folder`, in that order. The first few are asked here; processes are started when the rest would take long.
    """

    def __init__(
        self, place: str, device: str, folder: Path | None, cases: Sequence[Case], dtype: str, processes: int
    ) -> None:
        """Loads the backend. Raises BackendError."""
        super().__init__(backends.load(place), device)
        self.processes, self.begin = processes, (place, device, folder)
        self.cases, self.dtype = {case.id: number for number, case in enumerate(cases)}, dtype
        self.asked, self.seconds, self.answered = 0, 0.0, set[str]()
        self.pool: ProcessPoolExecutor | None = None
        self.children: list[multiprocessing.process.BaseProcess] = []
        self.answers: Iterator[tuple[str, Answered]] = iter(())

    def answer(self, case: Asked, dtype: str) -> Answered:
        """The answer, once it has come. A process that died is a failure. What is none of the cases, or was
        answered already, is asked here."""
        if case.id not in self.cases or case.id in self.answered:
            return super().answer(case, dtype)
        self.answered.add(case.id)
        if self.pool is None and self.processes > 1 and self.asked >= CHUNK and self._rest() > WORTHWHILE:
            self._start(self.cases[case.id])
        if self.pool is None:
            answered = super().answer(case, dtype)
            self.asked, self.seconds = self.asked + 1, self.seconds + answered.seconds
            return answered
        with contextlib.suppress(BrokenProcessPool):
            for name, answered in self.answers:
                if name == case.id:
                    return answered
        return Answered(failed="a process that ran the backend died; --processes 1 may show why")

    def _rest(self) -> float:
        """The seconds that the remaining cases would take here."""
        return self.seconds / self.asked * (len(self.cases) - self.asked)

    def _start(self, first: int) -> None:
        # spawn: JAX's and PyTorch's threads do not survive a fork
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(self.processes, context, initializer=_begin, initargs=self.begin)
        others = set(multiprocessing.active_children())
        rest = list(self.cases)[first:]
        self.answers = self.pool.map(partial(_answer, dtype=self.dtype), rest, chunksize=CHUNK)
        self.children = [child for child in multiprocessing.active_children() if child not in others]

    def close(self) -> None:
        """End the processes, whatever they are at."""
        if self.pool is not None:
            for child in self.children:
                child.kill()
            self.pool.shutdown(cancel_futures=True)
