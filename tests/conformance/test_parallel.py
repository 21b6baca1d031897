"""A backend asked in several processes: the same verdicts in the same order, and a process that dies is a failure."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from refimpl.conformance.doors import backend as doors
from refimpl.conformance.doors.backend import CHUNK, ParallelDoor
from refimpl.conformance.run import conform
from refimpl.conformance.vectors import Suite, load
from refimpl.judge.report import FAIL, PASS

SUITE = load()
PART = Suite.of(SUITE.cases[:: len(SUITE.cases) // (3 * CHUNK)])
PLACES = """
import os
from refimpl_numpy import NumpyBackend

class Wrong(NumpyBackend):
    name = "wrong"

    def gradient_function(self, spec, **keywords):
        right = super().gradient_function(spec, **keywords)

        def run(params, x, y):
            loss, gradients = right(params, x, y)
            return loss, {name: 2 * values if len(spec.layers) > 1 else values for name, values in gradients.items()}

        return run

class Dies(NumpyBackend):
    name = "dies"

    def gradient_function(self, spec, **keywords):
        if os.getpid() != here:
            os._exit(3)
        return super().gradient_function(spec, **keywords)

class CannotBeSent(NumpyBackend):
    name = "cannot be sent"

    def gradient_function(self, spec, **keywords):
        return lambda params, x, y: (lambda: 0, {})

class Reuses(NumpyBackend):
    name = "reuses"

    def __init__(self):
        super().__init__()
        self.buffers = {}

    def gradient_function(self, spec, **keywords):
        right = super().gradient_function(spec, **keywords)

        def run(params, x, y):
            loss, gradients = right(params, x, y)
            for name, values in gradients.items():
                self.buffers.setdefault((name, values.shape), values)[...] = values
            return loss, {name: self.buffers[name, values.shape] for name, values in gradients.items()}

        return run

here = int(os.environ["HERE"])
wrong, dies, cannot_be_sent, reuses = Wrong(), Dies(), CannotBeSent(), Reuses()
"""


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "places.py").write_text(PLACES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HERE", str(os.getpid()))
    monkeypatch.setattr(doors, "WORTHWHILE", 0.0)


def door(place: str, processes: int) -> ParallelDoor:
    return ParallelDoor(place, "cpu", None, PART.cases, "float64", processes)


def test_two_processes_say_what_one_says() -> None:
    results = []
    for processes in (1, 2):
        asked = door("places:wrong", processes)
        results.append(list(conform(asked, PART, "float64")))
        assert (asked.pool is not None) == (processes == 2)
        asked.close()
    alone, together = results
    assert [(r.case, r.verdict, r.text) for r in alone] == [(r.case, r.verdict, r.text) for r in together]
    assert {r.verdict for r in alone} == {PASS, FAIL}
    assert all(np.isfinite(r.seconds) and r.seconds > 0 for r in together)


@pytest.mark.parametrize(("place", "words"), [("dies", "--processes 1"), ("cannot_be_sent", "is a function")])
def test_a_process_that_cannot_answer_is_a_failure(place: str, words: str) -> None:
    asked = door(f"places:{place}", 2)
    results = list(conform(asked, PART, "float64"))
    asked.close()
    assert {r.verdict for r in results[CHUNK:]} == {FAIL}
    assert len(results) == len(PART.cases)
    assert all(words in r.reason for r in results[CHUNK:])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_backend_may_overwrite_what_it_returned_before(processes: int) -> None:
    asked = door("places:reuses", processes)
    results = list(conform(asked, PART, "float64"))
    asked.close()
    assert {r.verdict for r in results} == {PASS}, [r.text for r in results if r.verdict == FAIL][:1]


def test_no_processes_for_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "WORTHWHILE", 60.0)
    asked = door("numpy", 2)
    assert {r.verdict for r in conform(asked, PART, "float64")} == {PASS}
    assert asked.pool is None
    asked.close()
