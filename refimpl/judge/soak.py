"""A soak run: random problems through `Judge`, on every core, and the verdicts added up (`Soaked`).

Every problem is a function of (seed, index, dtype); `run` yields one `Outcome` a problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from refimpl import backend as backends
from refimpl.formats.markdown import table
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, Row
from refimpl.judge.workers import spread
from refimpl.network.batch import validate
from refimpl.network.random_problems import DRAWS, Problem, random_problem

SHOWN = 20  # failures


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
    """The verdicts on one backend, added up."""

    networks: int = 0
    elements: int = 0
    failed: int = 0
    undetermined: dict[str, int] = field(default_factory=dict)  # by the reason
    largest_ratio: float | None = None
    largest_at: str = ""

    def add(self, row: Row, network: int) -> None:
        """Count one row."""
        self.elements += row.size
        self.failed += row.failed
        if row.undetermined:
            self.undetermined[row.reason] = self.undetermined.get(row.reason, 0) + row.undetermined
        if row.verdict == PASS and row.ratio >= (self.largest_ratio or 0.0):
            self.largest_ratio, self.largest_at = row.ratio, f"{row.place} of network {network}"


@dataclass
class Soaked:
    """What came of a run: a `Tally` a backend, and the rows that are wrong, with their network's number."""

    backends: dict[str, Tally] = field(default_factory=dict)
    failures: list[tuple[int, Row]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one problem's rows."""
        for name in {row.backend for row in outcome.rows}:
            self.backends.setdefault(name, Tally()).networks += 1
        for row in outcome.rows:
            self.backends[row.backend].add(row, outcome.index)
        self.failures += [(outcome.index, row) for row in outcome.rows if row.verdict == FAIL]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        failures = [
            {"network": i, "backend": row.backend, "at": row.place, "ratio": str(row.ratio), "remark": row.remark}
            for i, row in self.failures
        ]
        tallies = {name: asdict(tally) for name, tally in self.backends.items()}
        return {"format": "refimpl.soak/1", "backends": tallies, "failures": failures}

    def markdown(self, count: int, dtype: str, seed: int) -> str:
        """A table, what is undetermined and why, and the first failures with what replays them."""
        columns = ("backend", "networks", "elements", "FAIL", "UNDETERMINED", "largest error / tolerance of a PASS")
        rows, notes = [], []
        for name, t in self.backends.items():
            numbers = (t.networks, t.elements, t.failed, sum(t.undetermined.values()))
            largest = f"{t.largest_ratio or 0.0:.1%} at {t.largest_at}"
            rows.append((name, *(f"{number:,}" for number in numbers), largest))
            notes += [f"- {name}: {number:,} undetermined: {reason}" for reason, number in t.undetermined.items()]
        for index, row in self.failures[:SHOWN]:
            replay = f"refimpl soak --dtype {dtype} --seed {seed} --first {index} --count 1"
            notes.append(f"- {row.backend}: FAIL {row.ratio:.3g} × at {row.place}: {row.remark}; replay: {replay}")
        title = f"### {count} random networks, {dtype}, seed {seed}"
        return "\n\n".join([title, table(columns, rows), *(["\n".join(notes)] if notes else [])])
