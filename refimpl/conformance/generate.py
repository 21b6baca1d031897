"""Making the vector files: byte for byte the same each time.

Every draft of :mod:`refimpl.conformance.drafts` is drawn until it is *admitted*: in float64 every element is
decidable, and every fault that has an effect misses the truth by at least 100 times the tolerance somewhere. Those
faults are the case's `kills`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import EquationsBackend, able
from refimpl.conformance.drafts import FLAGS, Draft, drafts, draw
from refimpl.conformance.vectors import ARITHMETIC_NAMES, Case, Expected
from refimpl.faults.catalogue import FAULTS, places
from refimpl.faults.diagnosis import diagnose_answer
from refimpl.faults.mistaken import Mistaken, PlantedBackend
from refimpl.faults.prediction import Recursion
from refimpl.formats.errors import CertificationError, ConformanceError
from refimpl.judge.bounds import Tolerance
from refimpl.judge.judge import Judge
from refimpl.judge.submission import Submission
from refimpl.judge.verdicts import largest_element
from refimpl.judge.workers import spread
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import validate
from refimpl.truth.balls import BallAlgebra, Balls, arbs
from refimpl.truth.graph import read
from refimpl.truth.precision import working_precision

FORMAT = "refimpl.vectors/2"
LARGEST_FILE = 190_000  # bytes
KILL = 100.0
CLEAR = 0.01  # of an array's largest element: a wider tolerance is not written
ATTEMPTS = 30
PRECISION = 200  # bits, of what a fault computes

Array = NDArray[Any]
Real = NDArray[np.float64]
Place = tuple[str, int]


def admit(draft: Draft) -> Case:
    """The draft as a case: the first attempt at it that can be decided and that every fault misses by far.

    Raises ConformanceError where no attempt is.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        drawn = draw(draft, attempt)
        try:
            judge = Judge(drawn.spec, validate(drawn.spec, drawn.params, drawn.x, drawn.y))
        except CertificationError as error:
            reason = str(error)
            continue
        expected = _expected(judge, exact="Exact" in draft.flags)
        undecided = [
            name
            for name, e in expected.items()
            if any(np.isinf(e.tolerance.get(key, e.value)).any() for key in ("float64", "float64_flushing"))
        ]
        if undecided:
            reason = f"{undecided[0]} cannot be decided in float64"
            continue
        kills, weak = _kills(judge, expected)
        if weak:
            reason = f"{weak[0][0]} at layer {weak[0][1]} is missed by less than {KILL:g} times the tolerance"
            continue
        return Case.model_construct(
            id=draft.name, flags=draft.flags, spec=drawn.spec, params=drawn.params, x=drawn.x, y=drawn.y,
            loss=expected.pop("loss"), grads=expected, kills=tuple(kills),
        )  # fmt: skip
    raise ConformanceError(f"draft {draft.name!r}: no attempt of {ATTEMPTS} was admitted; the last: {reason}")


def _expected(judge: Judge, exact: bool) -> dict[str, Expected]:
    """The truth and the tolerances as they are written, rounded outwards to two digits."""
    names = list(judge.spec.parameter_shapes)
    balls = {"loss": judge.truth.loss, **{name: judge.truth.grads[name] for name in names}}
    bounds = {a.name: judge.tolerance(a, repeated=True) for a in ARITHMETIC_NAMES.values()}
    float32 = Judge(judge.spec, validate(judge.spec, *_as_float32(judge)))
    for name in ("float32", "float32_flushing"):
        bounds[name] = float32.tolerance(ARITHMETIC_NAMES[name], repeated=True)
    grads = {name: balls[name] for name in names}
    largest = {name: largest_element(ball.mid, grads if name in grads else {}) for name, ball in balls.items()}
    return {name: _one_expected(name, ball, bounds, largest[name], exact) for name, ball in balls.items()}


def _as_float32(judge: Judge) -> tuple[dict[str, Array], Array, Array]:
    batch = judge.batch
    params = {name: array.astype(np.float32) for name, array in batch.params.items()}
    y = batch.y if batch.y.ndim == 1 else batch.y.astype(np.float32)
    return params, batch.x.astype(np.float32).reshape(-1, *judge.spec.input_shape), y


def _one_expected(name: str, ball: Balls, bounds: Mapping[str, Tolerance], largest: float, exact: bool) -> Expected:
    def decided(bound: Tolerance, right: Real, across: Real) -> Real:
        total = _outwards(right + 3 * ball.tail_rad + np.abs(ball.tail))
        limit = CLEAR * max(largest, bound.arithmetic.smallest_normal)
        return np.where((total <= limit) & (across == right), total, np.inf)

    def written(forms: Mapping[str, Real]) -> dict[str, Real]:
        """A form of an arithmetic that flushes only where it is another than IEEE's."""
        ieee = {name: forms[name.removesuffix("_flushing")] for name in forms}
        return {
            name: form for name, form in forms.items() if form is ieee[name] or not np.array_equal(form, ieee[name])
        }

    radius = _outwards(ball.rad)
    if exact and name != "loss":  # which may be the square of a norm
        zeros = {dtype: np.zeros_like(radius) for dtype in ARITHMETICS}
        return Expected(ball.mid, radius, zeros, zeros)
    worst = {key: decided(b, b.worst_case[name], b.across_kinks[name]) for key, b in bounds.items()}
    statistical = {key: decided(b, b.statistical[name], b.statistical_across[name]) for key, b in bounds.items()}
    return Expected(ball.mid, radius, written(worst), written(statistical))


def _kills(judge: Judge, expected: Mapping[str, Expected]) -> tuple[list[Place], list[Place]]:
    """The faults that the case kills, and those that have an effect too small to be sure of."""
    kills, weak = [], []
    for fault, layer in places(judge.spec, len(judge.batch.x), "float64"):
        wrong = _mistaken(judge, (fault.name, layer))
        miss = 0.0 if wrong is None else max(_miss(expected[name], values) for name, values in wrong.items())
        if miss >= KILL:
            kills.append((fault.name, layer))
        elif miss > 0:
            weak.append((fault.name, layer))
    return kills, weak


def _mistaken(judge: Judge, place: Place) -> dict[str, Any] | None:
    """The loss and gradients with a fault in them, before rounding where that says enough; None if it does not run."""
    fault, layer = FAULTS[place[0]], place[1]
    batch, spec = judge.batch, judge.spec
    try:
        if not fault.exact:
            backend = PlantedBackend(((fault, layer, fault.example),), able(EquationsBackend))
            run = backend.gradient_function(spec, dtype="float64", device="cpu")
            loss, grads = run(batch.params, batch.x.reshape(-1, *spec.input_shape), batch.y)
            return {"loss": np.asarray(loss), **grads}
        mistaken = Mistaken.right(spec, batch.targets(spec.n_out))
        fault.plant(mistaken, layer, fault.example)
        recursion = Recursion(mistaken.y)
        before = recursion.forward(mistaken.spec, mistaken.equations)
        found = dict(recursion.backward(mistaken.spec, before, mistaken.equations))
        ends = {name: found[source] for name, source in mistaken.names.items()}
        ends["loss"] = recursion.cost(mistaken.spec, before, mistaken.equations)
        with working_precision(PRECISION):
            numbers = {name: arbs(array) for name, array in {**batch.params, "x": batch.x}.items()}
            values = read(ends.values(), BallAlgebra(numbers))
    except ValueError:  # shapes that do not fit: this code would not have run
        return None
    return {name: _floats(values[end]) for name, end in ends.items()}


def _floats(values: NDArray[Any]) -> Real:
    return np.array([float(value.mid()) for value in values.flat]).reshape(values.shape)


def _miss(expected: Expected, values: Real) -> float:
    """By how many tolerances an array misses; 0 where it does not differ but for rounding."""
    if values.shape != expected.value.shape:
        return math.inf
    distance = np.abs(values - expected.value)
    tolerance = np.maximum(expected.tolerance["float64"], expected.radius)
    with np.errstate(all="ignore"):
        ratio = np.where(distance > tolerance, distance / tolerance, 0.0)
    return float(ratio.max(initial=0.0))


def admit_all(chosen: Sequence[Draft], processes: int | None = None) -> Iterator[Case]:
    """The drafts as cases, in order, on every core. Raises ConformanceError."""
    return spread(_admit_named, [draft.name for draft in chosen], processes, chunk=8)


def _admit_named(name: str) -> Case:
    # a recipe is a function made on the spot, which no other process can be sent
    return admit(next(draft for draft in drafts() if draft.name == name))


def files(cases: Sequence[Case]) -> Iterator[tuple[str, str]]:
    """(name, text) of the files that hold these cases, and the wrong answers made from them."""
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(case.flags[0].lower(), []).append(_case_text(case))
    groups["wrong"] = [_dumps(wrong) for wrong in _wrong_answers(cases)]
    for group, texts in groups.items():
        for number, chunk in enumerate(_chunks(texts), start=1):
            yield f"{group}-{number}.json", _file_text(chunk, "wrong" if group == "wrong" else "cases")


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for text in texts:
        if chunk and sum(map(len, chunk)) + len(text) > LARGEST_FILE:
            yield chunk
            chunk = []
        chunk.append(text)
    yield chunk


def _file_text(chunk: Sequence[str], key: str) -> str:
    flags = _dumps(dict(FLAGS)) if key == "cases" else "{}"
    body = ",\n".join(chunk)
    return f'{{"format": "{FORMAT}",\n"flags": {flags},\n"{key}": [\n{body}\n]}}\n'


def _wrong_answers(cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """For every fault, the first case that kills it, answered wrongly."""
    for fault in FAULTS.values():
        if not fault.exact:
            continue
        case, layer = next(
            (case, layer)
            for case in cases
            for name, layer in case.kills
            if name == fault.name and "Exact" not in case.flags
        )
        judge = Judge(case.spec, case.batch("float64"))
        wrong = _mistaken(judge, (fault.name, layer))
        assert wrong is not None
        loss, grads = float(wrong.pop("loss")), wrong
        given = Submission.of((loss, grads))
        findings = diagnose_answer(judge, given, judge.judge_answer("answer", given))
        explanations = [
            [[cause.fault.name, cause.layer] for cause in explanation]
            for finding in findings[:1]
            for explanation in finding.explanations
            if all(cause.fault.name in FAULTS for cause in explanation)
        ]
        if [[fault.name, layer]] not in explanations:
            raise ConformanceError(f"{fault.name} at layer {layer} of case {case.id!r} is not diagnosed")
        yield {
            "id": f"{fault.name} at {layer} in {case.id}",
            "case": case.id,
            "loss": loss.hex(),
            "gradients": {name: _tensor(values) for name, values in grads.items()},
            "diagnosis": explanations,
        }


def _case_text(case: Case) -> str:
    data = {
        "id": case.id,
        "flags": list(case.flags),
        "network": case.spec.to_dict(),
        "parameters": {name: _tensor(array) for name, array in case.params.items()},
        "x": _tensor(case.x),
        "y": _tensor(case.y),
        "loss": _written(case.loss),
        "gradients": {name: _written(expected) for name, expected in case.grads.items()},
        "kills": [[name, layer] for name, layer in case.kills],
    }
    lines = ",\n ".join(f'"{key}": {_dumps(value)}' for key, value in data.items())
    return "{" + lines + "}"


def _tensor(array: Array) -> dict[str, Any]:
    flat = array.ravel().tolist()
    if array.dtype.kind == "i":
        return {"shape": list(array.shape), "integers": flat}
    return {"shape": list(array.shape), "hex": [hexadecimal(v) for v in flat], "decimal": flat}


def _written(expected: Expected) -> dict[str, Any]:
    def bounds(form: Mapping[str, Real]) -> dict[str, list[Any]]:
        return {
            name: [_short(t) if math.isfinite(t) else None for t in values.ravel().tolist()]
            for name, values in form.items()
        }

    return {
        **_tensor(expected.value),
        "radius": [_short(r) for r in expected.radius.ravel().tolist()],
        "tolerance": bounds(expected.tolerance),
        "statistical": bounds(expected.statistical),
    }


def hexadecimal(value: float) -> str:
    """C99's %a, without trailing zeros: 0x1.8p+0."""
    return re.sub(r"\.?0*p", "p", value.hex()) if math.isfinite(value) else repr(value)


_UPWARDS = Context(prec=2, rounding=ROUND_CEILING)


def _outwards(values: Real) -> Real:
    """The next numbers of two decimal digits that are not smaller."""
    flat = [_up(value) for value in np.asarray(values).ravel().tolist()]
    return np.array(flat).reshape(np.shape(values))


def _up(value: float) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    rounded = float(_UPWARDS.create_decimal(Decimal(value)))
    return rounded if rounded >= value else math.nextafter(rounded, math.inf)


def _short(value: float) -> Any:
    return 0 if value == 0 else value


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
