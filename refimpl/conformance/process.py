"""Another program, asked over its standard input and output, and kept on a short leash.

Every exchange has a deadline and a largest line; what the program does instead of answering (crash, hang, babble) is
a `ProgramError`, never a hang. Programs run in a session of their own. When one is stopped, its process group is
killed, and then every process that it started (:mod:`refimpl.conformance.descendants`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from refimpl.conformance.descendants import descendants, end_all, strays
from refimpl.conformance.messages import MAX_LINE, say
from refimpl.errors import ConformanceError
from refimpl.files import why

CHUNK = 2**16
ENDING = 1.0  # seconds that a killed program may take to be gone
GRACE = 0.5  # seconds that a program has to end by itself after bye


class ProgramError(Exception):
    """What a program did instead of answering."""


class NotEndedError(ConformanceError):
    """A program, or what it started, lives although it was killed."""


class Program:
    """A running program. `ask` sends a line and returns the line that comes back."""

    running: ClassVar[set[int]] = set()

    def __init__(self, command: Sequence[str]) -> None:
        """Raises ConformanceError where the command cannot be started."""
        self.others = strays()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            reason = "it is a folder" if os.path.isdir(command[0]) else why(error)
            raise ConformanceError(f"cannot run {command[0]!r}: {reason}; name a program after --") from None
        except BaseException:  # a signal, when the program may have been started
            end_all((), self.others | self.running, ENDING)
            raise
        self.running.add(self.process.pid)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        for stream in (self.stdin, self.stdout):
            os.set_blocking(stream.fileno(), False)
        self.received = bytearray()

    def ask(self, line: bytes, seconds: float, since: float | None = None) -> bytes:
        """The program's next line, without its end, at most so many seconds after `since` (of time.monotonic; now by
        default). Raises ProgramError.
        """
        self._read()
        if self.received:
            raise ProgramError(f"wrote without being asked: {shown(bytes(self.received))}")
        deadline = (time.monotonic() if since is None else since) + seconds
        unsent = memoryview(line)
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            selector.register(self.stdin, selectors.EVENT_WRITE)
            while True:
                left = deadline - time.monotonic()
                events = selector.select(left) if left > 0 else []
                if not events:
                    raise ProgramError(f"no answer within {seconds:g} s (a program must flush what it writes)")
                for key, _ in events:
                    if key.fileobj is self.stdin:
                        unsent = self._send(unsent)
                        if not unsent:
                            selector.unregister(self.stdin)
                    elif (answer := self._receive()) is not None:
                        return answer

    def _send(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self.stdin.fileno(), unsent[:CHUNK]) :]
        except BlockingIOError:
            return unsent
        except OSError:  # it closed its input: what it says, or how it ended, is the reason
            return unsent[len(unsent) :]

    def _read(self) -> None:
        """Take what has come."""
        try:
            chunk = os.read(self.stdout.fileno(), CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            raise ProgramError(self._ending())
        self.received += chunk

    def _receive(self) -> bytes | None:
        """The line, once its end has come."""
        start = len(self.received)
        self._read()
        end = self.received.find(b"\n", start)
        if end < 0:
            if len(self.received) > MAX_LINE:
                raise ProgramError(f"wrote more than {MAX_LINE:,} bytes without ending the line")
            return None
        line = bytes(self.received[:end])
        del self.received[: end + 1]
        return line

    def _ending(self) -> str:
        """How the program ended, or that it only closed its output."""
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "closed its output without answering"
        if code < 0:
            return f"was ended by {_signal(-code)}"
        return f"ended with exit code {code} without answering"

    def close(self) -> None:
        """Say bye, give it a moment, and leave nothing behind."""
        with contextlib.suppress(OSError):
            os.write(self.stdin.fileno(), say({"type": "bye"}))
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        finally:  # whatever signal comes meanwhile
            self.kill()

    def kill(self) -> None:
        """End the program and all that it started. Raises ConformanceError where it cannot be ended."""
        with uninterrupted():
            self._kill()

    def _kill(self) -> None:
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        started = descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        try:
            self.process.wait(ENDING)
            self.running.discard(self.process.pid)
            left = end_all(started, self.others | self.running, ENDING)
        except subprocess.TimeoutExpired:
            left = [self.process.pid]
        if left:
            raise NotEndedError(
                f"process {left[0]} cannot be ended, as one of another user's cannot; end it, and run the "
                "program as yourself"
            )


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """What interrupts is heard afterwards."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def shown(line: bytes) -> str:
    """The beginning of a line, printable, in quotes."""
    text = line[:60].decode("utf-8", "replace")
    return repr(text + ("…" if len(line) > 60 else ""))
