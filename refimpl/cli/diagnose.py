"""`refimpl diagnose`: what is wrong with one answer to one case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refimpl.cli.check import ALL_PASS, UNDECIDED, WRONG, Dtype
from refimpl.errors import ConformanceError
from refimpl.files import read_whole

if TYPE_CHECKING:
    from refimpl.answers import Answer
    from refimpl.conformance.vectors import Case


def diagnose(
    case: Annotated[
        str, typer.Argument(help="A case of the suite by name; or FILE.json, or FILE.json#NAME for another's.")
    ],
    answer: Annotated[
        Path, typer.Argument(metavar="ANSWER.json", help='{"loss": …, "gradients": {"W1": {"shape": …, "data": …}, …}}')
    ],
    dtype: Annotated[Dtype, typer.Option(help="The arithmetic that the answer was computed in.")] = Dtype.float64,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say which known mistake explains a wrong gradient, or which quantity is the first wrong one."""
    from refimpl.conformance import messages
    from refimpl.diagnosis import diagnose_answer
    from refimpl.judge import Judge
    from refimpl.report import FAIL, PASS

    chosen = _case(case)
    if not chosen.fits(dtype.value):
        raise ConformanceError(f"case {chosen.id!r} has numbers that {dtype.value} has not; ask with --dtype float64")
    raw = read_whole(answer, messages.MAX_LINE, ConformanceError, "an answer")
    try:
        given = _answer(raw, chosen, dtype.value)
    except ConformanceError as error:
        raise ConformanceError(f"{answer}: {error}") from None
    judge, decides = Judge(chosen.spec, chosen.batch(dtype.value)), chosen.judge(dtype.value)
    if given.loss is None:
        given = given._replace(loss=judge.truth.loss.mid)
    rows = decides.judge_answer("answer", given)
    findings = diagnose_answer(judge, given, decides=decides)
    failed = any(row.verdict == FAIL for row in rows)
    if as_json:
        data = {"case": chosen.id, "ok": not failed, "findings": [finding.to_dict() for finding in findings]}
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
    elif not failed:
        typer.echo("nothing is wrong" if all(row.verdict == PASS for row in rows) else "nothing is certainly wrong")
    else:
        for row in (row for row in rows if row.verdict == FAIL and not findings):
            typer.echo(f"{row.quantity}: {row.remark}")
        for finding in findings:
            if finding.known:
                typer.echo(f"{finding.quantity} {finding.symptom}")
            typer.echo(finding.text)
    decided = all(row.verdict == PASS for row in rows)
    raise typer.Exit(WRONG if failed else ALL_PASS if decided else UNDECIDED)


def _answer(raw: bytes, case: Case, dtype: str) -> Answer:
    """The answer, without a loss where none is given."""
    from refimpl.conformance import messages

    message = messages.heard(raw, "the answer")
    unknown = set(message) - {"type", "id", "case", "loss", "gradients"}
    if unknown:
        raise ConformanceError(f"unknown key {min(unknown)[:60]!r}; known are loss, gradients and case")
    if message.get("case", case.id) != case.id:
        raise ConformanceError(f"it answers the case {str(message['case'])[:60]!r}, not {case.id!r}")
    given = messages.read_answer({"loss": 0.0, **message}, dtype)
    return given if "loss" in message else given._replace(loss=None)


def _case(name: str) -> Case:
    from refimpl.conformance.vectors import load, load_file

    file, _, wanted = name.partition("#")
    if not file.endswith(".json"):
        cases, wanted = list(load().cases), name
    else:
        cases, _ = load_file(Path(file))
        if not wanted and len(cases) == 1:
            return cases[0]
        if not wanted:
            raise ConformanceError(f"{file} holds {len(cases)} cases; name one: '{file}#NAME'")
    for case in cases:
        if case.id == wanted:
            return case
    raise ConformanceError(f"there is no case {wanted!r}; `refimpl vectors list` shows them")
