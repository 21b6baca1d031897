"""A file of answers, judged like any other implementation, and read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from refimpl.cli.schema import Name, made
from refimpl.conformance.doors.answers import AnswersDoor
from refimpl.conformance.doors.program import MAX_LINE, say
from refimpl.conformance.run import SKIP, judge_case
from refimpl.conformance.vectors import Case, Suite, load
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import ConformanceError
from refimpl.judge.report import FAIL, PASS, UNDETERMINED
from refimpl_numpy import NumpyBackend

SUITE = load()
SMALL = Suite.of(SUITE.cases[::36])
CASE = SUITE.cases[0]
HEAD = {"format": "refimpl.answers/1"}


def line(case: Case, dtype: str = "float64", **changes: Any) -> bytes:
    loss, grads = NumpyBackend().gradient_function(case.spec, dtype=dtype, device="cpu")(*case.data(dtype))
    gradients = {name: tensor(grad) for name, grad in grads.items()}
    return say({"case": case.id, "loss": float(loss), "gradients": {**gradients, **changes}})


def door(path: Path, *lines: bytes, dtype: str | None = "float64") -> AnswersDoor:
    path.write_bytes(b"".join(lines))
    return AnswersDoor(path, dtype, SUITE.by_id.__contains__)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_file_of_answers_is_judged_like_any_other(tmp_path: Path, dtype: str) -> None:
    _, second, *rest = SMALL.cases
    skipped = say({"case": second.id, "unsupported": "not today"})
    lines = [say({**HEAD, "name": "mine", "dtype": dtype}), skipped, *(line(case, dtype) for case in reversed(rest))]
    for text in lines:
        jsonschema.Draft202012Validator(made(Name.answers)).validate(json.loads(text))
    answers = door(tmp_path / "answers", *lines, dtype=None)
    assert (answers.name, answers.dtype) == ("mine", dtype)
    missing, lacking, *judged = [judge_case(answers, case, dtype) for case in SMALL.cases]
    assert (missing.verdict, missing.reason) == (FAIL, "is not answered in the file")
    assert (lacking.verdict, lacking.reason) == (SKIP, "not today")
    assert {result.verdict for result in judged} <= ({PASS} if dtype == "float64" else {PASS, UNDETERMINED})


def test_a_malformed_array_is_the_fail_of_its_case(tmp_path: Path) -> None:
    answers = door(tmp_path / "answers", say(HEAD), line(CASE, W1={"shape": [4, 3], "data": ["0.5"] * 12}))
    result = judge_case(answers, CASE, "float64")
    assert result.verdict == FAIL
    assert "W1 is no array" in result.text
    assert "'0.5'" in result.text


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    head = b"\xef\xbb\xbf" + say(HEAD).replace(b"\n", b"\r\n")
    answers = door(tmp_path / "answers", head, b"\n", line(CASE), b"\n  \n")
    assert judge_case(answers, CASE, "float64").verdict == PASS
    assert answers.name == str(tmp_path / "answers")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b""], "line 1: not JSON"),
        ([b"{}"], "line 1: .*lacks the key 'format'"),
        ([say({**HEAD, "format": "refimpl.answers/2"})], "line 1: format"),
        ([say({**HEAD, "dtype": "float16"})], "line 1: dtype .*float64.*float32"),
        ([say({**HEAD, "dtype": "float32"})], "line 1: the answers are float32; ask with --dtype float32"),
        ([say({**HEAD, "name": "two\nlines"})], "line 1: name must be one line"),
        ([say({**HEAD, "name": "\x1b[2J"})], "line 1: name must be one line"),
        ([say({**HEAD, "name": 7})], "line 1: name"),
        ([say({**HEAD, "name": "x" * 300})], "line 1: name"),
        ([say(HEAD), b"[]"], "line 2: case 'None' is not one of the suite's"),
        ([say(HEAD), say({"case": "nobody's"})], "line 2: case .*nobody's.* is not one of the suite's"),
        ([say(HEAD), say({"case": CASE.id, "gradients": {}})], "line 2: .*lacks the key 'loss'"),
        ([say(HEAD), say({"case": CASE.id, "loss": 0, "gradients": []})], "line 2: gradients"),
        ([say(HEAD), say({"case": CASE.id, "unsupported": 3})], "line 2: unsupported"),
        ([say(HEAD), b"x" * (MAX_LINE + 5)], "line 2: .*longer than"),
        ([say(HEAD), b"\n", line(CASE), line(CASE)], "line 4: case 'basic identity squared_error' is answered twice"),
    ],
)
def test_a_wrong_file_of_answers_is_refused_with_its_line(lines: list[bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match=words) as caught:
        door(tmp_path / "answers", *lines)
    assert str(caught.value).startswith(str(tmp_path / "answers"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_of_answers_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match=r"cannot read .*nowhere"):
        AnswersDoor(tmp_path / "nowhere", "float64", SUITE.by_id.__contains__)
