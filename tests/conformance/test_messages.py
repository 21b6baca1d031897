"""What refimpl and a program say to each other: exact there and back, and read strictly."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from refimpl.cli.schema import Name, made
from refimpl.conformance.doors.program import evaluate, heard, lacking, say
from refimpl.conformance.messages import Hello, ProgramAnswer
from refimpl.conformance.vectors import Suite, load
from refimpl.formats.arrays import tensor
from refimpl.formats.errors import ConformanceError
from refimpl.formats.validation import checked
from refimpl.judge.submission import Submission, Unusable

SUITE = load()
SMALL = Suite.of(SUITE.cases[::36])
HELLO = {"type": "hello", "format": "refimpl.process/1", "name": "x"}
SCHEMA = jsonschema.Draft202012Validator(made(Name.process))


def hello(**fields: Any) -> Hello:
    return checked(Hello, heard(say({**HELLO, **fields}), "the hello"), ConformanceError, "the hello")


def answered(**fields: Any) -> Submission:
    message = say({"type": "answer", "id": 1, "loss": 0.5, "gradients": {}, **fields})
    answer = checked(ProgramAnswer, heard(message, "the answer"), ConformanceError, "the answer")
    return answer.submission("float64")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_request_reads_back_exactly_and_is_as_the_schema_says(dtype: str) -> None:
    for case in SMALL.cases:
        message = json.loads(evaluate(7, case, dtype))
        SCHEMA.validate(message)
        params, x, y = case.data(dtype)
        assert (message["id"], message["case"]) == (7, case.id)
        assert list(message["parameters"]) == list(params)
        for name, array in {**params, "x": x, "y": y}.items():
            item = message["parameters"].get(name) or message[name]
            back = np.array(item["data"], dtype=array.dtype).reshape(item["shape"])
            np.testing.assert_array_equal(back, array)


def test_a_request_is_one_line_without_spaces() -> None:
    line = evaluate(1, SMALL.cases[0], "float64")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b'{"type":"evaluate","id":1,"case":"' in line


def test_a_hello_says_what_a_program_has() -> None:
    case = next(case for case in SUITE.cases if case.spec.loss.name == "huber" and case.spec.reduction == "sum")
    activation = case.spec.layers[0].activation.name
    for declared, words in (
        ({}, ""),
        ({"losses": ["huber"], "reductions": ["sum"], "activations": None, "surprise": 1}, ""),
        ({"reductions": ["mean"]}, "has no reduction sum"),
        ({"losses": []}, "has no loss huber"),
        ({"activations": []}, f"has no activation {activation}"),
        ({"dtypes": ["float32"]}, "has no dtype float64"),
    ):
        assert lacking(hello(**declared), case.spec, "float64") == words


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "answer"),
        ("format", "refimpl.process/2"),
        ("name", "a\nb"),
        ("name", ""),
        ("name", 7),
        ("version", "x" * 300),
        ("dtypes", "all"),
        ("losses", ["guess"]),
        ("activations", [1]),
        ("arithmetic", "mine"),
    ],
)
def test_a_wrong_hello_is_refused_with_its_field(field: str, value: Any) -> None:
    with pytest.raises(ConformanceError, match=field) as caught:
        hello(**{field: value})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", HELLO)
def test_a_hello_lacks_nothing_that_it_must_have(key: str) -> None:
    lacks = {name: value for name, value in HELLO.items() if name != key}
    with pytest.raises(ConformanceError, match=f"lacks the key '{key}'"):
        checked(Hello, lacks, ConformanceError, "the hello")


def test_numbers_that_json_lacks_are_words_and_read_back() -> None:
    array = np.array([[np.nan, np.inf], [-np.inf, 1.0]])
    submission = answered(loss="Infinity", gradients={"W1": tensor(array)})
    assert submission.loss == np.inf
    np.testing.assert_array_equal(submission.array("W1"), array)
    line = b'{"type":"answer","id":1,"loss":-Infinity,"gradients":{"W1":{"shape":[2],"data":[NaN,1e999]}}}'
    written = checked(ProgramAnswer, heard(line, "the answer"), ConformanceError).submission("float64")
    assert written.loss == -np.inf
    np.testing.assert_array_equal(written.array("W1"), [np.nan, np.inf])


def test_an_answer_is_read_in_the_dtype_that_was_asked_for() -> None:
    answer = ProgramAnswer.model_validate(
        {"type": "answer", "id": 1, "loss": 1e300, "gradients": {"W1": tensor(np.array([1e300, 0.1]))}}
    )
    found = answer.submission("float32").array("W1")
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, np.array([np.inf, 0.1], dtype=np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([1.0], "JSON object"),
        (None, "JSON object"),
        ({"shape": [2]}, "lacks the key 'data'"),
        ({"shape": [2], "data": [1, 2], "dtype": "f8"}, "unknown key 'dtype'"),
        ({"shape": [2, 2], "data": [1, 2, 3]}, "data has 3 numbers; the shape .* asks for 4"),
        ({"shape": [1], "data": ["0.5"]}, r"data\[0\] .* got str '0.5'"),
        ({"shape": [1], "data": [True]}, r"data\[0\] .* got bool True"),
        ({"shape": [1], "data": [None]}, r"data\[0\]"),
        ({"shape": [1], "data": [[1]]}, r"data\[0\]"),
        ({"shape": [0] + 9 * [2**31 - 1], "data": []}, r"shape\[0\]"),
        ({"shape": [-1], "data": []}, r"shape\[0\]"),
        ({"shape": [2**40], "data": []}, r"shape\[0\]"),
        ({"shape": 40 * [1], "data": [1]}, "shape"),
        ({"shape": "2", "data": [1, 2]}, "shape"),
    ],
)
def test_a_malformed_array_is_unusable_and_no_other_is(array: Any, words: str) -> None:
    found = answered(gradients={"W1": array, "b1": {"shape": [1], "data": [1]}})
    wrong = found.gradients["W1"]
    assert isinstance(wrong, Unusable)
    assert re.search(words, wrong.reason), wrong.reason
    np.testing.assert_array_equal(found.array("b1"), [1.0])


@pytest.mark.parametrize("loss", ["much", [], [0.5], True, None, {}])
def test_a_malformed_loss_is_never_a_number(loss: Any) -> None:
    found = answered(loss=loss, gradients={}).loss
    assert found is None if loss is None else isinstance(found, Unusable)


@pytest.mark.parametrize(
    ("fields", "words"), [({"gradients": []}, "gradients"), ({"gradients": None}, "gradients"), ({"id": "1"}, "id")]
)
def test_what_is_no_answer_is_refused_with_its_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConformanceError, match=words):
        answered(**fields)
