"""The vector files, `refimpl.vectors/2`: cases with their certified answers, in JSON that any language reads. `load`
reads those that come with refimpl, or somebody else's; they are made by :mod:`refimpl.conformance.generate`.

A number stands there twice: as a C99 hexadecimal float, which is what counts, and as a decimal. `tolerance` is the
largest |g − value| that passes by the worst case, the radius of the certified ball included, `statistical` by the
statistical bound; null where that decides nothing. An answer is right where it is within both. `refimpl.vectors/1` has
no `statistical`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from refimpl.faults.catalogue import FAULTS
from refimpl.formats import files
from refimpl.formats.arrays import Shape
from refimpl.formats.errors import ConformanceError
from refimpl.formats.strict_json import parse
from refimpl.formats.validation import Document, Listed, Name, OneOf, Several, Whole, checked
from refimpl.judge.bounds import Tolerance
from refimpl.judge.judge import Judge
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING, Arithmetic
from refimpl.network.batch import Batch, validate
from refimpl.network.documents import NetworkDocument
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.certification import Certificate

FOLDER = Path(__file__).parent / "vectors"
MAX_FILE_BYTES = 2**20
MAX_FOLDER_BYTES = 2**26
MAX_VALUES = 100_000  # weighted inputs and activations of one case: its certificate takes some 10 kB for each
# how what a case has is put into words
ACTIVATION, LOSS, REDUCTION, HIDDEN_LAYERS = "the activation", "the loss", "the reduction", "several layers"
ARITHMETIC_NAMES = {a.name: a for a in (*ARITHMETICS.values(), *FLUSHING.values())}

Array = NDArray[Any]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Bound = Annotated[Real, Field(ge=0)]
Bounds = dict[Annotated[str, OneOf(tuple(ARITHMETIC_NAMES))], Listed[Bound | None]]
Hexadecimal = Annotated[str, Field(strict=True, pattern=r"^-?0x[01](\.[0-9a-f]{1,13})?p[+-][0-9]{1,4}$")]
Place = tuple[Annotated[str, OneOf(tuple(FAULTS))], Annotated[Whole, Field(ge=0)]]


class Numbers(Document):
    """An array: flat, in C order."""

    shape: Shape
    hex: Listed[Hexadecimal]
    decimal: Listed[Real]

    @model_validator(mode="after")
    def _consistent(self) -> Numbers:
        if not len(self.hex) == len(self.decimal) == math.prod(self.shape):
            raise ValueError(f": hex and decimal must hold {math.prod(self.shape)} numbers each")
        values = tuple(map(_value, self.hex))
        if values != tuple(self.decimal):
            texts = zip(self.hex, values, self.decimal, strict=True)
            text, value, decimal = next(item for item in texts if item[1] != item[2])
            raise ValueError(f": {text} is {value!r} and not {decimal!r}, as decimal says; correct one")
        return self

    @property
    def array(self) -> NDArray[np.float64]:
        """The numbers in their shape."""
        return np.array(list(map(float.fromhex, self.hex)), dtype=np.float64).reshape(self.shape)


def _value(text: str) -> float:
    try:
        return float.fromhex(text)
    except OverflowError:
        raise ValueError(f": {text} is too large for float64") from None


class Labels(Document):
    """The class of every sample, from 0."""

    shape: Annotated[Shape, Field(min_length=1, max_length=1)]
    integers: Listed[Annotated[Whole, Field(ge=0, lt=10**7)]]

    @property
    def array(self) -> NDArray[np.int64]:
        """The labels (N,)."""
        return np.array(self.integers, dtype=np.int64)


@dataclass(frozen=True)
class Expected:
    """A certified array: its value, the radius around it, and by arithmetic how far an answer may lie from it, in the
    worst case and statistically (inf: nothing can be decided). All of one shape.
    """

    value: NDArray[np.float64]
    radius: NDArray[np.float64]
    tolerance: Mapping[str, NDArray[np.float64]]
    statistical: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def balls(self) -> Balls:
        """The value and its radius."""
        zeros = np.zeros_like(self.value)
        return Balls(self.value, self.radius, zeros, zeros)


class Certified(Numbers):
    """A certified array: its value, the radius around it, and by arithmetic how far an answer may lie from it."""

    radius: Listed[Bound]
    tolerance: Bounds
    statistical: Bounds = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> Certified:
        if not set(ARITHMETICS) <= set(self.tolerance):
            raise ValueError(f": tolerance must have the keys {', '.join(ARITHMETICS)}")
        if self.statistical and not set(ARITHMETICS) <= set(self.statistical):
            raise ValueError(f": statistical must have the keys {', '.join(ARITHMETICS)}")
        bounds = [*self.tolerance.values(), *self.statistical.values()]
        if {len(self.radius), *map(len, bounds)} != {len(self.hex)}:
            raise ValueError(f": radius and tolerances must hold {len(self.hex)} numbers each")
        return self

    @property
    def expected(self) -> Expected:
        """As arrays."""

        def bounds(values: Sequence[float | None]) -> NDArray[np.float64]:
            return np.array([math.inf if v is None else v for v in values], dtype=np.float64).reshape(self.shape)

        tolerance, statistical = (
            {name: bounds(values) for name, values in form.items()} for form in (self.tolerance, self.statistical)
        )
        return Expected(self.array, bounds(self.radius), tolerance, statistical)


if TYPE_CHECKING:
    RealArray = NDArray[np.float64]
    LabelArray = NDArray[np.int64]
    CertifiedArray = Expected
    Spec = NetworkSpec
    Hex = float
else:
    RealArray = Annotated[Numbers, AfterValidator(attrgetter("array"))]
    LabelArray = Annotated[Labels, AfterValidator(attrgetter("array"))]
    CertifiedArray = Annotated[Certified, AfterValidator(attrgetter("expected"))]
    Spec = Annotated[NetworkDocument, AfterValidator(NetworkSpec.of)]
    Hex = Annotated[Hexadecimal, AfterValidator(_value)]


class Asked:
    """A network with numbers, whose loss and gradients somebody is asked for."""

    if TYPE_CHECKING:  # which pydantic need not see

        @property
        def id(self) -> str: ...
        @property
        def flags(self) -> tuple[str, ...]: ...
        @property
        def spec(self) -> NetworkSpec: ...
        @property
        def params(self) -> Mapping[str, Array]: ...
        @property
        def x(self) -> Array: ...
        @property
        def y(self) -> Array: ...
        def judge(self, dtype: str) -> Judge: ...

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
        activations = dict.fromkeys(f"{ACTIVATION} {layer.activation.name}" for layer in spec.layers)
        said = {
            "one sample": n == 1,
            "several samples": n > 1,
            "one layer": spec.depth == 1,
            HIDDEN_LAYERS: spec.depth > 1,
            "one output": spec.n_out == 1,
            "several outputs": spec.n_out > 1,
            "a layer without bias": not all(layer.bias for layer in spec.layers),
            "labels in y": self.y.ndim == 1,
            "x of several dimensions": len(spec.input_shape) > 1,
        }
        flags = (f"the flag {flag}" for flag in self.flags)
        words = (word for word, holds in said.items() if holds)
        return (*activations, f"{LOSS} {spec.loss.name}", f"{REDUCTION} {spec.reduction}", *words, *flags)


class Case(Document, Asked):
    """A network with numbers and its certified loss and gradients. `kills`: faults, and the layers they were planted
    at (0: the whole network), that this case tells from the truth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    id: Name
    flags: Several[Name]
    spec: Annotated[Spec, Field(alias="network")]
    params: Annotated[Mapping[str, RealArray], Field(alias="parameters")]
    x: RealArray
    y: RealArray | LabelArray
    loss: CertifiedArray
    grads: Annotated[Mapping[str, CertifiedArray], Field(alias="gradients")]
    kills: Several[Place] = ()

    @model_validator(mode="after")
    def _fitting(self) -> Case:
        if len(self.x) * sum(self.spec.sizes) > MAX_VALUES:
            raise ValueError(f"is too large: at most {MAX_VALUES:,} units over all samples and layers")
        validate(self.spec, dict(self.params), self.x, self.y)
        shapes = {"loss": (), **self.spec.parameter_shapes}
        if {name: e.value.shape for name, e in {"loss": self.loss, **self.grads}.items()} != shapes:
            raise ValueError(f": the loss and the gradients must have the shapes {shapes}")
        return self

    def judge(self, dtype: str) -> Judge:
        """A judge who goes by what is written in the case."""
        grads = {name: expected.balls for name, expected in self.grads.items()}
        truth = Certificate(loss=self.loss.balls, grads=grads, values={}, dtype=dtype, precision=0)
        return Judge(self.spec, self.batch(dtype), truth, partial(_written, {"loss": self.loss, **self.grads}))


def _written(expected: Mapping[str, Expected], arithmetic: Arithmetic) -> Tolerance:
    """What is written for this arithmetic; for one that flushes, IEEE's where no other is written."""
    ieee = arithmetic.name.removesuffix("_flushing")

    def found(form: Mapping[str, NDArray[np.float64]], like: NDArray[np.float64]) -> NDArray[np.float64]:
        return form.get(arithmetic.name, form.get(ieee, np.full_like(like, np.inf)))

    worst = {name: found(e.tolerance, e.value) for name, e in expected.items()}
    statistical = {name: found(e.statistical, e.value) for name, e in expected.items()}
    return Tolerance(worst, worst, statistical, statistical, arithmetic)


class WrongAnswer(Document):
    """An answer to a case that is wrong on purpose, and the explanations of which one must be named."""

    id: Name
    case: Name
    loss: Hex
    grads: Annotated[Mapping[Name, RealArray], Field(alias="gradients")]
    diagnosis: Several[Several[Place]]


class VectorFile(Document):
    """A file of cases and of wrong answers, with what the flags of its cases mean."""

    format: Literal["refimpl.vectors/1", "refimpl.vectors/2"]
    flags: dict[Name, str]
    cases: Several[Case] = ()
    wrong: Several[WrongAnswer] = ()

    @model_validator(mode="after")
    def _explained(self) -> VectorFile:
        for case in self.cases:
            for flag in case.flags:
                if flag not in self.flags:
                    raise ValueError(f": case {case.id!r} has the flag {flag!r}, which flags lacks; add it there")
        return self


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
    """The suite in a folder of vector files; None for the one that comes with refimpl, which is read once. Raises
    ConformanceError.
    """
    return _built_in() if folder is None else _loaded(Path(folder))


@cache
def _built_in() -> Suite:
    return _loaded(FOLDER)


def _loaded(home: Path) -> Suite:
    try:
        paths = sorted((path for path in home.iterdir() if path.suffix == ".json" and path.is_file()), key=_numbered)
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise ConformanceError(f"cannot read {home}: {error.strerror}; name a folder of vector files") from None
    if size > MAX_FOLDER_BYTES:
        raise ConformanceError(f"{home} holds more than {MAX_FOLDER_BYTES:,} bytes; split the suite")
    cases: list[Case] = []
    wrong: list[WrongAnswer] = []
    for path in paths:
        file = load_file(path)
        cases += file.cases
        wrong += file.wrong
    if not cases:
        raise ConformanceError(f"{home} holds no case; name a folder of vector files")
    return Suite.of(cases, wrong)


def _numbered(path: Path) -> list[str]:
    """In which order: basic-2.json before basic-10.json."""
    return [part.zfill(9) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def load_file(path: Path | str) -> VectorFile:
    """One vector file of at most 1 MiB. Raises ConformanceError, with its name."""
    raw = files.read(path, MAX_FILE_BYTES, ConformanceError, "a vector file")
    try:
        return loads(raw)
    except ConformanceError as error:
        raise ConformanceError(f"{path}: {error}") from None


def loads(text: str | bytes) -> VectorFile:
    """The text of a vector file. Raises ConformanceError."""
    data = parse(text, ConformanceError, "a vector file", MAX_FILE_BYTES)
    return checked(VectorFile, data, ConformanceError, "the file")
