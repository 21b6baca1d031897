"""Timing the contenders of one group, in turns; and the gradient of each checked before it is timed.

What is timed: `forward` (the loss), `gradients` (forward and backward pass), `step` (one step of gradient descent) and
`run` (a step of a whole run). Inputs are placed before the clock starts, and every call is waited for. A sample is as
many calls as make `SAMPLE` seconds; rounds of one sample a contender are repeated, so that what disturbs the machine
disturbs all of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import IntermediatesBackend, Placed, able, supported, value_and_grad
from refimpl.benchmark import contenders
from refimpl.benchmark.contenders import FLOOR, Contender
from refimpl.benchmark.groups import LEARNING_RATE, Group, classifier
from refimpl.formats.errors import RefimplError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL
from refimpl.network.batch import validate
from refimpl.network.functions import ACTIVATIONS

Array = NDArray[Any]
SAMPLE = 2e-3  # seconds
ROUNDS = (11, 150)  # at least and at most
LONG = 0.05  # seconds of a call beside which refilling the caches is nothing
RUN_STEPS = 100
CERTIFIED = 10**7  # parameters × samples: certified in about a second
QUANTITIES = ("forward", "gradients", "step", "run")


class Wrong(RefimplError):
    """A contender whose gradient is wrong: it is not timed."""


def measure(group: Group, names: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """A row for every contender: its times, or why there are none. `seconds`: about how long a quantity may take."""
    rows, placed = {}, {}
    data = group.data()
    judged = Judged(group)
    for name in names:
        rows[name] = row = {"contender": name, "ours": contenders.is_ours(contenders.available().get(name, name))}
        try:
            contender = contenders.find(name)
            reason = supported(contender, group.spec, group.dtype, group.device)
            if reason is not True:
                row["skipped"] = str(reason)
                continue
            if name != FLOOR:
                judged.check(contender)
            params, x, y = data
            placed[name] = contender.place(group.spec, params, x, y, device=group.device, learning_rate=LEARNING_RATE)
        except Exception as error:  # a stranger's code may raise anything
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    steps = max(1, min(RUN_STEPS, int(1e10 // group.flops)))
    for quantity in QUANTITIES:
        for name, times in _rounds(placed, quantity, steps, seconds).items():
            rows[name][quantity] = times
    _add_ratios(rows)
    return list(rows.values())


class Judged:
    """The truth of a group's gradient, at a size that can be certified in about a second, and at full size by the
    hand-derived gradient in float64.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.small = group
        if group.spec.n_parameters * group.batch > CERTIFIED:
            self.small = group.with_batch(max(1, CERTIFIED // group.spec.n_parameters))
        if group.spec.n_parameters > CERTIFIED:
            narrow = classifier([max(1, size // 16) for size in group.spec.sizes], group.spec.layers[0].activation.name)
            self.small = Group(narrow, min(group.batch, 64), group.dtype, group.device, group.threads)
        self.data = self.small.data()
        self.judge = Judge(self.small.spec, validate(self.small.spec, *self.data))
        self.full = None if self.small is group else _float64_answer(group)
        # half of the digits, and what rounding may do at kinks
        self.allowed = math.sqrt(np.finfo(group.dtype).eps) + (0.0 if self.full is None else turned(group))

    def check(self, contender: Contender) -> None:
        """Raises Wrong."""
        rows = self.judge.judge_answer(contender.name, _answer(contender, self.small, self.data))
        for row in rows:
            if row.verdict == FAIL:
                raise Wrong(f"{row.quantity} is wrong: {row.reason or row.verdict}")
        if self.full is not None:
            loss, grads = _answer(contender, self.group, self.group.data())
            for name, true in {"loss": np.asarray(self.full[0]), **self.full[1]}.items():
                given = np.asarray(loss if name == "loss" else grads[name], np.float64)
                distance = float(np.linalg.norm(given - true) / np.linalg.norm(true))
                if not distance <= self.allowed:
                    raise Wrong(f"{name} is {distance:.1e} of itself away from the gradient in float64")


def _answer(contender: Contender, group: Group, data: tuple[dict[str, Array], Array, Array]) -> Any:
    params, x, y = data
    with contender.place(group.spec, params, x, y, device=group.device, learning_rate=LEARNING_RATE) as placed:
        return placed.answer()


def _float64_answer(group: Group) -> tuple[float, dict[str, Array]]:
    return value_and_grad(group.spec, *_wide(group))


def _wide(group: Group) -> tuple[dict[str, Array], Array, Array]:
    params, x, y = group.data()
    wide = {name: array.astype(np.float64) for name, array in params.items()}
    return wide, x.astype(np.float64), y if y.ndim == 1 else y.astype(np.float64)


def turned(group: Group) -> float:
    """By how much of itself a gradient may change where rounding puts a z on the other side of a kink.

    k of a layer's M activations that turn, each of about equal weight, change the gradient by √(k/M) of itself. A z
    may turn that lies within four times the rounding error of its sum, u √n |a ⊙ w|₂ in the statistical form.
    """
    params, x, y = _wide(group)
    run = able(IntermediatesBackend).intermediates_function(group.spec, dtype="float64", device="cpu")
    values, a, total = run(params, x, y), x.reshape(len(x), -1), 0.0
    for number, (layer, own) in enumerate(zip(group.spec.layers, group.spec.by_layer(params), strict=True), start=2):
        z, entry = values[f"z{number}"], ACTIVATIONS[layer.activation.name]
        error = np.sqrt(np.square(a) @ np.square(own["W"].T) * a.shape[1])
        near = np.zeros(z.shape, bool)
        for kink in entry.kinks:
            near |= np.abs(z - kink) <= 4 * np.finfo(group.dtype).eps / 2 * error
        total += math.sqrt(near.mean())
        a = values[f"a{number}"]
    return total


def _call(placed: Placed, quantity: str, steps: int) -> tuple[Callable[[], Any], int]:
    """What is timed, and how many steps it is."""
    if quantity == "forward":
        return placed.loss, 1
    if quantity == "gradients":
        return placed.gradients, 1
    count = 1 if quantity == "step" else steps
    return lambda: placed.descend(count), count


def _rounds(placed: Mapping[str, Placed], quantity: str, steps: int, seconds: float) -> dict[str, dict[str, Any]]:
    calls = {name: _call(network, quantity, steps) for name, network in placed.items()}
    repeats, brief, samples = {}, {}, {name: [] for name in placed}  # type: ignore[var-annotated]
    for name, network in placed.items():
        with network:
            _timed(network, calls[name][0], 2)
            once = _timed(network, calls[name][0], 1)
            if once < SAMPLE:
                once = _timed(network, calls[name][0], 10) / 10
        brief[name] = once < LONG
        repeats[name] = max(1, math.ceil(SAMPLE / max(once, 1e-7)))
        samples[name] = [once * repeats[name]]
    a_round = sum(first[0] for first in samples.values()) or 1.0
    rounds = max(ROUNDS[0], min(ROUNDS[1], int(seconds / a_round)))
    samples = {name: [] for name in placed}
    for _ in range(rounds):
        for name, network in placed.items():
            with network:
                if brief[name]:  # what the last contender left in the caches is not this one's
                    _timed(network, calls[name][0], 1)
                samples[name].append(_timed(network, calls[name][0], repeats[name]) / (repeats[name] * calls[name][1]))
    return {name: _summary(values, repeats[name] * calls[name][1]) for name, values in samples.items()}


def _timed(placed: Placed, call: Callable[[], Any], repeats: int) -> float:
    wait = placed.wait
    start = time.perf_counter()
    for _ in range(repeats):
        wait(call())
    return time.perf_counter() - start


def _summary(samples: Sequence[float], calls: int) -> dict[str, Any]:
    low, median, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return {
        "median": float(median), "low": float(low), "high": float(high), "samples": [float(s) for s in samples],
        "calls": calls,
    }  # fmt: skip


def _add_ratios(rows: Mapping[str, dict[str, Any]]) -> None:
    """The median over the rounds of the ratio to the floor of the same round; the samples are dropped."""
    for quantity in QUANTITIES:
        floor = rows.get(FLOOR, {}).get(quantity, {}).get("samples")
        for row in rows.values():
            if quantity in row and floor:
                pairs = zip(row[quantity]["samples"], floor, strict=True)
                row[quantity]["to_floor"] = statistics.median(mine / theirs for mine, theirs in pairs)
    for row in rows.values():
        for quantity in QUANTITIES:
            row.get(quantity, {}).pop("samples", None)
