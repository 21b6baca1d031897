"""How often `diagnose` names the right fault, and how often a wrong one. Run by `make diagnosis-measure`.

Four experiments on random networks, each a function of (seed, number): one planted fault at every layer it can act
on, two planted faults, wrong gradients that are no fault of the catalogue, and one planted fault that was taken out of
the catalogue. A planting counts where it makes some element miss by at least 100 times the tolerance, and more than
zeros, which may have any reason, is left of what it makes wrong.

What a fit says counts as right where it is true: planted by itself it gives the answer. So does, of a fault that was
taken out, another name whose gradients are the same on 20 draws of numbers for that network (a number in it fitted to
each), or, counted apart, on 20 draws around those that it was planted on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from networks import diagnosed
from rich.progress import track

from refimpl.faults.catalogue import FAULTS
from refimpl.faults.findings import Cause, Causes, Finding
from refimpl.faults.fits import FITS
from refimpl.faults.mistaken import Fault, PlantedBackend
from refimpl.faults.search import ZEROING
from refimpl.formats.errors import CertificationError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import validate
from refimpl.network.documents import Function
from refimpl.network.random_problems import random_batch
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl_numpy import NumpyBackend

ACTIVATIONS = (
    "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "softplus", "silu",
    "softsign", "softmax", Function("leaky_relu", (("negative_slope", 0.2),)),
)  # fmt: skip
LOSSES = (
    "squared_error", "mean_squared_error", "huber", "cross_entropy", "binary_cross_entropy", "negative_log_likelihood",
)  # fmt: skip
CLEARLY = 100.0  # tolerances
ATTEMPTS = 400
DRAWS = 20
NEARBY = 0.01  # of every number, by which others are moved

Planting = tuple[Fault, int, float]


@dataclass(frozen=True)
class Planted:
    """A wrong answer and what was planted to get it."""

    judge: Judge
    loss: float
    grads: dict[str, np.ndarray]
    plantings: tuple[Planting, ...]

    @property
    def name(self) -> str:
        """What was planted, and where."""
        return planted_backend(*self.plantings).name

    @property
    def findings(self) -> list[Finding]:
        """What it is said to be."""
        return diagnosed(self.judge, (self.loss, self.grads))


def planted_backend(*plantings: Planting) -> PlantedBackend:
    """The NumPy backend with faults in it."""
    return PlantedBackend(plantings, NumpyBackend())


def random_network(rng: np.random.Generator) -> tuple[NetworkSpec, int]:
    """1 to 4 layers of 1 to 5 neurons, every activation and loss, and a batch size from 1 to 6."""
    depth = int(rng.integers(1, 5))
    sizes = [int(rng.choice([1, 2, 3, 3, 4, 5])) for _ in range(depth + 1)]
    loss = str(rng.choice(LOSSES))
    names: list[Any] = [ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))] for _ in range(depth)]
    if loss == "negative_log_likelihood":
        names[-1] = str(rng.choice(["softmax", "sigmoid"]))
    elif rng.random() < 0.5:
        names[-1] = "identity"
    layers = [LayerSpec(size, name, bool(rng.random() < 0.8)) for size, name in zip(sizes[1:], names, strict=True)]
    spec = NetworkSpec((sizes[0],), layers, loss, str(rng.choice(["mean", "sum"])))
    return spec, int(rng.integers(1, 7))


def random_judge(rng: np.random.Generator, spec: NetworkSpec, n: int, kinks: bool = False) -> Judge | None:
    """Parameters and data for a network, and the truth about it. With `kinks`, weighted inputs of exactly zero."""
    params = {name: 0.8 * rng.standard_normal(shape) for name, shape in spec.parameter_shapes.items()}
    x, y = random_batch(spec, rng, n, "float64")
    if kinks:
        x = np.where(rng.random((n,) + (1,) * len(spec.input_shape)) < 0.6, 0.0, x)
        params = {name: array * 0 if name.startswith("b") else array for name, array in params.items()}
    try:
        return Judge(spec, validate(spec, params, x, y))
    except CertificationError:
        return None


def plant(judge: Judge, plantings: tuple[Planting, ...]) -> Planted | None:
    """The wrong answer, if it is one by far."""
    try:
        with np.errstate(all="ignore"):
            run = planted_backend(*plantings).gradient_function(judge.spec, dtype="float64", device="cpu")
            loss, grads = run(*judge.batch.copies(judge.spec))
    except ValueError:  # this code would not have run
        return None
    rows = [row for row in judge.judge_answer("planted", (loss, grads)) if row.verdict == FAIL]
    telling = [row for row in rows if row.quantity == "loss" or grads[row.quantity].any()]
    zeros = any(fault.name in ZEROING for fault, _, _ in plantings)
    clear = any(row.ratio >= CLEARLY for row in (rows if zeros else telling))
    return Planted(judge, loss, grads, plantings) if clear else None


def parameter(fault: Fault, rng: np.random.Generator) -> float:
    """The number in a fault."""
    if not fault.parameter:
        return 0.0
    return float(fault.example * rng.uniform(0.5, 2))


def singles(seed: int, fault: Fault, number: int, largest: int = 4) -> list[Planted]:
    """A fault planted at each of its layers, in the network `number` drawn for it."""
    rng = np.random.default_rng([seed, number, *fault.name.encode()])
    for _ in range(ATTEMPTS):
        spec, n = random_network(rng)
        layers = list(fault.where(spec, n)) if spec.depth <= largest else []
        judge = random_judge(rng, spec, n, "kink" in fault.name) if layers else None
        if judge is None:
            continue
        planted = [plant(judge, ((fault, layer, parameter(fault, rng)),)) for layer in layers]
        if any(planted):
            return [p for p in planted if p]
    raise AssertionError(f"no network found on which {fault.name} has an effect")


def pair(seed: int, number: int) -> Planted:
    """Two faults that together give what neither does alone."""
    rng = np.random.default_rng([seed, number, 2])
    pool = [fault for fault in FAULTS.values() if not (fault.on_loss or fault.evidence)]
    for _ in range(ATTEMPTS):
        spec, n = random_network(rng)
        first, second = (pool[int(i)] for i in rng.choice(len(pool), 2, replace=False))
        places = [list(first.where(spec, n)), list(second.where(spec, n))]
        judge = random_judge(rng, spec, n, "kink" in first.name + second.name) if all(places) else None
        if judge is None or (first.parameter and second.parameter):
            continue
        plantings = tuple(
            (fault, int(rng.choice(where)), parameter(fault, rng))
            for fault, where in zip((first, second), places, strict=True)
        )
        together = plant(judge, plantings)
        alone = [plant(judge, (planting,)) for planting in plantings]
        if together and all(alone) and all(_differ(together, single) for single in alone if single):
            return together
    raise AssertionError("no network found on which two faults have an effect")


def _differ(one: Planted, other: Planted) -> bool:
    largest = max(np.abs(one.judge.truth.grads[name].mid).max(initial=0.0) for name in one.grads)
    return any(
        one.grads[name].shape != other.grads[name].shape
        or (np.abs(one.grads[name] - other.grads[name]) > 1e-6 * largest).any()
        for name in one.grads
    )


def other_mistakes() -> dict[str, Callable[[np.random.Generator, dict[str, np.ndarray]], dict[str, np.ndarray]]]:
    """Ways to be wrong that are nobody's known mistake."""

    def one(change: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> Any:
        def in_one_array(rng: np.random.Generator, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            name = str(rng.choice(list(grads)))
            return {**grads, name: change(rng, grads[name])}

        return in_one_array

    def element(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
        wrong = array.copy()
        at = tuple(int(rng.integers(size)) for size in array.shape)
        wrong[at] += np.abs(array).max() * rng.uniform(0.1, 1) + 0.01
        return wrong

    def factor(rng: np.random.Generator) -> float:
        return float(rng.choice([rng.uniform(0.55, 0.9), rng.uniform(1.1, 1.45)]))

    def scaled(rng: np.random.Generator, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        by = factor(rng)
        return {name: array * by for name, array in grads.items()}

    return {
        "scaled by no known factor": scaled,
        "one array scaled": one(lambda rng, array: array * factor(rng)),
        "noise of 1e-10": lambda rng, g: {k: v * (1 + 1e-10 * rng.standard_normal(v.shape)) for k, v in g.items()},
        "noise of 1e-7": lambda rng, g: {k: v * (1 + 1e-7 * rng.standard_normal(v.shape)) for k, v in g.items()},
        "noise of 1e-3": lambda rng, g: {k: v * (1 + 1e-3 * rng.standard_normal(v.shape)) for k, v in g.items()},
        "noise in one array": one(lambda rng, array: array + 0.1 * rng.standard_normal(array.shape)),
        "one element": one(element),
        "unrelated numbers": lambda rng, g: {k: rng.standard_normal(v.shape) for k, v in g.items()},
        "rounded to six decimals, of another factor": lambda rng, g: {k: np.round(v * 1.37, 6) for k, v in g.items()},
        "noise, on a grid": lambda rng, g: {
            k: np.rint((v + 1e-3 * rng.standard_normal(v.shape)) * 2.0**24) / 2.0**24 for k, v in g.items()
        },
        "noise of float32 in one array": one(
            lambda rng, array: array * (1 + 2.0**-25 * rng.standard_normal(array.shape))
        ),
        "constant added": one(lambda rng, array: array + rng.uniform(0.01, 1)),
    }


def other_mistake(seed: int, number: int) -> tuple[str, Judge, dict[str, np.ndarray]]:
    """A wrong gradient that is no fault of the catalogue."""
    rng = np.random.default_rng([seed, number, 3])
    kinds = other_mistakes()
    kind = list(kinds)[number % len(kinds)]
    while True:
        spec, n = random_network(rng)
        judge = random_judge(rng, spec, n)
        if judge is None or not any(balls.mid.any() for balls in judge.truth.grads.values()):
            continue
        right = {name: judge.truth.grads[name].mid.copy() for name in spec.parameter_shapes}
        wrong = kinds[kind](rng, right)
        if any(row.verdict == FAIL for row in judge.judge_answer("", (0.0, wrong))[1:]):
            return kind, judge, wrong


def names(planted: Planted) -> bool:
    """Whether the first finding holds what was planted, at its layers, or what a fit says of it is true."""
    findings = planted.findings
    wanted = sorted((fault.name, layer) for fault, layer, _ in planted.plantings)
    return bool(findings) and any(
        sorted((cause.fault.name, cause.layer) for cause in explanation) == wanted
        or is_true_fit(planted.judge, (planted.loss, planted.grads), explanation)
        for explanation in findings[0].explanations
    )


def is_true_fit(judge: Judge, answer: tuple[float | None, dict[str, np.ndarray]], causes: Causes) -> bool:
    """Whether causes are fits, and planted by themselves give the answer."""
    return all(cause.fault.name in FITS for cause in causes) and _same(judge, _with(judge, causes), answer)


def _with(judge: Judge, causes: Causes) -> tuple[float, dict[str, np.ndarray]] | None:
    numbers = (cause.fault.example if cause.parameter is None else cause.parameter for cause in causes)
    plantings = tuple((cause.fault, cause.layer, number) for cause, number in zip(causes, numbers, strict=True))
    try:
        with np.errstate(all="ignore"):
            run = planted_backend(*plantings).gradient_function(judge.spec, dtype="float64", device="cpu")
            return run(*judge.batch.copies(judge.spec))
    except ValueError:
        return None


def _same(judge: Judge, one: Any, other: Any) -> bool:
    """Whether two answers are the same but for rounding: the gradients, and the loss where that alone is wrong."""
    if one is None or other is None:
        return False
    bounds = judge.tolerance(ARITHMETICS["float64"]).worst_case

    def near(name: str, a: Any, b: Any) -> bool:
        if np.shape(a) != np.shape(b):
            return False
        scale = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
        bound = np.max(bounds[name], initial=0.0) * max(1.0, scale / max(np.abs(truth[name]).max(initial=0.0), 1e-300))
        return bool(np.allclose(a, b, rtol=1e-9, atol=4 * bound, equal_nan=True))

    truth = {"loss": judge.truth.loss.mid, **{name: ball.mid for name, ball in judge.truth.grads.items()}}
    right = all(near(name, other[1][name], truth[name]) for name in other[1])
    loss = not right or other[0] is None or near("loss", one[0], other[0])
    return loss and all(near(name, one[1][name], other[1][name]) for name in other[1])


def equivalent(planted: Planted, causes: Causes, seed: int, nearby: bool) -> bool:
    """Whether these causes give what was planted on other numbers for the same network: on any, or on those `nearby`,
    where every unit is on the same side of its kink.
    """
    rng, spec, batch = np.random.default_rng(seed), planted.judge.spec, planted.judge.batch
    kinks = "kink" in planted.name

    def moved(array: np.ndarray) -> np.ndarray:
        return array * (1 + NEARBY * rng.standard_normal(array.shape)) if array.dtype.kind == "f" else array

    def drawn() -> Judge | None:
        if not nearby:
            return random_judge(rng, spec, len(batch.x), kinks)
        params = {name: moved(array) for name, array in batch.params.items()}
        return Judge(spec, validate(spec, params, moved(batch.x), batch.y))

    def same(judge: Judge) -> bool:
        answer = _with(judge, wanted)
        if answer is None or all(cause.fault.name in FITS or not cause.fault.parameter for cause in causes):
            return _same(judge, _with(judge, causes), answer)
        given = [(cause.fault.name, cause.layer) for cause in causes]
        findings = diagnosed(judge, answer)
        explanations = findings[0].explanations if findings else ()
        return any([(cause.fault.name, cause.layer) for cause in one] == given for one in explanations)

    judges = [judge for judge in (drawn() for _ in range(DRAWS)) if judge]
    wanted = tuple(Cause(fault, layer, parameter) for fault, layer, parameter in planted.plantings)
    return all(same(judge) for judge in judges)


@contextmanager
def without(fault: Fault) -> Iterator[None]:
    """The catalogue without one entry."""
    entries: Any = FAULTS
    before = dict(entries)
    del entries[fault.name]
    try:
        yield
    finally:
        entries.clear()
        entries.update(before)


def measure_left_out(seed: int, task: tuple[str, int]) -> tuple[int, list[str], list[str]]:
    """How often a fault was planted, the wrong names that it was given, and those that are right nearby only."""
    name, number = task
    fault, wrong, nearby = FAULTS[name], list[str](), list[str]()
    planted = singles(seed, fault, number)
    for one in planted:
        with without(fault):
            findings = one.findings
            for explanation in findings[0].explanations if findings else ():
                true = is_true_fit(one.judge, (one.loss, one.grads), explanation)
                if true or equivalent(one, explanation, seed, nearby=False):
                    continue
                told = nearby if equivalent(one, explanation, seed, nearby=True) else wrong
                told.append(f"{number}: {one.name}: {[cause.text for cause in explanation]}")
    return len(planted), wrong, nearby


def measure_single(seed: int, task: tuple[str, int]) -> tuple[str, list[bool], list[int]]:
    fault, number = task
    planted = singles(seed, FAULTS[fault], number)
    alternatives = [len(findings[0].explanations) if (findings := p.findings) else 0 for p in planted]
    return fault, [names(p) for p in planted], alternatives


def measure_pair(seed: int, number: int) -> str:
    planted = pair(seed, number)
    return "" if names(planted) else f"{number}: {planted.name}"


def measure_other_mistake(seed: int, number: int) -> str:
    kind, judge, wrong = other_mistake(seed, number)
    findings = diagnosed(judge, (None, wrong))
    named = [
        finding.text
        for finding in findings
        if finding.known and not all(is_true_fit(judge, (None, wrong), causes) for causes in finding.explanations)
    ]
    return f"{number}: {kind}: {named[0]}" if named else ""


def _tracked(pool: Any, work: Any, tasks: list[Any], title: str) -> Iterator[Any]:
    yield from track(pool.imap_unordered(work, tasks), title, total=len(tasks))


def main() -> None:
    """Run all four and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--others", type=int, default=5000)
    parser.add_argument("--left-out", type=int, default=20, help="networks for every entry that is taken out")
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool() as pool:
        right, total, told = Counter[str](), Counter[str](), []
        tasks = [(fault, number) for fault in FAULTS for number in range(options.networks)]
        for fault, outcomes, alternatives in _tracked(pool, partial(measure_single, options.seed), tasks, "faults"):
            right[fault] += sum(outcomes)
            total[fault] += len(outcomes)
            told += alternatives
        pairs = list(_tracked(pool, partial(measure_pair, options.seed), list(range(options.pairs)), "pairs"))
        numbers = list(range(options.others))
        wrong = [
            name for name in _tracked(pool, partial(measure_other_mistake, options.seed), numbers, "others") if name
        ]
        tasks = [(fault, number) for fault in FAULTS for number in range(options.left_out)]
        left_out = list(_tracked(pool, partial(measure_left_out, options.seed), tasks, "left out"))
    for fault in FAULTS:
        if right[fault] < total[fault]:
            print(f"{fault}: {right[fault]} of {total[fault]}")
    if total:
        print(
            f"faults: {sum(right.values())} of {sum(total.values())} named first, at their layer "
            f"({sum(right.values()) / sum(total.values()):.2%}); explanations per finding: {np.mean(told):.2f}, "
            f"a single one in {np.mean(np.array(told) == 1):.1%}"
        )
    missed = [planted for planted in pairs if planted]
    print(f"pairs: {len(pairs) - len(missed)} of {len(pairs)} ({1 - len(missed) / max(len(pairs), 1):.1%}) named first")
    print(*missed, sep="\n")
    print(f"gradients of no known fault: {len(wrong)} of {options.others} were given a wrong name")
    print(*wrong, sep="\n")
    count, misnamed, nearby = (
        sum((one[part] for one in left_out), start=type(left_out[0][part])()) for part in range(3)
    )
    print(
        f"faults taken out of the catalogue: {len(misnamed)} wrong names of {count} plantings, and {len(nearby)} that "
        "are right where every unit stays on its side of a kink"
    )
    print(*misnamed, sep="\n")
    good = sum(right.values()) >= 0.99 * sum(total.values()) and len(missed) <= 0.05 * len(pairs)
    sys.exit(0 if good and not wrong and not misnamed else 1)


if __name__ == "__main__":
    main()
