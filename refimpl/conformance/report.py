"""All results of one run of the suite: `ConformanceReport`, for a terminal, JSON and JUnit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from rich.console import Group
from rich.table import Table
from rich.text import Text

from refimpl.conformance.run import SKIP, WANTED, WRONG, XFAIL, XPASS, CaseResult
from refimpl.conformance.vectors import ACTIVATION, LOSS, REDUCTION
from refimpl.faults.common_causes import NOT_ASKED, CommonCause, common_causes
from refimpl.formats.strict_json import finite
from refimpl.judge.report import FAIL, PASS, STYLES, UNDETERMINED

COLOURS = {**STYLES, SKIP: "dim", XFAIL: "cyan", XPASS: "bold red"}
SHOWN = 20
LISTED = 6


@dataclass
class ConformanceReport:
    """All results of one run, and the conditions they were got under. `why_no_more`: why no more cases were drawn."""

    implementation: str
    description: str
    dtype: str
    arithmetic: str
    results: list[CaseResult] = field(default_factory=list)
    why_no_more: str = ""

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
    def judged(self) -> list[CaseResult]:
        """The results of cases that there was an answer to."""
        return [result for result in self.results if result.judged]

    @property
    def enough(self) -> bool:
        """Whether so much was judged, hidden layers among it, that "conforms" means something."""
        return len(self.judged) >= WANTED and any(result.hidden_layers for result in self.judged)

    @property
    def conforms(self) -> bool:
        """Whether nothing is wrong, and enough was judged."""
        return self.ok and self.enough

    @property
    def summary(self) -> str:
        """The outcome and how much was judged, in one line, fit for a badge."""
        counts, judged = self.counts(), self.judged
        word = (
            "was not judged" if not judged
            else "fails" if self.wrong
            else "undetermined" if not self.ok
            else "conforms" if self.enough
            else "too little to say"
        )  # fmt: skip
        parts = [f"{counts[PASS]} of {len(judged)}"] if judged else ["no case"]
        parts += [f"{counts[v]} {v}" for v in (FAIL, UNDETERMINED, XFAIL, XPASS) if counts[v]]
        deep = sum(result.hidden_layers for result in judged)
        parts += [f"{deep or 'none'} with hidden layers"] if judged else []
        for prefix, one, several in ((ACTIVATION, "activation", "activations"), (LOSS, "loss", "losses")):
            number = len(self._named(prefix, True))
            parts += [f"{number} {one if number == 1 else several}"] if number else []
        lacking = [name for prefix in (ACTIVATION, LOSS, REDUCTION) for name in self._named(prefix, False)]
        missing = f"; not declared: {', '.join(lacking[:LISTED])}{' …' if len(lacking) > LISTED else ''}"
        return f"refimpl {self.dtype} | {self.implementation} {word}: {', '.join(parts)}{missing if lacking else ''}"

    def _named(self, prefix: str, judged: bool) -> list[str]:
        """The activations, losses or reductions of the cases that were judged, or of none of these."""
        found: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for result in self.results:
            names = (t.removeprefix(prefix).strip() for t in result.traits if t.startswith(f"{prefix} "))
            found[result.judged].update(dict.fromkeys(names))
        return [name for name in found[judged] if judged or name not in found[True]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        flags = dict.fromkeys(flag for result in self.results for flag in result.flags)
        return {
            "format": "refimpl.conformance/1",
            "ok": self.ok,
            "conforms": self.conforms,
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
                    "largest_ratio": finite(max((r.ratio for r in result.rows), default=math.inf)),
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
        kills = {result.case: result.kills for result in asked if result.case in judged}
        return common_causes([wrong for result in self.results for wrong in result.wrong], judged, kills)

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
        if self.why_no_more and not self.enough:
            lines.append(Text(f"no more cases could be drawn: {self.why_no_more}", style="dim"))
        style = "bold green" if self.conforms else "bold yellow" if self.ok else "bold red"
        return Group(heading, table, *lines, Text(self.summary, style=style))


def junit(reports: Sequence[ConformanceReport]) -> str:
    """The reports as one JUnit XML file."""
    root = ElementTree.Element("testsuites")
    root.extend(report.junit() for report in reports)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 does not know."""
    return "".join(c if c in "\t\n\r" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE else "?" for c in text)
