"""Which fault explains a wrong gradient: `diagnose`.

Every fault of the catalogue (:mod:`refimpl.faults.catalogue`) is planted at every layer where it can act, and the
equations are run on a graph that is read over error bounds (:mod:`refimpl.faults.prediction`). A fault *explains* a
wrong gradient only where

- every element of every W and b lies within that fault's own tolerance, and
- that tolerance is at most 1 % of how far the answer missed the truth, and so small that none of all the faults that
  are tried would be likely to come that near by accident; or the fault left a trace of its own (all numbers
  representable in float32; all difference quotients multiples of the loss's last place). A bound so wide that it
  would cover anything explains nothing.

If no single fault does, one fault at every layer where it can act is tried, as a loop makes it, then those together
that explain other answers of the same code, each at every layer, then difference quotients, pairs of faults, and pairs
of faults at every layer.
Formulas that lose digits (:mod:`refimpl.faults.formulas`) are tried beside single faults. Their roundings are predicted
as the dtype has them: one explains an answer that comes nearer to them than to the truth, by no accident, and an answer
that is infinite or NaN just where it is, where that is not throughout.
Faults that give the same gradient on this network and batch are reported together, in one `Finding`. Where nothing
explains it, the finding names no fault, but the first wrong quantity in backward order and what about it is wrong. It
never guesses.

What it does not do: decide that a gradient is wrong; that is :mod:`refimpl.judge.judge`'s verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, combinations, islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import EquationsBackend, able
from refimpl.faults.catalogue import FAULTS, WHOLE, Fault, Mistaken, PlantedBackend, are_short, moved, places
from refimpl.faults.formulas import CANCELLING, FORMULAS
from refimpl.faults.prediction import EXPONENTIALS, Bounded, ForwardPass, Reader, Recursion
from refimpl.formats.errors import DataError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, Row, apart
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.batch import validate
from refimpl.network.spec import NetworkSpec
from refimpl.truth.graph import Node, constant, given

CONFIRMATIONS = 3  # elements that must agree on a fitted number, the one it was fitted to included
CHANCE = 2.0**-40  # below which a trace is taken to be no accident
STEPS = (*(10.0**-k for k in range(1, 13)), 2.0**-26, 2.0 ** -(52 ** (1 / 3)))
FORWARD = ("weighted_input", "activation")  # the equations of the forward pass up to the losses
CLEAR = 0.01  # the share of a difference that its tolerance may have
NEARLY = 0.1  # how far a difference quotient may be off, of the largest element
MAX_SUSPECTS = 3
ROUNDING = 64  # unit roundoffs
MAX_QUOTIENTS = 400  # parameters up to which difference quotients are recomputed
GRAIN = 0.25  # of a tolerance, below which nearness says nothing: roundings are few, and meet

Array = NDArray[Any]


@dataclass(frozen=True)
class Cause:
    """A fault at a layer (0: the whole network), with the number in it that was fitted, if it has one."""

    fault: Fault
    layer: int
    parameter: float | None = None

    @property
    def text(self) -> str:
        """The name and the place: slope_dropped at layer 2."""
        number = f" ({self.fault.parameter} {self.parameter:.4g})" if self.parameter is not None else ""
        return f"{self.fault.name}{f' at layer {self.layer}' if self.layer else ''}{number}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "fault": self.fault.name,
            "layer": self.layer or None,
            "parameter": self.parameter,
            "explanation": self.fault.explanation,
            "remedy": self.fault.remedy,
        }


Causes = tuple[Cause, ...]


@dataclass(frozen=True)
class Finding:
    """What is wrong: `explanations` that cannot be told apart on this network and batch, each of one or two causes, or
    of faults at every layer; none where the cause is unknown. `quantity` is the first wrong one in backward order,
    `symptom` what about it is wrong. `pairs`: whether pairs of faults were tried too; `compared`: whether there was
    an array to compare.
    """

    quantity: str
    symptom: str
    explanations: tuple[Causes, ...] = ()
    pairs: bool = True
    compared: bool = True

    def __str__(self) -> str:
        return self.text

    @property
    def known(self) -> bool:
        """Whether a fault explains it."""
        return bool(self.explanations)

    @property
    def text(self) -> str:
        """The finding in one paragraph."""
        if not self.known:
            if not self.compared:
                return f"{self.quantity} {self.symptom}"
            unknown = "cause unknown" + ("" if self.pairs else " (two mistakes at once were not tried)")
            return f"{unknown}; the first that is wrong, going backwards: {self.quantity} {self.symptom}"
        named = [_named(explanation) for explanation in self.explanations[:6]]
        more = f" or {len(self.explanations) - 6} more" if len(self.explanations) > 6 else ""
        causes = self.explanations[0]
        meaning = " ".join(dict.fromkeys(cause.fault.explanation for cause in causes))
        remedy = " ".join(dict.fromkeys(cause.fault.remedy for cause in causes))
        together = " (which cannot be told apart here)" if len(named) > 1 else ""
        return f"{' or '.join(named)}{more}{together}: {meaning} Remedy: {remedy}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "quantity": self.quantity,
            "symptom": self.symptom,
            "explanations": [[cause.to_dict() for cause in explanation] for explanation in self.explanations],
            "text": self.text,
        }


def _named(causes: Causes) -> str:
    """The causes in words; one fault at several layers is named once."""
    layers: dict[str, list[Cause]] = {}
    for cause in causes:
        layers.setdefault(cause.fault.name, []).append(cause)
    parts = []
    for name, same in layers.items():
        numbers = [str(cause.layer) for cause in same]
        several = f"{name} at layers {', '.join(numbers[:-1])} and {numbers[-1]}"
        parts.append(several if len(same) > 1 else same[0].text)
    return " and ".join(parts)


def diagnose(
    spec: NetworkSpec,
    params: Mapping[str, Array],
    x: Array,
    y: Array,
    grads: Mapping[str, Array],
    loss: float | None = None,
) -> list[Finding]:
    """Which fault, or pair of faults, explains wrong gradients; [] where nothing is wrong.

    Parameters: the network, its parameters and batch as for `check`; `grads` with the parameters' names and shapes;
    `loss` where it is to be judged too. Returns findings, best first. Raises SpecError, DataError,
    CertificationError.
    """
    if not isinstance(grads, Mapping):
        raise DataError(f"grads must be a dict of arrays by name, got {type(grads).__name__}")
    judge, given = Judge(spec, validate(spec, params, x, y)), Submission.of((loss, grads))
    return diagnose_answer(judge, given, judge.judge_answer("answer", given))


def diagnose_answer(
    judge: Judge,
    given: Submission | Unusable,
    rows: Sequence[Row],
    arithmetic: Arithmetic | None = None,
    pairs: bool = True,
    suspects: Sequence[str] = (),
) -> list[Finding]:
    """`diagnose` for what somebody's code returned to what `judge` knows the truth about, and the verdicts on it.

    `pairs`: whether to try pairs of faults and difference quotients, which takes most of the time. `suspects`: faults
    that other answers of the same code have, which are tried together, each at all its layers.
    """
    if isinstance(given, Unusable):
        return []
    with np.errstate(all="ignore"):
        return _findings(_Case(judge, given, rows, arithmetic or ARITHMETICS[judge.batch.dtype]), pairs, suspects)


def _findings(case: _Case, pairs: bool, suspects: Sequence[str]) -> list[Finding]:
    findings = []
    if case.wrong:
        quantity, symptom = case.symptom()
        explanations = _Search(case).explanations(pairs, suspects) if case.comparable else []
        findings.append(Finding(quantity, symptom, tuple(explanations), pairs, quantity not in case.refused))
    if case.loss_wrong and not (case.wrong and case.loss_explained):
        compared = not isinstance(case.loss, Unusable)
        explanations = list(_loss_explanations(case, all(finding.known for finding in findings)))
        findings.append(Finding("loss", case.loss_symptom(), tuple(explanations), compared=compared))
    return findings


class _Case:
    """A wrong answer beside the truth: which quantities are wrong, in backward order."""

    def __init__(self, judge: Judge, given: Submission, rows: Sequence[Row], arithmetic: Arithmetic) -> None:
        self.judge, self.spec, self.arithmetic = judge, judge.spec, arithmetic
        batch = judge.batch
        self.params, self.x, self.dtype = batch.params, batch.x, batch.dtype
        self.y = batch.targets(self.spec.n_out)
        self.numbers = {**batch.params, "x": batch.x}
        self.n = len(self.x)
        self.bounds = judge.tolerance(arithmetic)
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
    def finite(self) -> bool:
        """Whether all numbers of the gradients are."""
        return all(np.isfinite(g).all() for g in self.answer.values())

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

    def run(self, fault: Fault) -> tuple[float, dict[str, Array]]:
        """The loss and the gradients in floating point, with a fault in them."""
        backend = PlantedBackend(((fault, WHOLE, 0.0),), able(EquationsBackend))
        run = backend.gradient_function(self.spec, dtype=self.dtype, device="cpu")
        loss, grads = run(*self.judge.batch.copies(self.spec))
        return loss, dict(grads)

    def _fits(self, name: str) -> bool:
        return self.answer[name].shape == self.truth(name).shape and self._close(name, self.answer[name])

    def truth(self, name: str) -> Array:
        return self.judge.truth.grads[name].mid

    def miss(self, name: str) -> tuple[tuple[int, ...], float]:
        """Where an array misses the truth by most, as a multiple of the tolerance, and by how much there."""
        distance = np.abs(self.answer[name] - self.truth(name))
        with np.errstate(all="ignore"):
            ratio = np.nan_to_num(distance / self.bounds.worst_case[name], nan=0.0, posinf=np.inf)
        at = np.unravel_index(int(np.argmax(np.where(distance > 0, ratio, -1))), ratio.shape)
        return tuple(int(i) for i in at), float(distance[at])

    # What is wrong with the first wrong quantity, in words

    def symptom(self) -> tuple[str, str]:
        """The first wrong quantity in backward order, and what about it is wrong."""
        name = self.wrong[0]
        if name in self.refused:
            return name, self.refused[name]
        answer, truth = self.answer[name], self.truth(name)
        return name, self._symptom(name, answer, truth)

    def _symptom(self, name: str, answer: Array, truth: Array) -> str:
        bad = int((~np.isfinite(answer)).sum())
        if bad:
            kind = "NaN" if np.isnan(answer).any() else "infinite"
            return f"is {kind} in {bad} of {answer.size} elements"
        if answer.shape != truth.shape:
            turned = answer.T.shape == truth.shape and self._close(name, answer.T)
            return f"has shape {answer.shape} in place of {truth.shape}" + (", and is transposed" if turned else "")
        if not answer.any():
            return "is zero everywhere"
        if np.abs(answer).max() <= ROUNDING * self.arithmetic.unit_roundoff * np.abs(truth).max():
            return "is zero everywhere, but for rounding"
        close = self._near(name, answer)
        parts = [self._pattern(name, answer, truth, close)]
        others = [other for other in self.names if other not in self.wrong]
        if others:
            parts.append(
                f"{', '.join(others[:6])}{' …' if len(others) > 6 else ''} {'are' if len(others) > 1 else 'is'} right"
            )
        return "; ".join(parts)

    def _pattern(self, name: str, answer: Array, truth: Array, close: NDArray[np.bool_]) -> str:
        if close.all():
            rounded = int((answer != truth).sum())
            return f"is rounded in {rounded} of {close.size} elements, where the right ones need no rounding"
        ratio = self._ratio(name, answer, truth)
        if ratio is not None:
            return f"is the right one times {_named_ratio(ratio, self.n, self.spec.n_out)}"
        if (~close).sum() == 1 < close.size:
            return f"is wrong in 1 of {close.size} elements, {name}[{_first(~close)}]"
        if answer.ndim == 2:
            if answer.shape[0] == answer.shape[1] and self._close(name, answer.T):
                return "is transposed"
            for axis, word in ((1, "row"), (0, "column")):
                zero = np.asarray(~answer.any(axis=axis) & truth.any(axis=axis))
                if zero.any() and close[(slice(None), ~zero) if axis == 0 else ~zero].all():
                    return f"is zero in {_places(word, zero)}, the rest right"
                wrong = np.asarray(~close.all(axis=axis))
                if 0 < wrong.sum() < wrong.size:
                    return f"is wrong in {_places(word, wrong)} only"
            if self.n > 1 and _rank_one(answer) and not _rank_one(truth):
                return "has rank one, as from a single sample"
        if self._close_to(name, np.abs(answer), np.abs(truth)):
            return f"has the wrong sign in {int((answer * truth < 0).sum())} of {answer.size} elements"
        if 0 < (~close).sum() < close.size:
            return f"is wrong in {int((~close).sum())} of {close.size} elements, first {name}[{_first(~close)}]"
        distance = np.abs(answer - truth).max() / max(np.abs(truth).max(), self.arithmetic.smallest_normal)
        small = self.dtype == "float64" and 2.0**-27 <= distance <= 2.0**-20
        size = ", of the size of float32's rounding errors" if small else ""
        return f"is right in no element; the largest error is {distance:.1e} times the largest element{size}"

    def _ratio(self, name: str, answer: Array, truth: Array) -> float | None:
        """The number that the array is the right one times, if there is one."""
        at = np.unravel_index(int(np.argmax(np.abs(truth))), truth.shape)
        if truth.size < 2 or truth[at] == 0:
            return None
        ratio = float(answer[at] / truth[at])
        return ratio if ratio != 0 and self._close_to(name, answer, ratio * truth, abs(ratio)) else None

    def _near(self, name: str, answer: Array, truth: Array | None = None, scale: float = 1.0) -> NDArray[np.bool_]:
        truth = self.truth(name) if truth is None else truth
        bound = 2 * self.bounds.worst_case[name] * max(scale, 1.0) + 4 * self.arithmetic.unit_roundoff * np.abs(truth)
        return np.asarray(np.abs(answer - truth) <= bound)

    def _close(self, name: str, answer: Array) -> bool:
        return bool(self._near(name, answer).all())

    def _close_to(self, name: str, answer: Array, truth: Array, scale: float = 1.0) -> bool:
        return bool(self._near(name, answer, truth, scale).all())

    def loss_symptom(self) -> str:
        """What is wrong with the loss."""
        if isinstance(self.loss, Unusable):
            return self.loss.reason
        try:
            value = float(self.loss)
        except (TypeError, ValueError):
            return "is not a number"
        truth = float(self.judge.truth.loss.mid)
        if not math.isfinite(value) or truth == 0:
            return f"is {value:g}; it should be {truth:g}"
        if math.isclose(value, truth, rel_tol=1e-5):
            return "is {}; it should be {}".format(*apart(value, truth))
        return f"is {value:.9g}, {_named_ratio(value / truth, self.n, self.spec.n_out)} times {truth:.9g}"


def _not_finite(array: Array) -> Array:
    """What is infinite or NaN in it; 0 elsewhere."""
    return np.where(np.isfinite(array), 0.0, array)


def _rank_one(array: Array) -> bool:
    """Whether every element is what the row and the column of the largest one make it, to rounding."""
    if min(array.shape) < 2 or not array.any():
        return False
    i, j = np.unravel_index(int(np.argmax(np.abs(array))), array.shape)
    outer = np.outer(array[:, j] / array[i, j], array[i])
    return bool((np.abs(outer - array) <= 1e-10 * np.abs(array)).all())


def _named_ratio(ratio: float, n: int, outputs: int) -> str:
    for value, name in ((n, "N"), (1 / n, "1/N"), (outputs, "n_out"), (1 / outputs, "1/n_out")):
        if value not in (1, 2, 0.5) and math.isclose(ratio, value, rel_tol=1e-6):
            return f"{ratio:.6g} = {name}"
    return f"(1 {ratio - 1:+.1e})" if f"{ratio:.6g}" == "1" else f"{ratio:.6g}"


def _places(word: str, flags: NDArray[np.bool_]) -> str:
    indices = [str(int(i) + 1) for i in np.flatnonzero(flags)]
    return f"{word}{'s' if len(indices) > 1 else ''} {', '.join(indices[:5])}{' …' if len(indices) > 5 else ''}"


def _first(flags: NDArray[np.bool_]) -> str:
    return ",".join(str(int(i) + 1) for i in np.argwhere(flags)[0])


# --------------------------------------------------------------------------------------------------------------
# The search


class _Planted:
    """A network with causes in it, as a graph in which `number` is what they have for a parameter. `forward` is the
    right network's forward pass.
    """

    def __init__(self, causes: Causes, case: _Case, recursion: Recursion, forward: ForwardPass) -> None:
        mistaken = Mistaken.right(case.spec, case.y)
        self.number = given("parameter", ())
        for cause in causes:
            cause.fault.plant(mistaken, cause.layer, self.number)
        self.changes, self.names = mistaken.changes, mistaken.names
        self.reshapes = mistaken.spec is not case.spec
        if self.reshapes or any(equation in FORWARD for _, equation in self.changes):
            forward = recursion.forward(mistaken.spec, mistaken.equations)
        self.forward = forward
        self.loss = recursion.cost(mistaken.spec, forward, mistaken.equations)
        self._made: dict[str, Node] = {}
        self._rest = recursion.backward(mistaken.spec, forward, mistaken.equations)

    @property
    def renames(self) -> bool:
        """Whether gradients are returned under other names."""
        return any(name != source for name, source in self.names.items())

    def gradients(self) -> Iterator[tuple[str, Node]]:
        """By the names of their parameters, in backward order; each is made when it is first asked for."""
        yield from list(self._made.items())
        for name, grad in self._rest:
            self._made[name] = grad
            yield name, grad

    def gradient(self, name: str) -> Node:
        """The one that is returned under this name."""
        return next(grad for source, grad in self.gradients() if source == self.names[name])


@dataclass
class _Hypothesis:
    """Causes and the gradients that they predict together; `touched` are those that they change."""

    causes: Causes
    planted: _Planted
    grads: dict[str, Bounded]
    touched: set[str]


class _Search:
    """All singles, then each at every layer, difference quotients, and pairs, until something explains the answer."""

    def __init__(self, case: _Case) -> None:
        self.case = case
        right = Mistaken.right(case.spec, case.y)
        self.recursion = Recursion(case.y)
        self.forward = self.recursion.forward(case.spec, right.equations)
        self.cost = self.recursion.cost(case.spec, self.forward, right.equations)
        self.reader = Reader(case.arithmetic, case.numbers)
        self.known: dict[Node, Any] = {}
        grads = dict(self.recursion.backward(case.spec, self.forward, right.equations))
        self.right = {name: self.reader(node, self.known) for name, node in grads.items()}
        self.reader(self.cost, self.known)
        self.singles: list[_Hypothesis] = []
        self.loops = self._loops()

    def explanations(self, pairs: bool, suspects: Sequence[str]) -> list[Causes]:
        """Those that explain the answer, as few faults as possible."""
        if not self.case.finite:
            return self._overflows()
        self.singles = list(self._hypotheses())
        tried = sum(1 for single in self.singles if single.touched)
        return (
            self._matching(self.singles, tried) + self._formulas()
            or self._matching(self._everywhere(), tried)
            or self._matching(self._suspected(suspects), tried)
            or (self._quotients() if pairs else [])
            or (self._matching(self._pairs(self.singles), tried * tried) if pairs else [])
            or (self._matching(self._pairs(self._lines()), tried * tried) if pairs else [])
        )

    def _matching(self, hypotheses: Iterable[_Hypothesis], tried: int) -> list[Causes]:
        """Those that explain the answer, and not by accident, out of so many that are tried."""
        found: list[Causes] = []
        for hypothesis in hypotheses:
            if self._explains(hypothesis) and self._no_accident(hypothesis, tried):
                found.append(hypothesis.causes)
                self._note_loss(hypothesis.planted.loss)
        return found

    def _hypotheses(self) -> Iterator[_Hypothesis]:
        case = self.case
        for fault, layer in places(case.spec, case.n, case.dtype):
            if fault.on_loss or fault.quotient:
                continue
            single = self._run((Cause(fault, layer),))
            if single is not None:
                yield single

    def _loops(self) -> dict[str, Causes]:
        """The faults by name, each as one line of code makes it: for the whole network, or at all its layers."""
        where: dict[str, Causes] = {}
        for fault, layer in places(self.case.spec, self.case.n, self.case.dtype):
            before = where.get(fault.name, ())
            special = fault.on_loss or fault.parameter or fault.evidence or fault.quotient
            if not special and not (before and before[0].layer == WHOLE):
                where[fault.name] = (*before, Cause(fault, layer))
        return where

    def _everywhere(self) -> Iterator[_Hypothesis]:
        """A fault at all of the three or more layers where it can act; two are a pair."""
        yield from self._predicted(causes for causes in self.loops.values() if len(causes) > 2)

    def _suspected(self, suspects: Sequence[str]) -> Iterator[_Hypothesis]:
        """Two or three of the suspects together, each at all its layers, and one alone at two."""
        known = [self.loops[name] for name in suspects if name in self.loops]
        for count in range(1, MAX_SUSPECTS + 1):
            together = (tuple(chain(*chosen)) for chosen in combinations(known, count))
            yield from self._predicted(causes for causes in together if len(causes) > 1)

    def _predicted(self, explanations: Iterable[Causes]) -> Iterator[_Hypothesis]:
        for causes in explanations:
            hypothesis = self._predict(causes, None, wholly=False)
            if hypothesis is not None:
                yield hypothesis

    def _run(self, causes: Causes, wholly: bool = True) -> _Hypothesis | None:
        """The causes planted one after the other, the unknown number in one of them fitted to the answer."""
        unknown = [cause for cause in causes if cause.fault.parameter]
        if not unknown:
            return self._predict(causes, None, wholly)
        try:
            planted = _Planted(causes, self.case, self.recursion, self.forward)
            fitted = self._fit(planted, unknown[0].fault.example) if len(unknown) == 1 else None
        except ValueError:  # shapes that do not fit
            return None
        return None if fitted is None else self._predict(causes, fitted, wholly, planted)

    def _predict(
        self,
        causes: Causes,
        parameter: Bounded | None,
        wholly: bool = True,
        planted: _Planted | None = None,
        reader: Reader | None = None,
    ) -> _Hypothesis | None:
        """What the causes together make of the network; unless `wholly`, None as soon as it is not the answer."""
        computed: dict[str, Bounded] = {}
        reader = reader or self.reader
        try:
            planted = planted or _Planted(causes, self.case, self.recursion, self.forward)
            values = self._values(planted, parameter)
            for source, grad in planted.gradients():
                computed[source] = reader(grad, values)
                returned = (name for name, other in planted.names.items() if other == source)
                if not (wholly or all(self._agrees(name, computed[source]) for name in returned)):
                    return None
        except ValueError:  # shapes that do not fit: this code would not have run
            return None
        grads = {name: computed[source] for name, source in planted.names.items()}
        if parameter is not None:
            value = float(parameter.mid)
            causes = tuple(replace(cause, parameter=value) if cause.fault.parameter else cause for cause in causes)
        return _Hypothesis(causes, planted, grads, self._touched(grads))

    def _values(self, planted: _Planted, parameter: Bounded | None) -> dict[Node, Any]:
        """What is known: the right network's values, and the number in a fault."""
        return self.known | ({planted.number: parameter} if parameter else {})

    def _touched(self, grads: Mapping[str, Bounded]) -> set[str]:
        touched = set()
        for name, grad in grads.items():
            truth = self.case.truth(name)
            if grad.shape != truth.shape or not (np.abs(grad.mid - truth) <= grad.err).all():
                touched.add(name)
        return touched

    def _fit(self, planted: _Planted, example: float) -> Bounded | None:
        """The number in a cause, from the first wrong gradient that it changes: there it enters linearly."""
        without, usual = (self._values(planted, self.reader(constant(number))) for number in (0.0, example))
        for name in self.case.wrong:
            grad, answer = planted.gradient(name), self.case.answer[name]
            if grad.shape != answer.shape:
                continue
            base, changed = self.reader(grad, without), self.reader(grad, usual)
            direction = (changed.mid - base.mid) / example
            with np.errstate(all="ignore"):
                weight = np.abs(direction) / np.maximum(base.err, np.finfo(np.float64).smallest_normal)
            if not (np.abs(direction) * example > base.err + changed.err).any():
                continue
            at = np.unravel_index(int(np.argmax(weight)), weight.shape)
            value = (answer[at] - base.mid[at]) / direction[at]
            slack = (2 * base.err[at] + 4 * changed.err[at]) / abs(direction[at])
            slack += 8 * self.case.arithmetic.unit_roundoff * abs(value)
            number = self.reader(constant(value))
            return Bounded(number.mid, number.err + slack)
        return None

    def _explains(self, hypothesis: _Hypothesis) -> bool:
        case, causes, grads = self.case, hypothesis.causes, hypothesis.grads
        if not all(self._agrees(name, grads[name]) for name in case.names):
            return False
        evidence = [cause.fault.evidence for cause in causes if cause.fault.evidence]
        if evidence:
            wrong = np.concatenate([case.answer[name].ravel() for name in case.wrong])
            right = np.concatenate([case.truth(name).ravel() for name in case.wrong])
            return all(trace(wrong) and not trace(right) for trace in evidence)
        return all(self._decisive(name, grads[name]) for name in case.wrong) and self._confirmed(causes, grads)

    def _agrees(self, name: str, grad: Bounded) -> bool:
        """Whether the answer lies within a prediction's tolerance."""
        answer = self.case.answer[name]
        if answer.shape != grad.shape:
            return False
        lost = np.isinf(grad.err) & (not self.case.finite)
        return bool(((np.abs(answer - grad.mid) <= grad.err) | lost).all())

    def _decisive(self, name: str, grad: Bounded) -> bool:
        """Whether the fault's tolerance is small beside the miss that it explains."""
        answer, truth = self.case.answer[name], self.case.truth(name)
        if answer.shape != truth.shape:
            largest = np.abs(grad.mid).max(initial=0.0)
            return bool(largest == 0 or grad.err.max(initial=0.0) <= CLEAR * largest)
        at, distance = self.case.miss(name)
        return bool(grad.err[at] <= CLEAR * distance)

    def _no_accident(self, hypothesis: _Hypothesis, tried: int) -> bool:
        """Whether none of so many would be likely to come this near by accident, for each of the causes where it says
        most. A fitted number is `_confirmed`'s, a trace has its own chance.
        """
        touched = {(single.causes[0].fault.name, single.causes[0].layer): single.touched for single in self.singles}
        for cause in hypothesis.causes:
            if cause.fault.parameter or cause.fault.evidence:
                continue
            # alone, a fault may change nothing where another makes it change something
            names = (touched.get((cause.fault.name, cause.layer)) or hypothesis.touched) & set(self.case.wrong)
            chance = min((self._chance(name, hypothesis.grads[name]) for name in names), default=1.0)
            if tried * chance > CLEAR:
                return False
        return True

    def _chance(self, name: str, grad: Bounded) -> float:
        """How likely it is that a wrong number lies within a prediction's tolerance of it, at the element where that
        is least likely: the tolerance as a share of how far the answer missed the truth.
        """
        answer, truth = self.case.answer[name], self.case.truth(name)
        if answer.shape != truth.shape:  # that is no accident
            return 0.0
        distance = np.abs(answer - truth)
        return float((grad.err[distance > 0] / distance[distance > 0]).min(initial=1.0))

    def _confirmed(self, causes: Causes, grads: Mapping[str, Bounded]) -> bool:
        """Whether enough elements bear a fitted number out."""
        if not any(cause.fault.parameter for cause in causes):
            return True
        without = self._predict(causes, self.reader(constant(0.0)))
        if without is None:
            return False
        names = [name for name in self.case.names if name in self.case.wrong]
        change = np.concatenate([(grads[name].mid - without.grads[name].mid).ravel() for name in names])
        err = np.concatenate([grads[name].err.ravel() for name in names])
        truth = np.concatenate([without.grads[name].mid.ravel() for name in names])
        clear = (change != 0) & (np.abs(change) * CLEAR >= err)
        if clear.sum() < CONFIRMATIONS:
            return False
        # a mere multiple of the right gradient has any number of causes
        at = int(np.argmax(np.abs(truth)))
        return bool(truth[at] == 0 or (np.abs(change - change[at] / truth[at] * truth) > 4 * err).any())

    def _note_loss(self, loss: Node, reader: Reader | None = None) -> None:
        case = self.case
        if case.loss_wrong:
            predicted = (reader or self.reader)(loss, dict(self.known))
            with suppress(TypeError, ValueError):  # a loss may be anything at all
                given = float(case.loss)
                near = abs(given - predicted.mid) <= predicted.err
                case.loss_explained |= bool(near or not (math.isfinite(given) or np.isfinite(predicted.err)))

    # Formulas that lose digits or overflow

    def _formulas(self) -> list[Causes]:
        """Those that lose the digits that the answer lacks; of several forms of one, the first. None where an array is
        zero throughout, as it may be for any reason.
        """
        if not all(self.case.answer[name].any() for name in self.case.wrong):
            return []
        tried = [(fault, reader) for fault, reader in self.case.cancelling if not fault.on_loss]
        found: dict[str, Causes] = {}
        for fault, reader in tried:
            causes = (Cause(fault, WHOLE),)
            if fault.name in found or not self._loses(planted := self._planted(causes), reader):
                continue
            hypothesis = self._predict(causes, None, wholly=False, planted=planted, reader=reader)
            if hypothesis and len(tried) * self._coincidence(hypothesis) <= CLEAR:
                found[fault.name] = causes
                self._note_loss(planted.loss, reader)
        return list(found.values())

    def _overflows(self) -> list[Causes]:
        """The formulas that are not finite just where the answer is not, the rest being as predicted."""
        found: dict[str, Causes] = {}
        for fault in self.case.overflowing:
            causes = (Cause(fault, WHOLE),)
            reader = Reader(self.case.arithmetic, self.case.numbers, dtype=self.case.dtype)
            hypothesis = None if fault.name in found else self._predict(causes, None, wholly=False, reader=reader)
            if hypothesis:
                found[fault.name] = causes
                self._note_loss(hypothesis.planted.loss, reader)
        return list(found.values())

    def _planted(self, causes: Causes) -> _Planted:
        return _Planted(causes, self.case, self.recursion, self.forward)

    def _loses(self, planted: _Planted, reader: Reader) -> bool:
        """Whether a formula gives some activation that no right one does."""
        for layer, _ in planted.changes:
            right, wrong = self.known[self.forward.a[layer]], reader(planted.forward.a[layer], dict(self.known))
            if not (np.abs(wrong.mid - right[0]) <= right[1]).all():
                return True
        return False

    def _coincidence(self, hypothesis: _Hypothesis) -> float:
        """How likely it is that a wrong answer comes this near to a formula's by accident: its distance from that as a
        share of its distance from the truth. Roundings at one neuron say nothing of those at another, so that the
        shares of the columns of the next W are independent, and are put together by Fisher's method ("Statistical
        Methods for Research Workers", 4th ed. 1932, §21.1).
        """
        if not all(np.isfinite(grad.err).all() for grad in hypothesis.grads.values()):
            return 1.0
        shares: list[float] = []
        nearest, farthest = GRAIN, GRAIN
        columns = {f"W{layer + 1}" for layer, _ in hypothesis.planted.changes}
        for name, grad in hypothesis.grads.items():
            right = self.right[name]
            scale = np.maximum(np.maximum(grad.err, right.err), np.finfo(np.float64).smallest_normal)
            # the float64 roundings of both predictions are much the same
            miss, shift = self.case.answer[name] - self.case.truth(name), grad.mid - right.mid
            near, far = np.abs(miss - shift) / scale, np.abs(miss) / scale
            nearest, farthest = max(nearest, near.max()), max(farthest, far.max())
            telling = (np.abs(shift) > scale).any(axis=0)
            if name in columns and telling.any():
                left = np.maximum(near.max(axis=0), GRAIN) / np.maximum(far.max(axis=0), GRAIN)
                shares += np.minimum(left[telling], 1.0).tolist()
        if not shares:
            return float(nearest / farthest)
        total = -sum(map(math.log, shares))
        if total == 0:
            return 1.0
        return sum(math.exp(k * math.log(total) - total - math.lgamma(k + 1)) for k in range(len(shares)))

    # Pairs

    def _lines(self) -> list[_Hypothesis]:
        """Each fault as one line of code makes it: at all its layers."""
        found = (self._predict(causes, None) for causes in self.loops.values())
        return [hypothesis for hypothesis in found if hypothesis is not None]

    def _pairs(self, alone: Sequence[_Hypothesis]) -> Iterator[_Hypothesis]:
        """Two faults together. A gradient that only one of them changes is that one's alone, which leaves few pairs
        to run.
        """
        useful = [single for single in alone if single.touched and not single.causes[0].fault.evidence]
        agreeing = [self._agreeing(single) for single in useful]
        for i, first in enumerate(useful):
            for second, agrees in zip(useful[i + 1 :], agreeing[i + 1 :], strict=True):
                if _interfere(first, second) or self._may_explain(first, agreeing[i], second, agrees):
                    yield from self._together(first, second)

    def _may_explain(
        self, first: _Hypothesis, first_alone: set[str], second: _Hypothesis, second_alone: set[str]
    ) -> bool:
        wrong = set(self.case.wrong)
        either, both = first.touched | second.touched, first.touched & second.touched
        return (
            wrong <= either
            and either - both <= wrong
            and first.touched - both <= first_alone
            and second.touched - both <= second_alone
        )

    def _together(self, first: _Hypothesis, second: _Hypothesis) -> Iterator[_Hypothesis]:
        """The two, in the other order too where that may make a difference."""
        one, other = (tuple(Cause(c.fault, c.layer) for c in each.causes) for each in (first, second))
        for causes in (one + other,) if _commute(first, second) else (one + other, other + one):
            hypothesis = self._run(causes, wholly=False)
            if hypothesis is not None and self._explains(hypothesis):
                yield hypothesis
                return

    def _agreeing(self, single: _Hypothesis) -> set[str]:
        """The gradients that a fault alone predicts rightly; all, where it was fitted to what may not be its own."""
        if single.causes[0].parameter is not None:
            return set(single.grads)
        return {name for name, grad in single.grads.items() if self._agrees(name, grad)}

    # Difference quotients

    def _quotients(self) -> list[Causes]:
        """Difference quotients of the loss, over one of the usual steps."""
        case = self.case
        if case.spec.n_parameters > MAX_QUOTIENTS or not self._resembles():
            return []
        found: list[Causes] = []
        for fault in (fault for fault in FAULTS.values() if fault.quotient):
            planted = Mistaken.right(case.spec, case.y)
            fault.plant(planted, WHOLE, fault.example)
            steps = (s for s in STEPS if self._is_quotient(s, planted.one_sided))
            found += [(Cause(fault, WHOLE, step),) for step in islice(steps, 1)]
        return found

    def _resembles(self) -> bool:
        """Whether the answer is the right gradient but for small errors everywhere."""
        for name, answer in self.case.answer.items():
            truth = self.case.truth(name)
            if answer.shape != truth.shape or np.abs(answer - truth).max() > NEARLY * np.abs(truth).max():
                return False
        return True

    def _is_quotient(self, step: float, one_sided: bool) -> bool:
        case = self.case
        centre = Bounded(*self.known[self.cost])
        misses = {name: case.miss(name) for name in case.names}

        def within(name: str, index: tuple[int, ...]) -> float | None:
            """The error of a quotient that the answer lies within."""
            quotient, error = self._quotient(name, index, step, one_sided, centre)
            return error if abs(float(case.answer[name][index]) - quotient) <= error else None

        # the elements that say most first: nearly every step is ruled out by them
        errors = {name: within(name, at) for name, (at, _) in misses.items()}
        if None in errors.values():
            return False
        decisive = all((errors[name] or 0.0) <= CLEAR * misses[name][1] for name in case.wrong)
        if not (decisive or self._bears_trace(step if one_sided else 2 * step, float(centre.mid))):
            return False
        others = ((name, index) for name, (at, _) in misses.items() for index in np.ndindex(case.answer[name].shape))
        return all(within(name, index) is not None for name, index in others if index != misses[name][0])

    def _bears_trace(self, width: float, loss: float) -> bool:
        """Whether the answer's numbers are multiples of the loss's last place over the width, by no accident. Where
        the right ones are too, or the answer's are coarser, that says nothing.
        """
        case = self.case
        spacing = np.spacing(np.asarray(abs(loss), dtype=case.dtype)).astype(np.float64)
        place = float(max(spacing / 2, case.arithmetic.smallest_subnormal))

        def log_chance(array: Array) -> float:
            numbers = array.ravel().tolist()
            return sum(math.log(_chance_of_multiple(number * width, place, case.dtype)) for number in numbers)

        accident = sum(log_chance(case.answer[name]) for name in case.names)
        usual = sum(log_chance(case.truth(name)) for name in case.names)
        return accident < math.log(CHANCE) <= usual and not self._coarse(width / place)

    def _coarse(self, scale: float) -> bool:
        """Whether the answer's numbers are multiples of anything small: rounded to a short format, as bfloat16 and
        float16 are, or to a grid.
        """
        numbers = np.concatenate([self.case.answer[name].ravel() for name in self.case.names])
        return are_short(numbers) or bool((np.rint(numbers * scale) % 8 == 0).all())

    def _quotient(
        self, name: str, index: tuple[int, ...], step: float, one_sided: bool, centre: Bounded
    ) -> tuple[float, float]:
        up = self._loss(name, index, step)
        down = centre if one_sided else self._loss(name, index, -step)
        width = step if one_sided else 2 * step
        quotient = float(up.mid - down.mid) / width
        error = float(up.err + down.err) / width + 4 * self.case.arithmetic.unit_roundoff * abs(quotient)
        return quotient, error

    def _loss(self, name: str, index: tuple[int, ...], by: float) -> Bounded:
        """The loss with one element of a parameter moved."""
        array = moved(self.case.params, name, index, by)[name]
        return self.reader(self.cost, {self.forward.params[name]: self.reader(constant(array))})


def _interfere(one: _Hypothesis, other: _Hypothesis) -> bool:
    """Whether one of the two may change what the other does to a gradient that it leaves alone."""
    first, second = ([cause.layer for cause in each.causes] for each in (one, other))
    renames = one.planted.renames or other.planted.renames
    return renames or (first == second and len(first) == 1 and WHOLE not in first)


def _commute(one: _Hypothesis, other: _Hypothesis) -> bool:
    """Whether it makes no difference which of the two is made first."""
    first, second = one.planted, other.planted
    if first.reshapes or second.reshapes or (first.renames and second.renames):
        return False
    return not first.changes & second.changes


def _chance_of_multiple(value: float, place: float, dtype: str) -> float:
    """How likely a number is to be this near a multiple of `place` by accident; 1 where it is not near one."""
    ratio = abs(value) / place
    if 0 < ratio < 0.5:  # a quotient is nothing or that much
        return 1.0 / CHANCE
    spread = max(ratio * 8 * float(np.finfo(dtype).eps), 2.0**-40)
    if spread > 0.25 or value == 0:
        return 1.0
    return 2 * spread if abs(ratio - round(ratio)) <= spread else 1.0 / CHANCE


def _loss_explanations(case: _Case, known: bool) -> Iterator[Causes]:
    """What a wrong loss has for a cause. `known`: whether what is wrong with the gradients is."""
    recursion, reader = Recursion(case.y), Reader(case.arithmetic, case.numbers)
    before = recursion.forward(case.spec, Mistaken.right(case.spec, case.y).equations)
    try:
        loss = float(case.loss)
    except (TypeError, ValueError):
        return
    truth = float(case.judge.truth.loss.mid)

    def explained(fault: Fault, layer: int, forward: ForwardPass | None, reader: Reader) -> bool:
        mistaken = Mistaken.right(case.spec, case.y)
        fault.plant(mistaken, layer, None)
        forward = forward or recursion.forward(mistaken.spec, mistaken.equations)
        predicted = reader(recursion.cost(mistaken.spec, forward, mistaken.equations))
        return bool(abs(loss - predicted.mid) <= predicted.err <= CLEAR * abs(loss - truth))

    for fault in FAULTS.values():
        for layer in fault.where(case.spec, case.n) if fault.on_loss else ():
            if explained(fault, layer, before, reader):
                yield (Cause(fault, layer),)
    # NaN may have any reason
    lost = (fault for fault, own in case.cancelling if fault.on_loss and explained(fault, WHOLE, None, own))
    infinite = (fault for fault in case.formulas if known and fault.on_loss and case.run(fault)[0] == loss)
    for fault in {fault.name: fault for fault in (infinite if math.isinf(loss) else lost)}.values():
        yield (Cause(fault, WHOLE),)
