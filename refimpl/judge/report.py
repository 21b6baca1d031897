"""What `check` found: rows of verdicts, and how they are shown in a terminal, a notebook and JSON.

A `Row` is the verdict on one array (the loss, a W, a b …) of one backend, with its worst element; a `Report` is all
of them with the conditions they were found under. Nothing is judged here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from refimpl.formats.strict_json import finite
from refimpl.network.indistinct import indistinct
from refimpl.network.spec import NetworkSpec

PASS, FAIL, UNDETERMINED = "PASS", "FAIL", "UNDETERMINED"
WORST_CASE, STATISTICAL = "worst case", "statistical"
STYLES = {PASS: "green", FAIL: "bold red", UNDETERMINED: "yellow"}
HEADINGS = (
    "backend", "quantity", "verdict", "error / tolerance", "would notice", "ulps", "at", "value", "truth", "remark",
)  # fmt: skip
NUMERIC = ("error / tolerance", "would notice", "ulps", "value", "truth")
ANY, REMARK = 10_000, 24  # columns of a terminal: more than any has; what a remark takes at least
OF_THE_ELEMENT = ("ulps", "at", "value", "truth")  # of the worst element: left out where there is no place


class Diagnosed(Protocol):
    """What is wrong with a backend's answer; see :class:`refimpl.faults.diagnosis.Finding`."""

    @property
    def text(self) -> str:
        """In one paragraph."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        ...


@dataclass(frozen=True)
class Row:
    """The verdict on one array of one backend.

    `ratio` is the largest error as a fraction of the tolerance among the elements of the worst verdict, `ulps` that
    error in units in the last place of the true value; `index` says where (1-based; empty for a scalar), `value` and
    `truth` what stands there and `bound` the tolerance there. `by`: which bound a FAIL is outside, `WORST_CASE`, a
    theorem, or `STATISTICAL` or "first order" alone. `noticed`: the smallest change of the array's largest element that
    would have been a FAIL, as a share of it. `saturated`: how many elements are a PASS as 0 would be, since a
    derivative is held to the absolute accuracy of its formula only.
    """

    backend: str
    quantity: str
    verdict: str
    size: int
    failed: int
    undetermined: int
    ratio: float
    ulps: float
    index: tuple[int, ...]
    value: float
    truth: float
    bound: float
    reason: str = ""
    by: str = ""
    saturated: int = 0
    noticed: float = math.nan

    @property
    def place(self) -> str:
        """The worst element as the article writes it: W2[2,1]."""
        return f"{self.quantity}[{','.join(map(str, self.index))}]" if self.index else self.quantity

    @property
    def remark(self) -> str:
        """How many elements are not a PASS, and why, in words."""
        parts = []
        if self.failed and self.size > 1 and self.index:
            parts.append(f"{self.failed} of {self.size} wrong")
        if self.undetermined:
            parts.append(f"{self.undetermined} of {self.size} undetermined")
        if self.reason:
            parts.append(self.reason)
        if self.saturated:
            parts.append(f"{self.saturated} of {self.size} saturated: held to the absolute accuracy of f'")
        if self.by not in ("", WORST_CASE):
            parts.append(f"by the {self.by} bound")
        return "; ".join(parts)

    @property
    def numbers(self) -> tuple[str, str]:
        """Value and truth as text; where the verdict is FAIL, with the digits that tell them apart."""
        return apart(self.value, self.truth) if self.verdict == FAIL else (f"{self.value:.9g}", f"{self.truth:.9g}")

    def cells(self) -> tuple[str, ...]:
        """The row as text, under `HEADINGS`."""
        numbers = (
            ("",) * 6
            if math.isnan(self.truth)
            else (_ratio(self.ratio), _share(self.noticed), _short(self.ulps), self.place, *self.numbers)
        )
        return (self.backend, self.quantity, self.verdict, *numbers, self.remark)


@dataclass(frozen=True)
class Report:
    """All verdicts of one `check`. `ok` is whether every one is PASS and there is at least one."""

    spec: NetworkSpec
    dtype: str
    device: str
    n: int
    precision: int
    rows: tuple[Row, ...]
    unavailable: dict[str, str] = field(default_factory=dict)
    findings: Mapping[str, Sequence[Diagnosed]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True if a backend ran and every verdict is PASS."""
        return bool(self.rows) and all(row.verdict == PASS for row in self.rows)

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows whose verdict is FAIL."""
        return tuple(row for row in self.rows if row.verdict == FAIL)

    @property
    def title(self) -> str:
        """The conditions in one line."""
        return f"{self._subject} · {self.dtype} on {self.device} · certified at {self.precision} bits"

    @property
    def _subject(self) -> str:
        return f"{self.spec.title} · {self.spec.loss.name}, {self.spec.reduction} · batch {self.n}"

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        ran = list(dict.fromkeys(row.backend for row in self.rows))
        if not ran:
            return "no backend ran"
        elements = sum(row.size for row in self.rows)
        failed, undetermined = (sum(getattr(row, kind) for row in self.rows) for kind in ("failed", "undetermined"))
        counts = f"{elements - failed - undetermined} PASS, {failed} FAIL, {undetermined} UNDETERMINED"
        return f"{', '.join(ran)}: {counts} of {elements} elements"

    @property
    def indistinct(self) -> tuple[str, ...]:
        """What this network and batch cannot tell apart."""
        return indistinct(self.spec, self.n)

    @property
    def _cannot_tell(self) -> str:
        return f"this network and batch cannot tell {'; '.join(self.indistinct)}" if self.indistinct else ""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data; numbers that JSON lacks (inf, nan) become None."""
        return {
            "format": "refimpl.report/2",
            "ok": self.ok,
            **self._about(),
            "dtype": self.dtype,
            "device": self.device,
            "precision": self.precision,
            "rows": finite([asdict(row) for row in self.rows]),
            "indistinct": list(self.indistinct),
            "unavailable": dict(self.unavailable),
            "findings": {name: [finding.to_dict() for finding in found] for name, found in self.findings.items()},
        }

    def _about(self) -> dict[str, Any]:
        return {"network": self.spec.to_dict(), "batch": self.n}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        remarks = HEADINGS[-1:] if any(row.remark for row in self.rows) else ()
        headings: tuple[str, ...] = HEADINGS[:-1]
        taken = Measurement.get(console, options.update(max_width=ANY), self._table(headings)).maximum
        if taken + (REMARK if remarks else 0) > options.max_width:
            headings = tuple(heading for heading in headings if heading not in OF_THE_ELEMENT)
        yield self._table(headings + remarks)
        for name, reason in self.unavailable.items():
            yield Text(f"{name}: not run: {reason}", style="yellow")
        for name, text in self._causes():
            yield Text(f"{name}: {text}", style="bold red")
        if self._cannot_tell:
            yield Text(self._cannot_tell, style="dim")
        yield Text(self.summary, style=_outcome_style(self))

    def _table(self, headings: Sequence[str]) -> Table:
        table = Table(title=Text(self.title), title_justify="left", header_style="bold", pad_edge=False, box=None)
        for heading in headings:
            justify: Literal["right", "left"] = "right" if heading in NUMERIC else "left"
            table.add_column(heading, justify=justify, no_wrap=heading != "remark")
        previous = ""
        for row in self.rows:
            cells = {heading: Text(cell) for heading, cell in zip(HEADINGS, row.cells(), strict=True)}
            cells["backend"] = Text("" if row.backend == previous else row.backend, style="bold")
            cells["verdict"] = Text(row.verdict, style=STYLES[row.verdict])
            table.add_row(*(cells[heading] for heading in headings))
            previous = row.backend
        return table

    def _causes(self) -> list[tuple[str, str]]:
        return [(name, finding.text) for name, found in self.findings.items() for finding in found]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in HEADINGS)
        colours = {PASS: "#1a7f37", FAIL: "#cf222e", UNDETERMINED: "#9a6700"}
        body = "".join(
            "<tr>" + "".join(f"<td{_colour(colours, cell)}>{html.escape(cell)}</td>" for cell in row.cells()) + "</tr>"
            for row in self.rows
        )
        notes = "".join(
            f"<p>{html.escape(name)}: not run: {html.escape(reason)}</p>" for name, reason in self.unavailable.items()
        )
        notes += "".join(f"<p>{html.escape(name)}: {html.escape(text)}</p>" for name, text in self._causes())
        notes += f"<p>{html.escape(self._cannot_tell)}</p>" if self._cannot_tell else ""
        table = f"<caption>{html.escape(self.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        return f"<table>{table}</table>{notes}<p>{html.escape(self.summary)}</p>"

    def __repr__(self) -> str:
        return f"<Report {self.title}: {self.summary}>"


def apart(value: float, truth: float) -> tuple[str, str]:
    """Two numbers as text, with as many digits, nine at least, as it takes to tell them apart."""
    for digits in (9, 12, 15, 17):
        shown = f"{value:.{digits}g}", f"{truth:.{digits}g}"
        if shown[0] != shown[1]:
            break
    return shown


def _outcome_style(report: Report) -> str:
    return STYLES[PASS if report.ok else FAIL if report.failures else UNDETERMINED]


def _colour(colours: dict[str, str], cell: str) -> str:
    return f' style="color:{colours[cell]};font-weight:bold"' if cell in colours else ""


def _ratio(ratio: float) -> str:
    return f"{ratio:.2%}" if ratio < 10 else f"{ratio:.3g} ×"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if math.isfinite(share) else ""


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 1000 else f"{number:.2e}"
