"""The largest errors of right implementations as shares of the bounds that they are judged by. Run by
`make false-alarms`; none may be outside.

Four experiments: `implementations` on random networks and `tiny` on very small ones, each a function of (seed, number);
`structured`, data whose rows, columns or errors repeat, up to 65,536 of them; `programs`, graphs on which a bound like
√n is known to be false.
An element outside the plain statistical bound is held against the one that looks for repeats before it is a FAIL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from listed_programs import PROGRAMS, Listed
from rich.progress import track
from right_frameworks import RIGHT
from right_implementations import Answer
from structured_data import DATA, SIZES, arranged, structured, tiny
from summation import Array

from refimpl.formats.errors import CertificationError
from refimpl.formats.markdown import table
from refimpl.judge.bounds import Tolerance, bounds
from refimpl.judge.judge import Judge
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING, Arithmetic
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem, random_problem
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import BallAlgebra, Balls, arbs
from refimpl.truth.graph import read
from refimpl.truth.precision import working_precision

LARGE = 0.5  # of the statistical bound: shown one by one
PRECISION = 200


# --------------------------------------------------------------------------------------------------------------
# What an answer is held against


@dataclass(frozen=True)
class Held:
    """The truth by name, and the bounds in an arithmetic."""

    truth: Mapping[str, Balls]
    bounds: Callable[[Arithmetic, bool], Tolerance]


def of_problem(problem: Problem) -> Held:
    """Of a network's loss and gradients. Raises CertificationError."""
    judge = Judge(problem.spec, validate(problem.spec, problem.params, problem.x, problem.y))
    truth = {"loss": judge.truth.loss, **{name: judge.truth.grads[name] for name in problem.params}}
    return Held(truth, lambda arithmetic, repeated: judge.tolerance(arithmetic, repeated=repeated))


def of_program(listed: Listed) -> Held:
    """Of a program's results."""
    with working_precision(PRECISION):
        algebra = BallAlgebra({name: arbs(array) for name, array in listed.given.items()})
        values = read(listed.ends.values(), algebra)
        truth = {name: Balls.from_arbs(list(values[end].ravel()), end.shape) for name, end in listed.ends.items()}

    @cache
    def program_bounds(arithmetic: Arithmetic, repeated: bool) -> Tolerance:
        given = {name: array.astype(np.float64) for name, array in listed.given.items()}
        with np.errstate(all="ignore"):
            return bounds(listed.ends, given, arithmetic, listed.parts, repeated=repeated)

    return Held(truth, program_bounds)


# --------------------------------------------------------------------------------------------------------------
# Shares


@dataclass(frozen=True)
class Share:
    """The largest errors of one answer as shares of its bounds, and where; the largest of those above `LARGE` where
    repeats are looked for; the elements outside the plain statistical bound, and those outside every one.
    """

    elements: int
    worst: float
    statistical: float
    repeated: float
    looked: int
    failed: int
    place: str


def shares(answers: Mapping[str, Array], held: Held, arithmetic: Arithmetic) -> Share:
    """Hold an answer against the bounds; against those across kinks where it is outside the others."""
    worst = statistical = largest = 0.0
    elements = looked = failed = 0
    place = ""
    for name, answer in answers.items():
        error = _distance(np.asarray(answer, np.float64), held.truth[name])
        plain = held.bounds(arithmetic, False)
        of_worst = _share(error, plain.worst_case[name], plain.across_kinks[name])
        likely = _share(error, plain.statistical[name], plain.statistical_across[name])
        large = (likely > LARGE) & (error > arithmetic.smallest_normal) | (likely > 1)
        if large.any():
            found = held.bounds(arithmetic, True)
            repeated = _share(error, found.statistical[name], found.statistical_across[name])
            largest = max(largest, float(repeated[large].max()))
            looked += int((likely > 1).sum())
            likely = np.where(likely > 1, repeated, likely)
        failed += int(((likely > 1) | (of_worst > 1)).sum())
        lost = (error <= arithmetic.smallest_normal) & (likely <= 1)  # all of a number that underflows, of all of it
        of_worst, likely = (np.where(lost, 0.0, share) for share in (of_worst, likely))
        elements += error.size
        worst = max(worst, float(of_worst.max()))
        if float(likely.max()) >= statistical:
            statistical = float(likely.max())
            place = f"{name}{[int(i) for i in np.unravel_index(int(likely.argmax()), likely.shape)]}"
    return Share(elements, worst, statistical, largest, looked, failed, place)


def _distance(values: Array, truth: Balls) -> Array:
    """How far values lie from the truth; 0 where they may be the truth."""
    distance = truth.distance(values.reshape(truth.mid.shape))
    return np.where(distance <= 2 * truth.tail_rad, 0.0, distance)


def _share(error: Array, bound: Array, across: Array) -> Array:
    """error / bound, outside it error / across where that is above 1; 0 where nothing is off, or anything may be, or a
    kink's other side was taken.
    """
    with np.errstate(all="ignore"):
        share = np.where((error == 0) | np.isinf(bound), 0.0, error / bound)
        beyond = np.where(error <= across, 0.0, error / across)
    return np.where(share > 1, beyond, share)


def named(answer: Answer) -> dict[str, Array]:
    """The loss among the gradients."""
    return {"loss": np.asarray(answer[0]), **answer[1]}


# --------------------------------------------------------------------------------------------------------------
# The experiments: each yields (line of the table, dtype, what identifies the case, share)

Found = tuple[str, str, str, Share]
Draw = Callable[[int, int, str], Problem]


def on_network(draw: Draw, seed: int, number: int, dtype: str) -> Iterator[Found]:
    """Every right implementation that supports the network `number` of the stream `seed`."""
    problem = draw(seed, number, dtype)
    known: dict[NetworkSpec, Held] = {}
    for one in RIGHT:
        if one.missing or not one.supports(problem):
            continue
        own = one.adapted(problem)
        try:
            if own.spec not in known:
                known[own.spec] = of_problem(own)
        except CertificationError:  # the logarithm of a softmax below the range, and the like
            continue
        with np.errstate(all="ignore"):
            answer = named(one.run(own))
        arithmetic = (FLUSHING if one.flushes else ARITHMETICS)[dtype]
        yield one.name, dtype, f"network {number}", shares(answer, known[own.spec], arithmetic)


def structured_case(kind: str, single: bool, n: int, dtype: str, seed: int) -> Iterator[Found]:
    """The arrangements on structured data."""
    problem = structured(kind, single, n, dtype, seed)
    held = of_problem(problem)
    for name, answer in arranged(problem):
        share = shares(named(answer), held, ARITHMETICS[dtype])
        yield f"{kind}, {problem.spec.title}, N = {n:,}", dtype, name, share


def listed_program(build: Callable[[], Listed]) -> Iterator[Found]:
    """The implementations of a listed program."""
    listed = build()
    held = of_problem(listed.network) if listed.network else of_program(listed)
    for one in listed.answers:
        arithmetic = replace(listed.arithmetic, flushes_subnormals=one.flushes)
        yield f"{listed.name}: {one.name}", arithmetic.name, listed.name, shares(one.run(), held, arithmetic)


# --------------------------------------------------------------------------------------------------------------
# The table


@dataclass
class Line:
    """The shares of one implementation, or of one kind of data, added up."""

    cases: int = 0
    elements: int = 0
    worst: float = 0.0
    statistical: float = 0.0
    looked: int = 0
    failed: int = 0
    at: str = ""

    def add(self, case: str, share: Share) -> None:
        """Count one answer."""
        self.cases += 1
        self.elements += share.elements
        self.worst = max(self.worst, share.worst)
        self.looked += share.looked
        self.failed += share.failed
        if share.statistical >= self.statistical:
            self.statistical, self.at = share.statistical, f"{case}, {share.place}"


COLUMNS = (
    "what", "dtype", "answers", "elements", "of the worst case", "statistical", "looked for repeats", "FAIL", "at",
)  # fmt: skip


def summary(found: Iterator[Found], title: str) -> int:
    """Print the table and what is above `LARGE`; the number of elements that FAIL."""
    lines: dict[tuple[str, str], Line] = {}
    notes = []
    for name, dtype, case, share in found:
        lines.setdefault((name, dtype), Line()).add(case, share)
        if share.statistical > LARGE:
            notes.append(
                f"- {name}, {dtype}, {case}: {share.statistical:.2f} at {share.place}, "
                f"{share.repeated:.2f} where repeats are looked for, FAIL {share.failed}"
            )
    rows = [
        (
            name, dtype, f"{line.cases:,}", f"{line.elements:,}", f"{line.worst:.3f}", f"{line.statistical:.3f}",
            f"{line.looked:,}", f"{line.failed:,}", line.at,
        )
        for (name, dtype), line in lines.items()
    ]  # fmt: skip
    print(f"\n### {title}\n\n{table(COLUMNS, rows)}\n")
    print(*notes, sep="\n")
    return sum(line.failed for line in lines.values())


def _tracked(work: Callable[..., Iterator[Found]], tasks: Sequence[tuple[Any, ...]], title: str) -> Iterator[Found]:
    try:
        for task in track(tasks, title):
            yield from work(*task)
    except KeyboardInterrupt:
        print(f"{title}: interrupted; this is what was found until then")


def main() -> None:
    """Run what is asked for; exit with 1 where anything FAILs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="random networks of each dtype")
    parser.add_argument("--largest", type=int, default=16384, help="samples of structured data")
    parser.add_argument("--only", choices=("implementations", "tiny", "structured", "programs"))
    options = parser.parse_args()
    for one in RIGHT:
        if one.missing:
            print(f"{one.name} is left out: {one.needs} is not installed")
    failed = 0
    draws: dict[str, Draw] = {"implementations": random_problem, "tiny": tiny}
    for title, draw in draws.items():
        if options.only in (None, title):
            networks = [(draw, options.seed, number, dtype) for dtype in ARITHMETICS for number in range(options.count)]
            found = _tracked(on_network, networks, title)
            failed += summary(found, f"{options.count} networks, {title}, seed {options.seed}")
    if options.only in (None, "structured"):
        cases = [
            (kind, single, n, dtype, options.seed)
            for kind in DATA
            for single, dtype, n in SIZES
            if n <= options.largest
        ]
        failed += summary(_tracked(structured_case, cases, "structured"), "Structured data")
    if options.only in (None, "programs"):
        failed += summary(_tracked(listed_program, [(build,) for build in PROGRAMS], "programs"), "Programs")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
