"""Ctrl-C, SIGTERM and SIGHUP: what was begun is ended, and what was found is told."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interruption:
    """The one handler of a command: it raises KeyboardInterrupt, but for as many signals as are `borne`, which are
    only noted. `number` is the last one that came, 0 for none.
    """

    def __init__(self) -> None:
        self.number = self.borne = 0
        self.remark = ""

    def install(self) -> None:
        """Hear the signals, but those that are ignored, as under nohup."""
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.number, self.borne = number, self.borne - 1
        if self.borne < 0:
            raise KeyboardInterrupt
        if self.remark:
            print(self.remark, file=sys.stderr)

    @contextmanager
    def bearing(self, signals: int, remark: str = "") -> Iterator[None]:
        """So many signals are only noted, with a remark on stderr."""
        self.borne, self.remark = signals, remark
        try:
            yield
        finally:
            self.borne, self.remark = 0, ""


interruption = Interruption()
