"""The JSON of the suite: `refimpl.vectors/1`, `refimpl.process/1` and `refimpl.answers/1`, as their fields and limits.

A number of a vector file stands there twice: as a C99 hexadecimal float, which is what counts, and as a decimal. A
tolerance is the largest |g − value| that passes, the radius of the certified ball included; null where nothing can be
decided.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from refimpl.formats.arrays import Number, Shape, Tensor
from refimpl.formats.validation import Document, Line, Name, OneOf, Whole, sentence
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING
from refimpl.network.documents import NetworkDocument
from refimpl.network.functions import ACTIVATIONS, LOSSES, REDUCTIONS

Array = NDArray[Any]
ARITHMETIC_NAMES = {a.name: a for a in (*ARITHMETICS.values(), *FLUSHING.values())}


ArithmeticName = Annotated[str, OneOf(tuple(ARITHMETIC_NAMES))]
Dtype = Annotated[str, OneOf(tuple(ARITHMETICS))]

# Vector files

Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Bound = Annotated[Real, Field(ge=0)]
Hexadecimal = Annotated[str, Field(strict=True, pattern=r"^-?0x[01](\.[0-9a-f]{1,13})?p[+-][0-9]{1,4}$")]
Place = tuple[Name, Annotated[Whole, Field(ge=0)]]


class Numbers(Document):
    """An array: flat, in C order."""

    shape: Shape
    hex: list[Hexadecimal]
    decimal: list[Real]

    @model_validator(mode="after")
    def _consistent(self) -> Numbers:
        if not len(self.hex) == len(self.decimal) == math.prod(self.shape):
            raise ValueError(f": hex and decimal must hold {math.prod(self.shape)} numbers each")
        for text, value, decimal in zip(self.hex, self._values, self.decimal, strict=True):
            if value != decimal:
                raise ValueError(f": {text} is {value!r} and not {decimal!r}, as decimal says; correct one")
        return self

    @cached_property
    def _values(self) -> list[float]:
        try:
            return [float.fromhex(text) for text in self.hex]
        except OverflowError:
            raise ValueError(": a number is too large for float64") from None

    @property
    def array(self) -> NDArray[np.float64]:
        """The numbers in their shape."""
        return np.array(self._values, dtype=np.float64).reshape(self.shape)


class Labels(Document):
    """The class of every sample, from 0."""

    shape: Annotated[Shape, Field(min_length=1, max_length=1)]
    integers: list[Annotated[Whole, Field(ge=0, lt=10**7)]]

    @property
    def array(self) -> NDArray[np.int64]:
        """The labels (N,)."""
        return np.array(self.integers, dtype=np.int64)


class Certified(Numbers):
    """A certified array: its value, the radius around it, and by arithmetic how far an answer may lie from it."""

    radius: list[Bound]
    tolerance: dict[ArithmeticName, list[Bound | None]]

    @model_validator(mode="after")
    def _complete(self) -> Certified:
        missing = [name for name in ARITHMETICS if name not in self.tolerance]
        if missing:
            raise ValueError(f": tolerance lacks the key {missing[0]!r}; add it")
        lengths = {len(self.radius), *map(len, self.tolerance.values())}
        if lengths != {len(self.hex)}:
            raise ValueError(f": radius and tolerances must hold {len(self.hex)} numbers each")
        return self


class CaseDocument(Document):
    """A network with numbers and its certified loss and gradients. `kills`: faults, and the layers they were planted
    at (0: the whole network), that the case tells from the truth.
    """

    id: Name
    flags: list[Name]
    network: NetworkDocument
    parameters: dict[str, Numbers]
    x: Numbers
    y: Labels | Numbers
    loss: Certified
    gradients: dict[str, Certified]
    kills: tuple[Place, ...] = ()


class WrongDocument(Document):
    """An answer that is wrong on purpose, and the explanations of which one must be named."""

    id: Name
    case: Name
    loss: Hexadecimal
    gradients: dict[Name, Numbers]
    diagnosis: list[list[Place]]


class VectorFile(Document):
    """A file of cases and of wrong answers, with what the flags of its cases mean."""

    format: Literal["refimpl.vectors/1"]
    flags: dict[Name, str]
    cases: tuple[CaseDocument, ...] = ()
    wrong: tuple[WrongDocument, ...] = ()


# Messages


def _or_unusable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """One wrong array is that array's FAIL, and no end of the message."""
    try:
        return read(value)
    except ValidationError as error:
        return Unusable(f"is no array: {sentence(error, 'it')}" if isinstance(value, dict) else sentence(error).strip())


class Message(Document):
    """A line of a program's. Keys that are not known are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, arbitrary_types_allowed=True)


Judged = Annotated[Number | None, WrapValidator(_or_unusable)]


class Answer(Message):
    """The loss, which may be left out, and the gradients of a case."""

    loss: Judged = None
    gradients: dict[str, Annotated[Tensor, WrapValidator(_or_unusable)]]

    def submission(self, dtype: str) -> Submission:
        """To be judged, in a dtype."""
        loss = self.loss if self.loss is None or isinstance(self.loss, Unusable) else np.array(self.loss)
        return Submission(loss, {name: _array(tensor, dtype) for name, tensor in self.gradients.items()})


def _array(tensor: Tensor | Unusable, dtype: str) -> Array | Unusable:
    if isinstance(tensor, Unusable):
        return tensor
    with np.errstate(over="ignore"):
        return tensor.array.astype(dtype)


class Greeting(Document):
    """refimpl → program."""

    type: Literal["hello"] = "hello"
    format: Literal["refimpl.process/1"] = "refimpl.process/1"
    dtype: Dtype


class Hello(Message):
    """program → refimpl. A list that is left out means everything."""

    type: Literal["hello"]
    format: Literal["refimpl.process/1"]
    name: Name
    version: Line = ""
    dtypes: list[Dtype] | None = None
    activations: list[Annotated[str, OneOf(tuple(ACTIVATIONS))]] | None = None
    losses: list[Annotated[str, OneOf(tuple(LOSSES))]] | None = None
    reductions: list[Annotated[str, OneOf(REDUCTIONS)]] | None = None
    arithmetic: ArithmeticName | None = None


class Evaluate(Document):
    """refimpl → program: what are the loss and the gradients of this?"""

    type: Literal["evaluate"] = "evaluate"
    id: Whole
    case: str
    network: NetworkDocument
    parameters: dict[str, Tensor]
    x: Tensor
    y: Tensor


class ProgramAnswer(Answer):
    """program → refimpl."""

    type: Literal["answer"]
    id: Whole
    loss: Judged


class Unsupported(Message):
    """program → refimpl: the case is skipped."""

    type: Literal["unsupported"]
    id: Whole
    reason: str = "no reason given"


class Error(Message):
    """program → refimpl: the case has failed."""

    type: Literal["error"]
    id: Whole
    message: str = "no message"


class Bye(Document):
    """refimpl → program: end."""

    type: Literal["bye"] = "bye"


ProcessMessage = Greeting | Hello | Evaluate | ProgramAnswer | Unsupported | Error | Bye


class AnswersHead(Message):
    """The first line of a file of answers."""

    format: Literal["refimpl.answers/1"]
    name: Line = ""
    dtype: Dtype | None = None


class CaseAnswer(Answer):
    """A line of a file of answers."""

    case: str
    loss: Judged


class CaseUnsupported(Message):
    """A line of a file of answers for a case that is skipped."""

    case: str
    unsupported: Line


AnswersLine = AnswersHead | CaseAnswer | CaseUnsupported


class GivenAnswer(Answer):
    """An answer to one case that is to be diagnosed. Without a loss, the gradients alone are."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    type: str = ""
    id: Any = None
    case: str = ""
