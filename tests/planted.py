"""Backends that are wrong on purpose, and what the conformance suite says of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.report import ConformanceReport
from refimpl.conformance.run import conform
from refimpl.conformance.vectors import Suite
from refimpl.faults.catalogue import FAULTS
from refimpl.faults.mistaken import PlantedBackend
from refimpl.network.spec import NetworkSpec
from refimpl_numpy import NumpyBackend


class Everywhere(NumpyBackend):
    """Faults planted at all layers where they can act, or only at the first."""

    name = "everywhere"

    def __init__(self, *faults: str, first: bool = False) -> None:
        super().__init__()
        self.faults, self.first = faults, first

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        def run(params: Any, x: Any, y: Any) -> Any:
            plantings = []
            for fault in map(FAULTS.__getitem__, self.faults):
                layers = list(fault.where(spec, len(x)))
                plantings += [(fault, layer, fault.example) for layer in (layers[:1] if self.first else layers)]
            backend = PlantedBackend(tuple(plantings), NumpyBackend())
            return backend.gradient_function(spec, dtype=dtype, device=device)(params, x, y)

        return run


class Wrong(NumpyBackend):
    """Changes what the right backend returns."""

    def __init__(self, change: Callable[[float, dict[str, Any]], Any], name: str = "wrong") -> None:
        super().__init__()
        self.change, self.name = change, name

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        right = super().gradient_function(spec, dtype=dtype, device=device)
        return lambda params, x, y: self.change(*right(params, x, y))


TIMES_TWO = Wrong(lambda loss, grads: (2 * loss, {name: 2 * grad for name, grad in grads.items()}), "times two")


def report(backend: Any, suite: Suite, dtype: str = "float64", **options: Any) -> ConformanceReport:
    """The suite run on a backend, in this process."""
    door = BackendDoor(backend)
    found = ConformanceReport(door.name, door.description, dtype, door.arithmetic(dtype).name)
    found.results = list(conform(door, suite, dtype, **options))
    return found
