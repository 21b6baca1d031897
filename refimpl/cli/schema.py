"""`refimpl schema`: the JSON Schemas of the formats that others write and read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from refimpl.cli.terminal import print_json


class Name(StrEnum):
    """The formats."""

    network = "network"
    vectors = "vectors"
    process = "process"
    answers = "answers"
    trace = "trace"


def schema(
    name: Annotated[Name, typer.Argument(metavar="NAME", help=f"One of {', '.join(Name)}.")],
) -> None:
    """Print the JSON Schema of a format (draft 2020-12)."""
    print_json(made(name))


def made(name: Name) -> dict[str, Any]:
    """The schema of a format, from the statement by which refimpl reads it."""
    from refimpl.conformance.messages import AnswersLine, ProcessMessage
    from refimpl.conformance.vectors import VectorFile
    from refimpl.formats.validation import schema
    from refimpl.network.documents import NetworkDocument
    from refimpl.teaching.trace import TraceDocument

    return {
        Name.network: lambda: schema(NetworkDocument, "A network: refimpl.network/1"),
        Name.vectors: lambda: schema(VectorFile, "A vector file: refimpl.vectors/2"),
        Name.process: lambda: schema(ProcessMessage, "A message, one a line: refimpl.process/1"),
        Name.answers: lambda: schema(AnswersLine, "A line of a file of answers: refimpl.answers/1"),
        Name.trace: lambda: schema(TraceDocument, "A forward and a backward pass: refimpl.trace/1"),
    }[name]()
