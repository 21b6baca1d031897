"""Which faults of the catalogue explain a wrong gradient: `Search`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, combinations
from typing import Any

import numpy as np

from refimpl.faults.catalogue import places
from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits import fitted
from refimpl.faults.fits.factors import EVERYTHING
from refimpl.faults.lost_digits import losing, overflowing
from refimpl.faults.mistaken import WHOLE, Mistaken
from refimpl.faults.observed import Observed
from refimpl.faults.prediction import Bounded, ForwardPass, Reader, Recursion
from refimpl.faults.quotients import quotients
from refimpl.truth.graph import Node, constant, given

CONFIRMATIONS = 3  # numbers that must agree on a fitted number, the one it was fitted to included
FORWARD = ("weighted_input", "activation")  # the equations of the forward pass up to the losses
CLEAR = 0.01  # the share of a difference that its tolerance may have
MAX_SUSPECTS = 3
ZEROING = ("bias_gradient_missing", "nothing_propagated")


class Planted:
    """A network with causes in it, as a graph in which `number` is what they have for a parameter. `forward` is the
    right network's forward pass.
    """

    def __init__(self, causes: Causes, case: Observed, recursion: Recursion, forward: ForwardPass) -> None:
        mistaken = Mistaken.right(case.spec, case.y)
        self.number = given("parameter", ())
        for cause in causes:
            cause.fault.plant(mistaken, cause.layer, self.number)
        self.changes, self.names = mistaken.changes, mistaken.names
        self.reshapes = mistaken.spec is not case.spec
        if self.reshapes or any(equation in FORWARD for _, equation in self.changes):
            forward = recursion.forward(mistaken.spec, mistaken.equations)
        self.forward = forward
        self._losses = mistaken.losses
        self._cost = partial(recursion.cost, mistaken.spec, equations=mistaken.equations)
        self._made: dict[str, Node] = {}
        self._rest = recursion.backward(mistaken.spec, forward, mistaken.equations)

    @cached_property
    def loss(self) -> Node:
        """The loss that it has."""
        forward = self.forward
        return self._cost(replace(forward, losses=self._losses(forward.a[-1])) if self._losses else forward)

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


class Hypothesis:
    """Causes and the gradients that they predict together, each read when it is first asked for. Where shapes do not
    fit, ValueError: this code would not have run.
    """

    def __init__(self, causes: Causes, planted: Planted, case: Observed, read: Callable[[Node], Bounded]) -> None:
        self.causes, self.planted, self.case = causes, planted, case
        self._read = read
        self._grads: dict[str, Bounded] = {}

    def grad(self, name: str) -> Bounded:
        """What is predicted for one, beside the slack of what it was recovered from."""
        if name not in self._grads:
            grad, slack = self._read(self.planted.gradient(name)), self.case.slack.get(name)
            if slack is not None and slack.shape == grad.shape:
                grad = Bounded(grad.mid, grad.err + slack)
            self._grads[name] = grad
        return self._grads[name]

    @property
    def grads(self) -> dict[str, Bounded]:
        """All of them by name."""
        return {name: self.grad(name) for name in self.planted.names}

    def agrees(self, name: str) -> bool:
        """Whether the answer lies within what is predicted for one."""
        answer, grad = self.case.answer[name], self.grad(name)
        if answer.shape != grad.shape:
            return False
        lost = np.isinf(grad.err) & (not self.case.finite)
        return bool(((np.abs(answer - grad.mid) <= grad.err) | lost).all())

    @property
    def is_answer(self) -> bool:
        """Whether it lies within all that is predicted."""
        try:
            return all(self.agrees(name) for name in self.case.names)
        except ValueError:
            return False

    @cached_property
    def touched(self) -> frozenset[str]:
        """The gradients that the causes change."""
        try:
            return frozenset(name for name, grad in self.grads.items() if self._changes(name, grad))
        except ValueError:
            return frozenset()

    def _changes(self, name: str, grad: Bounded) -> bool:
        truth = self.case.truth(name)
        return grad.shape != truth.shape or not bool((np.abs(grad.mid - truth) <= grad.err).all())


class Search:
    """All singles, then each at every layer, difference quotients, and pairs, until something explains the answer."""

    def __init__(self, case: Observed) -> None:
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
        self.singles: list[Hypothesis] = []
        self.loops = self._loops()

    def explanations(self, pairs: bool, suspects: Sequence[str]) -> list[Causes]:
        """Those that explain the answer, as few faults as possible."""
        if not self.case.finite:
            return overflowing(self)
        fits = fitted(self.case)
        if fits and fits[0][0].fault == EVERYTHING:
            return fits[:1]
        self.singles = list(self._hypotheses())
        tried = len(self.singles)
        named = self._matching(self.singles, tried) + losing(self) + quotients(self)
        named = named or self._matching(self._everywhere(), tried)
        if suspects and not (named or fits):  # of few that are tried, less says as much
            known = [single for single in self.singles if single.causes[0].fault.name in suspects]
            loops = self._predicted(self.loops[name] for name in suspects if name in self.loops)
            named = self._matching(chain(known, loops), len(suspects))
        if not any(cause.fault.name in suspects for causes in named for cause in causes):
            named += self._matching(self._suspected(suspects), tried)
        return (
            named + fits
            or (quotients(self, decisive=True) if pairs else [])
            or (self._matching(self._pairs(self.singles), self._telling**2) if pairs else [])
            or (self._matching(self._pairs(self._lines(), again=False), self._telling**2) if pairs else [])
        )

    @cached_property
    def _telling(self) -> int:
        """How many faults, each by itself, would have changed something."""
        return sum(1 for single in self.singles if single.touched)

    def _matching(self, hypotheses: Iterable[Hypothesis], tried: int) -> list[Causes]:
        """Those that explain the answer, and not by accident, out of so many that are tried. Gradients of zero are only
        explained by what makes them zero whatever the data are.
        """
        found: list[Causes] = []
        nothing = not any(self.case.answer[name].any() for name in self.case.wrong)
        for hypothesis in hypotheses:
            if nothing and not any(cause.fault.name in ZEROING for cause in hypothesis.causes):
                continue
            if self.explains(hypothesis) and self._no_accident(hypothesis, tried):
                found.append(hypothesis.causes)
                self.note_loss(hypothesis.planted.loss)
        return found

    def _hypotheses(self) -> Iterator[Hypothesis]:
        case = self.case
        for fault, layer in places(case.spec, case.n, case.dtype):
            if fault.on_loss:
                continue
            single = self._run((Cause(fault, layer),))
            if single is not None:
                yield single

    def _loops(self) -> dict[str, Causes]:
        """The faults by name, each as one line of code makes it: for the whole network, or at all its layers."""
        where: dict[str, Causes] = {}
        for fault, layer in places(self.case.spec, self.case.n, self.case.dtype):
            before = where.get(fault.name, ())
            special = fault.on_loss or fault.parameter or fault.evidence
            if not special and not (before and before[0].layer == WHOLE):
                where[fault.name] = (*before, Cause(fault, layer))
        return where

    def _everywhere(self) -> Iterator[Hypothesis]:
        """A fault at all of the layers where it can act."""
        yield from self._predicted(causes for causes in self.loops.values() if len(causes) > 1)

    def _suspected(self, suspects: Sequence[str]) -> Iterator[Hypothesis]:
        """Two or three of the suspects together, each at all its layers, and one alone at two."""
        known = [self.loops[name] for name in suspects if name in self.loops]
        for count in range(1, MAX_SUSPECTS + 1):
            together = (tuple(chain(*chosen)) for chosen in combinations(known, count))
            yield from self._predicted(causes for causes in together if len(causes) > 1)

    def _predicted(self, explanations: Iterable[Causes]) -> Iterator[Hypothesis]:
        for causes in explanations:
            hypothesis = self.predict(causes)
            if hypothesis is not None:
                yield hypothesis

    def _run(self, causes: Causes) -> Hypothesis | None:
        """The causes planted one after the other, the unknown number in one of them fitted to the answer."""
        unknown = [cause for cause in causes if cause.fault.parameter]
        if not unknown:
            return self.predict(causes)
        try:
            planted = self.planted(causes)
            fitted = self._fit(planted, unknown[0].fault.example) if len(unknown) == 1 else None
        except ValueError:  # shapes that do not fit
            return None
        return None if fitted is None else self.predict(causes, fitted, planted)

    def predict(
        self,
        causes: Causes,
        parameter: Bounded | None = None,
        planted: Planted | None = None,
        reader: Reader | None = None,
    ) -> Hypothesis | None:
        """What the causes together make of the network; None where this code would not have run."""
        try:
            planted = planted or self.planted(causes)
        except ValueError:
            return None
        if parameter is not None:
            value = float(parameter.mid)
            causes = tuple(replace(cause, parameter=value) if cause.fault.parameter else cause for cause in causes)
        read = partial(reader or self.reader, values=self._values(planted, parameter))
        return Hypothesis(causes, planted, self.case, read)

    def _values(self, planted: Planted, parameter: Bounded | None) -> dict[Node, Any]:
        """What is known: the right network's values, and the number in a fault."""
        return self.known | ({planted.number: parameter} if parameter else {})

    def _fit(self, planted: Planted, example: float) -> Bounded | None:
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

    def explains(self, hypothesis: Hypothesis) -> bool:
        """Whether the answer lies within what the causes predict, and that says enough."""
        if not hypothesis.is_answer:
            return False
        case, causes = self.case, hypothesis.causes
        evidence = [cause.fault.evidence for cause in causes if cause.fault.evidence]
        if evidence:
            wrong = np.concatenate([case.answer[name].ravel() for name in case.wrong])
            right = np.concatenate([case.truth(name).ravel() for name in case.wrong])
            return all(trace(wrong) and not trace(right) for trace in evidence)
        decisive = all(self._decisive(name, hypothesis.grad(name)) for name in case.wrong)
        return decisive and self._confirmed(causes, hypothesis)

    def _decisive(self, name: str, grad: Bounded) -> bool:
        """Whether the fault's tolerance is small beside the miss that it explains."""
        answer, truth = self.case.answer[name], self.case.truth(name)
        if answer.shape != truth.shape:
            largest = np.abs(grad.mid).max(initial=0.0)
            return bool(largest == 0 or grad.err.max(initial=0.0) <= CLEAR * largest)
        at, distance = self.case.miss(name)
        return bool(grad.err[at] <= CLEAR * distance)

    def _no_accident(self, hypothesis: Hypothesis, tried: int) -> bool:
        """Whether none of so many would be likely to come this near by accident, for each of the causes where it says
        most. A fitted number is `_confirmed`'s, a trace has its own chance.
        """
        alone = {(single.causes[0].fault.name, single.causes[0].layer): single for single in self.singles}
        for cause in hypothesis.causes:
            if cause.fault.parameter or cause.fault.evidence:
                continue
            # alone, a fault may change nothing where another makes it change something
            single = alone.get((cause.fault.name, cause.layer), hypothesis)
            names = (single.touched or hypothesis.touched) & set(self.case.wrong)
            chance = min((self._chance(name, hypothesis.grad(name)) for name in names), default=1.0)
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

    def _confirmed(self, causes: Causes, fitted: Hypothesis) -> bool:
        """Whether enough elements bear a fitted number out."""
        if not any(cause.fault.parameter for cause in causes):
            return True
        without = self.predict(causes, self.reader(constant(0.0)))
        if without is None:
            return False
        names = [name for name in self.case.names if name in self.case.wrong]
        change = np.concatenate([(fitted.grad(name).mid - without.grad(name).mid).ravel() for name in names])
        err = np.concatenate([fitted.grad(name).err.ravel() for name in names])
        truth = np.concatenate([without.grad(name).mid.ravel() for name in names])
        clear = (change != 0) & (np.abs(change) * CLEAR >= err)
        # beside another cause: all that a sample contributes to one unit follows from one number
        most = self.case.n if len(causes) > 1 else len(clear)
        units = [(name[1:], row) for name in names for row, *_ in np.ndindex(fitted.grad(name).shape)]
        told = Counter(unit for unit, one in zip(units, clear, strict=True) if one)
        if sum(min(count, most) for count in told.values()) < CONFIRMATIONS:
            return False
        # a mere multiple of what it would be without has any number of causes
        change, truth, err = change[clear], truth[clear], err[clear]
        at = int(np.argmax(np.abs(truth)))
        return bool(truth[at] == 0 or (np.abs(change - change[at] / truth[at] * truth) > 4 * err).any())

    def note_loss(self, loss: Node, reader: Reader | None = None) -> None:
        """Whether causes explain the loss as well, which is noted."""
        case = self.case
        if case.loss_wrong:
            predicted = (reader or self.reader)(loss, dict(self.known))
            near = abs(case.loss_number - predicted.mid) <= predicted.err
            case.loss_explained |= bool(near or not (math.isfinite(case.loss_number) or np.isfinite(predicted.err)))

    def planted(self, causes: Causes) -> Planted:
        """The network with causes in it."""
        return Planted(causes, self.case, self.recursion, self.forward)

    # Pairs

    def _lines(self) -> list[Hypothesis]:
        """Each fault as one line of code makes it: at all its layers."""
        found = (self.predict(causes) for causes in self.loops.values())
        return [hypothesis for hypothesis in found if hypothesis is not None]

    def _pairs(self, alone: Sequence[Hypothesis], again: bool = True) -> Iterator[Hypothesis]:
        """Two faults together; unless `again`, not where each is at one place. A gradient that only one of them changes
        is that one's alone, which leaves few pairs to run.
        """
        useful = [single for single in alone if single.touched and not single.causes[0].fault.evidence]
        agreeing = [self._agreeing(single) for single in useful]
        for i, first in enumerate(useful):
            for second, agrees in zip(useful[i + 1 :], agreeing[i + 1 :], strict=True):
                if not again and len(first.causes) == len(second.causes) == 1:
                    continue
                if self._may_explain(first, agreeing[i], second, agrees):
                    yield from self._together(first, second)

    def _may_explain(
        self, first: Hypothesis, first_alone: set[str], second: Hypothesis, second_alone: set[str]
    ) -> bool:
        wrong = set(self.case.wrong)
        either, both = first.touched | second.touched, first.touched & second.touched
        if not wrong <= either or not both <= wrong:  # two that cancel are not looked for
            return False
        if _interfere(first, second):
            return True
        return either - both <= wrong and first.touched - both <= first_alone and second.touched - both <= second_alone

    def _together(self, first: Hypothesis, second: Hypothesis) -> Iterator[Hypothesis]:
        """The two, in the other order too where that may make a difference."""
        one, other = (tuple(Cause(c.fault, c.layer) for c in each.causes) for each in (first, second))
        for causes in (one + other,) if _commute(first, second) else (one + other, other + one):
            hypothesis = self._run(causes)
            if hypothesis is not None and self.explains(hypothesis):
                yield hypothesis
                return

    def _agreeing(self, single: Hypothesis) -> set[str]:
        """The gradients that a fault alone predicts rightly; all, where it was fitted to what may not be its own."""
        if single.causes[0].parameter is not None:
            return set(single.grads)
        return {name for name in single.grads if single.agrees(name)}


def _interfere(one: Hypothesis, other: Hypothesis) -> bool:
    """Whether one of the two may change what the other does to a gradient that it leaves alone."""
    first, second = ([cause.layer for cause in each.causes] for each in (one, other))
    renames = one.planted.renames or other.planted.renames
    return renames or (first == second and len(first) == 1 and WHOLE not in first)


def _commute(one: Hypothesis, other: Hypothesis) -> bool:
    """Whether it makes no difference which of the two is made first."""
    first, second = one.planted, other.planted
    if first.reshapes or second.reshapes or (first.renames and second.renames):
        return False
    return not first.changes & second.changes
