"""Modules under the names they had in 0.1, for plug-ins that import them. Gone in 0.3."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

HOMES = {
    "refimpl.arithmetic": ("refimpl.network.arithmetic",),
    "refimpl.batch": ("refimpl.network.batch",),
    "refimpl.descent": ("refimpl.backend.training", "refimpl.training.optimisers"),
    "refimpl.errors": ("refimpl.formats.errors",),
    "refimpl.examples": ("refimpl.network.examples",),
    "refimpl.functions": ("refimpl.network.functions",),
    "refimpl.spec": ("refimpl.network.spec", "refimpl.network.documents"),
}


class Moved(ModuleType):
    """Stands under an old name and takes everything from the module's new homes, with a warning."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for home in HOMES[self.__name__]:
                if hasattr(found := import_module(home), name):
                    warnings.warn(f"{self.__name__} is now {home}", DeprecationWarning, stacklevel=2)
                    return getattr(found, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def install() -> None:
    """Let the old names be imported."""
    for name in HOMES:
        sys.modules.setdefault(name, Moved(name))
