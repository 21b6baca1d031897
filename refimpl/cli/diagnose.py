"""`refimpl diagnose`: what is wrong with one answer to one case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refimpl.cli.check import ALL_PASS, UNDECIDED, WRONG, Dtype
from refimpl.errors import ConformanceError

if TYPE_CHECKING:
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
    message = messages.heard(_read(answer), "the answer")
    unknown = set(message) - {"type", "id", "case", "loss", "gradients"}
    if unknown:
        raise ConformanceError(f"{answer}: unknown key {min(unknown)[:60]!r}; known are loss, gradients and case")
    if message.get("case", chosen.id) != chosen.id:
        raise ConformanceError(f"{answer}: it answers the case {str(message['case'])[:60]!r}, not {chosen.id!r}")
    if not chosen.fits(dtype.value):
        raise ConformanceError(f"case {chosen.id!r} has numbers that {dtype.value} has not; ask with --dtype float64")
    given = messages.read_answer({"loss": None, **message}, dtype.value)
    judge, decides = Judge(chosen.spec, chosen.batch(dtype.value)), chosen.judge(dtype.value)
    with_loss = (given[0] if "loss" in message else judge.truth.loss.mid, given[1])
    rows = decides.judge_answer("answer", with_loss)
    findings = diagnose_answer(judge, with_loss, decides=decides)
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
            typer.echo(f"{finding.quantity} {finding.symptom}\n{finding.text}")
    decided = all(row.verdict == PASS for row in rows)
    raise typer.Exit(WRONG if failed else ALL_PASS if decided else UNDECIDED)


def _case(name: str) -> Case:
    from refimpl.conformance.vectors import load, load_file

    file, _, wanted = name.partition("#")
    if not file.endswith(".json"):
        cases = list(load().cases)
        wanted = name
    else:
        cases, _ = load_file(Path(file))
        if not wanted and len(cases) != 1:
            raise ConformanceError(f"{file} holds {len(cases)} cases; name one: '{file}#NAME'")
    for case in cases:
        if case.id == wanted or not wanted:
            return case
    raise ConformanceError(f"there is no case {wanted!r}; `refimpl vectors list` shows them")


def _read(path: Path) -> bytes:
    from refimpl.conformance.messages import MAX_LINE

    try:
        with open(path, "rb") as file:
            return file.read(MAX_LINE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a name that a file can have"
        raise ConformanceError(f"cannot read {path}: {reason}") from None
