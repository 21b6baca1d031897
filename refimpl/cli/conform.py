"""`refimpl conform`: the case suite on somebody's backpropagation, in any language."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from refimpl.cli.check import ALL_PASS, UNDECIDED, WRONG, Dtype
from refimpl.errors import BackendError, ConformanceError
from refimpl.files import why, write_whole

if TYPE_CHECKING:
    from refimpl.conformance.implementations import Implementation
    from refimpl.conformance.run import CaseResult, ConformanceReport
    from refimpl.conformance.vectors import Suite

COMMAND = "refimpl.command"
MAX_SECONDS = 86_400
MAX_PROCESSES = 256
INTERRUPTED = 130  # as shells have it
NOT_JUDGED = "it supports no case that was asked for"
WIDE = 10_000  # columns of what is no terminal, where a line is for programs to search


class WithCommand(TyperCommand):
    """What stands after -- is a program with its own options, and none of ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the part after -- aside."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


def conform(
    context: typer.Context,
    backends: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="(NAME | MODULE:ATTRIBUTE)… | -- COMMAND…",
            help="Backends to run, by name or by place; or after -- a program that speaks refimpl.process/1. "
            "Default: every installed backend.",
            show_default=False,
        ),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge a file of answers (refimpl.answers/1) instead.")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Other vector files than those that come with refimpl.")
    ] = None,
    flag: Annotated[
        list[str] | None, typer.Option("--flag", metavar="FLAG", help="Only cases with this flag; may be given again.")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="The arithmetic; that of a file of answers is what it says itself.")
    ] = Dtype.float64,
    device: Annotated[str, typer.Option(help="cpu or cuda, for backends.")] = "cpu",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_PROCESSES, help="For slow backends. Default: as many as there are cores.", show_default=False
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a program has for one answer.")] = 10.0,
    xfail: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Cases expected to fail, one a line, with a reason after #. Strict."),
    ] = None,
    require_backend: Annotated[
        list[str] | None,
        typer.Option(
            "--require-backend", metavar="NAME", help="Fail if this backend does not run; may be given again."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the results as JUnit XML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the conformance suite: every case with its certified answer, and what is wrong where one is missed."""
    from refimpl.conformance import run
    from refimpl.conformance import vectors as vector_files
    from refimpl.conformance.process import NotEndedError, uninterrupted
    from refimpl.cores import cores

    command: list[str] | None = context.meta.get(COMMAND)
    _check_effective(context, command, answers)
    if not timeout <= MAX_SECONDS:
        raise ConformanceError(f"--timeout must be from 0.1 to {MAX_SECONDS} seconds, got {timeout:g}")
    target = _junit_target(junit) if junit is not None else None
    whole = vector_files.load(vectors)
    suite = _flagged(whole, flag)
    expected = run.expected_failures(xfail, whole) if xfail else {}
    reports: list[ConformanceReport] = []
    missing = dict.fromkeys(require_backend or [], "was not asked for")
    interrupted, not_ended = False, None
    given = context.get_parameter_source("dtype")
    demanded = dtype.value if given is not None and given.name == "COMMANDLINE" else None
    asked = Asked(backends, command, answers, vectors, demanded, device, processes or cores(), timeout)
    try:
        for place, implementation, kind in _implementations(asked, whole, suite, missing):
            with contextlib.closing(implementation):
                arithmetic = implementation.arithmetic(kind).name
                report = run.ConformanceReport(implementation.name, implementation.description, kind, arithmetic)
                reports.append(report)
                missing |= dict.fromkeys(missing.keys() & {implementation.name, place}, NOT_JUDGED)
                results = run.conform(implementation, suite, kind, expected)
                for result in _with_progress(results, len(suite.cases), implementation.name, quiet=as_json):
                    report.results.append(result)
                    if result.verdict != run.SKIP:
                        missing |= dict.fromkeys(missing.keys() & {implementation.name, place}, "")
    except KeyboardInterrupt:
        interrupted = True
    except NotEndedError as error:  # what was found is told nevertheless
        not_ended = error
    missing = {name: reason for name, reason in missing.items() if reason}
    with uninterrupted() if interrupted else contextlib.nullcontext():  # a second Ctrl-C loses nothing
        _show(reports, missing, as_json)
        if target is not None:
            _write(target, run.junit(reports))
    if not_ended:
        raise not_ended
    if interrupted:
        done = sum(len(report.results) for report in reports)
        typer.echo(f"interrupted after {done} cases; the rest was not run", err=True)
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(_outcome(reports, missing))


def _check_effective(context: typer.Context, command: list[str] | None, answers: Path | None) -> None:
    """Raises ConformanceError for an option that would do nothing."""
    door, without = (
        ("--answers", ("device", "timeout", "processes")) if answers is not None
        else ("a program", ("device", "processes")) if command is not None
        else ("backends", ("timeout",))
    )  # fmt: skip
    for name in without:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConformanceError(f"--{name} has no effect with {door}; leave it out")


def _junit_target(path: Path) -> Path:
    """Where the file will be, whatever the working folder is by then. Raises ConformanceError."""
    target = path.absolute()
    try:
        if target.is_dir():
            raise ConformanceError(f"--junit: {path} is a folder; name a file in it")
        if not target.parent.is_dir():
            raise ConformanceError(f"--junit: the folder of {path} does not exist; make it first")
        target.exists()
    except (OSError, ValueError) as error:
        if isinstance(error, ConformanceError):
            raise
        raise ConformanceError(f"--junit: {why(error)}") from None
    return target


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text.encode())
    except (OSError, ValueError) as error:
        raise ConformanceError(f"cannot write {path}: {why(error)}; name another file") from None


def _outcome(reports: list[ConformanceReport], missing: dict[str, str]) -> int:
    if missing or not reports or any(report.wrong for report in reports):
        return WRONG
    if all(report.ok for report in reports):
        return ALL_PASS
    judged = any(result.verdict != "SKIP" for report in reports for result in report.results)
    return UNDECIDED if judged else WRONG


def _flagged(suite: Suite, flags: list[str] | None) -> Suite:
    from refimpl.conformance.vectors import Suite as Suites

    if not flags:
        return suite
    known = sorted({flag for case in suite.cases for flag in case.flags})
    unknown = [flag for flag in flags if flag not in known]
    if unknown:
        raise ConformanceError(f"--flag: no case has the flag {unknown[0]!r}; known are {', '.join(known)}")
    return Suites.of([case for case in suite.cases if set(flags) & set(case.flags)])


@dataclass(frozen=True)
class Asked:
    """What is to be run, as it was asked for."""

    backends: list[str] | None
    command: list[str] | None
    answers: Path | None
    vectors: Path | None
    dtype: str | None
    device: str
    processes: int
    timeout: float


def _implementations(
    asked: Asked, whole: Suite, suite: Suite, missing: dict[str, str]
) -> Iterator[tuple[str, Implementation, str]]:
    """What was asked for, each by the name it was asked for by, and in which dtype."""
    from refimpl import backend as installed
    from refimpl.conformance.descendants import adopt_orphans
    from refimpl.conformance.implementations import AnswersDoor, ProcessDoor
    from refimpl.conformance.parallel import ParallelDoor

    dtype = asked.dtype or "float64"

    def door(name: str) -> ParallelDoor:
        return ParallelDoor(name, asked.device, asked.vectors, suite.cases, dtype, asked.processes)

    if sum([bool(asked.backends), asked.command is not None, asked.answers is not None]) > 1:
        raise ConformanceError("give backends, or a program after --, or --answers, and only one of them")
    if asked.command is not None:
        if not asked.command:
            raise ConformanceError("no program stands after --; write refimpl conform -- ./my_backprop")
        adopt_orphans()
        yield asked.command[0], ProcessDoor(asked.command, dtype, asked.timeout), dtype
    elif asked.answers is not None:
        answers = AnswersDoor(asked.answers, asked.dtype, whole.by_id.__contains__)
        yield str(asked.answers), answers, answers.dtype
    elif asked.backends:
        yield from [(name, door(name), dtype) for name in map(_no_program, asked.backends)]
    else:
        for name in installed.available():
            try:
                yield name, door(name), dtype
            except BackendError as error:
                typer.echo(f"{name}: not run: {error}", err=True)
                if name in missing:
                    missing[name] = str(error)


def _no_program(name: str) -> str:
    """The name of a backend. Raises ConformanceError for that of a file."""
    if Path(name).is_file():
        raise ConformanceError(f"{name} is a file; a program stands after --: refimpl conform -- {name}")
    return name


def _show(reports: list[ConformanceReport], missing: dict[str, str], as_json: bool) -> None:
    if as_json:
        data: list[Any] = [report.to_dict() for report in reports]
        typer.echo(json.dumps({"format": "refimpl.conformance-run/1", "missing": missing, "reports": data}, indent=1))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    wide = Console(width=max(console.width, 100) if console.is_terminal else WIDE)
    for report in reports:
        wide.print(report)
    for name, reason in missing.items():
        text = f"required backend {name} did not run: {reason}"
        wide.print(Text(text, style="bold red"))


def _with_progress(results: Iterable[CaseResult], count: int, name: str, quiet: bool) -> Iterable[CaseResult]:
    from refimpl.cli.soak import progress

    return results if quiet else progress(results, count, name)
