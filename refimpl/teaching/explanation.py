"""Where one number comes from: `Explanation`, and how it is shown in a terminal, a notebook, LaTeX and JSON."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refimpl.formats.arrays import number as json_number
from refimpl.judge.report import FAIL, Row
from refimpl.teaching.chain import Line, Path
from refimpl.teaching.display import mathml, value_text
from refimpl.teaching.notation import Quantity, Symbol, derivative
from refimpl.teaching.trace import Trace

FORMAT = "refimpl.explanation/1"
SHOWN_PATHS = 8
SHOWN_SAMPLES = 8


@dataclass(frozen=True)
class Explanation:
    """∂C/∂quantity, from the symbols to the numbers.

    `value` is the sum of the products of `chain`, over the samples where the quantity is a parameter;
    `contributions` are those of the samples. `paths` are those of the sample `sample` (counted from 0), None where
    there are too many to list; `mid` ± `rad` is the certified value, `tolerance` how far a correct implementation may
    lie from it, and `quotient` the central difference quotient with the step `step`, in float64.
    """

    trace: Trace
    quantity: Quantity
    sample: int
    forward: Line | None
    lines: tuple[Line, ...]
    contributions: tuple[float, ...]
    paths: tuple[Path, ...] | None
    path_count: int
    value: float
    mid: float
    rad: float
    tolerance: float
    witnesses: tuple[Row, ...]
    quotient: float
    step: float

    @property
    def left(self) -> Symbol:
        """∂C/∂quantity; δ for an error signal."""
        return self.quantity.symbol if self.quantity.kind == "delta" else derivative(self.quantity.symbol)

    @property
    def quotient_error(self) -> float:
        """How far the difference quotient is from the certified value."""
        return abs(self.quotient - self.mid)

    @property
    def ok(self) -> bool:
        """Whether no backend is wrong."""
        return not any(row.verdict == FAIL for row in self.witnesses)

    def said(self) -> Iterator[tuple[str, float, str]]:
        """Who says what: the backends, the certified value, the difference quotient; with a remark each."""
        for row in self.witnesses:
            yield row.backend, row.value, f"{row.verdict}, {row.ratio:.2%} of the tolerance, {row.ulps:.2f} ulps"
        yield "certified", self.mid, f"± {self.rad:.1e}; tolerance {self.tolerance:.1e}"
        how = f"(C(+h) − C(−h))/2h, h = {self.step:.1e}: off by {self.quotient_error:.1e}"
        yield "difference", self.quotient, how

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data. Samples count from 1."""
        spec = self.trace.spec
        return {
            "format": FORMAT,
            "network": spec.to_dict(),
            "dtype": self.trace.dtype,
            "batch": self.trace.n,
            "sample": self.sample + 1,
            "quantity": self.quantity.name,
            "derivative": vars(self.left),
            "value": json_number(self.value),
            "forward": self.forward and self.forward.to_dict(),
            "lines": [line.to_dict() for line in self.lines],
            "contributions": [json_number(c) for c in self.contributions],
            "path_count": self.path_count,
            "paths": None if self.paths is None else [path.to_dict() for path in self.paths],
            "certified": {"mid": json_number(self.mid), "rad": json_number(self.rad)},
            "tolerance": json_number(self.tolerance),
            "backends": [
                {
                    "name": row.backend,
                    "value": json_number(row.value),
                    "verdict": row.verdict,
                    "ulps": json_number(row.ulps),
                    "ratio": json_number(row.ratio),
                }
                for row in self.witnesses
            ],
            "difference_quotient": {
                "value": json_number(self.quotient), "step": self.step, "error": json_number(self.quotient_error),
            },
        }  # fmt: skip

    def latex(self) -> str:
        """The chain rule as a LaTeX align* environment."""
        rows = [line.left.latex + " &= " + r" \\ &= ".join(line.parts("latex")) for line in self._all_lines()]
        return "\\begin{align*}\n" + " \\\\\n".join(rows) + "\n\\end{align*}"

    def to_html(self) -> str:
        """The chain rule with MathML equations, the paths, and what everybody says."""
        samples = ""
        if len(self.contributions) > 1:
            samples = f"<p>{html.escape(' '.join(self._samples()))}; in sample {self.sample + 1}:</p>"
        lines = "".join(_row(mathml(line.whole), value_text(line.value)) for line in self._all_lines())
        said = "".join(_row(name, value_text(value), remark) for name, value, remark in self.said())
        ways = self.paths[:SHOWN_PATHS] if self.paths and len(self.paths) > 1 else ()
        paths = "".join(_row(path.through, mathml(path.factors), value_text(path.value)) for path in ways)
        count = f"<p>{self.path_count:,} paths to the cost</p>" if self.path_count > 1 else ""
        return (
            f"<h4>{mathml(self.left)}</h4><p>{html.escape(self.trace.conditions)}</p>{samples}"
            f"<table>{lines}</table>{count}<table>{paths}</table><table>{said}</table>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()

    def _repr_latex_(self) -> str:
        return self.latex()

    def __repr__(self) -> str:
        return f"<Explanation of {self.left.plain} = {self.value:.9g}>"

    def __str__(self) -> str:
        lines = [f"{self.left.plain}   ({self.quantity.name})", self.trace.conditions]
        if self.forward is not None:
            lines += ["", *_shown(self.forward)]
        if len(self.contributions) > 1:
            pad = " " * len(self.left.plain)
            said = self._samples()
            lines += ["", f"  {self.left.plain} {said[0]}", *(f"  {pad} {part}" for part in said[1:])]
        if self.trace.n > 1:
            lines += ["", f"in sample {self.sample + 1}:"]
        for number, line in enumerate(self.lines):
            lines += ["", *(["with"] if number == 1 else []), *_shown(line)]
        said_by = [(name, value_text(value), remark) for name, value, remark in self.said()]
        widths = [max(len(row[i]) for row in said_by) for i in range(2)]
        table = [f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {remark}" for name, value, remark in said_by]
        return "\n".join([*lines, "", *self._ways(), "", *table])

    def _all_lines(self) -> list[Line]:
        return [*([] if self.forward is None else [self.forward]), *self.lines]

    def _samples(self) -> list[str]:
        """The sum over the samples, in three parts."""
        shown = [f"{c:.5g}".replace("-", "−") for c in self.contributions[:SHOWN_SAMPLES]]
        terms = " + ".join(f"({term})" if term.startswith("−") else term for term in shown)
        more = f" + … ({len(self.contributions)} samples)" if len(self.contributions) > SHOWN_SAMPLES else ""
        return ["= the sum over the samples", f"= {terms}{more}", f"= {value_text(self.value)}"]

    def _ways(self) -> list[str]:
        """The paths, in words and numbers."""
        if self.paths is None:
            return [f"{self.path_count:,} paths lead from there to the cost: too many to list"]
        if len(self.paths) == 1:
            return [f"one path leads to the cost: {self.paths[0].through}"]
        where = f" in sample {self.sample + 1}" if self.trace.n > 1 else ""
        lines = [f"{self.path_count:,} paths lead to the cost{where}; what they carry adds up"]
        for path in self.paths[:SHOWN_PATHS]:
            value = f"{path.value:.5g}".replace("-", "−")
            lines += [f"  {path.through}", f"      {path.factors.plain} = {path.numbers.plain} = {value}"]
        if len(self.paths) > SHOWN_PATHS:
            rest = f"{sum(path.value for path in self.paths[SHOWN_PATHS:]):.5g}".replace("-", "−")
            lines.append(f"  and {len(self.paths) - SHOWN_PATHS:,} smaller ones: {rest}")
        return lines


def _shown(line: Line) -> list[str]:
    pad = " " * len(line.left.plain)
    return [f"  {line.left.plain if i == 0 else pad} = {part}" for i, part in enumerate(line.parts("plain"))]


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td style='text-align:left'>{_cell(cell)}</td>" for cell in cells) + "</tr>"


def _cell(cell: str) -> str:
    return cell if cell.startswith("<") else html.escape(cell)
