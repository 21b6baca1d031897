"""What the judge notices: small bugs planted in right answers, on networks of usual sizes, in float32 and float64.
Run by `make detection`, which writes the tables of `docs/detection.md`.

A `Bug` gives one or several wrong answers to a problem, mostly by a change to the equations of the hand-derived backend
(`planted`) or to the gradients that it returns (`altered`); of several, the one that is noticed least counts. Each
network is certified once in each dtype, and all bugs are held against the same bounds.

What it does not do: ask whether a bug is named (`diagnosis_measure.py`), or whether a right answer passes but for one
a network (`false_alarms.py`).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from emulated import one_by_one, tensor_cores, to_bits, toward_zero
from networks import judge, network
from rich.console import Console
from rich.progress import Progress
from right_implementations import targets
from summation import Array, Product

from refimpl.faults.catalogue import FAULTS
from refimpl.faults.mistaken import WHOLE, Mistaken
from refimpl.faults.plants import times
from refimpl.formats.markdown import table
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, WORST_CASE
from refimpl.network import examples
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.random_problems import Problem
from refimpl_numpy import NumpyBackend

Arrays = dict[str, Array]
Answer = tuple[float, Arrays]
Plant = Callable[[Mistaken], None]
Draw = Callable[[int, str], Problem]
VERDICTS = (PASS, UNDETERMINED, FAIL)

# --------------------------------------------------------------------------------------------------------------
# Networks

SCHEMES = {"tanh": "glorot_normal", "relu": "he_normal", "gelu": "he_normal"}


def classifier(sizes: tuple[int, ...], n: int, hidden: str) -> Draw:
    """Softmax cross-entropy of n normal samples with random labels; the usual initial values, biases 0."""

    def draw(seed: int, dtype: str) -> Problem:
        spec = network(sizes, [hidden] * (len(sizes) - 2) + ["identity"], "cross_entropy")
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((n, sizes[0])).astype(dtype), rng.integers(sizes[-1], size=n)
        return Problem(spec, spec.init(seed, dtype, SCHEMES[hidden]), x, y, seed, 0)

    return draw


def digits(seed: int, dtype: str) -> Problem:
    """What `refimpl check --example digits` judges."""
    spec = examples.digits()
    return Problem(spec, spec.init(seed, dtype), *examples.digits_data(dtype), seed, 0)


SMALL = "64-32-16-10 (N = 32)"
SIZES: Mapping[str, tuple[tuple[int, ...], int]] = {
    SMALL: ((64, 32, 16, 10), 32),
    "256-128-10 (N = 64)": ((256, 128, 10), 64),
    "784-128-10 (N = 64)": ((784, 128, 10), 64),
    "12 layers of 64 (N = 16)": ((64,) * 12 + (10,), 16),
}
NETWORKS: Mapping[str, Mapping[str, Draw]] = {  # by activation and by size
    hidden: {size: classifier(*of, hidden) for size, of in SIZES.items()} for hidden in SCHEMES
} | {"tanh and relu": {"digits (N = 1797)": digits}}

# --------------------------------------------------------------------------------------------------------------
# Bugs


@dataclass(frozen=True)
class Bug:
    """A name, and the wrong answers to a problem, none where the bug cannot be had."""

    name: str
    answers: Callable[[Problem], Iterator[Answer]]


def run(problem: Problem, plant: Plant = lambda m: None) -> Answer:
    """The hand-derived equations as they stand, with something planted in them."""
    mistaken, dtype = Mistaken.right(problem.spec, targets(problem, float)), str(problem.x.dtype)
    plant(mistaken)
    backend = NumpyBackend(mistaken.equations).gradient_function(mistaken.spec, dtype=dtype, device="cpu")
    loss, grads = backend(problem.params, problem.x, problem.y)
    return loss, {name: grad.astype(dtype) for name, grad in grads.items()}


def planted(name: str, *plants: Plant) -> Bug:
    """Changes to the equations, each on its own."""
    return Bug(name, lambda problem: (run(problem, plant) for plant in plants))


def altered(name: str, *changes: Callable[[Array], Array]) -> Bug:
    """Changes to every gradient that is returned, each on its own."""

    def answers(problem: Problem) -> Iterator[Answer]:
        loss, grads = run(problem)
        for change in changes:
            yield loss, {key: change(grad) for key, grad in grads.items()}

    return Bug(name, answers)


def of_catalogue(name: str, fault: str, parameter: float = 0.0) -> Bug:
    """A fault of refimpl's own catalogue, of the whole network or at all layers where it can act."""

    def answers(problem: Problem) -> Iterator[Answer]:
        where = list(FAULTS[fault].where(problem.spec, len(problem.x)))

        def plant(m: Mistaken) -> None:
            for layer in [WHOLE] if WHOLE in where else where:
                FAULTS[fault].plant(m, layer, parameter)

        return iter([run(problem, plant)] if where else [])

    return Bug(name, answers)


def scaled(size: float) -> Bug:
    """Every gradient too large, and too small."""
    return altered(f"gradient × (1 ± {power(size)})", lambda grad: grad * (1 + size), lambda grad: grad * (1 - size))


def one_element(size: float) -> Bug:
    """The largest of every array."""

    def change(grad: Array) -> Array:
        wrong = grad.copy()
        wrong.flat[int(np.abs(grad).argmax())] *= 1 + size
        return wrong

    return altered(f"largest element × (1 + {power(size)})", change)


def over_one_less(m: Mistaken) -> None:
    """Loss and gradients, where they are means over several samples."""
    if m.spec.reduction == "mean" and m.n > 1:
        times("∂C/∂s", "loss", by=lambda m: m.n / (m.n - 1))(m, WHOLE, None)


def without_last_sample(m: Mistaken) -> None:
    """Neither in the loss nor in a gradient; what is left is divided by N all the same."""
    there = (np.arange(m.n) < m.n - 1).astype(np.float64)
    m.change(m.spec.depth, "cost", lambda right: lambda c, reduction: right(c * there.astype(c.dtype), reduction))
    m.change(
        m.spec.depth,
        "cost_gradient",
        lambda right: lambda d, reduction: right(d * there[:, None].astype(d.dtype), reduction),
    )


def last_sample_missing_in_a_bias(problem: Problem) -> Iterator[Answer]:
    """In each bias's gradient on its own."""
    for layer in range(1, problem.spec.depth + 1):

        def plant(m: Mistaken, layer: int = layer) -> None:
            m.change(layer, "bias_gradient", lambda right: lambda delta: right(delta[:-1]))

        yield run(problem, plant)


def multiplying(product: Product) -> Plant:
    """Every product of matrices by another."""

    def plant(m: Mistaken) -> None:
        for layer in range(1, m.spec.depth + 1):
            m.change(layer, "weighted_input", lambda right: lambda a, W, b: product(a, W.T) + b)
            m.change(layer, "hidden_error", lambda right: lambda W, d, z, a, vjp: vjp(z, a, product(d, W)))
            m.change(layer, "weight_gradient", lambda right: lambda delta, a: product(delta.T, a))

    return plant


def of_short_factors(bits: int) -> Product:
    """Factors rounded to so many bits; sums in the dtype."""
    short = to_bits(bits)
    return lambda a, b: short(a) @ short(b)


def in_float32(product: Product) -> Product:
    """An emulation, which carries float32 numbers in float64."""
    return lambda a, b: product(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)


def slopes_in_float16(m: Mistaken) -> None:
    """f'(z) of the hidden layers stored in float16."""

    def rounded(vjp: Callable[..., Array]) -> Callable[..., Array]:
        return lambda z, a, d: d * vjp(z, a, np.ones_like(d)).astype(np.float16).astype(d.dtype)

    for layer in range(1, m.spec.depth):
        m.change_vjp(layer, rounded)


def first_layer_in_float16(m: Mistaken) -> None:
    """Its dW and db: operands, products and sums."""

    def half(right: Callable[..., Array]) -> Callable[..., Array]:
        return lambda *operands: right(*(operand.astype(np.float16) for operand in operands))

    m.change(1, "weight_gradient", half)
    m.change(1, "bias_gradient", half)


def added_in_the_logarithm(epsilon: float) -> Plant:
    """−log(p + ε) of the label's p, and its derivative, which is that of −log p times p/(p + ε)."""

    def plant(m: Mistaken) -> None:
        m.change(
            m.spec.depth,
            "cost",
            lambda right: lambda losses, reduction: right(-np.log(np.exp(-losses) + epsilon), reduction),
        )

        def cost_gradient(right: Callable[..., Array]) -> Callable[..., Array]:
            def wrong(d: Array, reduction: str) -> Array:
                p = 1 + (d * m.y.astype(d.dtype)).sum(axis=1, keepdims=True)  # d = softmax(s) − y
                return right(d * (p / (p + epsilon)), reduction)

            return wrong

        m.change(m.spec.depth, "cost_gradient", cost_gradient)

    return plant


def smoothed(problem: Problem, epsilon: float) -> Iterator[Answer]:
    """Labels as probabilities, (1 − ε) y + ε/K."""
    y = targets(problem, np.float64)
    yield run(replace(problem, y=((1 - epsilon) * y + epsilon / y.shape[1]).astype(problem.x.dtype)))


ERRORS = {
    "float32": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    "float64": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 1e-13, 1e-14),
}
REGULARISERS = {"float32": (1e-3, 1e-4, 1e-5, 1e-6), "float64": (1e-3, 1e-4, 1e-5, 1e-8, 1e-11, 1e-14)}
EPSILONS = {"float32": (1e-7,), "float64": (1e-7, 1e-12)}
RATES = {"float32": (1e-2, 1e-4), "float64": (1e-4, 1e-8, 1e-12)}
CUT = {
    "float32": (
        planted("sums cut to 24 bits, one by one", multiplying(in_float32(one_by_one(toward_zero(24))))),
        planted("sums on tensor cores (4 at a time, 24 bits)", multiplying(in_float32(tensor_cores(4, 24)))),
        planted("sums on tensor cores (16 at a time, 25 bits)", multiplying(in_float32(tensor_cores(16, 25)))),
    ),
    "float64": (of_catalogue("all in float32", "float32_inside"),),
}


def bugs(dtype: str) -> list[Bug]:
    """The rows of a table."""
    return [
        *(scaled(size) for size in ERRORS[dtype]),
        *(one_element(size) for size in ERRORS[dtype]),
        Bug("last sample missing in one bias's gradient", last_sample_missing_in_a_bias),
        planted("last sample missing in everything", without_last_sample),
        planted("divided by N − 1 for N", over_one_less),
        *(of_catalogue(f"L2 of {power(size)} added", "regulariser_added", size) for size in REGULARISERS[dtype]),
        *(planted(f"log(p + {power(size)}) for log p", added_in_the_logarithm(size)) for size in EPSILONS[dtype]),
        Bug("labels smoothed by 1e-4", partial(smoothed, epsilon=1e-4)),
        of_catalogue("the tanh form of gelu", "other_gelu"),
        *(
            of_catalogue(f"W updated first, learning rate {power(size)}", "weight_updated_first", size)
            for size in RATES[dtype]
        ),
        planted("products in bfloat16", multiplying(of_short_factors(8))),
        planted("products in TF32", multiplying(of_short_factors(11))),
        planted("f′ through float16", slopes_in_float16),
        planted("dW1 and db1 in float16", first_layer_in_float16),
        *CUT[dtype],
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# What is noticed


@dataclass(frozen=True)
class Outcome:
    """The verdict on an answer: how many tolerances its worst element is away, whether one is outside the worst case,
    and how many of the elements that a bug has changed are a FAIL.
    """

    verdict: str
    ratio: float
    by_theorem: bool
    failed: int
    wrong: int

    @property
    def conspicuous(self) -> tuple[int, float]:
        """What outcomes are ordered by."""
        return VERDICTS.index(self.verdict), self.ratio

    @property
    def cell(self) -> str:
        """In a table."""
        if not self.wrong:
            return f"{self.verdict} {short(self.ratio)}"
        if self.verdict != FAIL:
            return f"**{self.verdict}** {short(self.ratio)}"
        return f"×{short(self.ratio)} {'w' if self.by_theorem else 's'}, {percent(self.failed, self.wrong)}"


def outcome(held: Judge, right: Answer, answer: Answer) -> Outcome:
    """The verdict on one answer, beside what the same code returns without the bug."""
    rows = held.judge_answer("", answer)
    verdict = max((row.verdict for row in rows), key=VERDICTS.index)
    return Outcome(
        verdict,
        max(row.ratio for row in rows if row.verdict == verdict),
        any(row.by == WORST_CASE for row in rows),
        sum(row.failed for row in rows),
        int(answer[0] != right[0]) + sum(int((grad != right[1][name]).sum()) for name, grad in answer[1].items()),
    )


def least_noticed(held: Judge, right: Answer, answers: Iterable[Answer]) -> Outcome | None:
    """Of a bug's answers; None where it changes no bit of any."""
    found = [outcome(held, right, answer) for answer in answers]
    return min((one for one in found if one.wrong), key=lambda one: one.conspicuous, default=None)


Shares = dict[str, list[float]]


def smallest(held: Judge) -> Shares:
    """What an error of the largest element of each array, and of one of median size, must exceed to be a FAIL, as a
    share of that element: a row's `noticed`, but with what repeats looked for, as it is before anything is called
    wrong.
    """
    bounds = held.tolerance(ARITHMETICS[held.batch.dtype], repeated=True)
    found = {}
    for name in ("loss", *held.batch.params):
        truth = held.truth.loss if name == "loss" else held.truth.grads[name]
        across = np.minimum(bounds.across_kinks[name], bounds.statistical_across[name]) + 2 * truth.tail_rad
        size = np.abs(truth.mid)
        share = (across[size > 0] / size[size > 0])[np.argsort(size[size > 0])]
        found[name] = share[[-1, len(share) // 2]].tolist() if share.size > 1 else share.tolist()
    return found


@dataclass(frozen=True)
class Found:
    """On one network in one dtype: the outcome without a bug and with each, None where that changes nothing."""

    hidden: str
    size: str
    dtype: str
    right: Outcome
    outcomes: dict[str, Outcome | None]
    smallest: Shares


def on_network(hidden: str, size: str, seed: int, dtype: str, advance: Callable[[], None] = lambda: None) -> Found:
    """Certify, and plant every bug."""
    problem = NETWORKS[hidden][size](seed, dtype)
    held, right, outcomes = judge(problem), run(problem), {}
    for bug in bugs(dtype):
        outcomes[bug.name] = least_noticed(held, right, bug.answers(problem))
        advance()
    return Found(hidden, size, dtype, outcome(held, right, right), outcomes, smallest(held))


# --------------------------------------------------------------------------------------------------------------
# Tables


def power(size: float) -> str:
    """Of ten."""
    return f"1e{round(math.log10(size))}"


def short(number: float) -> str:
    """Two digits."""
    if math.isinf(number):
        return "∞"
    if 0.01 <= number < 1000:
        return f"{number:.2g}" if number < 100 else f"{number:.0f}"
    significand, exponent = f"{number:.{int(number < 1)}e}".split("e")
    return f"{significand}e{int(exponent)}".replace("-", "−") if number else "0"


def percent(part: int, whole: int) -> str:
    """Neither 0 nor 100 where it is not all or nothing."""
    share = 100 * part / whole
    return "<1 %" if 0 < share < 1 else ">99 %" if 99 < share < 100 else f"{share:.0f} %"


def bugs_table(found: Sequence[Found]) -> str:
    """What is noticed on networks in one dtype, of every bug that changes something there."""
    rows = [["*nothing*", *(unbroken(one.right.cell) for one in found)]]
    for name in found[0].outcomes:
        outcomes = [one.outcomes[name] for one in found]
        if any(outcomes):
            rows.append([heading(name), *(unbroken(each.cell) if each else "–" for each in outcomes)])
    return table(["bug", *(heading(one.size) for one in found)], rows)


def smallest_table(found: Sequence[Found]) -> str:
    """The smallest error that is noticed in every array of networks of one size."""
    rows = [[name, *(" · ".join(map(short, one.smallest[name])) for one in found)] for name in found[0].smallest]
    return table(["array", *(f"{one.hidden}, {one.dtype}" for one in found)], rows)


def unbroken(text: str) -> str:
    """For one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def heading(text: str) -> str:
    """What is in brackets on one line."""
    return re.sub(r"\(.*?\)", lambda found: unbroken(found[0]), text)


def page(found: Sequence[Found], seed: int) -> str:
    """All tables in Markdown."""
    parts = [f"Seed {seed}."]
    for title, of_one in grouped(found, lambda one: f"{one.dtype}, {one.hidden}"):
        parts.append(f"### {title}\n\n{bugs_table(of_one)}")
    parts.append("## The smallest error that is always a FAIL")
    for title, of_one in grouped(found, lambda one: one.size):
        parts.append(f"### {title}\n\n{smallest_table(of_one)}")
    return "\n\n".join(parts) + "\n"


def grouped(found: Sequence[Found], by: Callable[[Found], str]) -> Iterator[tuple[str, list[Found]]]:
    """In the order in which the groups are met."""
    for title in dict.fromkeys(map(by, found)):
        yield title, [one for one in found if by(one) == title]


def main() -> None:
    """Write the tables; exit with 1 where an answer without a bug does not pass."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file in place of the terminal")
    options = parser.parse_args()
    networks = [(hidden, size, dtype) for dtype in ERRORS for hidden, draws in NETWORKS.items() for size in draws]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("bugs", total=sum(len(bugs(dtype)) for *_, dtype in networks))
        found = [
            on_network(hidden, size, options.seed, dtype, lambda: progress.advance(task))
            for hidden, size, dtype in networks
        ]
    if options.out:
        options.out.write_text(page(found, options.seed))
    else:
        print(page(found, options.seed))
    sys.exit(any(one.right.verdict != PASS for one in found))


if __name__ == "__main__":
    main()
