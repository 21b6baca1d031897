"""The truth about one network on one batch, and the verdict on every element that someone returns: `Judge`.

PASS, FAIL or UNDETERMINED, which is never counted as a pass (see :mod:`refimpl.judge.verdicts`). An answer is judged
by the arithmetic that its backend declares; by default that is IEEE arithmetic of the asked-for dtype. What somebody's
code raises, or returns in place of arrays, is a FAIL with the reason.

What it does not do: know any framework, compare two answers with each other, or say what is wrong with one
(:mod:`refimpl.faults.diagnosis`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend.gradients import declared_arithmetic, gradient_function
from refimpl.backend.protocols import Backend, InputGradientBackend, IntermediatesBackend
from refimpl.backend.untrusted import FAILURES, contained, described, printable
from refimpl.formats.errors import BackendError
from refimpl.judge.bounds import BOTH, Tolerance
from refimpl.judge.conventions import declared_conventions
from refimpl.judge.report import Row
from refimpl.judge.submission import Submission, Unusable
from refimpl.judge.tolerance import tolerance
from refimpl.judge.verdicts import judged, largest_element, refused, with_repeats
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.batch import Batch
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.certification import Certificate, certify_batch, certify_in_float64

LARGE = 2**26  # products in the forward pass, ten times those of 784-128-64-10 on 64 samples
SHARE = 0.01  # of a tolerance: what a certificate may be off
WITHOUT_LOSS = 'where there is none, declare conventions {"loss": false}'
UNKNOWN = 10  # keys that are not the network's, of which each has a row

Array = NDArray[Any]


@dataclass(frozen=True)
class Judgement:
    """The rows of one backend, and what it returned, if it returned anything."""

    rows: list[Row]
    submission: Submission | Unusable | None
    arithmetic: Arithmetic


class Judge:
    """The truth about one network on one batch, and the tolerance for each arithmetic asked for.

    `truth` and `bounds` are computed where they are not given. `bound`: `BOTH`, `FIRST_ORDER` or `THEOREM` of
    :mod:`refimpl.judge.bounds`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        batch: Batch,
        truth: Certificate | None = None,
        bounds: Callable[[Arithmetic], Tolerance] | None = None,
        bound: str = BOTH,
    ) -> None:
        self.spec, self.batch, self.bound = spec, batch, bound
        self.written = bounds
        self._tolerances: dict[tuple[Arithmetic, bool, bool], Tolerance] = {}
        self.truth = truth or self._in_float64() or certify_batch(spec, batch)

    def _in_float64(self) -> Certificate | None:
        """For float32, the certificate of float64's own bounds, if the network is large and they are small enough."""
        spec, batch = self.spec, self.batch
        if batch.dtype != "float32" or len(batch.x) * sum(w.size for w in batch.params.values()) < LARGE:
            return None
        truth, arithmetic = certify_in_float64(spec, batch), ARITHMETICS[batch.dtype]
        allowed = tolerance(spec, batch, truth, arithmetic, inputs=True, by=self.bound)
        sufficient = all(
            (ball.rad <= SHARE * np.minimum(allowed.worst_case[name], allowed.statistical[name])).all()
            for name, ball in {"loss": truth.loss, **truth.grads}.items()
        )
        if not sufficient:
            return None
        if not self.written:
            self._tolerances = {(arithmetic, inputs, False): allowed for inputs in (False, True)}
        return truth

    def tolerance(self, arithmetic: Arithmetic, *, inputs: bool = False, repeated: bool = False) -> Tolerance:
        """How far an answer in an arithmetic may lie from the truth; of the gradient of x too where `inputs` are asked
        for. `repeated`: whether terms that repeat were looked for in every sum.
        """
        key = arithmetic, inputs, repeated
        if key not in self._tolerances:
            self._tolerances[key] = self._found(*key)
        return self._tolerances[key]

    def _found(self, arithmetic: Arithmetic, inputs: bool, repeated: bool) -> Tolerance:
        if self.written:
            return self.written(arithmetic)
        return tolerance(
            self.spec, self.batch, self.truth, arithmetic,
            inputs=inputs, repeated=repeated, by=self.bound,
        )  # fmt: skip

    def rows(
        self, backend: Backend, *, device: str = "cpu", inputs: bool = False, intermediates: bool = False
    ) -> list[Row]:
        """Run a backend on the batch and judge all it returns. What it raises is a FAIL."""
        return self.judge(backend, device=device, inputs=inputs, intermediates=intermediates).rows

    def judge(
        self, backend: Backend, *, device: str = "cpu", inputs: bool = False, intermediates: bool = False
    ) -> Judgement:
        """`rows`, and the answer that they are about."""
        name, dtype = backend.name, self.batch.dtype
        try:
            arithmetic, conventions = declared_arithmetic(backend, dtype, device), declared_conventions(backend)
        except BackendError as error:
            return Judgement([refused(name, "loss", str(error))], None, ARITHMETICS[dtype])
        wants_x = inputs and isinstance(backend, InputGradientBackend)
        try:
            params, x, y = self.batch.copies(self.spec)
            with contained():
                run = gradient_function(backend, self.spec, dtype, device, wants_x)
                submission = Submission.of(run(*conventions.given(params, x, y)))
            submission = conventions.returned(submission, self.batch.params, dtype)
        except FAILURES as error:
            return Judgement([refused(name, "loss", f"raised {described(error)}")], None, arithmetic)
        rows = self.judge_answer(name, submission, arithmetic, inputs=wants_x)
        if intermediates and isinstance(backend, IntermediatesBackend):
            rows += self._intermediates(backend, name, arithmetic, device)
        return Judgement(rows, submission, arithmetic)

    def _intermediates(
        self, backend: IntermediatesBackend, name: str, arithmetic: Arithmetic, device: str
    ) -> list[Row]:
        truth = {key: balls for key, balls in self.truth.values.items() if not key.startswith("da")}
        try:
            with contained():
                run = backend.intermediates_function(self.spec, dtype=self.batch.dtype, device=device)
                values = Submission.of((None, run(*self.batch.copies(self.spec))))
        except FAILURES as error:
            return [refused(name, "z2", f"raised {described(error)}")]
        if isinstance(values, Unusable):
            return [refused(name, "z2", "are not returned as a dictionary")]
        return self._judge_arrays(name, values, truth, arithmetic)

    def judge_answer(
        self, name: str, answer: Any, arithmetic: Arithmetic | None = None, *, inputs: bool = False
    ) -> list[Row]:
        """The verdicts on an answer `(loss, gradients)`, whoever computed it."""
        arithmetic = arithmetic or ARITHMETICS[self.batch.dtype]
        given = Submission.of(answer)
        if isinstance(given, Unusable):
            return [refused(name, "loss", given.reason)]
        truth = {key: ball for key, ball in self.truth.grads.items() if inputs or key != "x"}
        loss = [self._judge_loss(name, given.loss, arithmetic)] if given.with_loss else []
        return [*loss, *self._judge_arrays(name, given, truth, arithmetic)]

    def judge_element(self, name: str, key: str, value: float, index: tuple[int, ...]) -> Row:
        """The verdict on one element, at `index` (from 0), of a gradient or of z, a or delta, in IEEE arithmetic."""
        whole = self.truth.grads.get(key) or self.truth.values[key]
        truth = Balls(*(np.atleast_1d(part[index]) for part in (whole.mid, whole.rad, whole.tail, whole.tail_rad)))
        row = self._judge_array(
            name, key, np.array([value], dtype=self.batch.dtype), truth, ARITHMETICS[self.batch.dtype],
            self._largest(whole, key), lambda bounds: bounds.at(key, index),
        )  # fmt: skip
        return replace(row, index=tuple(i + 1 for i in index))

    def _judge_loss(self, name: str, loss: Array | Unusable | None, arithmetic: Arithmetic) -> Row:
        if loss is None or isinstance(loss, Unusable):
            return refused(name, "loss", f"is None, not a real number; {WITHOUT_LOSS}" if loss is None else loss.reason)
        if loss.shape != ():
            return refused(name, "loss", f"has shape {loss.shape}; it must be a single number")
        with np.errstate(over="ignore"):  # of a longer dtype
            value = loss.astype(np.float64)
        return self._judge_array(name, "loss", value, self.truth.loss, arithmetic)

    def _judge_arrays(
        self, name: str, submission: Submission, truth: Mapping[str, Balls], arithmetic: Arithmetic
    ) -> list[Row]:
        rows = []
        for key, balls in truth.items():
            array = _fitting(submission.array(key), balls.mid.shape, self.batch.dtype)
            if isinstance(array, str):
                rows.append(refused(name, key, array, size=balls.mid.size))
            else:
                rows.append(self._judge_array(name, key, array, balls, arithmetic, slack=submission.slack))
        unknown = [key for key in submission.gradients if key not in truth]
        rows += [refused(name, printable(key[:60]), "is not a quantity of this network") for key in unknown[:UNKNOWN]]
        if len(unknown) > UNKNOWN:
            more = len(unknown) - UNKNOWN
            rows.append(refused(name, f"{more} more", "are not quantities of this network", size=more))
        return rows

    def _judge_array(
        self,
        name: str,
        key: str,
        values: Array,
        truth: Balls,
        arithmetic: Arithmetic,
        largest: float | None = None,
        part: Callable[[Tolerance], Tolerance] = lambda bounds: bounds,
        slack: Mapping[str, Array] | None = None,
    ) -> Row:
        largest = self._largest(truth, key) if largest is None else largest

        def verdict(repeated: bool) -> Row:
            bounds = part(self.tolerance(arithmetic, inputs=key == "x", repeated=repeated)).plus(slack)
            return judged(name, key, values, truth, bounds, self.batch.dtype, largest)

        # for what is written it was done
        return verdict(repeated=False) if self.written else with_repeats(verdict)

    def _largest(self, truth: Balls, key: str) -> float:
        return largest_element(truth.mid, self.truth.grads if key in self.truth.grads else {})


def _fitting(array: Array | str, shape: tuple[int, ...], dtype: str) -> Array | str:
    """The array, or what is wrong with its shape or dtype."""
    if isinstance(array, str):
        return array
    if array.shape != shape:
        return f"has shape {array.shape}; it must be {shape}"
    if str(array.dtype.newbyteorder("=")) != dtype:
        return f"is {array.dtype}; {dtype} was asked for"
    return array
