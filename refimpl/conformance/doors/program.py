"""A program that is asked over its standard input and output, one JSON object a line (`refimpl.process/1`):

    → {"type":"hello","format":"refimpl.process/1","dtype":"float64"}
    ← {"type":"hello","format":"refimpl.process/1","name":"mine","version":"1.0","activations":["sigmoid"],…}
    → {"type":"evaluate","id":1,"case":"…","network":{…},"parameters":{"W1":{"shape":[2,4],"data":[…]},…},
       "x":{"shape":…,"data":…},"y":{"shape":…,"data":…}}
    ← {"type":"answer","id":1,"loss":0.5,"gradients":{"W1":{"shape":[2,4],"data":[…]},…}}
    → {"type":"bye"}

In place of an answer it may say {"type":"unsupported","id":1,"reason":"…"} or {"type":"error", … "message"}. What
refimpl writes has no spaces and the keys in this order, so that a program without a JSON library can find its way.

Every exchange has a deadline and a largest line. What the program does instead of answering (crash, hang, babble) is
that case's FAIL, and it is started anew. Programs run in a session of their own, and are ended with all they started.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from refimpl.conformance.doors import Answered, declared
from refimpl.conformance.messages import (
    Answer,
    Error,
    Hello,
    Message,
    ProgramAnswer,
    Unsupported,
)
from refimpl.conformance.vectors import ARITHMETIC_NAMES, Asked
from refimpl.faults.common_causes import NOT_ASKED
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import ConformanceError
from refimpl.formats.files import why
from refimpl.formats.strict_json import parse
from refimpl.formats.validation import checked
from refimpl.judge.conventions import AS_REFIMPL, Conventions
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.spec import NetworkSpec

MAX_LINE = 2**20  # bytes of one message; the largest answer to a case of ours takes some 10 kB
MAX_STARTS = 5  # of a program that must be killed, one after the other without a usable answer between
ENDING = 1.0  # seconds that a killed program may take to be gone
GRACE = 0.5  # seconds that a program has to end by itself after bye
REPLIES: Mapping[str, type[Message]] = {"answer": ProgramAnswer, "unsupported": Unsupported, "error": Error}


class ProgramError(Exception):
    """What a program did instead of answering."""


def say(message: Mapping[str, Any]) -> bytes:
    """A message as its line."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def evaluate(number: int, case: Asked, dtype: str, conventions: Conventions = AS_REFIMPL) -> bytes:
    """The request for a case's loss and gradients."""
    params, x, y = conventions.given(*case.data(dtype))
    parameters = {name: tensor(array) for name, array in params.items()}
    data = {"parameters": parameters, "x": tensor(x), "y": tensor(y)}
    return say({"type": "evaluate", "id": number, "case": case.id, "network": case.spec.to_dict(), **data})


def heard(line: bytes, what: str) -> Any:
    """The JSON of a line. Raises ConformanceError."""
    return parse(line, ConformanceError, what, MAX_LINE, nonfinite=True)


class Program:
    """A running program. `ask` sends a line and returns the line that comes back."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises ConformanceError where the command cannot be started."""
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = "it is a folder" if os.path.isdir(command[0]) else why(error)
            raise ConformanceError(f"cannot run {command[0]!r}: {reason}; name a program after --") from None
        self.requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.lines: queue.Queue[bytes] = queue.Queue(maxsize=2)  # a program that babbles is not listened to
        for work in (self._write, self._read):
            threading.Thread(target=work, daemon=True).start()

    def _write(self) -> None:
        assert self.process.stdin is not None
        # where it has ended, what it says, or how it ended, is the reason
        with contextlib.suppress(OSError, ValueError), self.process.stdin as stdin:
            for line in iter(self.requests.get, None):
                stdin.write(line)
                stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError), self.process.stdout as stdout:
            while line := stdout.readline(MAX_LINE + 1):
                self.lines.put(line)
        self.lines.put(b"")

    def ask(self, line: bytes, deadline: float) -> bytes:
        """The program's next line, without its end, before `deadline` (of time.monotonic). Raises ProgramError."""
        if not self.lines.empty():
            early = self.lines.get()
            raise ProgramError(f"wrote without being asked: {shown(early)}" if early else self._ending())
        seconds = deadline - time.monotonic()
        self.requests.put(line)
        try:
            answer = self.lines.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            raise ProgramError("no answer in time (a program must flush what it writes)") from None
        if not answer:
            raise ProgramError(self._ending())
        if not answer.endswith(b"\n"):
            raise ProgramError(f"wrote {len(answer):,} bytes without ending the line: {shown(answer)}")
        return answer.rstrip(b"\r\n")

    def _ending(self) -> str:
        """How the program ended, or that it only closed its output."""
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "closed its output without answering"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code} without answering"

    def close(self) -> None:
        """Say bye, give it a moment, and leave nothing behind."""
        self.requests.put(say({"type": "bye"}))
        self.requests.put(None)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the program and all that it started and that still descends from it or is in its group."""
        self.requests.put(None)
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            started = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for child in started:
            with contextlib.suppress(psutil.Error):
                child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING)
        alive = [child for child in psutil.wait_procs(started, ENDING)[1] if _lives(child)]
        if self.process.returncode is None or alive:  # another user's, as under sudo
            pid = alive[0].pid if alive else self.process.pid
            warnings.warn(f"process {pid} cannot be ended; end it yourself", RuntimeWarning, stacklevel=2)


class ProgramDoor:
    """A program."""

    def __init__(self, command: Sequence[str], dtype: str, seconds: float) -> None:
        """Starts the program. Raises ConformanceError where it cannot be started or does not say hello."""
        self.command, self.dtype, self.seconds = list(command), dtype, seconds
        self.asked = self.wasted = 0
        self.program: Program | None = None
        self.hello = self._start(time.monotonic() + seconds)
        self.name = self.hello.name
        self.conventions = self.hello.conventions
        self.description = f"{self.hello.name} {self.hello.version}".strip() + f" ({' '.join(command)})"
        self.description += declared(self.conventions)

    def arithmetic(self, dtype: str) -> Arithmetic:
        """IEEE's of the dtype, or what the hello declares."""
        return ARITHMETIC_NAMES[self.hello.arithmetic or dtype]

    def lacks(self, spec: NetworkSpec, dtype: str) -> str:
        """What the hello does not list."""
        return lacking(self.hello, spec, dtype) or self.conventions.lacks(spec)

    def answer(self, case: Asked, dtype: str) -> Answered:
        """What the program answers; whatever else it does is a failure, and it is started anew."""
        missing = self.lacks(case.spec, dtype) or self.conventions.declines(case.spec, case.y)
        if missing:
            return Answered(skipped=missing)
        if self.wasted >= MAX_STARTS:
            return Answered(failed=f"{NOT_ASKED}: the program failed {MAX_STARTS} times in a row")
        started = time.monotonic()
        try:
            reply = self._ask(case, dtype, started + self.seconds)
            answer = reply.submission(dtype, self.conventions) if isinstance(reply, Answer) else None
        except (ProgramError, ConformanceError) as error:
            self._discard()
            self.wasted += 1
            return Answered(failed=str(error), seconds=time.monotonic() - started)
        self.wasted = 0
        seconds = time.monotonic() - started
        if answer is not None:
            return Answered(self.conventions.returned(answer, case.params, dtype), seconds=seconds)
        match reply:
            case Unsupported():
                return Answered(skipped=repr(reply.reason[:200])[1:-1], seconds=seconds)
            case _:
                return Answered(failed=f"said: {getattr(reply, 'message', '')[:200]!r}", seconds=seconds)

    def _ask(self, case: Asked, dtype: str, deadline: float) -> Message:
        """Its reply. Starting it anew, where that is needed, counts."""
        if self.program is None:
            self._start(deadline)
        assert self.program is not None
        self.asked += 1
        line = self.program.ask(evaluate(self.asked, case, dtype, self.conventions), deadline)
        try:
            message = heard(line, "the answer")
            kind = str(message.get("type")) if isinstance(message, dict) else "none"
            if kind not in REPLIES:
                raise ConformanceError(f"wrote a message of type {kind[:20]!r} where an answer was due")
            reply = checked(REPLIES[kind], message, ConformanceError, "the answer")
        except ConformanceError as error:
            raise ConformanceError(f"{error}; it wrote {shown(line)}, and stdout is for answers alone") from None
        if message["id"] != self.asked:
            raise ConformanceError(f"answered id {message['id']} when {self.asked} was asked")
        return reply

    def _start(self, deadline: float) -> Hello:
        self.program = Program(self.command)
        try:
            greeting = say({"type": "hello", "format": "refimpl.process/1", "dtype": self.dtype})
            line = self.program.ask(greeting, deadline)
            try:
                return checked(Hello, heard(line, "the hello"), ConformanceError, "the hello")
            except ConformanceError as error:
                raise ConformanceError(f"{error}; it wrote {shown(line)}") from None
        except (ProgramError, ConformanceError) as error:
            self._discard()
            raise ConformanceError(f"{self.command[0]}: {error}; its first line must be its hello") from None
        except BaseException:  # Ctrl-C
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


def _lives(process: psutil.Process) -> bool:
    """Whether it is more than an entry that its parent has not asked after, as in a container without an init."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def lacking(hello: Hello, spec: NetworkSpec, dtype: str) -> str:
    """What a network needs that a program has not; "" where it has all."""
    for what, have, need in (
        ("dtype", hello.dtypes, [dtype]),
        ("activation", hello.activations, [layer.activation.name for layer in spec.layers]),
        ("loss", hello.losses, [spec.loss.name]),
        ("reduction", hello.reductions, [spec.reduction]),
    ):
        missing = [name for name in need if have is not None and name not in have]
        if missing:
            return f"has no {what} {missing[0]}"
    return ""


def shown(line: bytes) -> str:
    """The beginning of a line, printable, in quotes."""
    text = line[:60].decode("utf-8", "replace")
    return repr(text + ("…" if len(line) > 60 else ""))
