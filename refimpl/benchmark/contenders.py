"""Who is measured: finding contenders by name."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from refimpl import backend as backends
from refimpl.backend import Backend, PlacingBackend
from refimpl.backend.registry import registered
from refimpl.formats.errors import BackendError

GROUP = "refimpl.contenders"
FLOOR = "floor"


class Contender(Backend, PlacingBackend):
    """A backend that can place a network."""


def available() -> dict[str, str]:
    """Name to place of every contender that is registered, ours first; the floor last."""
    found = {entry.name: entry.value for entry in registered()}
    found |= {entry.name: entry.value for entry in entry_points(group=GROUP)}
    return dict(sorted(found.items(), key=lambda item: (item[0] == FLOOR, not is_ours(item[1]), item[0])))


def is_ours(place: str) -> bool:
    """Whether `module:attribute` is of a package that has a registered backend, and no peer."""
    package = place.partition(":")[0]
    return any(entry.value.partition(":")[0] == package for entry in registered())


def find(name: str) -> Contender:
    """The contender of that name, or at `module:attribute`. Raises BackendError."""
    known = available()
    if name not in known and ":" not in name:
        raise BackendError(f"there is no contender {name!r}; known are {', '.join(known)}")
    found = backends.load(known.get(name, name))
    if not isinstance(found, PlacingBackend):
        raise BackendError(f"contender {name!r} cannot place a network: it has no method place")
    return cast(Contender, found)
