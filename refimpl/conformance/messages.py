"""What refimpl and others say to each other about cases: `refimpl.process/1` and `refimpl.answers/1`, as their fields
and limits.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from refimpl.conformance.vectors import ARITHMETIC_NAMES
from refimpl.formats.arrays import Number, Tensor
from refimpl.formats.errors import ConformanceError
from refimpl.formats.validation import Document, Flag, Line, Name, OneOf, Whole, sentence
from refimpl.judge.conventions import AS_REFIMPL, Conventions
from refimpl.judge.judge import WITHOUT_LOSS
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.documents import NetworkDocument
from refimpl.network.functions import ACTIVATIONS, LOSSES, REDUCTIONS

Array = NDArray[Any]


ArithmeticName = Annotated[str, OneOf(tuple(ARITHMETIC_NAMES))]
Dtype = Annotated[str, OneOf(tuple(ARITHMETICS))]


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
Arrays = dict[str, Annotated[Tensor, WrapValidator(_or_unusable)]]


class Answer(Message):
    """The loss, which may be left out, and the gradients of a case; or, where a learning rate is declared, the
    parameters after a step.
    """

    needs_loss: ClassVar[bool] = False
    loss: Judged = None
    gradients: Arrays | None = None
    parameters: Arrays | None = None

    def submission(self, dtype: str, conventions: Conventions = AS_REFIMPL) -> Submission:
        """To be judged, in a dtype. Raises ConformanceError where it has other arrays than were declared."""
        arrays, key = (
            (self.gradients, "gradients") if conventions.learning_rate is None else (self.parameters, "parameters")
        )
        if arrays is None:
            raise ConformanceError(f"the answer lacks the key {key!r}; give a tensor for each parameter")
        if self.needs_loss and conventions.loss and "loss" not in self.model_fields_set:
            raise ConformanceError(f"the answer lacks the key 'loss'; {WITHOUT_LOSS}")
        loss = self.loss if self.loss is None or isinstance(self.loss, Unusable) else np.array(self.loss)
        return Submission(loss, {name: _array(tensor, dtype) for name, tensor in arrays.items()})


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
    conventions: Conventions = AS_REFIMPL


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

    needs_loss = True
    type: Literal["answer"]
    id: Whole


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
    """The first line of a file of answers. `partial`: what it does not answer is not what it is for."""

    format: Literal["refimpl.answers/1"]
    name: Line = ""
    dtype: Dtype | None = None
    partial: Flag = False
    conventions: Conventions = AS_REFIMPL


class CaseAnswer(Answer):
    """A line of a file of answers."""

    needs_loss = True
    case: str


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
