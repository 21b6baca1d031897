"""How the bounds of each declared arithmetic hold, and what they notice: emulations of it (`emulated.py`) on random
networks of relu or tanh. Run by `make arithmetics-measure`; no declared one may FAIL.

Each network is a function of (seed, number). An emulation is judged by what it declares, and by IEEE arithmetic, where
it must FAIL; twice its gradients are judged too, by what it declares: where that is no FAIL, neither is much else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from emulated import EMULATED, EmulatedBackend
from networks import network
from rich.progress import track

from refimpl.formats.markdown import table
from refimpl.judge.bounds import FIRST_ORDER, Bounds
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL
from refimpl.judge.submission import Submission
from refimpl.network.batch import validate
from refimpl.network.random_problems import Problem, random_batch
from refimpl.truth.balls import Balls

ARITHMETICS = (
    "tf32", "bfloat16_products", "bfloat16", "bfloat16_sums", "bfloat16_boundary", "float16", "float16_boundary",
    "tf32_turing", "tf32_hopper", "bfloat16_hopper",
)  # fmt: skip
SIZES = ((2, 1, 2), (6, 5, 3), (16, 12, 8, 4), (32, 24, 10), (64, 32, 16, 10))
ALIKE = 1.01
LARGE, EVERY = (784, 128, 10), 50  # which of the networks is a large one

Array = np.ndarray[Any, Any]


def random_network(
    rng: np.random.Generator, sizes: tuple[int, ...], n: int, dtype: str = "float32", loss: str = "", scale: float = 1.0
) -> Problem:
    """A network of one activation, relu or tanh, with biases, for a loss; n samples of x of the scale."""
    hidden = str(rng.choice(["relu", "tanh"]))
    loss = loss or str(rng.choice(["cross_entropy", "squared_error"]))
    spec = network(sizes, [hidden] * (len(sizes) - 2) + ["identity"], loss, str(rng.choice(["mean", "sum"])))
    spread = {name: 0.1 if len(shape) == 1 else shape[-1] ** -0.5 for name, shape in spec.parameter_shapes.items()}
    params = {
        name: (spread[name] * rng.standard_normal(shape)).astype(dtype) for name, shape in spec.parameter_shapes.items()
    }
    x, y = random_batch(spec, rng, n, dtype, scale)
    return Problem(spec, params, x, y, 0, 0)


def numbered(seed: int, number: int) -> Problem:
    """The network `number` of the stream `seed`: every fiftieth is large, every fourth has x of an unusual scale, every
    fourth targets far from 0, or that are probabilities.
    """
    rng = np.random.default_rng([seed, number])
    if number % EVERY == EVERY - 1:
        return random_network(rng, LARGE, 64)
    scale = float(10 ** rng.uniform(-4, 3)) if number % 4 == 3 else 1.0
    p = random_network(rng, SIZES[int(rng.integers(len(SIZES)))], int(rng.integers(1, 33)), scale=scale)
    if number % 4 != 1:
        return p
    probable = rng.dirichlet(np.ones(p.spec.n_out), size=len(p.x)).astype(p.x.dtype)
    return replace(p, y=probable if p.y.ndim == 1 else np.float32(10) * p.y)


@dataclass
class Line:
    """What was found of one arithmetic, added up."""

    networks: int = 0
    elements: int = 0
    failed: int = 0
    undetermined: int = 0
    kinked: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    unnoticed: list[int] = field(default_factory=list)
    doubled: int = 0
    at: str = ""

    def add(self, other: Line) -> None:
        """Count another's networks."""
        if other.failed or max(other.shares.values()) > max(self.shares.values(), default=0.0):
            self.at = other.at
        self.networks += other.networks
        self.elements += other.elements
        self.failed += other.failed
        self.undetermined += other.undetermined
        self.kinked += other.kinked
        self.shares = {bound: max(share, self.shares.get(bound, 0.0)) for bound, share in other.shares.items()}
        self.unnoticed += other.unnoticed
        self.doubled += other.doubled


def measured(judge: Judge, backend: EmulatedBackend, number: int = 0) -> Line:
    """An emulation on one network."""
    declared = judge.judge(backend)
    assert isinstance(declared.submission, Submission)
    answer: dict[str, Any] = {"loss": np.asarray(declared.submission.loss), **declared.submission.gradients}
    truth = {"loss": judge.truth.loss, **{name: judge.truth.grads[name] for name in judge.batch.params}}
    likely = judge.tolerance(backend.declared)
    linear = Judge(judge.spec, judge.batch, judge.truth, bound=FIRST_ORDER).tolerance(backend.declared)
    shares = {
        "worst case": _share(answer, truth, likely.worst_case, likely.across_kinks),
        "statistical": _share(answer, truth, likely.statistical, likely.statistical_across),
        "first order": _share(answer, truth, linear.statistical, linear.statistical_across),
    }
    twice = {name: 2 * array for name, array in answer.items() if name != "loss"}
    doubled = judge.judge_answer("twice", (answer["loss"], twice), backend.declared)
    return Line(
        1,
        sum(row.size for row in declared.rows),
        sum(row.failed for row in declared.rows),
        sum(row.undetermined for row in declared.rows),
        shares["statistical"][1],
        {bound: share for bound, (share, _, _) in shares.items()},
        [] if any(row.verdict == FAIL for row in judge.rows(backend.undeclared)) else [number],
        int(any(row.verdict == FAIL for row in doubled)),
        f"{number}, {max(shares.values())[2]}",
    )


def _share(
    answer: Mapping[str, Array], truth: Mapping[str, Balls], bound: Bounds, across: Bounds
) -> tuple[float, int, str]:
    """The largest error as a share of the bound, but where a kink is in reach; how many elements are only within the
    bound across kinks; and where the largest is.
    """
    found, kinked = [(0.0, 0, "")], 0
    for name, array in answer.items():
        error = truth[name].distance(np.asarray(array, np.float64)) - 2 * truth[name].tail_rad
        with np.errstate(all="ignore"):
            within, beyond = (
                np.where((error <= 0) | np.isinf(held[name]), 0.0, error / held[name]) for held in (bound, across)
            )
        other_side = (within > 1) & (beyond <= 1)
        # what is not a number is outside, but where anything goes
        in_reach = (across[name] > ALIKE * bound[name]) & (beyond <= 1)
        share = np.nan_to_num(np.where(in_reach, 0.0, within), nan=np.inf)
        kinked += int(other_side.sum())
        place = [int(i) + 1 for i in np.unravel_index(int(share.argmax()), share.shape)]
        found.append((float(share.max()), 0, f"{name}{place or ''}"))
    largest, _, at = max(found)
    return largest, kinked, at


def measure(seed: int, number: int) -> dict[str, Line]:
    """Every arithmetic on one network."""
    problem = numbered(seed, number)
    judge = Judge(problem.spec, validate(problem.spec, problem.params, problem.x, problem.y))
    return {name: measured(judge, EMULATED[name], number) for name in ARITHMETICS}


COLUMNS = (
    "arithmetic", "networks", "elements", "FAIL", "UNDETERMINED", "across a kink", "of the worst case", "statistical",
    "first order", "networks that FAIL as float32", "that FAIL doubled", "largest at",
)  # fmt: skip


def cells(name: str, line: Line) -> tuple[str, ...]:
    """A line of the table."""
    return (
        name, f"{line.networks:,}", f"{line.elements:,}", f"{line.failed:,}",
        f"{line.undetermined / line.elements:.1%}", f"{line.kinked:,}",
        *(f"{share:.3f}" for share in line.shares.values()),
        f"{line.networks - len(line.unnoticed):,}", f"{line.doubled:,}", line.at,
    )  # fmt: skip


def main() -> None:
    """Print the table; exit with 1 where anything declared is outside a bound."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first network")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    lines = {name: Line() for name in ARITHMETICS}
    numbers = range(options.first, options.first + options.count)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = pool.imap_unordered(partial(measure, options.seed), numbers)
        for of_one in track(found, "networks", total=options.count):
            for name, line in of_one.items():
                lines[name].add(line)
    print(f"\n### {options.count} networks from {options.first}, seed {options.seed}\n")
    print(table(COLUMNS, [cells(name, line) for name, line in lines.items()]))
    for name, line in lines.items():
        if line.unnoticed:
            print(f"\n{name} is no FAIL as float32 on networks {sorted(line.unnoticed)}")
    sys.exit(any(line.failed or max(line.shares.values()) > 1 for line in lines.values()))


if __name__ == "__main__":
    main()
