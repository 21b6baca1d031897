"""How the vector files are made: the same each time, from cases that are admitted for a reason."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import judge

from refimpl.conformance import generate
from refimpl.conformance.drafts import Draft, Drawn, drafts, draw, network, usual
from refimpl.conformance.generate import KILL, _case_text, admit, admit_all, files, hexadecimal
from refimpl.conformance.vectors import FOLDER, load
from refimpl.faults.catalogue import places
from refimpl.faults.mistaken import PlantedBackend
from refimpl.formats.errors import ConformanceError
from refimpl.judge.report import FAIL
from refimpl.network.random_problems import Problem
from refimpl_numpy import NumpyBackend

SUITE = load()
WRITTEN = {path.name: path.read_text() for path in FOLDER.glob("*.json")}


def some(count: int) -> list[Draft]:
    """Drafts of every family, other ones each time the list of drafts changes."""
    all_drafts = list(drafts())
    return random.Random(len(all_drafts)).sample(all_drafts, count)


def test_every_draft_is_a_case() -> None:
    assert [case.id for case in SUITE.cases] != []
    assert {case.id for case in SUITE.cases} == {draft.name for draft in drafts()}


@pytest.mark.parametrize("draft", some(24), ids=lambda draft: draft.name)
def test_a_case_is_made_again_byte_for_byte(draft: Draft) -> None:
    text = _case_text(admit(draft))
    assert sum(text in written for written in WRITTEN.values()) == 1


def test_the_files_are_written_again_byte_for_byte() -> None:
    made = dict(files([SUITE.by_id[draft.name] for draft in drafts()]))
    assert set(made) == set(WRITTEN)
    for name, text in WRITTEN.items():
        assert made[name] == text, name


def test_two_processes_admit_the_same_cases_as_one() -> None:
    chosen = list(drafts())[:8]  # fewer are not spread
    assert [_case_text(c) for c in admit_all(chosen, 2)] == [_case_text(c) for c in admit_all(chosen, 1)]


@pytest.mark.parametrize("draft", some(8), ids=lambda draft: draft.name)
def test_the_faults_of_a_case_are_killed_by_far_and_no_other_has_an_effect(draft: Draft) -> None:
    case = SUITE.by_id[draft.name]
    judged = case.judge("float64")
    for fault, layer in places(case.spec, len(case.x), "float64"):
        backend = PlantedBackend(((fault, layer, fault.example),), NumpyBackend())
        rows = judged.rows(backend)
        largest = max(row.ratio if row.verdict == FAIL else 0.0 for row in rows)
        raised = rows[0].reason.startswith("raised ValueError")  # shapes that do not fit
        assert (fault.name, layer) in case.kills or raised or largest <= 1, f"{fault.name} at {layer}"
        assert (fault.name, layer) not in case.kills or largest >= 0.9 * KILL, f"{fault.name} at {layer}: {largest}"


@pytest.mark.parametrize("draft", some(40), ids=lambda draft: draft.name)
def test_what_is_written_is_the_truth(draft: Draft) -> None:
    case, drawn = SUITE.by_id[draft.name], draw(draft, 0)
    truth = judge(Problem(case.spec, *case.data("float64"), 0, 0)).truth
    for name, expected in {"loss": case.loss, **case.grads}.items():
        balls = truth.loss if name == "loss" else truth.grads[name]
        assert (expected.value == balls.mid).all()
        assert (expected.radius >= balls.rad).all()
        assert (expected.radius <= 1.2 * balls.rad + 5e-324).all()
    assert case.spec == drawn.spec


def test_a_draft_that_no_attempt_can_decide_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "ATTEMPTS", 3)

    def recipe(rng: np.random.Generator) -> Drawn:
        drawn = usual(network((3, 3, 4), ["tanh", "softmax"]), 4)(rng)
        drawn.params["b2"][...] = [60.0, 0.0, 0.0, -60.0]  # all that softmax lets through is lost in rounding
        return drawn

    with pytest.raises(ConformanceError, match=r"no attempt of 3 .* cannot be decided in float64"):
        admit(Draft("hopeless", ("Basic",), recipe))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "0x1p+0"), (1.5, "0x1.8p+0"), (-0.0, "-0x0p+0"), (2.0**-1074, "0x0.0000000000001p-1022"), (16.0, "0x1p+4")],
)
def test_hexadecimals_are_c99s_and_short(value: float, text: str) -> None:
    assert hexadecimal(value) == text
    assert float.fromhex(text) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_its_hexadecimal(value: float) -> None:
    assert float.fromhex(hexadecimal(value)) == value
