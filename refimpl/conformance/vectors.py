"""The vector files: cases with their certified answers, in JSON that any language reads.

`admit_all` and `files` make them, byte for byte the same each time. Every draft of :mod:`refimpl.conformance.cases`
is drawn until it is *admitted*: in float64 every element is decidable, and every fault that has an effect misses the
truth by at least 100 times the tolerance somewhere. Those faults are the case's `kills`. `load` reads the files that
come with refimpl, or a stranger's, with limits on all that they may contain.

A number stands there twice: as a C99 hexadecimal float, which is what counts, and as a decimal. A tolerance is the
largest |g − value| that passes, the radius of the certified ball included; null where nothing can be decided.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.arithmetic import ARITHMETICS, FLUSHING, Arithmetic
from refimpl.batch import Batch, validate
from refimpl.bounded import forward, propagate
from refimpl.certification import Balls, Certificate
from refimpl.conformance.cases import FLAGS, Draft, drafts, draw
from refimpl.conformance.exact import Exact
from refimpl.errors import CertificationError, ConformanceError, RefimplError
from refimpl.faults import FAULTS, Mistaken, PlantedBackend, places
from refimpl.files import read_whole
from refimpl.judge import DECISIVE, Judge, largest_element
from refimpl.spec import NetworkSpec
from refimpl.strict_json import parse
from refimpl.tolerance import Tolerance

FORMAT = "refimpl.vectors/1"
FOLDER = Path(__file__).parent / "vectors"
MAX_FILE_BYTES = 2**20
LARGEST_FILE = 190_000  # bytes that `generate` puts into one file
MAX_CASES = 2_000
MAX_FILES = 1_000
MAX_FOLDER_BYTES = 2**26
MAX_DEPTH = 64
MAX_VALUES = 100_000  # weighted inputs and activations of one case: its certificate takes some 10 kB for each
KILL = 100.0
ATTEMPTS = 30
ARITHMETIC_NAMES = {a.name: a for a in (*ARITHMETICS.values(), *FLUSHING.values())}

Array = NDArray[Any]
Real = NDArray[np.float64]
Place = tuple[str, int]


@dataclass(frozen=True)
class Expected:
    """A certified array: its value, the radius around it, and by arithmetic how far an answer may lie from it
    (inf: nothing can be decided). All of one shape.
    """

    value: Real
    radius: Real
    tolerance: Mapping[str, Real]


@dataclass(frozen=True)
class Case:
    """A network with numbers and its certified loss and gradients. `kills`: faults, and the layers they were planted
    at, that this case tells from the truth.
    """

    id: str
    flags: tuple[str, ...]
    spec: NetworkSpec
    params: Mapping[str, Array]
    x: Array
    y: Array
    loss: Expected
    grads: Mapping[str, Expected]
    kills: tuple[Place, ...] = ()

    def data(self, dtype: str) -> tuple[dict[str, Array], Array, Array]:
        """Fresh copies of the parameters, x and y, in a dtype; labels stay int64."""
        params = {name: array.astype(dtype) for name, array in self.params.items()}
        y = self.y.copy() if self.y.ndim == 1 else self.y.astype(dtype)
        return params, self.x.astype(dtype), y

    def fits(self, dtype: str) -> bool:
        """Whether all numbers are finite in a dtype."""
        with np.errstate(over="ignore"):
            return all(np.isfinite(array.astype(dtype)).all() for array in (*self.params.values(), self.x, self.y))

    def batch(self, dtype: str) -> Batch:
        """The numbers, validated."""
        return validate(self.spec, *self.data(dtype))

    @property
    def traits(self) -> tuple[str, ...]:
        """What it has that other cases have not, in words."""
        spec, n = self.spec, len(self.x)
        activations = dict.fromkeys(f"the activation {layer.activation.name}" for layer in spec.layers)
        said = {
            "one sample": n == 1,
            "several samples": n > 1,
            "one layer": spec.depth == 1,
            "several layers": spec.depth > 1,
            "one output": spec.n_out == 1,
            "several outputs": spec.n_out > 1,
            "a layer without bias": not all(layer.bias for layer in spec.layers),
            "labels in y": self.y.ndim == 1,
            "x of several dimensions": len(spec.input_shape) > 1,
        }
        flags = (f"the flag {flag}" for flag in self.flags)
        words = (word for word, holds in said.items() if holds)
        return (*activations, f"the loss {spec.loss.name}", f"the reduction {spec.reduction}", *words, *flags)

    def judge(self, dtype: str) -> Judge:
        """A judge who goes by what is written in the case."""
        return _WrittenJudge(self, dtype)


@dataclass(frozen=True)
class WrongAnswer:
    """An answer to a case that is wrong on purpose, and the explanations of which one must be named."""

    id: str
    case: str
    loss: float
    grads: Mapping[str, Real]
    diagnosis: tuple[tuple[Place, ...], ...]


@dataclass(frozen=True)
class Suite:
    """All cases, and the wrong answers."""

    cases: tuple[Case, ...]
    wrong: tuple[WrongAnswer, ...] = ()
    by_id: Mapping[str, Case] = field(default_factory=dict)

    @classmethod
    def of(cls, cases: Sequence[Case], wrong: Sequence[WrongAnswer] = ()) -> Suite:
        """Raises ConformanceError where an id is given twice or a wrong answer is to no case."""
        by_id = {case.id: case for case in cases}
        if len(by_id) != len(cases):
            raise ConformanceError("two cases have the same id; ids must be unique over the suite")
        for answer in wrong:
            if answer.case not in by_id:
                raise ConformanceError(f"wrong answer {answer.id!r} is to the unknown case {answer.case!r}")
        return cls(tuple(cases), tuple(wrong), by_id)


class _WrittenJudge(Judge):
    def __init__(self, case: Case, dtype: str) -> None:
        self.spec, self.batch = case.spec, case.batch(dtype)
        self.expected = {"loss": case.loss, **case.grads}
        self.truth = Certificate(
            loss=_balls(case.loss),
            grads={name: _balls(expected) for name, expected in case.grads.items()},
            values={},
            dtype=dtype,
            precision=0,
        )

    def tolerance(self, arithmetic: Arithmetic) -> Tolerance:
        """What is written for this arithmetic; for one that flushes, IEEE's where no other is written."""
        ieee = arithmetic.name.removesuffix("_flushing")
        bounds = {
            name: expected.tolerance.get(arithmetic.name, expected.tolerance[ieee])
            for name, expected in self.expected.items()
        }
        unknown = {name: np.full_like(bound, np.inf) for name, bound in bounds.items()}
        return Tolerance(bounds, bounds, unknown, arithmetic)


def _balls(expected: Expected) -> Balls:
    zeros = np.zeros_like(expected.value)
    return Balls(expected.value, expected.radius, zeros, zeros)


# --------------------------------------------------------------------------------------------------------------
# Making them


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
        loss = expected.pop("loss")
        return Case(draft.name, draft.flags, drawn.spec, drawn.params, drawn.x, drawn.y, loss, expected, tuple(kills))
    raise ConformanceError(f"draft {draft.name!r}: no attempt of {ATTEMPTS} was admitted; the last: {reason}")


def _expected(judge: Judge, exact: bool) -> dict[str, Expected]:
    """The truth and the tolerances as they are written, rounded outwards to two digits."""
    names = list(judge.spec.parameter_shapes)
    balls = {"loss": judge.truth.loss, **{name: judge.truth.grads[name] for name in names}}
    bounds = {a.name: judge.tolerance(a) for a in ARITHMETIC_NAMES.values()}
    float32 = Judge(judge.spec, validate(judge.spec, *_as_float32(judge)))
    for name in ("float32", "float32_flushing"):
        bounds[name] = float32.tolerance(ARITHMETIC_NAMES[name])
    grads = {name: balls[name] for name in names}
    largest = {name: largest_element(ball.mid, grads if name in grads else {}) for name, ball in balls.items()}
    return {name: _one_expected(name, ball, bounds, largest[name], exact) for name, ball in balls.items()}


def _as_float32(judge: Judge) -> tuple[dict[str, Array], Array, Array]:
    batch = judge.batch
    params = {name: array.astype(np.float32) for name, array in batch.params.items()}
    y = batch.y if batch.y.ndim == 1 else batch.y.astype(np.float32)
    return params, batch.x.astype(np.float32).reshape(-1, *judge.spec.input_shape), y


def _one_expected(name: str, ball: Balls, bounds: Mapping[str, Tolerance], largest: float, exact: bool) -> Expected:
    radius = _outwards(ball.rad)
    tolerances = {}
    for key, bound in bounds.items():
        if exact:
            tolerances[key] = np.zeros_like(radius)
            continue
        total = _outwards(bound.worst_case[name] + 3 * ball.tail_rad + np.abs(ball.tail))
        limit = DECISIVE * max(largest, bound.arithmetic.smallest_normal)
        decided = (total <= limit) & (bound.across_kinks[name] == bound.worst_case[name])
        tolerances[key] = np.where(decided, total, np.inf)
    for dtype in ARITHMETICS:
        if np.array_equal(tolerances[f"{dtype}_flushing"], tolerances[dtype]):
            del tolerances[f"{dtype}_flushing"]
    return Expected(ball.mid, radius, tolerances)


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
        if fault.evidence or fault.name in ("finite_differences", "one_sided_differences"):
            backend = PlantedBackend(((fault, layer, fault.example),))
            run = backend.gradient_function(spec, dtype="float64", device="cpu")
            loss, grads = run(batch.params, batch.x.reshape(-1, *spec.input_shape), batch.y)
            return {"loss": np.asarray(loss), **grads}
        mistaken = Mistaken.right(spec, batch.targets(spec.n_out))
        fault.plant(mistaken, layer, fault.example)
        functions = Exact()
        known = forward(mistaken.spec, batch.params, batch.x, mistaken.y, mistaken.equations, functions)
        outcome = propagate(mistaken.spec, known, mistaken.equations, functions)
    except ValueError:  # shapes that do not fit: this code would not have run
        return None
    wrong = {"loss": np.asarray(outcome.loss), **mistaken.returned(outcome.grads)}
    return {name: _floats(values) for name, values in wrong.items()}


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
    if processes == 1 or len(chosen) < 2:
        yield from map(admit, chosen)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_admit_named, [draft.name for draft in chosen], chunksize=8)


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
    from refimpl.diagnosis import diagnose_answer

    for fault in FAULTS.values():
        if fault.evidence or fault.name in ("finite_differences", "one_sided_differences"):
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
        findings = diagnose_answer(judge, (loss, grads))
        explanations = [
            [[cause.fault.name, cause.layer] for cause in explanation]
            for finding in findings[:1]
            for explanation in finding.explanations
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
    tolerance = {
        name: [_short(t) if math.isfinite(t) else None for t in values.ravel().tolist()]
        for name, values in expected.tolerance.items()
    }
    return {
        **_tensor(expected.value),
        "radius": [_short(r) for r in expected.radius.ravel().tolist()],
        "tolerance": tolerance,
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


# --------------------------------------------------------------------------------------------------------------
# Reading them


def load(folder: Path | str | None = None) -> Suite:
    """The suite in a folder of vector files; None for the one that comes with refimpl. Raises ConformanceError."""
    home = FOLDER if folder is None else Path(folder)
    try:
        paths = sorted(path for path in home.iterdir() if path.suffix == ".json" and path.is_file())
        outside = [path for path in paths if path.resolve().parent != home.resolve()]
    except OSError as error:
        raise ConformanceError(f"cannot read {home}: {error.strerror}; name a folder of vector files") from None
    if len(paths) > MAX_FILES:
        raise ConformanceError(f"{home} holds more than {MAX_FILES:,} files; split the suite")
    if not paths:
        raise ConformanceError(f"{home} holds no .json file; name a folder of vector files")
    if outside:
        raise ConformanceError(f"{outside[0]} is a link out of the folder; copy the file into it")
    cases: list[Case] = []
    wrong: list[WrongAnswer] = []
    if sum(path.stat().st_size for path in paths) > MAX_FOLDER_BYTES:
        raise ConformanceError(f"{home} holds more than {MAX_FOLDER_BYTES:,} bytes; split the suite")
    for path in paths:
        found, answers = load_file(path)
        cases += found
        wrong += answers
        if max(len(cases), len(wrong)) > MAX_CASES:
            raise ConformanceError(f"{home} holds more than {MAX_CASES:,} cases or wrong answers; split the suite")
    if not cases:
        raise ConformanceError(f"{home} holds no case; name a folder of vector files")
    return Suite.of(cases, wrong)


def load_file(path: Path | str) -> tuple[list[Case], list[WrongAnswer]]:
    """The cases and the wrong answers of one vector file of at most 1 MiB. Raises ConformanceError, with its name."""
    raw = read_whole(path, MAX_FILE_BYTES, ConformanceError, "a vector file")
    try:
        return loads(raw)
    except RefimplError as error:
        raise ConformanceError(f"{path}: {error}") from None


def loads(text: str | bytes) -> tuple[list[Case], list[WrongAnswer]]:
    """The cases and the wrong answers of the text of a vector file. Raises ConformanceError."""
    data = _object(parse(text, ConformanceError, "a vector file", MAX_FILE_BYTES), "the file", {"format"}, ANY)
    if data["format"] != FORMAT:
        raise ConformanceError(f"format must be {FORMAT!r}; this file's is {str(data['format'])[:40]!r}")
    _object(data, "the file", {"format", "flags"}, {"cases", "wrong"})
    flags = _object(data["flags"], "flags", set(), ANY)
    cases = [_case(item, f"cases[{i}]", flags) for i, item in enumerate(_list(data.get("cases", []), "cases"))]
    wrong = [_wrong(item, f"wrong[{i}]") for i, item in enumerate(_list(data.get("wrong", []), "wrong"))]
    return cases, wrong


class _Anything(set[str]):
    def __contains__(self, key: object) -> bool:
        return True


ANY = _Anything()


def _case(item: Any, where: str, flags: Mapping[str, Any]) -> Case:
    keys = {"id", "flags", "network", "parameters", "x", "y", "loss", "gradients"}
    data = _object(item, where, keys, {"kills"})
    name = _name(data["id"], f"{where}.id")
    where = f"case {name!r}"
    try:
        spec = NetworkSpec.from_dict(data["network"])
    except RefimplError as error:
        raise ConformanceError(f"{where}: network: {error}") from None
    n = _samples(data["x"], f"{where}: x")
    if spec.depth > MAX_DEPTH or n * sum(spec.sizes) > MAX_VALUES:
        raise ConformanceError(
            f"{where} is too large: at most {MAX_DEPTH} layers, and {MAX_VALUES:,} units over all samples and layers"
        )
    shapes = spec.parameter_shapes
    given = _object(data["parameters"], f"{where}: parameters", set(shapes), set())
    params = {key: _numbers(given[key], f"{where}: {key}", shape) for key, shape in shapes.items()}
    x = _numbers(data["x"], f"{where}: x", (n, *spec.input_shape))
    labels = isinstance(data["y"], dict) and "integers" in data["y"]
    y = _labels(data["y"], f"{where}: y", n) if labels else _numbers(data["y"], f"{where}: y", (n, spec.n_out))
    try:
        validate(spec, params, x, y)
    except RefimplError as error:
        raise ConformanceError(f"{where}: {error}") from None
    gradients = _object(data["gradients"], f"{where}: gradients", set(shapes), set())
    return Case(
        id=name,
        flags=tuple(_flag(flag, flags, where) for flag in _list(data["flags"], f"{where}: flags")),
        spec=spec,
        params=params,
        x=x,
        y=y,
        loss=_read_expected(data["loss"], f"{where}: loss", ()),
        grads={key: _read_expected(gradients[key], f"{where}: gradient {key}", shape) for key, shape in shapes.items()},
        kills=tuple(_place(item, f"{where}: kills") for item in _list(data.get("kills", []), f"{where}: kills")),
    )


def _wrong(item: Any, where: str) -> WrongAnswer:
    data = _object(item, where, {"id", "case", "loss", "gradients", "diagnosis"}, set())
    name = _name(data["id"], f"{where}.id")
    where = f"wrong answer {name!r}"
    gradients = _object(data["gradients"], f"{where}: gradients", set(), ANY)
    diagnosis = _list(data["diagnosis"], f"{where}: diagnosis")
    return WrongAnswer(
        id=name,
        case=_name(data["case"], f"{where}: case"),
        loss=_hex(data["loss"], f"{where}: loss"),
        grads={_name(key, where): _numbers(value, f"{where}: {key}", None) for key, value in gradients.items()},
        diagnosis=tuple(
            tuple(_place(cause, where) for cause in _list(explanation, f"{where}: diagnosis"))
            for explanation in diagnosis
        ),
    )


def _read_expected(item: Any, where: str, shape: tuple[int, ...]) -> Expected:
    data = _object(item, where, {"shape", "hex", "decimal", "radius", "tolerance"}, set())
    value = _numbers({key: data[key] for key in ("shape", "hex", "decimal")}, where, shape)
    radius = _bounds(data["radius"], f"{where}: radius", value, null=False)
    given = _object(data["tolerance"], f"{where}: tolerance", set(ARITHMETICS), set(FLUSHING_NAMES))
    tolerance = {name: _bounds(bounds, f"{where}: tolerance", value, null=True) for name, bounds in given.items()}
    return Expected(value, radius, tolerance)


FLUSHING_NAMES = tuple(arithmetic.name for arithmetic in FLUSHING.values())


def _object(item: Any, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ConformanceError(f"{where} must be a JSON object, got {type(item).__name__}")
    missing = sorted(required - set(item))
    if missing:
        raise ConformanceError(f"{where} lacks the key {missing[0]!r}; add it")
    unknown = [key for key in item if key not in required and key not in optional]
    if unknown:
        raise ConformanceError(f"{where} has the unknown key {unknown[0][:60]!r}; remove it")
    return item


def _list(item: Any, where: str) -> list[Any]:
    if not isinstance(item, list):
        raise ConformanceError(f"{where} must be a list, got {type(item).__name__}")
    return item


def _name(item: Any, where: str) -> str:
    if not isinstance(item, str) or not 0 < len(item) <= 200 or not item.isprintable():
        raise ConformanceError(f"{where} must be one line of 1 to 200 printable characters")
    return item


def _flag(item: Any, flags: Mapping[str, Any], where: str) -> str:
    name = _name(item, f"{where}: flags")
    if name not in flags:
        raise ConformanceError(f"{where} has the flag {name!r}, which the file's flags do not explain; add it there")
    return name


def _place(item: Any, where: str) -> Place:
    pair = _list(item, where)
    if len(pair) != 2 or isinstance(pair[1], bool) or not isinstance(pair[1], int) or pair[1] < 0:
        raise ConformanceError(f"{where} must hold pairs of a fault's name and a layer (0: the whole network)")
    name = _name(pair[0], where)
    if name not in FAULTS:
        raise ConformanceError(f"{where}: there is no fault {name!r}; known are {', '.join(FAULTS)}")
    return name, pair[1]


def _samples(item: Any, where: str) -> int:
    shape = _shape(_object(item, where, {"shape"}, ANY)["shape"], where)
    if not shape:
        raise ConformanceError(f"{where} has the shape []; the first extent is the number of samples")
    return shape[0]


def _shape(item: Any, where: str) -> tuple[int, ...]:
    extents = _list(item, f"{where}: shape")
    if len(extents) > 33 or any(isinstance(e, bool) or not isinstance(e, int) or not 0 < e <= 10**7 for e in extents):
        raise ConformanceError(f"{where}: shape must be a list of at most 33 positive integers")
    return tuple(extents)


def _labels(item: Any, where: str, n: int) -> Array:
    data = _object(item, where, {"shape", "integers"}, set())
    values = _list(data["integers"], f"{where}: integers")
    if _shape(data["shape"], where) != (n,) or len(values) != n:
        raise ConformanceError(f"{where} must have the shape [{n}] and as many integers")
    if any(isinstance(v, bool) or not isinstance(v, int) or abs(v) > 10**7 for v in values):
        raise ConformanceError(f"{where}: integers must be integers")
    return np.array(values, dtype=np.int64)


def _numbers(item: Any, where: str, wanted: tuple[int, ...] | None) -> Real:
    data = _object(item, where, {"shape", "hex", "decimal"}, set())
    shape = _shape(data["shape"], where)
    if wanted is not None and shape != wanted:
        raise ConformanceError(f"{where} has the shape {list(shape)}; it must be {list(wanted)}")
    texts, decimals = _list(data["hex"], f"{where}: hex"), _list(data["decimal"], f"{where}: decimal")
    if not len(texts) == len(decimals) == math.prod(shape):
        raise ConformanceError(f"{where}: hex and decimal must hold {math.prod(shape)} numbers each")
    values = [_hex(text, where) for text in texts]
    for text, value, decimal in zip(texts, values, decimals, strict=True):
        if isinstance(decimal, bool) or not isinstance(decimal, int | float) or float(decimal) != value:
            raise ConformanceError(f"{where}: {text} is {value!r} and not what decimal says; correct one")
    return np.array(values, dtype=np.float64).reshape(shape)


_HEX = re.compile(r"-?0x[01](\.[0-9a-f]{1,13})?p[+-][0-9]{1,4}")


def _hex(item: Any, where: str) -> float:
    if not isinstance(item, str) or not _HEX.fullmatch(item):
        raise ConformanceError(f"{where}: {str(item)[:40]!r} is no C99 hexadecimal float such as 0x1.8p+0")
    try:
        return float.fromhex(item)
    except OverflowError:
        raise ConformanceError(f"{where}: {item} is too large for float64") from None


def _bounds(item: Any, where: str, like: Real, null: bool) -> Real:
    values = _list(item, where)
    if len(values) != like.size:
        raise ConformanceError(f"{where} must hold {like.size} numbers")
    for value in values:
        if value is None and null:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConformanceError(f"{where} must hold numbers ≥ 0{' or null' if null else ''}")
    return np.array([math.inf if v is None else float(v) for v in values], dtype=np.float64).reshape(like.shape)
