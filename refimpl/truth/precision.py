"""flint's working precision, which is global: one computation at a time sets it and leaves it as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import flint

_LOCK = threading.RLock()


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Ball arithmetic of so many bits in this thread; another that asks for one waits."""
    with _LOCK, flint.ctx.workprec(bits):
        yield
