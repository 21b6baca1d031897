"""What others write is held against a statement of its format; what is wrong is one line: the field, what it must be,
and what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from refimpl.formats.errors import DataError, RefimplError, SpecError
from refimpl.formats.validation import Document, Flag, Line, Name, OneOf, Whole, checked, refusing, schema


class Layer(Document):
    """A layer."""

    size: Annotated[Whole, Field(ge=1, le=10)]
    kind: Annotated[str, OneOf(("relu", "tanh"))] = "relu"
    bias: Flag = True

    @model_validator(mode="after")
    def _not_seven(self) -> Layer:
        if self.size == 7:
            raise ValueError("holds seven neurons; take another number")
        return self


class Network(Document):
    """A network."""

    format: Literal["test/1"] = "test/1"
    name: Name = "x"
    note: Line = ""
    layers: Annotated[list[Layer], Field(max_length=3)] = Field(default_factory=list)
    numbers: dict[str, float] = Field(default_factory=dict)


def refused(data: Any, what: str = "the network", within: str = "") -> str:
    with pytest.raises(SpecError) as caught:
        checked(Network, data, SpecError, what, within)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 300
    return said


def test_a_document_has_what_was_given_and_the_defaults() -> None:
    found = checked(Network, {"layers": [{"size": 3}, {"size": 10, "kind": "tanh", "bias": False}]}, SpecError)
    assert found.layers == [Layer(size=3), Layer(size=10, kind="tanh", bias=False)]
    assert (found.name, found.note, found.layers[0].bias) == ("x", "", True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["the network", "JSON object", "list"]),
        (None, ["the network", "JSON object", "NoneType"]),
        ({"layers": [{}]}, ["layers[0]", "lacks the key 'size'", "add it"]),
        ({"colour": 1}, ["the network", "unknown key 'colour'", "known are format, layers, name, note, numbers"]),
        ({"layers": [{"size": 1, "weights": 2}]}, ["layers[0]", "unknown key 'weights'", "bias, kind, size"]),
        ({"layers": [{"size": 1}, {"size": 0}]}, ["layers[1].size", "≥ 1", "got int 0"]),
        ({"layers": [{"size": 11}]}, ["layers[0].size", "≤ 10", "got int 11"]),
        ({"layers": [{"size": 7}]}, ["layers[0]", "holds seven neurons; take another number"]),
        ({"layers": [{"size": True}]}, ["layers[0].size", "integer", "got bool True"]),
        ({"layers": [{"size": 2.0}]}, ["layers[0].size", "integer", "got float 2.0"]),
        ({"layers": [{"size": "2"}]}, ["layers[0].size", "integer", "got str '2'"]),
        ({"layers": [{"size": 1, "bias": 1}]}, ["layers[0].bias", "true or false", "got int 1"]),
        ({"layers": [{"size": 1, "kind": "swish"}]}, ["layers[0].kind", "'relu' or 'tanh'", "got str 'swish'"]),
        ({"layers": [{"size": 1, "kind": 1}]}, ["layers[0].kind", "'relu' or 'tanh'", "got int 1"]),
        ({"layers": [{"size": 1}] * 4}, ["layers", "at most 3", "4"]),
        ({"layers": {}}, ["layers", "list", "dict"]),
        ({"format": "test/2"}, ["format", "'test/1'", "got str 'test/2'"]),
        ({"name": ""}, ["name", "at least 1"]),
        ({"name": "x" * 201}, ["name", "at most 200 characters"]),
        ({"name": 3}, ["name", "string", "got int 3"]),
        ({"name": "a\nb"}, ["name", "printable characters"]),
        ({"note": "\x1b[2J"}, ["note", "printable characters"]),
        ({"numbers": {"W": "many"}}, ["numbers.W", "number", "got str 'many'"]),
    ],
)
def test_what_is_wrong_names_the_field_what_it_must_be_and_what_it_is(data: Any, words: list[str]) -> None:
    said = refused(data)
    assert [word for word in words if word not in said] == []


def test_what_holds_the_whole_comes_first() -> None:
    assert refused([], "the network", "line 3").startswith("line 3: the network")


@pytest.mark.parametrize(
    "value",
    [10**5000, "x" * 10_000, ["y"] * 10_000, "a\nb\x1b[2J", {"k": "\ud800"}, [[[[["\u2028"]]]]]],
    ids=["digits", "text", "list", "lines", "surrogate", "nested"],
)
def test_any_value_is_shown_in_a_few_printable_characters(value: Any) -> None:
    assert "layers[0].size" in refused({"layers": [{"size": value}]})


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_a_value_nested_too_deeply_to_be_printed_is_refused() -> None:
    assert "layers[0].size" in refused({"layers": [{"size": nested(10**5)}]})


KEYS = ("a\nb", "\x1b[2J", "k" * 10_000, "\u2028")


def test_an_unknown_key_is_shown_in_a_few_printable_characters() -> None:
    for key in KEYS:
        assert "unknown key" in refused({key: 1})


def test_a_key_on_the_way_to_the_field_is_shown_in_a_few_printable_characters() -> None:
    for key in KEYS:
        assert "numbers" in refused({"numbers": {key: "many"}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["layers", "size", "kind", "name", "numbers"]) | st.text(max_size=3), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_anything_is_read_or_refused_in_one_line(data: Any) -> None:
    try:
        checked(Network, data, SpecError, "the network")
    except SpecError as error:
        assert str(error).isprintable()  # noqa: PT017


@refusing(DataError)
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Made with keywords or without."""

    rate: Annotated[float, Field(strict=True, ge=0)] = 0.1
    steps: Annotated[int, Field(strict=True, ge=1)] = 1


def test_a_dataclass_refuses_what_is_wrong_by_our_own_error() -> None:
    assert Config() == Config(0.1, 1) == Config(rate=0.1, steps=1)
    wrong: list[tuple[Callable[[], Config], list[str]]] = [
        (lambda: Config(-1.0), ["rate", "≥ 0", "-1.0"]),
        (lambda: Config(0.1, 2.5), ["steps", "integer", "2.5"]),  # type: ignore[arg-type]
        (lambda: Config(steps="3"), ["steps", "integer", "'3'"]),  # type: ignore[arg-type]
        (lambda: Config(speed=3), ["speed", "leave it out"]),  # type: ignore[call-arg]
    ]
    for make, words in wrong:
        with pytest.raises(DataError) as caught:
            make()
        assert [word for word in words if word not in str(caught.value)] == []
        assert isinstance(caught.value, RefimplError)


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not() -> None:
    made = schema(Network, "A network: test/1")
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["title"] == "A network: test/1"
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    assert validator.is_valid({"layers": [{"size": 3, "kind": "tanh"}], "numbers": {"W": 1}})
    for wrong in ({"colour": 1}, {"layers": [{"size": 0}]}, {"layers": [{"size": 1, "kind": "swish"}]}, {"format": 1}):
        assert not validator.is_valid(wrong)
        refused(wrong)
