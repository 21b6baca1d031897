"""The vector files: made the same each time, as the schema says, admitted for a reason, and safe to read."""

from __future__ import annotations

import copy
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import referencing
from fuzz import outcome, small_file
from hypothesis import given
from hypothesis import strategies as st
from networks import DTYPES, judge

from refimpl import backend as backends
from refimpl.conformance.drafts import FLAGS, Draft, Drawn, drafts, draw, network, usual
from refimpl.conformance.vectors import (
    FOLDER,
    KILL,
    Suite,
    _case_text,
    admit,
    files,
    hexadecimal,
    load,
    load_file,
    loads,
)
from refimpl.faults.catalogue import FAULTS, PlantedBackend, places
from refimpl.faults.diagnosis import diagnose_answer
from refimpl.formats.errors import ConformanceError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.random_problems import Problem

SCHEMAS = Path(__file__).resolve().parent.parent / "refimpl" / "schemas"
PATHS = sorted(FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load()


def validator(name: str) -> jsonschema.Draft202012Validator:
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    registry = referencing.Registry().with_resources(
        (key, referencing.Resource.from_contents(schema)) for key, schema in schemas.items()
    )
    return jsonschema.Draft202012Validator(schemas[name], registry=registry)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_file_is_as_its_schema_says_and_small(path: Path) -> None:
    validator("vectors-1.schema.json").validate(json.loads(path.read_text()))
    assert path.stat().st_size <= 200_000


def test_the_suite_is_whole(suite: Suite) -> None:
    assert 400 <= len(suite.cases) <= 600
    assert sum(path.stat().st_size for path in PATHS) <= 10_000_000
    assert {flag for case in suite.cases for flag in case.flags} == set(FLAGS)
    assert [case.id for case in suite.cases] != []
    assert {case.id for case in suite.cases} == {draft.name for draft in drafts()}


def test_every_fault_is_killed_and_has_a_wrong_answer(suite: Suite) -> None:
    killed = {name for case in suite.cases for name, _ in case.kills}
    assert killed == set(FAULTS)
    answered = {cause[0] for wrong in suite.wrong for explanation in wrong.diagnosis for cause in explanation}
    quotients = {fault.name for fault in FAULTS.values() if fault.evidence or "differences" in fault.name}
    assert answered >= set(FAULTS) - quotients


def test_no_case_is_undecided_in_float64(suite: Suite) -> None:
    for case in suite.cases:
        for expected in (case.loss, *case.grads.values()):
            for name in ("float64", "float64_flushing"):
                assert np.isfinite(expected.tolerance.get(name, expected.tolerance["float64"])).all(), case.id


def some(count: int) -> list[Draft]:
    """Drafts of every family, other ones each time the list of drafts changes."""
    all_drafts = list(drafts())
    return random.Random(len(all_drafts)).sample(all_drafts, count)


@pytest.mark.parametrize("draft", some(24), ids=lambda draft: draft.name)
def test_a_case_is_made_again_byte_for_byte(draft: Draft) -> None:
    text = _case_text(admit(draft))
    assert sum(text in path.read_text() for path in PATHS) == 1


@pytest.mark.parametrize("draft", some(8), ids=lambda draft: draft.name)
def test_the_faults_of_a_case_are_killed_by_far_and_no_other_has_an_effect(draft: Draft, suite: Suite) -> None:
    case = suite.by_id[draft.name]
    judged = case.judge("float64")
    for fault, layer in places(case.spec, len(case.x), "float64"):
        backend = PlantedBackend(((fault, layer, fault.example),))
        rows = judged.rows(backend)
        largest = max(row.ratio if row.verdict == FAIL else 0.0 for row in rows)
        raised = rows[0].reason.startswith("raised")  # shapes that do not fit
        assert (fault.name, layer) in case.kills or raised or largest <= 1, f"{fault.name} at {layer}"
        assert (fault.name, layer) not in case.kills or largest >= 0.9 * KILL, f"{fault.name} at {layer}: {largest}"


@pytest.mark.parametrize("draft", some(40), ids=lambda draft: draft.name)
def test_what_is_written_is_the_truth(draft: Draft, suite: Suite) -> None:
    case, drawn = suite.by_id[draft.name], draw(draft, 0)
    truth = judge(Problem(case.spec, *case.data("float64"), 0, 0)).truth
    for name, expected in {"loss": case.loss, **case.grads}.items():
        balls = truth.loss if name == "loss" else truth.grads[name]
        assert (expected.value == balls.mid).all()
        assert (expected.radius >= balls.rad).all()
        assert (expected.radius <= 1.2 * balls.rad + 5e-324).all()
    assert case.spec == drawn.spec


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_written_judge_and_the_live_one_agree(suite: Suite, dtype: str) -> None:
    numpy = backends.load("numpy")
    for case in suite.cases[::9]:
        written = case.judge(dtype).rows(numpy)
        live = Judge(case.spec, case.batch(dtype)).rows(numpy)
        if "Exact" not in case.flags:
            assert [row.verdict for row in written] == [row.verdict for row in live], case.id


def test_the_data_are_exact_in_float32(suite: Suite) -> None:
    for case in suite.cases:
        for array in (*case.params.values(), case.x, case.y):
            assert (array.astype(np.float32) == array).all(), case.id


@pytest.mark.parametrize("index", range(0, 51, 3))
def test_a_wrong_answer_is_fail_and_diagnosed_as_written(index: int, suite: Suite) -> None:
    wrong = suite.wrong[index]
    case = suite.by_id[wrong.case]
    answer = (wrong.loss, dict(wrong.grads))
    assert FAIL in {row.verdict for row in case.judge("float64").judge_answer("wrong", answer)}
    findings = diagnose_answer(Judge(case.spec, case.batch("float64")), answer)
    found = {tuple((c.fault.name, c.layer) for c in explanation) for explanation in findings[0].explanations}
    assert found == set(wrong.diagnosis)


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


# --------------------------------------------------------------------------------------------------------------
# Files from strangers

SMALL = json.loads(small_file())


def edited(change: Callable[[dict[str, Any]], Any]) -> str:
    data = copy.deepcopy(SMALL)
    change(data["cases"][0])
    return json.dumps(data)


WRONG_FILES = {
    "larger than 1,048,576 bytes, the most a vector file may take": "[" + " " * 2**20,
    "not JSON": "{",
    "nested too deeply": "[" * 10**5,
    "the file must be a JSON object": "[]",
    "lacks the key 'format'": "{}",
    "format must be": '{"format": "refimpl.vectors/2"}',
    "lacks the key 'flags'": '{"format": "refimpl.vectors/1"}',
    "unknown key 'more'": '{"format": "refimpl.vectors/1", "flags": {}, "more": 1}',
    "cases must be a list": '{"format": "refimpl.vectors/1", "flags": {}, "cases": {}}',
    "lacks the key 'loss'": edited(lambda c: c.pop("loss")),
    "printable characters": edited(lambda c: c.update(id="a\nb")),
    "which the file's flags do not explain": edited(lambda c: c.update(flags=["Nonsense"])),
    "network: ": edited(lambda c: c["network"].update(loss="guess")),
    "lacks the key 'W2'": edited(lambda c: c["parameters"].pop("W2")),
    "has the shape": edited(lambda c: c["parameters"]["W1"].update(shape=[1, 9])),
    "shape must be a list": edited(lambda c: c["x"].update(shape=[10**12, 3])),
    "hex and decimal must hold": edited(lambda c: c["x"]["hex"].pop()),
    "no C99 hexadecimal float": edited(lambda c: c["x"]["hex"].__setitem__(0, "0x1.8")),
    "is too large for float64": edited(lambda c: c["x"]["hex"].__setitem__(0, "0x1p+9999")),
    "not what decimal says": edited(lambda c: c["x"]["decimal"].__setitem__(0, 7)),
    "radius must hold": edited(lambda c: c["loss"].update(radius=[-1])),
    "tolerance must hold": edited(lambda c: c["loss"]["tolerance"].update(float64=["much"])),
    "lacks the key 'float32'": edited(lambda c: c["loss"]["tolerance"].pop("float32")),
    "unknown key 'bfloat16'": edited(lambda c: c["loss"]["tolerance"].update(bfloat16=[1])),
    "pairs of a fault's name": edited(lambda c: c.update(kills=[["wrong_sign"]])),
    "given twice in one object": '{"format": 1, "format": 2}',
}


@pytest.mark.parametrize("message", WRONG_FILES)
def test_a_wrong_file_is_refused_in_one_line(message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(WRONG_FILES[message])
    with pytest.raises(ConformanceError) as caught:
        load_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_file_that_was_edited_is_right() -> None:
    assert len(loads(json.dumps(SMALL))[0]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "holds no .json file"), ({"a": json.dumps(SMALL), "b": json.dumps(SMALL)}, "two cases have the same id")],
)
def test_a_wrong_folder_is_refused(content: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in content.items():
        (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(ConformanceError, match=message):
        load(tmp_path)
    with pytest.raises(ConformanceError, match="cannot read"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("part", range(4))
def test_mutated_texts_are_refused_or_read(part: int) -> None:
    text = small_file()
    assert [wrong for seed in range(500 * part, 500 * (part + 1)) if (wrong := outcome(seed, text))] == []


def test_reading_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text('{"format": "refimpl.vectors/1", "flags": {}, "cases": [' + ",".join(["{}"] * 340_000) + "]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConformanceError):
        load_file(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 <= 2 * path.stat().st_size + 64 * 2**20


def test_a_draft_that_no_attempt_can_decide_is_an_error() -> None:
    def recipe(rng: np.random.Generator) -> Drawn:
        drawn = usual(network((3, 3, 4), ["tanh", "softmax"]), 4)(rng)
        drawn.params["b2"][...] = [60.0, 0.0, 0.0, -60.0]  # all that softmax lets through is lost in rounding
        return drawn

    with pytest.raises(ConformanceError, match=r"no attempt of .* cannot be decided in float64"):
        admit(Draft("hopeless", ("Basic",), recipe))


def test_the_files_hold_what_they_were_made_from(suite: Suite) -> None:
    made = dict(files(suite.cases))
    assert sorted(made) == [path.name for path in PATHS]
    for path in PATHS:
        assert made[path.name] == path.read_text(), path.name


def test_arithmetics_are_told_apart(suite: Suite) -> None:
    subnormal = next(case for case in suite.cases if "Subnormal" in case.flags)
    numpy = backends.load("numpy")
    assert {row.verdict for row in subnormal.judge("float64").rows(numpy)} == {"PASS"}
    assert "float32_flushing" in subnormal.grads["W1"].tolerance
    assert set(ARITHMETICS) <= set(subnormal.grads["W1"].tolerance)
