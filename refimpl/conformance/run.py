"""The suite run on an implementation, behind a door, and what is drawn beside it: a `CaseResult` a case.

A FAIL is diagnosed. A list of expected failures is strict: a case on it that passes is reported, and is wrong too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from refimpl.backend.untrusted import printable
from refimpl.conformance.doors import Answered, Door
from refimpl.conformance.vectors import ARITHMETIC_NAMES, HIDDEN_LAYERS, Asked, Case, Suite
from refimpl.faults.common_causes import Wrong
from refimpl.faults.diagnosis import diagnose_answer
from refimpl.faults.findings import Cause, Finding
from refimpl.faults.fits import FITS
from refimpl.faults.search import MAX_SUSPECTS
from refimpl.formats import files
from refimpl.formats.errors import CertificationError, ConformanceError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, Row
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]
SKIP, XFAIL, XPASS = "SKIP", "XFAIL", "XPASS"
WRONG = (FAIL, XPASS)
MAX_LIST_BYTES = 2**20
WANTED = 20  # judged cases with a hidden layer, below which little is to be said
TRUSTED = 3  # cases that a fit must explain before less evidence does in others
UNEXPLAINED = 10  # cases that no pair of faults explains, after which none is looked for


@dataclass
class Diagnosis:
    """What is wrong in a case, which other cases may teach to be told better: `again` does."""

    findings: tuple[Finding, ...] = ()
    again: Callable[[Experience], Sequence[Finding]] | None = None


@dataclass(frozen=True)
class CaseResult:
    """The verdict on one case, its rows, what is wrong where it is FAIL, and the seconds the answer took. `traits` are
    what the case has that others have not, `kills` the faults, with their layers, that it tells from the truth.
    """

    case: str
    flags: tuple[str, ...]
    verdict: str
    reason: str = ""
    rows: tuple[Row, ...] = ()
    diagnosis: Diagnosis | None = None
    seconds: float = 0.0
    traits: tuple[str, ...] = ()
    kills: frozenset[tuple[str, int]] = frozenset()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong in it, as far as that is known by now."""
        return self.diagnosis.findings if self.diagnosis else ()

    @property
    def judged(self) -> bool:
        """Whether there was an answer to judge."""
        return self.verdict != SKIP

    @property
    def hidden_layers(self) -> bool:
        """Whether the network has any."""
        return HIDDEN_LAYERS in self.traits

    @property
    def wrong(self) -> list[Wrong]:
        """What is wrong in it, one by one."""
        if self.verdict not in (*WRONG, UNDETERMINED):
            return []
        found = [Wrong(self.case, self.verdict, self._reason(finding), finding) for finding in self.findings]
        return found or [Wrong(self.case, self.verdict, self.reason)]

    def _reason(self, finding: Finding) -> str:
        """The worst of what a finding is about: the loss, or the gradients."""
        rows = [row for row in self.rows if (row.quantity == "loss") == (finding.quantity == "loss")]
        return _worst(rows, FAIL) if any(row.verdict == FAIL for row in rows) else self.reason

    @property
    def text(self) -> str:
        """What is to be said of it, in one line."""
        findings = [finding.text for finding in self.findings if not self.reason.startswith(finding.text)]
        return "; ".join(part for part in (self.reason, *findings) if part)


@dataclass
class Experience:
    """What the cases before have taught about an implementation: the faults that explained them, what was fitted, by
    its labels, the cases that nothing explained, and the last arrays of every name and shape.
    """

    faults: Counter[str] = field(default_factory=Counter)
    fits: dict[str, list[Cause]] = field(default_factory=dict)
    unexplained: list[Diagnosis] = field(default_factory=list)
    answers: dict[tuple[str, tuple[int, ...]], Array] = field(default_factory=dict)

    @property
    def suspects(self) -> list[str]:
        """The faults that explained most cases, if more than one."""
        return [name for name, count in self.faults.most_common(MAX_SUSPECTS) if count > 1]

    @property
    def trusted(self) -> dict[str, Cause]:
        """What was fitted in several cases, by its labels, and beside it in every form that it had."""
        several = {label: own for label, own in self.fits.items() if len(own) >= TRUSTED}
        forms = {f"{label}: {cause.detail}": cause for label, own in several.items() for cause in own}
        first = {label: own[0] for label, own in several.items()}
        return {label: cause.within(self.fits[label.partition(":")[0]]) for label, cause in (first | forms).items()}

    def previous(self, spec: NetworkSpec) -> dict[str, Array]:
        """What was answered last, of the names and shapes that a network has."""
        shapes = spec.parameter_shapes.items()
        return {name: self.answers[name, shape] for name, shape in shapes if (name, shape) in self.answers}

    def remember(self, answer: Submission | Unusable) -> None:
        """What was answered now."""
        arrays = answer.gradients.items() if isinstance(answer, Submission) else ()
        self.answers |= {(name, a.shape): a for name, a in arrays if not isinstance(a, Unusable)}

    def note(self, diagnosis: Diagnosis) -> None:
        """One more case."""
        findings = diagnosis.findings
        if any(not finding.known for finding in findings):
            self.unexplained.append(diagnosis)
        self.faults.update({cause.fault.name for f in findings for cause in (f.explanations or ((),))[0]} - FITS.keys())
        causes = [cause for f in findings for explanation in f.explanations for cause in explanation]
        fitted = {label: cause for cause in causes if cause.fault.name in FITS for label in cause.labels}
        for label, cause in fitted.items():
            self.fits.setdefault(label, []).append(cause)

    def revise(self) -> None:
        """Look again at what nothing explained, by what the others have taught."""
        if self.trusted or self.suspects:
            for diagnosis in self.unexplained:
                assert diagnosis.again is not None
                diagnosis.findings = tuple(diagnosis.again(self))


def judge_case(
    door: Door, case: Asked, dtype: str, diagnosed: bool = True, experience: Experience | None = None
) -> CaseResult:
    """Ask for a case and judge what comes. A FAIL is diagnosed, with the experience of the cases before."""
    if not case.fits(dtype):
        return CaseResult(case.id, case.flags, SKIP, f"has numbers that {dtype} has not", traits=case.traits)
    answered = door.answer(case, dtype)
    return judge_answered(door.name, door.arithmetic(dtype), answered, case, dtype, diagnosed, experience)


def judge_answered(
    name: str,
    arithmetic: Arithmetic,
    answered: Answered,
    case: Asked,
    dtype: str,
    diagnosed: bool = True,
    experience: Experience | None = None,
) -> CaseResult:
    """`judge_case` for what has come already."""
    kills = frozenset(case.kills) if isinstance(case, Case) else frozenset()
    result = partial(CaseResult, case.id, case.flags, traits=case.traits, kills=kills, seconds=answered.seconds)
    if answered.answer is None:
        return result(SKIP if answered.skipped else FAIL, answered.skipped or answered.failed)
    written = not isinstance(case, Case) or ARITHMETIC_NAMES.get(arithmetic.name) == arithmetic
    judge = case.judge(dtype) if written else Judge(case.spec, case.batch(dtype))
    rows = tuple(judge.judge_answer(name, answered.answer, arithmetic))
    verdict = next((v for v in (FAIL, UNDETERMINED) if any(row.verdict == v for row in rows)), PASS)
    diagnosis = None
    if verdict == FAIL and diagnosed:
        known, diagnosis = experience or Experience(), Diagnosis()
        with suppress(CertificationError):
            certified, answer = Judge(case.spec, case.batch(dtype)), answered.answer
            previous = known.previous(case.spec)

            def again(known: Experience, pairs: bool = False) -> list[Finding]:
                return diagnose_answer(
                    certified, answer, rows, arithmetic, pairs, known.suspects, known.trusted, previous
                )

            diagnosis.findings = tuple(again(known, len(known.unexplained) < UNEXPLAINED))
            diagnosis.again = again
        known.note(diagnosis)
    if experience is not None:
        experience.remember(answered.answer)
    return result(verdict, _worst(rows, verdict), rows, diagnosis)


def _worst(rows: Sequence[Row], verdict: str) -> str:
    if verdict == PASS:
        return ""
    row = max((row for row in rows if row.verdict == verdict), key=lambda row: row.ratio)
    place = "{} is {}, should be {}".format(row.place, *row.numbers) if row.index or row.quantity == "loss" else ""
    if math.isnan(row.truth):  # nothing to compare
        whole = row.reason.startswith(("returned ", "raised "))
        place = row.reason if whole else f"{row.quantity} {row.reason}"
    elif verdict == UNDETERMINED:
        place = f"{row.place}: {row.remark}"
    others = sum(other.verdict == verdict for other in rows) - 1
    return place + (f" ({others} more array{'s' if others > 1 else ''})" if others else "")


def conform(
    door: Door,
    suite: Suite,
    dtype: str = "float64",
    expected_failures: Mapping[str, str] | None = None,
    diagnosed: bool = True,
    draws: Iterable[Asked] = (),
) -> Iterator[CaseResult]:
    """The results, case by case. `expected_failures`: case to reason; `draws`: cases beside the suite's, of which as
    many are asked for as bring those with a hidden layer to `WANTED`. The first of these that passes is asked for
    again at the end: a second answer that is wrong is a result of its own.
    """
    expected = expected_failures or {}
    experience = Experience()
    deep = 0
    first: Asked | None = None
    for case in chain(suite.cases, draws):
        if deep >= WANTED and case.id not in suite.by_id:
            break
        result = judge_case(door, case, dtype, diagnosed and case.id not in expected, experience)
        if case.id in expected:
            result = _as_expected(result, expected[case.id])
        deep += result.judged and result.hidden_layers
        yield result
        if result.verdict == PASS and result.hidden_layers:
            first = first or case
    if first is not None:
        again = judge_case(door, first, dtype, diagnosed, experience)
        if again.verdict == FAIL:
            yield replace(again, case=f"{first.id}, asked again", reason=f"asked again: {again.reason}")
    experience.revise()


def _as_expected(result: CaseResult, reason: str) -> CaseResult:
    verdicts = {FAIL: XFAIL, PASS: XPASS}
    note = f"expected to fail{f' ({reason})' if reason else ''}"
    text = {FAIL: f"{note}: {result.reason}", PASS: f"{note}, but passes: take it off the list"}
    verdict = verdicts.get(result.verdict, result.verdict)
    return replace(result, verdict=verdict, reason=text.get(result.verdict, result.reason))


def expected_failures(path: Path, suite: Suite) -> dict[str, str]:
    """A list of expected failures: a case a line, and after a # the reason. Raises ConformanceError."""
    raw = files.read(path, MAX_LIST_BYTES, ConformanceError, "a list of cases")
    try:
        text = raw.decode("utf-8-sig")
    except ValueError:
        raise ConformanceError(f"cannot read {path}: is not UTF-8 text") from None
    expected: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        case, _, reason = (part.strip() for part in line.partition("#"))
        if case and case not in suite.by_id:
            raise ConformanceError(f"{path}: line {number}: {case[:80]!r} is no case of the suite")
        if case:
            expected[case] = printable(reason)
    return expected
