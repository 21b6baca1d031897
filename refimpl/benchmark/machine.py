"""What a benchmark ran on: processor, memory, versions, threads, and the state of TF32."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil

from refimpl.backend.registry import installed
from refimpl.judge.workers import cores

PACKAGES = ("refimpl", "numpy", "torch", "jax", "jaxlib", "cupy-cuda12x", "scikit-learn", "autograd")


def machine() -> dict[str, Any]:
    """The machine and the versions, without importing any framework."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def frameworks() -> dict[str, Any]:
    """The state of the frameworks that this process has imported."""
    found: dict[str, Any] = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found |= {"torch threads": torch.get_num_threads(), "TF32 in torch": torch.backends.cuda.matmul.allow_tf32}
        if torch.cuda.is_available():
            found |= {"GPU": torch.cuda.get_device_name(), "CUDA": torch.version.cuda}
    if "jax" in sys.modules:
        found["matmul precision of JAX"] = str(sys.modules["jax"].config.jax_default_matmul_precision)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
