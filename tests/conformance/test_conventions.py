"""Code that has its arrays in another way, and says so, is judged like any other, through every door."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from theirs import Theirs

from refimpl import check
from refimpl.conformance.doors.answers import AnswersDoor
from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.doors.program import ProgramDoor, say
from refimpl.conformance.report import ConformanceReport
from refimpl.conformance.run import SKIP, conform
from refimpl.conformance.vectors import Suite, load
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import BackendError, ConformanceError
from refimpl.judge.conventions import Conventions
from refimpl.judge.report import FAIL, PASS
from refimpl.network.spec import NetworkSpec

SUITE = load()
SOME = Suite.of([case for case in SUITE.cases if case.flags[0] in ("Textbook", "Basic")][::17])
ONE = {case.spec.name: case for case in SUITE.cases}
DECLARED: dict[str, dict[str, Any]] = {
    "columns": {"samples": "columns"},
    "weights": {"weights": "in_out"},
    "biases": {"biases": "columns"},
    "as in a course": {"samples": "columns", "biases": "columns"},
    "no loss": {"loss": False},
    "labels": {"labels_only": True},
    "update": {"learning_rate": 0.25},
    "update at a tenth": {"learning_rate": 0.1, "loss": False},
    "all": {
        "samples": "columns", "weights": "in_out", "biases": "columns", "loss": False, "labels_only": True,
        "one_activation": True, "learning_rate": 0.5,
    },
}  # fmt: skip


def judged(door: Any, suite: Suite = SOME, dtype: str = "float64") -> ConformanceReport:
    found = ConformanceReport(door.name, door.description, dtype, "float64")
    try:
        found.results = list(conform(door, suite, dtype, diagnosed=False))
    finally:
        door.close()
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("how", DECLARED)
def test_what_is_declared_is_taken_into_account(how: str, dtype: str) -> None:
    right = judged(BackendDoor(Theirs(DECLARED[how])), dtype=dtype)
    assert not right.wrong, right.wrong[0].text
    assert right.counts()[PASS] >= (3 if how == "all" else 20)
    wrong = judged(BackendDoor(Theirs(DECLARED[how], wrong=True)), dtype=dtype)
    assert wrong.counts()[FAIL] >= 0.5 * right.counts()[PASS]
    declared = Conventions(**DECLARED[how])
    assert str(declared) in right.description


@given(
    st.fixed_dictionaries(
        {
            "samples": st.sampled_from(["rows", "columns"]),
            "weights": st.sampled_from(["out_in", "in_out"]),
            "biases": st.sampled_from(["flat", "columns"]),
            "loss": st.booleans(),
            "learning_rate": st.sampled_from([None, 2.0**-10, 0.01, 1.0, 3.0]),
        }
    ),
    st.sampled_from(SOME.cases),
)
def test_every_combination_passes(declared: dict[str, Any], case: Any) -> None:
    assert not judged(BackendDoor(Theirs(declared)), Suite.of([case])).wrong


def test_what_is_recovered_from_an_update_is_known_as_well_as_is_said() -> None:
    rate = 2.0**-20
    case = next(case for case in SOME.cases if case.spec.depth > 1)

    def altered(size: float) -> str:
        door = BackendDoor(Theirs({"learning_rate": rate}))
        run = door.backend.gradient_function

        def nudged(spec: NetworkSpec, **options: Any) -> Any:
            def gradients(params: Any, x: Any, y: Any) -> Any:
                loss, after = run(spec, **options)(params, x, y)
                after["W1"][0, 0] += size * np.spacing(abs(after["W1"][0, 0]))
                return loss, after

            return gradients

        door.backend.gradient_function = nudged  # type: ignore[method-assign]
        (result,) = conform(door, Suite.of([case]), diagnosed=False)
        return result.verdict

    assert altered(0) == PASS
    assert altered(3) == FAIL


def test_one_activation_everywhere_and_labels_only_skip_what_they_cannot_do() -> None:
    found = judged(BackendDoor(Theirs({"one_activation": True})), SUITE)
    several = {case.id for case in SUITE.cases if len({layer.activation for layer in case.spec.layers}) > 1}
    assert {result.case for result in found.results if result.verdict == SKIP} == several
    found = judged(BackendDoor(Theirs({"labels_only": True})), SUITE)
    soft = {case.id for case in SUITE.cases if case.spec.loss.name == "cross_entropy" and case.y.ndim == 2}
    assert {result.case for result in found.results if result.verdict == SKIP} >= soft != set()


PROGRAM = """
import json, sys
sys.path[:0] = {paths!r}
import numpy as np
from theirs import Theirs
from refimpl.formats.arrays import tensor
from refimpl.network.spec import NetworkSpec

declared = {declared!r}
for message in map(json.loads, sys.stdin):
    if message["type"] == "hello":
        answer = dict(type="hello", format="refimpl.process/1", name="theirs", conventions=declared)
    elif message["type"] == "evaluate":
        arrays = {{k: np.array(v["data"]).reshape(v["shape"]) for k, v in message["parameters"].items()}}
        x, y = (np.array(message[k]["data"]).reshape(message[k]["shape"]) for k in "xy")
        spec = NetworkSpec.from_dict(message["network"])
        run = Theirs(declared).gradient_function(spec, dtype="float64", device="cpu")
        loss, found = run(arrays, x, y)
        key = "parameters" if "learning_rate" in declared else "gradients"
        answer = dict(type="answer", id=message["id"])
        answer |= {{key: {{k: tensor(v) for k, v in found.items()}}}}
        answer |= {{}} if loss is None else dict(loss=float(loss))
    else:
        break
    print(json.dumps(answer), flush=True)
"""


@pytest.mark.parametrize("how", ["as in a course", "all"])
def test_a_program_declares_it_in_its_hello(how: str, tmp_path: Path) -> None:
    script = tmp_path / "theirs.py"
    script.write_text(PROGRAM.format(paths=sys.path, declared=DECLARED[how]))
    found = judged(ProgramDoor([sys.executable, str(script)], "float64", 60.0))
    assert not found.wrong, found.wrong[0].text
    assert found.counts()[PASS] >= 3


@pytest.mark.parametrize("how", ["as in a course", "update"])
def test_a_file_of_answers_declares_it_in_its_first_line(how: str, tmp_path: Path) -> None:
    declared = Conventions(**DECLARED[how])
    lines = [say({"format": "refimpl.answers/1", "partial": True, "conventions": DECLARED[how]})]
    for case in SOME.cases[:10]:
        run = Theirs(DECLARED[how]).gradient_function(case.spec, dtype="float64", device="cpu")
        loss, found = run(*declared.given(*case.data("float64")))
        key = "parameters" if declared.learning_rate else "gradients"
        lines.append(say({"case": case.id, "loss": float(loss), key: {k: tensor(v) for k, v in found.items()}}))
    path = tmp_path / "answers"
    path.write_bytes(b"".join(lines))
    found_ = judged(AnswersDoor(path, None, SUITE.by_id.__contains__))
    assert (found_.counts()[PASS], found_.counts()[SKIP]) == (10, len(SOME.cases) - 10)


def test_check_takes_it_into_account_too() -> None:
    case = next(case for case in SOME.cases if case.spec.depth > 1)
    assert check(case.spec, *case.data("float64"), [Theirs(DECLARED["as in a course"])]).ok
    assert not check(case.spec, *case.data("float64"), [Theirs({"loss": False, "samples": "columns"}, wrong=True)]).ok


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"samples": "cols"}, "samples must be 'rows' or 'columns'"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"sample": "rows"}, "unknown key 'sample'"),
        ("columns", "conventions: it must be a JSON object"),
    ],
)
def test_what_is_no_convention_is_refused(declared: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=said):
        BackendDoor(Theirs(declared))
    path = tmp_path / "answers"
    path.write_text(json.dumps({"format": "refimpl.answers/1", "conventions": declared}))
    with pytest.raises(ConformanceError, match="conventions"):
        AnswersDoor(path, None, SUITE.by_id.__contains__)
