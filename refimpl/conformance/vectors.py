"""The vector files: cases with their certified answers, in JSON that any language reads
(:mod:`refimpl.conformance.documents`). `load` reads those that come with refimpl, or somebody else's.

They are made by :mod:`refimpl.conformance.generate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.conformance.documents import CaseDocument, Certified, VectorFile, WrongDocument
from refimpl.faults.catalogue import FAULTS
from refimpl.formats import files
from refimpl.formats.errors import ConformanceError, RefimplError
from refimpl.formats.strict_json import parse
from refimpl.formats.validation import checked
from refimpl.judge.judge import Judge
from refimpl.judge.tolerance import Tolerance
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.batch import Batch, validate
from refimpl.network.spec import NetworkSpec
from refimpl.truth.certification import Balls, Certificate

FOLDER = Path(__file__).parent / "vectors"
MAX_FILE_BYTES = 2**20
MAX_FOLDER_BYTES = 2**26
MAX_VALUES = 100_000  # weighted inputs and activations of one case: its certificate takes some 10 kB for each

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

    @property
    def balls(self) -> Balls:
        """The value and its radius."""
        zeros = np.zeros_like(self.value)
        return Balls(self.value, self.radius, zeros, zeros)


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
        grads = {name: expected.balls for name, expected in self.grads.items()}
        truth = Certificate(loss=self.loss.balls, grads=grads, values={}, dtype=dtype, precision=0)
        return Judge(self.spec, self.batch(dtype), truth, partial(_written, {"loss": self.loss, **self.grads}))


def _written(expected: Mapping[str, Expected], arithmetic: Arithmetic) -> Tolerance:
    """What is written for this arithmetic; for one that flushes, IEEE's where no other is written."""
    ieee = arithmetic.name.removesuffix("_flushing")
    bounds = {name: e.tolerance.get(arithmetic.name, e.tolerance[ieee]) for name, e in expected.items()}
    unknown = {name: np.full_like(bound, np.inf) for name, bound in bounds.items()}
    return Tolerance(bounds, bounds, unknown, arithmetic)


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


def load(folder: Path | str | None = None) -> Suite:
    """The suite in a folder of vector files; None for the one that comes with refimpl. Raises ConformanceError."""
    home = FOLDER if folder is None else Path(folder)
    try:
        paths = sorted(path for path in home.iterdir() if path.suffix == ".json" and path.is_file())
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise ConformanceError(f"cannot read {home}: {error.strerror}; name a folder of vector files") from None
    if size > MAX_FOLDER_BYTES:
        raise ConformanceError(f"{home} holds more than {MAX_FOLDER_BYTES:,} bytes; split the suite")
    cases: list[Case] = []
    wrong: list[WrongAnswer] = []
    for path in paths:
        found, answers = load_file(path)
        cases += found
        wrong += answers
    if not cases:
        raise ConformanceError(f"{home} holds no case; name a folder of vector files")
    return Suite.of(cases, wrong)


def load_file(path: Path | str) -> tuple[list[Case], list[WrongAnswer]]:
    """The cases and the wrong answers of one vector file of at most 1 MiB. Raises ConformanceError, with its name."""
    raw = files.read(path, MAX_FILE_BYTES, ConformanceError, "a vector file")
    try:
        return loads(raw)
    except RefimplError as error:
        raise ConformanceError(f"{path}: {error}") from None


def loads(text: str | bytes) -> tuple[list[Case], list[WrongAnswer]]:
    """The cases and the wrong answers of the text of a vector file. Raises ConformanceError."""
    data = parse(text, ConformanceError, "a vector file", MAX_FILE_BYTES)
    file = checked(VectorFile, data, ConformanceError, "the file")
    return [_case(case, file.flags) for case in file.cases], [_wrong(wrong) for wrong in file.wrong]


def _case(given: CaseDocument, flags: Mapping[str, str]) -> Case:
    where = f"case {given.id!r}"
    unexplained = [flag for flag in given.flags if flag not in flags]
    if unexplained:
        raise ConformanceError(
            f"{where} has the flag {unexplained[0]!r}, which the file does not explain; add it there"
        )
    try:
        spec = NetworkSpec.of(given.network)
        n = given.x.shape[0] if given.x.shape else 0
        if n * sum(spec.sizes) > MAX_VALUES:
            raise ConformanceError(f"is too large: at most {MAX_VALUES:,} units over all samples and layers")
        params = {name: numbers.array for name, numbers in given.parameters.items()}
        x, y = given.x.array, given.y.array
        validate(spec, params, x, y)
        shapes = {"loss": (), **spec.parameter_shapes}
        certified = {"loss": given.loss, **given.gradients}
        if {name: tuple(array.shape) for name, array in certified.items()} != shapes:
            raise ConformanceError(f"the loss and the gradients must have the shapes {shapes}")
        _check_places(given.kills)
    except RefimplError as error:
        raise ConformanceError(f"{where}: {error}") from None
    grads = {name: _expected(given.gradients[name]) for name in spec.parameter_shapes}
    ordered = {name: params[name] for name in spec.parameter_shapes}
    flags_of = tuple(given.flags)
    return Case(given.id, flags_of, spec, ordered, x, y, _expected(given.loss), grads, tuple(given.kills))


def _expected(given: Certified) -> Expected:
    def bounds(values: Sequence[float | None]) -> Real:
        return np.array([math.inf if v is None else v for v in values], dtype=np.float64).reshape(given.shape)

    tolerance = {name: bounds(values) for name, values in given.tolerance.items()}
    return Expected(given.array, bounds(given.radius), tolerance)


def _wrong(given: WrongDocument) -> WrongAnswer:
    for explanation in given.diagnosis:
        _check_places(explanation)
    grads = {name: numbers.array for name, numbers in given.gradients.items()}
    return WrongAnswer(
        given.id, given.case, float.fromhex(given.loss), grads, tuple(tuple(causes) for causes in given.diagnosis)
    )


def _check_places(places: Sequence[Place]) -> None:
    for fault, _ in places:
        if fault not in FAULTS:
            raise ConformanceError(f"there is no fault {fault!r}; known are {', '.join(FAULTS)}")
