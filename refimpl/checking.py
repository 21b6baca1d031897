"""Backends held against the certified gradient: `check`.

Every element of the loss and of every W and b that a backend returns gets a verdict (:mod:`refimpl.judge`), and what
is wrong is diagnosed (:mod:`refimpl.faults`). Backends are not compared with each other: each answers to the truth
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from refimpl import backend as registry
from refimpl.backend import Backend, InputGradientBackend, IntermediatesBackend
from refimpl.faults.diagnosis import diagnose_answer
from refimpl.faults.findings import Finding
from refimpl.formats.errors import BackendError, DataError
from refimpl.judge.bounds import BOTH, FIRST_ORDER, THEOREM
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, Report, Row
from refimpl.network.batch import validate
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]


def check(
    spec: NetworkSpec,
    params: Mapping[str, Array],
    x: Array,
    y: Array,
    backends: Sequence[str | Backend] | None = None,
    *,
    device: str = "cpu",
    inputs: bool = False,
    intermediates: bool = False,
    bound: str = BOTH,
) -> Report:
    """Hold every backend's loss and gradients against the certified ones.

    Parameters
    ----------
    spec, params, x, y : the network, its parameters, and the batch; all arrays float64 or all float32 (labels:
        integers).
    backends : names or Backend objects; None for every installed one. With None, one that cannot be used here is
        reported in `Report.unavailable`; asked for by name it is an error.
    device : "cpu" or "cuda".
    inputs : also the gradient of x. intermediates : also z, a and delta of every layer. From the backends that offer
        them.
    bound : "both"; "worst-case" to judge by the theorem alone, without the statistical bound; "first-order" by the
        bound in its place that assumes nothing about how roundings are distributed.

    Raises SpecError, DataError, BackendError, CertificationError.
    """
    if bound not in (BOTH, FIRST_ORDER, THEOREM):
        raise DataError(f"bound must be {BOTH!r}, {FIRST_ORDER!r} or {THEOREM!r}, got {bound!r:.40}")
    batch = validate(spec, params, x, y)
    chosen, unavailable = _choose(spec, backends, batch.dtype, device)
    judge = Judge(spec, batch, bound=bound)
    rows: list[Row] = []
    findings: dict[str, tuple[Finding, ...]] = {}
    for backend in chosen:
        lacking = _lacking(backend, inputs, intermediates)
        if lacking and backends is not None:
            raise BackendError(f"backend {backend.name!r} {lacking}; leave that out")
        if lacking:
            unavailable[f"{backend.name} (in part)"] = lacking
        found = judge.judge(backend, device=device, inputs=inputs, intermediates=intermediates)
        rows += found.rows
        if found.submission is not None and any(row.verdict == FAIL for row in found.rows):
            findings[backend.name] = tuple(diagnose_answer(judge, found.submission, found.rows, found.arithmetic))
    return Report(
        spec=spec,
        dtype=batch.dtype,
        device=device,
        n=len(batch.x),
        precision=judge.truth.precision,
        rows=tuple(rows),
        unavailable=unavailable,
        findings=findings,
    )


def _choose(
    spec: NetworkSpec, asked: Sequence[str | Backend] | None, dtype: str, device: str
) -> tuple[list[Backend], dict[str, str]]:
    """The backends to run, and why the others cannot."""
    if asked is not None:
        if isinstance(asked, str | bytes) or not isinstance(asked, Sequence):
            raise BackendError(f"backends must be a list such as ['numpy'], got {asked!r:.60}")
        if not asked:
            raise BackendError("backends: none named; name one, or leave it out for all that are installed")
        return [_supported(item, spec, dtype, device) for item in asked], {}
    chosen, unavailable = [], {}
    for name in registry.available():
        try:
            chosen.append(_supported(name, spec, dtype, device))
        except BackendError as error:
            unavailable[name] = str(error)
    if not chosen:
        reasons = "; ".join(unavailable.values()) or "none is installed"
        raise BackendError(f"no backend can run this: {reasons}")
    return chosen, unavailable


def _supported(item: str | Backend, spec: NetworkSpec, dtype: str, device: str) -> Backend:
    backend = registry.load(item) if isinstance(item, str) else registry.usable(item)
    registry.check_supported(backend, spec, dtype, device)
    return backend


def _lacking(backend: Backend, inputs: bool, intermediates: bool) -> str:
    """What was asked for that a backend does not offer."""
    lacks = [
        what
        for what, wanted, protocol in (
            ("the gradient of x", inputs, InputGradientBackend),
            ("z, a and delta", intermediates, IntermediatesBackend),
        )
        if wanted and not isinstance(backend, protocol)
    ]
    return f"does not give {' or '.join(lacks)}" if lacks else ""
