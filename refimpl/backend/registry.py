"""The backends that are installed: found by name through the entry-point group ``refimpl.backends``, ours exactly like
a third party's. A framework is imported only when its backend is loaded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, cast

import numpy as np

from refimpl.backend.protocols import Backend
from refimpl.backend.untrusted import FAILURES, contained, described, first_line, printable
from refimpl.formats.errors import BackendError
from refimpl.network.spec import NetworkSpec

GROUP = "refimpl.backends"
MAX_REASON = 200


def available() -> dict[str, EntryPoint]:
    """The registered backends by name: refimpl's own first, and of these the one that needs no framework. Raises
    BackendError where two have one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in registered():
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BackendError(
                f"two backends are called {entry.name!r}: {other.value} and {entry.value}; uninstall one"
            )
    return found


@cache
def registered() -> tuple[EntryPoint, ...]:
    """All of the group, read from the installed packages' files once: that takes a hundredth of a second."""
    return tuple(sorted(entry_points(group=GROUP), key=_order))


def _order(entry: EntryPoint) -> tuple[bool, bool, str]:
    ours = entry.dist is not None and entry.dist.name == __package__.partition(".")[0]
    return not ours, bool(_extra(entry)), entry.name


def _extra(entry: EntryPoint) -> str:
    """The extra of its distribution that brings what a backend needs; "" where there is none of its name."""
    extras = entry.dist.metadata.get_all("Provides-Extra") if entry.dist is not None else None
    return f"{entry.dist.name}[{entry.name}]" if entry.dist is not None and entry.name in (extras or ()) else ""


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load(name: str) -> Backend:
    """The backend of that name, or at `module:attribute`. Raises BackendError where it is unknown, its framework is
    not installed, or it cannot be loaded.
    """
    known = available() if ":" not in name else {name: EntryPoint(name, name, GROUP)}
    if name not in known:
        raise BackendError(
            f"there is no backend {name!r}; known are {', '.join(known) or 'none (is refimpl itself installed?)'}"
        )
    entry = known[name]
    try:
        with contained(), _global_generators_kept():
            found = entry.load()
            backend = found() if isinstance(found, type) else found
    except ImportError as error:
        if entry.name == entry.value:
            raise BackendError(f"backend {name!r} cannot be loaded: {described(error)}") from error
        extra = _extra(entry)
        remedy = f"pip install '{extra}'" if extra else f"install what {entry.value} needs"
        raise BackendError(f"backend {name!r} is not installed: {first_line(error)}; {remedy}") from error
    except FAILURES as error:
        place = "" if entry.name == entry.value else f" ({entry.value})"
        raise BackendError(f"backend {name!r}{place} cannot be loaded: {described(error)}") from error
    return usable(backend, name)


def resolve(backend: str | Backend | None = None) -> Backend:
    """The backend that is meant: by name, itself, or by default the first that is registered. Raises BackendError."""
    if backend is None:
        return load(next(iter(available()), ""))
    return load(backend) if isinstance(backend, str) else usable(backend)


def able(ability: Any) -> Any:
    """The first registered backend that has a further ability, a protocol. Raises BackendError where none has."""
    for name in available():
        try:
            backend = load(name)
        except BackendError:
            continue
        if isinstance(backend, ability):
            return backend
    raise BackendError(f"no installed backend is a {ability.__name__}; reinstall refimpl")


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Importing a framework may draw from the global random generators (JAX does): put them back."""
    states = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def usable(backend: Any, place: str = "") -> Backend:
    """The object, if it has the form of a backend. Raises BackendError."""
    shown = f"backend {place!r}" if place else "the backend"
    if isinstance(backend, type):
        raise BackendError(f"{shown} is the class {backend.__name__}; give an instance of it")
    missing = [name for name in ("supports", "gradient_function") if not callable(getattr(backend, name, None))]
    if missing:
        raise BackendError(f"{shown} is a {type(backend).__name__} without {' and '.join(missing)}")
    try:
        name = getattr(backend, "name", None)
    except FAILURES as error:
        raise BackendError(f"{shown}: its name raised {described(error)}") from error
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 200:
        raise BackendError(f"{shown}: its name must be one line of 1 to 200 printable characters")
    return cast(Backend, backend)


def supported(backend: Backend, spec: NetworkSpec, dtype: str, device: str) -> bool | str:
    """True, or why the backend cannot run this."""
    try:
        with contained():
            answer: Any = backend.supports(spec, dtype=dtype, device=device)
    except FAILURES as error:
        return f"supports raised {described(error)}"
    if answer is True or answer is np.True_:
        return True
    return printable(" ".join(str(answer or "no reason given").split())[:MAX_REASON])


def check_supported(backend: Backend, spec: NetworkSpec, dtype: str, device: str) -> None:
    """Raises BackendError, with the reason, where the backend cannot run this."""
    reason = supported(backend, spec, dtype, device)
    if reason is not True:
        raise BackendError(f"backend {backend.name!r} does not support this: {reason}")
