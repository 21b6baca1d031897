"""`refimpl diagnose`: what is wrong with one answer to one case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refimpl.cli.requested import Arithmetic, AsJson, Dtype
from refimpl.cli.terminal import ALL_PASS, UNDECIDED, WRONG, print_json
from refimpl.formats.errors import ConformanceError

if TYPE_CHECKING:
    from refimpl.conformance.vectors import Case
    from refimpl.judge.submission import Submission


def diagnose(
    case: Annotated[
        str, typer.Argument(help="A case of the suite by name; or FILE.json, or FILE.json#NAME for another's.")
    ],
    answer: Annotated[
        Path, typer.Argument(metavar="ANSWER.json", help='{"loss": …, "gradients": {"W1": {"shape": …, "data": …}, …}}')
    ],
    dtype: Arithmetic = Dtype.float64,
    as_json: AsJson = False,
) -> None:
    """Say which known mistake explains a wrong gradient.

    Where none does, it says which quantity is the first wrong one, going backwards.
    """
    from refimpl.faults.diagnosis import diagnose_answer
    from refimpl.judge.judge import Judge
    from refimpl.judge.report import FAIL, PASS

    chosen = _case(case)
    if not chosen.fits(dtype.value):
        raise ConformanceError(f"case {chosen.id!r} has numbers that {dtype.value} has not; ask with --dtype float64")
    given = _answer(answer, chosen, dtype.value)
    judge = Judge(chosen.spec, chosen.batch(dtype.value))
    if given.loss is None:
        given = given._replace(loss=judge.truth.loss.mid)
    rows = chosen.judge(dtype.value).judge_answer("answer", given)
    findings = diagnose_answer(judge, given, rows)
    failed, decided = any(row.verdict == FAIL for row in rows), all(row.verdict == PASS for row in rows)
    if as_json:
        print_json({"case": chosen.id, "ok": not failed, "findings": [finding.to_dict() for finding in findings]})
    elif not failed:
        typer.echo("nothing is wrong" if decided else "nothing is certainly wrong")
    else:
        for row in (row for row in rows if row.verdict == FAIL and not findings):
            typer.echo(f"{row.quantity}: {row.remark}")
        for finding in findings:
            if finding.known:
                typer.echo(f"{finding.quantity} {finding.symptom}")
            typer.echo(finding.text)
    raise typer.Exit(WRONG if failed else ALL_PASS if decided else UNDECIDED)


def _answer(path: Path, case: Case, dtype: str) -> Submission:
    """The answer, without a loss where none is given."""
    from refimpl.conformance.doors.program import MAX_LINE, heard
    from refimpl.conformance.messages import GivenAnswer
    from refimpl.formats import files
    from refimpl.formats.validation import checked

    raw = files.read(path, MAX_LINE, ConformanceError, "an answer")
    try:
        given = checked(GivenAnswer, heard(raw, "the answer"), ConformanceError, "the answer")
        if given.case not in ("", case.id):
            raise ConformanceError(f"it answers the case {given.case[:60]!r}, not {case.id!r}")
        return given.submission(dtype)
    except ConformanceError as error:
        raise ConformanceError(f"{path}: {error}") from None


def _case(name: str) -> Case:
    from refimpl.conformance.vectors import load, load_file

    file, _, wanted = name.partition("#")
    if not file.endswith(".json"):
        cases, wanted = list(load().cases), name
    else:
        cases = list(load_file(Path(file)).cases)
        if not wanted and len(cases) == 1:
            return cases[0]
        if not wanted:
            raise ConformanceError(f"{file} holds {len(cases)} cases; name one: '{file}#NAME'")
    for case in cases:
        if case.id == wanted:
            return case
    raise ConformanceError(f"there is no case {wanted!r}; `refimpl vectors list` shows them")
