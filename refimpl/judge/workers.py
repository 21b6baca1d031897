"""Work spread over processes, each started anew: a fork after JAX has started deadlocks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
CHUNKS = 200  # that a process works on before another takes its place: compiled programs pile up


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    work: Callable[[T], R], items: Sequence[T], processes: int | None, chunk: int, ordered: bool = True
) -> Iterator[R]:
    """`work` of every item, in so many processes (by default one a core; one: in this one), `chunk` at a time."""
    workers = min(processes or cores(), 1 + len(items) // chunk)
    if workers == 1:
        yield from map(work, items)
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=CHUNKS) as pool:
        yield from (pool.imap if ordered else pool.imap_unordered)(work, items, chunk)
