"""JSON without its traps: what other readers let through is refused, in one line that names it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.formats.errors import ConformanceError, SpecError
from refimpl.formats.strict_json import finite, parse

LIMIT = 10**6
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def refused(text: str | bytes, limit: int = LIMIT) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text, SpecError, "a network", limit)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 200
    return said


@given(VALUES)
def test_any_value_reads_back_from_text_and_from_bytes(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert parse(text, SpecError, "a network", LIMIT) == value
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert parse(text.encode(), SpecError, "a network", LIMIT) == value


@given(st.text(max_size=100) | st.binary(max_size=100))
def test_anything_else_is_refused_in_one_line(text: str | bytes) -> None:
    try:
        parse(text, SpecError, "a network", LIMIT)
    except SpecError as error:
        assert str(error).isprintable()  # noqa: PT017


@pytest.mark.parametrize(
    "text", ['{"a": 1, "b": 2, "a": 1}', '[{"c": {"a": {}, "a": {}}}]', '{"a": 1, "\\u0061": 2}', b'{"a": 1, "a": 2}']
)
def test_a_key_that_is_given_twice_is_named(text: str | bytes) -> None:
    assert "'a' is given twice" in refused(text)


def test_a_long_or_unprintable_key_that_is_given_twice_is_named_in_one_line() -> None:
    for key in ("k" * 1000, "a\\nb\\u001b[2J"):
        assert "is given twice" in refused(f'{{"{key}": 1, "{key}": 2}}')


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_the_words_for_what_is_no_number_are_refused_or_read_where_they_are_allowed(word: str) -> None:
    assert f"{word} is not a JSON number" in refused(f'{{"a": [{word}]}}')
    (value,) = parse(f"[{word}]", SpecError, "an answer", LIMIT, nonfinite=True)
    assert repr(value) == repr(float(word))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 400 + ".0"])
def test_a_number_too_large_for_float64_is_refused_or_infinite_where_that_is_allowed(number: str) -> None:
    said = refused(f"[{number}]")
    assert number[:60] in said
    assert "too large for float64" in said
    assert parse(number, SpecError, "an answer", LIMIT, nonfinite=True) == math.copysign(math.inf, float(number))


def test_an_integer_of_thousands_of_digits_is_refused() -> None:
    assert "too many digits" in refused("9" * 5000)


def test_any_depth_of_nesting_is_read_or_refused() -> None:
    # the parser's limit depends on where it is called from
    for depth in (1, 100, *range(900, 1100, 7), 10**5):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            try:
                parse(opening * depth + "1" + closing * depth, SpecError, "a network", LIMIT)
            except SpecError as error:
                assert "nested too deeply" in str(error)  # noqa: PT017
                assert depth > 100
            else:
                assert depth < 10**5


def test_a_text_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert parse(b" " * 99 + b"7", SpecError, "a network", 100) == 7
    said = refused(b" " * 100 + b"7", 100)
    assert "100 bytes" in said
    assert "a network" in said


@pytest.mark.parametrize(
    ("text", "place"),
    [("", "line 1, column 1"), ('{"a": 1,\n "b" 2}', "line 2, column 6"), ("[1] x", "line 1, column 5")],
)
def test_what_is_no_json_is_refused_with_its_place(text: str, place: str) -> None:
    said = refused(text)
    assert "not JSON" in said
    assert place in said


def test_what_is_no_utf_8_is_refused_with_its_place() -> None:
    said = refused(b'{"a": "\xff"}')
    assert "byte 7" in said
    assert "UTF-8" in said


def test_the_error_is_the_one_asked_for() -> None:
    for text in ("{", '{"a": 1, "a": 1}', "NaN", "1e999", "[" * 10**5, " " * 2000):
        with pytest.raises(ConformanceError):
            parse(text, ConformanceError, "an answer", 10**5 if text[0] == "[" else 1000)


def test_what_json_lacks_is_written_as_null() -> None:
    given = {"a": [math.nan, 1.5, (math.inf, "NaN")], "b": {"c": -math.inf}, "d": None, "e": 3}
    assert finite(given) == {"a": [None, 1.5, [None, "NaN"]], "b": {"c": None}, "d": None, "e": 3}
