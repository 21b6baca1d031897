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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.faults.findings import Cause, Finding
from refimpl.faults.losses import loss_explanations
from refimpl.faults.observed import Observed
from refimpl.faults.search import Search
from refimpl.faults.symptoms import by_array, loss_symptom, symptom
from refimpl.formats.errors import DataError
from refimpl.judge.judge import Judge
from refimpl.judge.report import Row
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.batch import validate
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]


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
    trusted: Mapping[str, Cause] | None = None,
    previous: Mapping[str, Array] | None = None,
) -> list[Finding]:
    """`diagnose` for what somebody's code returned to what `judge` knows the truth about, and the verdicts on it.

    `pairs`: whether to try pairs of faults and difference quotients, which takes most of the time. `suspects`: faults
    that other answers of the same code have, which are tried together, each at all its layers; `trusted`: fits that
    explain others, by their labels; `previous`: gradients that it returned before, by name.
    """
    if isinstance(given, Unusable):
        return []
    with np.errstate(all="ignore"):
        case = Observed(judge, given, rows, arithmetic or ARITHMETICS[judge.batch.dtype], trusted, previous)
        return _findings(case, pairs, suspects)


def _findings(case: Observed, pairs: bool, suspects: Sequence[str]) -> list[Finding]:
    findings = []
    if case.wrong:
        quantity, wrong = symptom(case)
        explanations = Search(case).explanations(pairs, suspects) if case.comparable else []
        compared = quantity not in case.refused
        findings.append(Finding(quantity, wrong, tuple(explanations), pairs, compared, by_array(case)))
    if case.loss_wrong and not (case.wrong and case.loss_explained):
        compared = not isinstance(case.loss, Unusable)
        explanations = list(loss_explanations(case, all(finding.known for finding in findings)))
        findings.append(Finding("loss", loss_symptom(case), tuple(explanations), compared=compared))
    return findings
