"""The truth about one network on one batch, and the verdict on every element that someone returns: `Judge`.

PASS, FAIL or UNDETERMINED, which is never counted as a pass (see :mod:`refimpl.tolerance`). An answer is judged by the
arithmetic that its backend declares; by default that is IEEE arithmetic of the asked-for dtype. An answer may be
anything at all: what a stranger's code raises or returns in place of arrays is a FAIL with the reason.

What it does not do: know any framework, compare two answers with each other, or say what is wrong with one
(:mod:`refimpl.diagnosis`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from refimpl.answers import Answer, Unusable, settled, taken
from refimpl.arithmetic import ARITHMETICS, Arithmetic
from refimpl.backend import ArithmeticBackend, Backend, InputGradientBackend, IntermediatesBackend
from refimpl.batch import Batch
from refimpl.certification import Balls, Certificate, certify_batch
from refimpl.report import FAIL, PASS, UNDETERMINED, Row
from refimpl.spec import NetworkSpec
from refimpl.strangers import kept, printable, told
from refimpl.tolerance import Tolerance, tolerance

UNKNOWN = 10  # keys that are not the network's, of which each is told
DECISIVE = 0.01  # a bound above this share of an array's largest element decides nothing

Array = NDArray[Any]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Judgement:
    """The rows of one backend, and the answer that it returned, if it returned any."""

    rows: list[Row]
    answer: Answer | Unusable | None
    arithmetic: Arithmetic


class Judge:
    """The truth about one network on one batch, certified once, and the tolerance for each arithmetic asked for."""

    def __init__(self, spec: NetworkSpec, batch: Batch) -> None:
        self.spec, self.batch = spec, batch
        self.truth: Certificate = certify_batch(spec, batch)
        self._tolerances: dict[Arithmetic, Tolerance] = {}

    def tolerance(self, arithmetic: Arithmetic) -> Tolerance:
        """The tolerance of a correct implementation in `arithmetic`."""
        if arithmetic not in self._tolerances:
            self._tolerances[arithmetic] = tolerance(self.spec, self.batch, self.truth, arithmetic)
        return self._tolerances[arithmetic]

    def rows(
        self, backend: Backend, *, device: str = "cpu", inputs: bool = False, intermediates: bool = False
    ) -> list[Row]:
        """Run a backend on the batch and judge all it returns. What it raises is a FAIL."""
        return self.judge(backend, device=device, inputs=inputs, intermediates=intermediates).rows

    def judge(
        self, backend: Backend, *, device: str = "cpu", inputs: bool = False, intermediates: bool = False
    ) -> Judgement:
        """`rows`, and the answer that they are about."""
        dtype = self.batch.dtype
        arithmetic: Any = ARITHMETICS[dtype]
        try:
            if isinstance(backend, ArithmeticBackend):
                arithmetic = backend.arithmetic(dtype=dtype, device=device)
            if not isinstance(arithmetic, Arithmetic):
                raise TypeError(f"its arithmetic is a {type(arithmetic).__name__}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's code may raise anything, and its verdict is FAIL
            return Judgement([_raised(backend.name, "loss", error)], None, ARITHMETICS[dtype])
        wants_x = inputs and isinstance(backend, InputGradientBackend)
        prepare = cast(InputGradientBackend, backend).input_gradient_function if wants_x else backend.gradient_function
        try:
            with kept():
                answer = settled(prepare(self.spec, dtype=dtype, device=device)(*self._data()))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's code may raise anything, and its verdict is FAIL
            return Judgement([_raised(backend.name, "loss", error)], None, arithmetic)
        rows = self.judge_answer(backend.name, answer, arithmetic, inputs=wants_x)
        if intermediates and isinstance(backend, IntermediatesBackend):
            rows += self._intermediates(backend, backend.name, arithmetic, device)
        return Judgement(rows, answer, arithmetic)

    def _intermediates(
        self, backend: IntermediatesBackend, name: str, arithmetic: Arithmetic, device: str
    ) -> list[Row]:
        names = [f"{kind}{layer}" for layer in range(2, self.spec.depth + 2) for kind in ("z", "a", "delta")]
        try:
            with kept():
                run = backend.intermediates_function(self.spec, dtype=self.batch.dtype, device=device)
                values = settled((None, run(*self._data())))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's code may raise anything, and its verdict is FAIL
            return [_raised(name, "z2", error)]
        if isinstance(values, Unusable):
            return [_refused(name, "z2", "are not returned as a dictionary")]
        return self._judge_arrays(name, values, {key: self.truth.values[key] for key in names}, arithmetic)

    def _data(self) -> tuple[dict[str, Array], Array, Array]:
        """Copies of params, x and y: a backend that writes into its arguments must not spoil the next one's."""
        params = {name: array.copy() for name, array in self.batch.params.items()}
        return params, self.batch.x.reshape(len(self.batch.x), *self.spec.input_shape).copy(), self.batch.y.copy()

    def judge_answer(
        self, name: str, answer: Any, arithmetic: Arithmetic | None = None, *, inputs: bool = False
    ) -> list[Row]:
        """The verdicts on an answer `(loss, gradients)`, whoever computed it."""
        arithmetic = arithmetic or ARITHMETICS[self.batch.dtype]
        given = taken(answer)
        if isinstance(given, Unusable):
            return [_refused(name, "loss", given.reason)]
        truth = {key: ball for key, ball in self.truth.grads.items() if inputs or key != "x"}
        return [self._judge_loss(name, given.loss, arithmetic), *self._judge_arrays(name, given, truth, arithmetic)]

    def judge_element(self, name: str, key: str, value: float, index: tuple[int, ...]) -> Row:
        """The verdict on one element, at `index` (from 0), of a gradient or of z, a or delta, in IEEE arithmetic."""
        whole = self.truth.grads.get(key) or self.truth.values[key]
        truth = Balls(*(np.atleast_1d(part[index]) for part in (whole.mid, whole.rad, whole.tail, whole.tail_rad)))
        bounds = self.tolerance(ARITHMETICS[self.batch.dtype])
        worst, across, statistical = (
            {key: np.atleast_1d(form[key][index])}
            for form in (bounds.worst_case, bounds.across_kinks, bounds.statistical)
        )
        here = Tolerance(worst, across, statistical, bounds.arithmetic)
        values, largest = np.array([value], dtype=self.batch.dtype), self._largest(whole, key)
        row = _row(name, key, values, truth, here, self.batch.dtype, largest)
        return replace(row, index=tuple(i + 1 for i in index))

    def _judge_loss(self, name: str, loss: Array | Unusable | None, arithmetic: Arithmetic) -> Row:
        if loss is None:
            return _refused(name, "loss", "is a NoneType, not a real number")
        if isinstance(loss, Unusable):
            return _refused(name, "loss", loss.reason)
        if loss.dtype.kind not in "fiu":
            return _refused(name, "loss", f"is of dtype {loss.dtype}, not a real number")
        if loss.shape != ():
            return _refused(name, "loss", f"has shape {loss.shape}; it must be a single number")
        with np.errstate(over="ignore"):  # of a longer dtype
            value = loss.astype(np.float64)
        return self._judge_array(name, "loss", value, self.truth.loss, arithmetic)

    def _judge_arrays(self, name: str, answer: Answer, truth: Mapping[str, Balls], arithmetic: Arithmetic) -> list[Row]:
        rows = []
        for key, balls in truth.items():
            array = _fitting(answer.array(key), balls.mid.shape, self.batch.dtype)
            if isinstance(array, str):
                rows.append(_refused(name, key, array, size=balls.mid.size))
            else:
                rows.append(self._judge_array(name, key, array, balls, arithmetic))
        unknown = [key for key in answer.gradients if key not in truth]
        rows += [_refused(name, printable(key[:60]), "is not a quantity of this network") for key in unknown[:UNKNOWN]]
        if len(unknown) > UNKNOWN:
            more = len(unknown) - UNKNOWN
            rows.append(_refused(name, f"{more} more", "are not quantities of this network", size=more))
        return rows

    def _judge_array(self, name: str, key: str, values: Array, truth: Balls, arithmetic: Arithmetic) -> Row:
        bounds, largest = self.tolerance(arithmetic), self._largest(truth, key)
        return _row(name, key, values, truth, bounds, self.batch.dtype, largest)

    def _largest(self, truth: Balls, key: str) -> float:
        return largest_element(truth.mid, self.truth.grads if key in self.truth.grads else {})


def largest_element(mid: Array, all_of_a_kind: Mapping[str, Balls]) -> float:
    """What a bound on an array is held against: its largest element, or where it is zero throughout, the largest of
    all arrays of its kind.
    """
    own = float(np.max(np.abs(mid), initial=0.0))
    if own > 0:
        return own
    return max((float(np.max(np.abs(balls.mid), initial=0.0)) for balls in all_of_a_kind.values()), default=0.0)


@np.errstate(all="ignore")  # an answer may hold anything
def _row(name: str, key: str, values: Array, truth: Balls, bounds: Tolerance, dtype: str, largest: float) -> Row:
    return _Verdicts(values, truth, bounds, key, dtype, largest).row(name, key)


class _Verdicts:
    """The verdict on every element of one array."""

    def __init__(self, values: Array, truth: Balls, bounds: Tolerance, key: str, dtype: str, largest: float) -> None:
        self.values, self.truth, self.dtype = values, truth, dtype
        self.worst, across = bounds.worst_case[key], bounds.across_kinks[key]
        self.distance = truth.distance(values)
        slack = 2 * truth.tail_rad
        largest = max(largest, bounds.arithmetic.smallest_normal)
        decisive = np.isfinite(self.worst) & (self.worst + slack <= DECISIVE * largest)
        within = self.distance <= self.worst + slack
        self.failed = ~(within | (self.distance <= across + slack) | np.isinf(across))
        self.passed = within & decisive
        self.kinked = ~within & ~self.failed & np.isfinite(self.worst)
        # the statistical form takes every kink from the truth's side: it says nothing where a kink may matter
        self.statistical = _statistical(
            self.distance,
            np.where(across == self.worst, bounds.statistical[key] + slack, np.inf),
            DECISIVE * largest,
            ~self.passed & ~self.failed,
        )

    def row(self, name: str, key: str) -> Row:
        ratio = self._ratio()
        undetermined = ~(self.passed | self.failed)
        # the element to show: the worst among the worst verdict's
        group = self.failed if self.failed.any() else undetermined if undetermined.any() else self.passed
        at = np.unravel_index(int(np.argmax(np.where(group, ratio, -np.inf))), ratio.shape)
        ulps = self._ulps()
        return Row(
            backend=name,
            quantity=key,
            verdict=FAIL if self.failed.any() else UNDETERMINED if undetermined.any() else PASS,
            size=int(ratio.size),
            failed=int(self.failed.sum()),
            undetermined=int(undetermined.sum()),
            ratio=float(ratio[at]),
            ulps=float(ulps[at]),
            index=tuple(int(i) + 1 for i in at),
            value=float(self.values[at]),
            truth=float(self.truth.mid[at]),
            bound=float(self.worst[at]),
            reason=self._reason(undetermined, at),
            statistical=self.statistical,
        )

    def _ratio(self) -> Array:
        ratio = np.maximum(self.distance - 2 * self.truth.tail_rad, 0.0) / self.worst
        return np.asarray(np.where(np.isnan(ratio), np.where(np.isfinite(self.values), 0.0, np.inf), ratio))

    def _ulps(self) -> Array:
        ulp = np.spacing(np.abs(self.truth.mid).astype(self.dtype))
        off = np.where(self.values == self.truth.mid, np.abs(self.truth.tail), self.distance)
        return np.asarray(off / ulp)

    def _reason(self, undetermined: Bools, at: tuple[Any, ...]) -> str:
        if self.failed.any():
            value = float(self.values[at])
            return "" if np.isfinite(value) else f"{value} where the truth is finite"
        if not undetermined.any():
            return ""
        if np.isinf(self.worst[undetermined]).any():
            return "an intermediate value may overflow, or its derivative is unbounded, within the rounding errors"
        if self.kinked.any():
            return "a kink lies within the rounding errors"
        return f"the worst-case bound exceeds {DECISIVE:.0%} of the largest element"


def _statistical(distance: Array, bound: Array, decisive: float, undetermined: Bools) -> str:
    """The second verdict, on the elements that the worst case leaves open; "" where there are none."""
    if not undetermined.any():
        return ""
    if (distance[undetermined] > bound[undetermined]).any():
        return FAIL
    return PASS if (bound[undetermined] <= decisive).all() and np.isfinite(decisive) else UNDETERMINED


def _raised(name: str, key: str, error: BaseException) -> Row:
    return _refused(name, key, f"raised {told(error)}")


def _refused(name: str, key: str, reason: str, size: int = 1) -> Row:
    nan = float("nan")
    return Row(
        backend=name, quantity=key, verdict=FAIL, size=size, failed=size, undetermined=0,
        ratio=float("inf"), ulps=float("inf"),
        index=(), value=nan, truth=nan, bound=nan, reason=reason,
    )  # fmt: skip


def _fitting(array: Array | str, shape: tuple[int, ...], dtype: str) -> Array | str:
    """The array, or what is wrong with its shape or dtype."""
    if isinstance(array, str):
        return array
    if array.shape != shape:
        return f"has shape {array.shape}; it must be {shape}"
    if str(array.dtype.newbyteorder("=")) != dtype:
        return f"is {array.dtype}; {dtype} was asked for"
    return array
