"""How many cores there are to use, and whether this is the process that speaks for all of a distributed run."""

from __future__ import annotations

import os


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def speaks() -> bool:
    """Whether this process prints and writes: all do but the further ones of a run that torchrun or
    `jax.distributed`'s environment has begun.
    """
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "JAX_PROCESS_ID"))
