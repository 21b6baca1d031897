"""`refimpl conform`: the case suite on somebody's backpropagation, in any language."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from refimpl.cli.interruption import interruption
from refimpl.cli.requested import AsJson, Device, Dtype, Processes, Required
from refimpl.cli.terminal import ALL_PASS, INTERRUPTED, UNDECIDED, WRONG, console, print_json, progress
from refimpl.formats.errors import BackendError, ConformanceError

if TYPE_CHECKING:
    from refimpl.conformance.doors import Door
    from refimpl.conformance.draws import Draws
    from refimpl.conformance.report import ConformanceReport
    from refimpl.conformance.vectors import Suite
    from refimpl.network.spec import NetworkSpec

COMMAND = "refimpl.command"
MAX_SECONDS = 86_400
NOT_JUDGED = "it supports no case that was asked for"


class WithCommand(TyperCommand):
    """What stands after -- is a program with its own options, and none of ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the part after -- aside."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Asked:
    """What is to be run, as it was asked for."""

    backends: list[str] | None
    command: list[str] | None
    answers: Path | None
    vectors: Path | None
    dtype: str | None
    device: str
    processes: int | None
    timeout: float


@dataclass(frozen=True)
class Cases:
    """What is asked for: cases of the suite and, where no others were chosen, draws beside them, all of one `network`
    where one was given.
    """

    suite: Suite
    drawn: bool
    seed: int
    network: NetworkSpec | None

    def draws(self, door: Door, dtype: str) -> Draws | None:
        """The draws for an implementation."""
        from refimpl.conformance.draws import Draws

        lacks, others = partial(door.lacks, dtype=dtype), (case.spec for case in self.suite.cases)
        return Draws(lacks, dtype, self.seed, others, self.network) if self.drawn else None

    @property
    def count(self) -> int:
        """How many there are, at least."""
        from refimpl.conformance.run import WANTED

        return WANTED if self.network else len(self.suite.cases)


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
    network: Annotated[
        Path | None,
        typer.Option(metavar="SPEC.json", help="Cases of this network, drawn and certified, in place of the suite's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cases that are drawn.")] = 0,
    flag: Annotated[
        list[str] | None, typer.Option("--flag", metavar="FLAG", help="Only cases with this flag; may be given again.")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="The arithmetic; that of a file of answers is what it says itself.")
    ] = Dtype.float64,
    device: Device = "cpu",
    processes: Processes = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=MAX_SECONDS, help="Seconds that a program has for one answer.")
    ] = 10.0,
    xfail: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Cases expected to fail, one a line, with a reason after #. Strict."),
    ] = None,
    require_backend: Required = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the results as JUnit XML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the conformance suite on an implementation.

    Every case with its certified answer, and what is wrong where one is missed. Where fewer than 20 with a hidden layer
    fit what the implementation declares, others are drawn that do.
    """
    from refimpl.conformance import report as reported
    from refimpl.conformance import run
    from refimpl.conformance import vectors as vector_files
    from refimpl.formats import files
    from refimpl.network.spec import NetworkSpec

    command: list[str] | None = context.meta.get(COMMAND)
    _check_effective(context, command, answers)
    target = _junit_target(junit) if junit is not None else None
    whole = vector_files.load(vectors)
    own = NetworkSpec.load(network) if network is not None else None
    chosen = bool(vectors is not None or flag)
    suite = whole.of([]) if own else _flagged(whole, flag)
    cases = Cases(suite, not chosen, seed, own)
    expected = run.expected_failures(xfail, whole) if xfail else {}
    demanded = dtype.value if _given(context, "dtype") else None
    asked = Asked(backends, command, answers, vectors, demanded, device, processes, timeout)
    missing = dict.fromkeys(require_backend or [], "was not asked for")
    reports: list[ConformanceReport] = []
    with contextlib.suppress(KeyboardInterrupt):  # what was found is told nevertheless
        for place, door, kind in _doors(asked, whole, suite, missing):
            with contextlib.closing(door):
                report = reported.ConformanceReport(door.name, door.description, kind, door.arithmetic(kind).name)
                reports.append(report)
                asked_for = missing.keys() & {door.name, place}
                missing |= dict.fromkeys(asked_for, NOT_JUDGED)
                draws = cases.draws(door, kind)
                results = run.conform(door, suite, kind, expected, draws=draws or ())
                for result in progress(results, cases.count, door.name, as_json):
                    report.results.append(result)
                    if interruption.number:  # a backend took the KeyboardInterrupt for an error of its own
                        raise KeyboardInterrupt
                    if result.judged:
                        missing |= dict.fromkeys(asked_for, "")
                report.why_no_more = draws.why_not if draws else ""
    missing = {name: reason for name, reason in missing.items() if reason}
    with interruption.bearing(100):
        _show(reports, missing, as_json)
        if target is not None:
            files.write(target, reported.junit(reports).encode(), ConformanceError)
    if interruption.number:
        done = sum(len(report.results) for report in reports)
        typer.echo(f"interrupted after {done} case{'' if done == 1 else 's'}; the rest was not run", err=True)
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(_outcome(reports, missing, chosen))


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_effective(context: typer.Context, command: list[str] | None, answers: Path | None) -> None:
    """Raises ConformanceError for an option that would do nothing."""
    if _given(context, "network"):
        for name in ("answers", "vectors", "flag", "xfail"):
            if _given(context, name):
                raise ConformanceError(f"--{name} has no effect with --network, whose cases are drawn; leave it out")
    door, without = (
        ("--answers", ("device", "timeout", "processes", "seed")) if answers is not None
        else ("a program", ("device", "processes")) if command is not None
        else ("backends", ("timeout",))
    )  # fmt: skip
    for name in without:
        if _given(context, name):
            raise ConformanceError(f"--{name} has no effect with {door}; leave it out")


def _junit_target(path: Path) -> Path:
    """Where the file will be, whatever the working folder is by then. Raises ConformanceError."""
    if path.is_dir():
        raise ConformanceError(f"--junit: {path} is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise ConformanceError(f"--junit: the folder of {path} does not exist; make it first")
    return path.absolute()


def _outcome(reports: list[ConformanceReport], missing: dict[str, str], chosen: bool) -> int:
    """`chosen`: that few cases were judged is what was asked for."""
    if missing or not reports or any(report.wrong for report in reports):
        return WRONG
    if all(report.conforms or (report.ok and chosen) for report in reports):
        return ALL_PASS
    return UNDECIDED if any(report.judged for report in reports) else WRONG


def _flagged(suite: Suite, flags: list[str] | None) -> Suite:
    if not flags:
        return suite
    known = sorted({flag for case in suite.cases for flag in case.flags})
    unknown = [flag for flag in flags if flag not in known]
    if unknown:
        raise ConformanceError(f"--flag: no case has the flag {unknown[0]!r}; known are {', '.join(known)}")
    return type(suite).of([case for case in suite.cases if set(flags) & set(case.flags)])


def _doors(asked: Asked, whole: Suite, suite: Suite, missing: dict[str, str]) -> Iterator[tuple[str, Door, str]]:
    """What was asked for, each by the name it was asked for by, and in which dtype."""
    from refimpl import backend as installed
    from refimpl.conformance.doors.answers import AnswersDoor
    from refimpl.conformance.doors.backend import ParallelDoor
    from refimpl.conformance.doors.program import ProgramDoor
    from refimpl.judge.workers import cores

    dtype = asked.dtype or "float64"

    def door(name: str) -> ParallelDoor:
        return ParallelDoor(name, asked.device, asked.vectors, suite.cases, dtype, asked.processes or cores())

    if sum([bool(asked.backends), asked.command is not None, asked.answers is not None]) > 1:
        raise ConformanceError("give backends, or a program after --, or --answers, and only one of them")
    if asked.command is not None:
        if not asked.command:
            raise ConformanceError("no program stands after --; write refimpl conform -- ./my_backprop")
        yield asked.command[0], ProgramDoor(asked.command, dtype, asked.timeout), dtype
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
        print_json({"format": "refimpl.conformance-run/1", "missing": missing, "reports": data})
        return
    from rich.text import Text

    shown = console()
    for report in reports:
        shown.print(report)
    for name, reason in missing.items():
        shown.print(Text(f"required backend {name} did not run: {reason}", style="bold red"))
