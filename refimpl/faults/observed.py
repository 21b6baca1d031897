"""A wrong answer beside the truth: `Observed`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import EquationsBackend, able
from refimpl.faults.findings import Cause
from refimpl.faults.formulas import CANCELLING, FORMULAS
from refimpl.faults.mistaken import WHOLE, Fault, PlantedBackend
from refimpl.faults.prediction import EXPONENTIALS, Reader
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, Row
from refimpl.judge.submission import Submission
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]


class Observed:
    """A wrong answer beside the truth: which quantities are wrong, in backward order. `trusted`: what explains other
    answers of the same code, by its labels, of which less must bear it out here; `previous`: what was answered before,
    by name.
    """

    def __init__(
        self, judge: Judge, given: Submission, rows: Sequence[Row], arithmetic: Arithmetic,
        trusted: Mapping[str, Cause] | None = None, previous: Mapping[str, Array] | None = None,
    ) -> None:  # fmt: skip
        self.trusted, self.previous = trusted or {}, previous or {}
        self.judge, self.spec, self.arithmetic = judge, judge.spec, arithmetic
        batch = judge.batch
        self.params, self.x, self.dtype = batch.params, batch.x, batch.dtype
        self.y = batch.targets(self.spec.n_out)
        self.numbers = {**batch.params, "x": batch.x}
        self.n = len(self.x)
        self.slack = given.slack or {}
        self.bounds = judge.tolerance(arithmetic).plus(given.slack)
        self.tight = {  # the smaller of both bounds
            name: np.minimum(bound, self.bounds.statistical[name]) for name, bound in self.bounds.worst_case.items()
        }
        self.names = [
            name for number in range(self.spec.depth, 0, -1) for name in (f"W{number}", f"b{number}")
            if name in batch.params
        ]  # fmt: skip
        self.answer: dict[str, Array] = {}
        self.refused: dict[str, str] = {}
        for name in self.names:
            array = given.array(name)
            if isinstance(array, str) and name.startswith("b") and name not in given.gradients:
                array = np.zeros(self.params[name].shape)  # a bias gradient never returned is one never computed
                self.refused[name] = "is missing"
            elif not isinstance(array, str) and str(array.dtype.newbyteorder("=")) != self.dtype:
                self.refused[name] = f"is {array.dtype}; {self.dtype} was asked for"
            if isinstance(array, str):
                self.refused[name] = array
            elif array.dtype.kind in "fiu":
                self.answer[name] = array.astype(np.float64)
        self.exact = {row.quantity for row in rows if row.verdict == FAIL and math.isinf(row.ratio)}  # no tolerance
        failed = {row.quantity for row in rows if row.verdict == FAIL}
        self.wrong = [name for name in self.names if name in failed]
        self.loss: Any = given.loss
        self.loss_wrong = self.loss is not None and "loss" in failed
        self.loss_explained = False

    @property
    def comparable(self) -> bool:
        """Whether every gradient is an array of numbers, all of them finite or lost in a formula that overflows, and in
        none the dtype is all that is wrong.
        """
        return (
            len(self.answer) == len(self.names)
            and not any(self.refused.get(name, "").startswith("is ") and self._fits(name) for name in self.wrong)
            and bool(self.finite or self.overflowing)
        )

    @cached_property
    def loss_number(self) -> float:
        """The loss, which may be anything at all: NaN where it is no number."""
        try:
            return float(self.loss)
        except (TypeError, ValueError, OverflowError):
            return math.nan

    @cached_property
    def finite(self) -> bool:
        """Whether all numbers of the gradients are."""
        return all(np.isfinite(g).all() for g in self.answer.values())

    @cached_property
    def each_sample(self) -> dict[str, Array]:
        """(N, *shape) by parameter: what each sample should contribute, in float64."""
        spec = NetworkSpec(self.spec.input_shape, self.spec.layers, self.spec.loss, "sum")
        run = able(EquationsBackend).gradient_function(spec, dtype="float64", device="cpu")
        params, x, y = self.judge.batch.copies(self.spec)
        params, x = {name: array.astype(np.float64) for name, array in params.items()}, x.astype(np.float64)
        y = y if y.ndim == 1 else y.astype(np.float64)
        alone = [run(params, x[i : i + 1], y[i : i + 1])[1] for i in range(self.n)]
        parts = self.spec.divisor(self.n)
        return {name: np.array([grads[name] for grads in alone]) / parts for name in self.names}

    @cached_property
    def formulas(self) -> list[Fault]:
        """Those that may have been used; none where it was not computed in the arithmetic of the dtype."""
        own = self.arithmetic.unit_roundoff == ARITHMETICS[self.dtype].unit_roundoff
        return [fault for fault in FORMULAS if own and fault.where(self.spec, self.n)]

    @cached_property
    def cancelling(self) -> list[tuple[Fault, Reader]]:
        """The formulas that lose digits, each with the exponential of a library."""
        readers = [Reader(self.arithmetic, self.numbers, exponential, self.dtype) for exponential in EXPONENTIALS]
        return list(product([fault for fault in self.formulas if fault in CANCELLING], readers))

    @cached_property
    def overflowing(self) -> list[Fault]:
        """The formulas with which the gradients are infinite, and NaN, just where they are; none where every array is
        one of these throughout, or finite, as it may be for any reason.
        """
        lost = {name: _not_finite(array) for name, array in self.answer.items()}
        telling = any(len(np.unique(array)) > 1 for array in lost.values())

        def alike(grads: Mapping[str, Array]) -> bool:
            return all(np.array_equal(_not_finite(grads[name]), lost[name], equal_nan=True) for name in self.names)

        return [fault for fault in self.formulas if telling and alike(self.run(fault)[1])]

    def run(self, fault: Fault, parameter: float = 0.0) -> tuple[float, dict[str, Array]]:
        """The loss and the gradients in floating point, with a fault in them."""
        backend = PlantedBackend(((fault, WHOLE, parameter),), able(EquationsBackend))
        run = backend.gradient_function(self.spec, dtype=self.dtype, device="cpu")
        loss, grads = run(*self.judge.batch.copies(self.spec))
        return loss, dict(grads)

    def _fits(self, name: str) -> bool:
        return self.fits_shape(name) and self.close(name, self.answer[name])

    def fits_shape(self, name: str) -> bool:
        """Whether an array has the shape that it should have."""
        return self.answer[name].shape == self.truth(name).shape

    def truth(self, name: str) -> Array:
        """The certified gradient of a parameter."""
        return self.judge.truth.grads[name].mid

    def miss(self, name: str) -> tuple[tuple[int, ...], float]:
        """Where an array misses the truth by most, as a multiple of the tolerance, and by how much there."""
        distance = np.abs(self.answer[name] - self.truth(name))
        with np.errstate(all="ignore"):
            ratio = np.nan_to_num(distance / self.bounds.worst_case[name], nan=0.0, posinf=np.inf)
        at = np.unravel_index(int(np.argmax(np.where(distance > 0, ratio, -1))), ratio.shape)
        return tuple(int(i) for i in at), float(distance[at])

    def ratio(self, name: str, answer: Array, truth: Array) -> float | None:
        """The number that the array is the right one times, if there is one."""
        at = np.unravel_index(int(np.argmax(np.abs(truth))), truth.shape)
        if truth.size < 2 or truth[at] == 0:
            return None
        ratio = float(answer[at] / truth[at])
        return ratio if ratio != 0 and self.close_to(name, answer, ratio * truth, abs(ratio)) else None

    def near(self, name: str, answer: Array, truth: Array | None = None, scale: float = 1.0) -> NDArray[np.bool_]:
        """Where an answer is the truth, or what is given in its place, but for rounding."""
        truth = self.truth(name) if truth is None else truth
        bound = 2 * self.tight[name] * max(scale, 1.0) + 4 * self.arithmetic.unit_roundoff * np.abs(truth)
        return np.asarray(np.abs(answer - truth) <= bound)

    def close(self, name: str, answer: Array) -> bool:
        """Whether it is the truth everywhere."""
        return bool(self.near(name, answer).all())

    def close_to(self, name: str, answer: Array, truth: Array, scale: float = 1.0) -> bool:
        """Whether it is what is given in its place, a multiple of the truth."""
        return bool(self.near(name, answer, truth, scale).all())


def _not_finite(array: Array) -> Array:
    """What is infinite or NaN in it; 0 elsewhere."""
    return np.where(np.isfinite(array), 0.0, array)
