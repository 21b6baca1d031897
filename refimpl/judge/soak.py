"""A soak run: random problems through `Judge`, on every core, and a `Tally` of the verdicts.

Every problem is a function of (seed, index, dtype); `run` yields one `Outcome` a problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.table import Table

from refimpl import backend as backends
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, Row
from refimpl.judge.workers import spread
from refimpl.network.batch import validate
from refimpl.network.random_problems import DRAWS, Problem, random_problem


@dataclass(frozen=True)
class Outcome:
    """The rows of one problem, by its index."""

    index: int
    rows: tuple[Row, ...]


def run(
    count: int, names: Sequence[str], dtype: str, device: str, seed: int, first: int, processes: int | None = None
) -> Iterator[Outcome]:
    """Judge `count` problems of the stream `seed`, from number `first` on, in so many processes, in no order."""
    work = partial(_judge, names=tuple(names), dtype=dtype, device=device, seed=seed)
    return spread(work, range(first, first + count), processes, DRAWS, ordered=False)


def judge_problem(problem: Problem, names: Sequence[str], device: str = "cpu") -> tuple[Row, ...]:
    """The verdicts on the loss, gradients and gradient of x of every named backend that supports the problem."""
    judge = Judge(problem.spec, validate(problem.spec, problem.params, problem.x, problem.y))
    chosen = [backends.load(name) for name in names]
    able = [b for b in chosen if backends.supported(b, problem.spec, judge.batch.dtype, device) is True]
    return tuple(row for backend in able for row in judge.rows(backend, device=device, inputs=True))


def _judge(index: int, names: Sequence[str], dtype: str, device: str, seed: int) -> Outcome:
    return Outcome(index, judge_problem(random_problem(seed, index, dtype), names, device))


@dataclass
class Tally:
    """Verdicts added up, per backend."""

    networks: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    undetermined: Counter[tuple[str, str]] = field(default_factory=Counter)
    statistical: Counter[tuple[str, str]] = field(default_factory=Counter)
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    failures: list[tuple[int, Row]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one problem's rows."""
        self.networks.update({row.backend for row in outcome.rows})
        for row in outcome.rows:
            self.elements[row.backend] += row.size
            self.failed[row.backend] += row.failed
            if row.undetermined:
                self.undetermined[row.backend, row.reason] += row.undetermined
            if row.statistical:
                self.statistical[row.backend, row.statistical] += 1
            if row.verdict == FAIL:
                self.failures.append((outcome.index, row))
            if row.verdict == PASS and row.ratio >= self.largest.get(row.backend, (0.0, ""))[0]:
                self.largest[row.backend] = (row.ratio, f"{row.place} of network {outcome.index}")

    def to_dict(self) -> dict[str, Any]:
        """The tally as JSON-able data."""
        return {
            "format": "refimpl.soak/1",
            "backends": {
                name: {
                    "networks": self.networks[name],
                    "elements": self.elements[name],
                    "failed": self.failed[name],
                    "undetermined": {
                        reason: number for (backend, reason), number in self.undetermined.items() if backend == name
                    },
                    "statistical": {
                        verdict: number for (backend, verdict), number in self.statistical.items() if backend == name
                    },
                    "largest_ratio": self.largest.get(name, (None, ""))[0],
                    "largest_at": self.largest.get(name, (None, ""))[1],
                }
                for name in self.elements
            },
            "failures": [
                {
                    "network": index,
                    "backend": row.backend,
                    "at": row.place,
                    "ratio": str(row.ratio),
                    "remark": row.remark,
                }
                for index, row in self.failures
            ],
        }


def table(tally: Tally, count: int, dtype: str, seed: int) -> Table:
    """The tally for a terminal."""
    shown = Table(
        "backend",
        "networks",
        "elements",
        "FAIL",
        "UNDETERMINED",
        "largest error / tolerance of a PASS",
        "undetermined because",
        "arrays, statistically",
        title=f"{count} random networks, {dtype}, seed {seed}",
        title_justify="left",
        box=None,
    )
    for name, elements in tally.elements.items():
        reasons = {reason: number for (backend, reason), number in tally.undetermined.items() if backend == name}
        verdicts = {verdict: number for (backend, verdict), number in tally.statistical.items() if backend == name}
        ratio, place = tally.largest.get(name, (0.0, ""))
        why = "\n".join(f"{number:,} {reason}" for reason, number in reasons.items())
        second = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        shown.add_row(
            name,
            f"{tally.networks[name]:,}",
            f"{elements:,}",
            f"{tally.failed[name]:,}",
            f"{sum(reasons.values()):,}",
            f"{ratio:.1%} at {place}",
            why,
            second,
        )
    for index, row in tally.failures[:20]:
        shown.add_row(
            row.backend,
            "",
            "",
            "FAIL",
            "",
            f"{row.ratio:.3g} × at {row.place}",
            f"{row.remark} (replay: --seed {seed} --first {index} --count 1)",
        )
    return shown
