"""The suite run on an implementation: a `CaseResult` a case, and the `ConformanceReport` of all.

A FAIL is diagnosed. A list of expected failures is strict: a case on it that passes is reported, and is wrong too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Group
from rich.table import Table
from rich.text import Text

from refimpl.conformance.causes import NOT_ASKED, CommonCause, Wrong, common_causes
from refimpl.conformance.implementations import Implementation
from refimpl.conformance.vectors import ARITHMETIC_NAMES, Case, Suite
from refimpl.diagnosis import MAX_SUSPECTS, Finding, diagnose_answer
from refimpl.errors import CertificationError, ConformanceError
from refimpl.files import read_whole
from refimpl.judge import Judge
from refimpl.report import FAIL, PASS, STYLES, UNDETERMINED, Row
from refimpl.strangers import printable

SKIP, XFAIL, XPASS = "SKIP", "XFAIL", "XPASS"
WRONG = (FAIL, XPASS)
COLOURS = {**STYLES, SKIP: "dim", XFAIL: "cyan", XPASS: "bold red"}
MAX_LIST_BYTES = 2**20
UNEXPLAINED = 10  # cases that no pair of faults explains, after which none is looked for


@dataclass(frozen=True)
class CaseResult:
    """The verdict on one case, its rows, what is wrong where it is FAIL, and the seconds the answer took. `traits` are
    what the case has that others have not.
    """

    case: str
    flags: tuple[str, ...]
    verdict: str
    reason: str = ""
    rows: tuple[Row, ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    traits: tuple[str, ...] = ()

    @property
    def wrong(self) -> list[Wrong]:
        """What is wrong in it, one by one."""
        if self.verdict not in (*WRONG, UNDETERMINED):
            return []
        found = [Wrong(self.case, self.verdict, self._reason(finding), finding) for finding in self.findings]
        return found or [Wrong(self.case, self.verdict, self.reason)]

    def _reason(self, finding: Finding) -> str:
        """The worst of what a finding is about: the loss, or the gradients."""
        rows = [row for row in self.rows if (row.quantity == "loss") == (finding.quantity == "loss")]
        return _worst(rows, FAIL) if any(row.verdict == FAIL for row in rows) else self.reason

    @property
    def text(self) -> str:
        """What is to be said of it, in one line."""
        findings = [finding.text for finding in self.findings if not self.reason.startswith(finding.text)]
        return "; ".join(part for part in (self.reason, *findings) if part)


@dataclass
class Experience:
    """What the cases before have taught about an implementation: the faults that explained them, and how many none
    did.
    """

    faults: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0

    @property
    def suspects(self) -> list[str]:
        """The faults that explained most cases, if more than one."""
        return [name for name, count in self.faults.most_common(MAX_SUSPECTS) if count > 1]

    def note(self, findings: Sequence[Finding]) -> None:
        """One more case."""
        self.unexplained += any(not finding.known for finding in findings)
        self.faults.update({cause.fault.name for f in findings for cause in (f.explanations or ((),))[0]})


def judge_case(
    implementation: Implementation,
    case: Case,
    dtype: str,
    diagnosed: bool = True,
    experience: Experience | None = None,
) -> CaseResult:
    """Ask an implementation for a case and judge what comes; diagnose a FAIL, with the experience of the cases before
    and adding to it.
    """
    result = partial(CaseResult, case.id, case.flags, traits=case.traits)
    if not case.fits(dtype):
        return result(SKIP, f"has numbers that {dtype} has not")
    started = time.perf_counter()
    answered = implementation.answer(case, dtype)
    seconds = time.perf_counter() - started if answered.seconds is None else answered.seconds
    if answered.skipped:
        return result(SKIP, answered.skipped, seconds=seconds)
    if answered.failed:
        return result(FAIL, answered.failed, seconds=seconds)
    arithmetic = implementation.arithmetic(dtype)
    written = arithmetic.name in ARITHMETIC_NAMES and arithmetic == ARITHMETIC_NAMES[arithmetic.name]
    judge = case.judge(dtype) if written else Judge(case.spec, case.batch(dtype))
    rows = tuple(judge.judge_answer(implementation.name, answered.answer, arithmetic))
    verdict = next((v for v in (FAIL, UNDETERMINED) if any(row.verdict == v for row in rows)), PASS)
    findings: tuple[Finding, ...] = ()
    if verdict == FAIL and diagnosed:
        known = experience or Experience()
        with suppress(CertificationError):
            certified, pairs = Judge(case.spec, case.batch(dtype)), known.unexplained < UNEXPLAINED
            findings = tuple(diagnose_answer(certified, answered.answer, arithmetic, judge, pairs, known.suspects))
        known.note(findings)
    return result(verdict, _worst(rows, verdict), rows, findings, seconds)


def _worst(rows: Sequence[Row], verdict: str) -> str:
    if verdict == PASS:
        return ""
    row = max((row for row in rows if row.verdict == verdict), key=lambda row: row.ratio)
    place = "{} is {}, should be {}".format(row.place, *row.numbers) if row.index or row.quantity == "loss" else ""
    if math.isnan(row.truth):  # nothing to compare
        whole = row.reason.startswith(("returned ", "raised "))
        place = row.reason if whole else f"{row.quantity} {row.reason}"
    elif verdict == UNDETERMINED:
        place = f"{row.place}: {row.remark}"
    others = sum(other.verdict == verdict for other in rows) - 1
    return place + (f" ({others} more array{'s' if others > 1 else ''})" if others else "")


def conform(
    implementation: Implementation,
    suite: Suite,
    dtype: str = "float64",
    expected_failures: Mapping[str, str] | None = None,
    diagnosed: bool = True,
) -> Iterator[CaseResult]:
    """The results, case by case. `expected_failures`: case to reason."""
    expected = expected_failures or {}
    experience = Experience()
    for case in suite.cases:
        result = judge_case(implementation, case, dtype, diagnosed and case.id not in expected, experience)
        if case.id in expected:
            result = _as_expected(result, expected[case.id])
        yield result


def _as_expected(result: CaseResult, reason: str) -> CaseResult:
    verdicts = {FAIL: XFAIL, PASS: XPASS}
    note = f"expected to fail{f' ({reason})' if reason else ''}"
    text = {FAIL: f"{note}: {result.reason}", PASS: f"{note}, but passes: take it off the list"}
    verdict = verdicts.get(result.verdict, result.verdict)
    return replace(result, verdict=verdict, reason=text.get(result.verdict, result.reason))


def expected_failures(path: Path, suite: Suite) -> dict[str, str]:
    """A list of expected failures: a case a line, and after a # the reason. Raises ConformanceError."""
    raw = read_whole(path, MAX_LIST_BYTES, ConformanceError, "a list of cases")
    try:
        text = raw.decode("utf-8-sig")
    except ValueError:
        raise ConformanceError(f"cannot read {path}: is not UTF-8 text") from None
    expected: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        case, _, reason = (part.strip() for part in line.partition("#"))
        if case and case not in suite.by_id:
            raise ConformanceError(f"{path}: line {number}: {case[:80]!r} is no case of the suite")
        if case:
            expected[case] = printable(reason)
    return expected


@dataclass
class ConformanceReport:
    """All results of one run, and the conditions they were got under."""

    implementation: str
    description: str
    dtype: str
    arithmetic: str
    results: list[CaseResult] = field(default_factory=list)

    def counts(self, flag: str | None = None) -> Counter[str]:
        """Verdict to number of cases, of all or of those with a flag."""
        return Counter(r.verdict for r in self.results if flag is None or flag in r.flags)

    @property
    def ok(self) -> bool:
        """Whether a case was judged, and none is wrong or undetermined."""
        counts = self.counts()
        return not (counts[FAIL] or counts[XPASS] or counts[UNDETERMINED]) and bool(counts[PASS] + counts[XFAIL])

    @property
    def wrong(self) -> list[CaseResult]:
        """The results that must not be."""
        return [result for result in self.results if result.verdict in WRONG]

    @property
    def summary(self) -> str:
        """The outcome in one line, fit for a badge."""
        counts = self.counts()
        judged = len(self.results) - counts[SKIP]
        word = (
            "conforms" if self.ok
            else "was not judged" if not judged
            else "undetermined" if not self.wrong
            else "fails"
        )  # fmt: skip
        parts = [f"{counts[v]} {v}" for v in (PASS, FAIL, UNDETERMINED, XFAIL, XPASS, SKIP) if counts[v]]
        return f"refimpl {self.dtype} | {self.implementation} {word}: {', '.join(parts) or 'no case'}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        flags = dict.fromkeys(flag for result in self.results for flag in result.flags)
        return {
            "format": "refimpl.conformance/1",
            "ok": self.ok,
            "implementation": self.implementation,
            "description": self.description,
            "dtype": self.dtype,
            "arithmetic": self.arithmetic,
            "summary": self.summary,
            "counts": dict(self.counts()),
            "flags": {flag: dict(self.counts(flag)) for flag in flags},
            "causes": [cause.to_dict() for cause in self.causes()],
            "cases": [
                {
                    "id": result.case,
                    "flags": list(result.flags),
                    "verdict": result.verdict,
                    "reason": result.reason,
                    "largest_ratio": _finite(max((r.ratio for r in result.rows), default=math.inf)),
                    "findings": [finding.to_dict() for finding in result.findings],
                    "seconds": round(result.seconds, 6),
                }
                for result in self.results
            ],
        }  # fmt: skip

    def junit(self) -> ElementTree.Element:
        """As a testsuite of JUnit's XML."""
        counts = self.counts()
        suite = ElementTree.Element(
            "testsuite",
            name=_xml(f"refimpl.conformance {self.implementation} {self.dtype}"),
            tests=str(len(self.results)),
            failures=str(len(self.wrong) + counts[UNDETERMINED]),
            errors="0",
            skipped=str(counts[SKIP] + counts[XFAIL]),
            time=f"{sum(result.seconds for result in self.results):.6f}",
        )
        for result in self.results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"refimpl.{result.flags[0] if result.flags else 'case'}",
                name=_xml(result.case), time=f"{result.seconds:.6f}",
            )  # fmt: skip
            if result.verdict in (*WRONG, UNDETERMINED):
                ElementTree.SubElement(case, "failure", type=result.verdict, message=_xml(result.text))
            elif result.verdict in (SKIP, XFAIL):
                ElementTree.SubElement(case, "skipped", message=_xml(result.reason))
        return suite

    def causes(self) -> list[CommonCause]:
        """What is wrong, over all cases."""
        asked = [result for result in self.results if not result.reason.startswith(NOT_ASKED)]
        judged = {result.case: result.traits for result in asked if result.verdict not in (SKIP, XFAIL)}
        return common_causes([wrong for result in self.results for wrong in result.wrong], judged)

    def __rich__(self) -> Group:
        heading = Text(f"{self.description} · {self.dtype} · judged as {self.arithmetic}")
        columns = [v for v in (PASS, FAIL, UNDETERMINED, XFAIL, XPASS, SKIP) if self.counts()[v]]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("flag")
        for verdict in columns:
            table.add_column(verdict, justify="right", style=COLOURS[verdict])
        for flag in dict.fromkeys(flag for result in self.results for flag in result.flags):
            counts = self.counts(flag)
            table.add_row(Text(flag), *(str(counts[verdict] or "") for verdict in columns))
        lines = []
        causes = self.causes()
        for cause in causes[:SHOWN]:
            lines.append(Text.assemble((cause.verdict, COLOURS[cause.verdict]), f" {cause.text}"))
        if len(causes) > SHOWN:
            lines.append(Text(f"… and {len(causes) - SHOWN} other causes; --json has them all", style="dim"))
        skipped = Counter(result.reason for result in self.results if result.verdict == SKIP).most_common(SHOWN)
        lines += [Text(f"{SKIP} {count} case{'s' if count > 1 else ''}: {why}", style="dim") for why, count in skipped]
        style = "bold green" if self.ok else "bold red"
        return Group(heading, table, *lines, Text(self.summary, style=style))


SHOWN = 20


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def junit(reports: Sequence[ConformanceReport]) -> str:
    """The reports as one JUnit XML file."""
    root = ElementTree.Element("testsuites")
    root.extend(report.junit() for report in reports)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 does not know."""
    return "".join(c if c in "\t\n\r" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE else "?" for c in text)
