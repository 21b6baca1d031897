"""What others write held against a statement of the format: `checked`, and `Document`, from which statements are made.

A statement is a pydantic model: its fields, with their limits, are what is read and what the JSON Schema of the format
says. Messages name the field and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from refimpl.formats.errors import RefimplError

MOST_SAID = 400  # characters
WORDS = {
    "a valid integer": "an integer", "a valid boolean": "true or false", "valid ": "", "greater than or equal to": "≥",
    "less than or equal to": "≤", " after validation": "",
}  # fmt: skip

D = TypeVar("D", bound="Document")
T = TypeVar("T")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("line", "must be one line of at most 200 printable characters")
    return text


Line = Annotated[str, Field(strict=True, max_length=200), AfterValidator(_printable)]
Name = Annotated[Line, Field(min_length=1)]
Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Listed = Annotated[list[T], FailFast()]  # a hostile file's hundred thousand wrong items are told by the first
Several = Annotated[tuple[T, ...], FailFast()]


@dataclass(frozen=True)
class OneOf:
    """A string that is one of these."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


class Document(BaseModel):
    """A JSON object of exactly these keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        known = {field.alias or name: field for name, field in cls.model_fields.items()}
        for key in data if isinstance(data, dict) else ():
            if key not in known and cls.model_config.get("extra") == "forbid":
                shown = {"key": repr(str(key)[:60]), "known": ", ".join(sorted(known))}
                raise PydanticCustomError("unknown", "has the unknown key {key}; known are {known}", shown)
        return data


def schema(documents: Any, title: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a document, or of a union of them."""
    found = TypeAdapter(documents).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": title}


def checked(document: type[D], data: Any, error: type[RefimplError], what: str = "", within: str = "") -> D:
    """The document that `data` is. Raises `error`, with the first thing that is wrong: `what` names the whole, and
    `within`, where it is given, what holds it.
    """
    try:
        return document.model_validate(data)
    except ValidationError as wrong:
        raise error((f"{within}: " if within else "") + sentence(wrong, what)) from None


def refusing(error: type[RefimplError]) -> Callable[[type[T]], type[T]]:
    """A pydantic dataclass that raises `error` where it is made of something wrong."""

    def decorate(cls: type[T]) -> type[T]:
        dataclass_: Any = cls
        make = dataclass_.__init__

        @wraps(make)
        def checked_init(self: T, *args: Any, **kwargs: Any) -> None:
            names = [entry.name for entry in fields(dataclass_)]
            if len(args) > len(names):
                raise TypeError(f"{cls.__name__} has {len(names)} fields, got {len(args)} values")
            named = dict(zip(names, args, strict=False))
            try:
                make(self, **named, **kwargs)
            except ValidationError as wrong:
                raise error(sentence(wrong)) from None

        dataclass_.__init__ = checked_init
        return cls

    return decorate


def sentence(error: ValidationError, what: str = "") -> str:
    """The first thing that is wrong: the field, what it must be, and what it is."""
    wrong: ErrorDetails = error.errors(include_url=False)[0]
    path, kind = list(wrong["loc"]), wrong["type"]
    if kind == "missing":
        key = path.pop()
        return f"{_place(path, what)} lacks the key {key!r}; add it"
    if kind == "value_error":  # one of ours, which says all
        return f"{_place(path, what)} {wrong['ctx']['error']}".strip()
    if kind == "unexpected_keyword_argument":
        return f"{_place(path[:-1], what)} has no {path[-1]!r}; leave it out".strip()
    said = re.sub(r"^\w+ should", "must", wrong["msg"])
    for theirs, ours in WORDS.items():
        said = said.replace(theirs, ours)
    if kind == "model_type":
        said = "must be a JSON object"
    if len(said) > MOST_SAID:  # one of a long list of names
        said = said[:MOST_SAID] + "…"
    got = "" if kind == "unknown" else f", got {_got(wrong['input'])}"
    return f"{_place(path, what)} {said}{got}"


def _place(path: Sequence[int | str], what: str) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in path)
    return place.removeprefix(".") or what


def _key(text: str) -> str:
    return text if text.isprintable() and len(text) <= 60 else ascii(text[:60])


def _got(value: Any) -> str:
    try:
        text = " ".join(repr(value).splitlines())
    except (ValueError, RecursionError):  # an integer of more digits than Python prints; deep nesting
        text = "too large to show"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"
