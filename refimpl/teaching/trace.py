"""What a forward and a backward pass consist of: `Trace`, and how it is shown in a terminal, a notebook and JSON.

A `Step` is one application of one equation of ``refimpl/equations/dense.py``, with where that stands, what it was
given and what it made; a `Trace` is all of them in order. The JSON form is `refimpl.trace/1`
(`TraceDocument`). Explanations, pictures and lessons are made of it.

Names of values: `a1` (the flattened x), `z2`, `a2` …, `C`, `da4` = ∂C/∂a⁴, `slope3` = f'(z³), `delta4`, `dW3`, `db2`,
`dx`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from refimpl.formats.arrays import Number, Tensor, number, tensor
from refimpl.formats.validation import Document
from refimpl.network.documents import NetworkDocument
from refimpl.network.picture import network_svg
from refimpl.network.spec import NetworkSpec
from refimpl.teaching.display import array_text, mathml, shape_text
from refimpl.teaching.notation import Symbol

FORMAT = "refimpl.trace/1"

Array = NDArray[Any]


class CodeDocument(Document):
    """Where an equation stands."""

    function: str
    file: str
    line: int
    source: str


class StepDocument(Document):
    """One application of one equation."""

    number: int
    phase: Literal["forward", "backward"]
    equation: str
    layer: int
    name: str
    text: str
    latex: str
    latex_batch: str
    note: str
    code: CodeDocument
    operands: dict[str, Tensor]
    value: Tensor


class TraceDocument(Document):
    """A forward and a backward pass."""

    format: Literal["refimpl.trace/1"]
    network: NetworkDocument
    dtype: Literal["float64", "float32"]
    batch: int
    parameters: dict[str, Tensor]
    x: Tensor
    y: Tensor
    loss: Number
    gradients: dict[str, Tensor]
    steps: list[StepDocument]


@dataclass(frozen=True)
class Code:
    """Where an equation stands: a function of `file`, from `line` on, without its docstring."""

    function: str
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class Step:
    """One application of one equation.

    `layer` is the superscript of the result; `text` and `latex` are the equation for one sample, `latex_batch` for rows
    of samples, which is what the code computes. `operands` and `value` are arrays as the backend had them.
    """

    number: int
    phase: str
    equation: str
    layer: int
    name: str
    text: str
    latex: str
    latex_batch: str
    note: str
    code: Code
    operands: Mapping[str, Array]
    value: Array

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data; arrays flat in C order beside their shape."""
        arrays = {
            "operands": {name: tensor(array) for name, array in self.operands.items()},
            "value": tensor(self.value),
        }
        return {**vars(self), "code": vars(self.code), **arrays}

    def __str__(self) -> str:
        of = ", ".join(f"{name} {shape_text(array)}" for name, array in self.operands.items())
        code = [f"        {line}" for line in self.code.source.splitlines()]
        result = f"     {self.name} {shape_text(self.value)} = "
        values = array_text(self.value).splitlines()
        note = f"   {self.note}" if self.note else ""
        return "\n".join(
            [
                f"{self.number:3}. ({self.equation}) {self.text}{note}",
                f"     {self.code.file}:{self.code.line} {self.code.function}({of})",
                *code,
                result + values[0],
                *(" " * len(result) + line for line in values[1:]),
            ]
        )


@dataclass(frozen=True)
class Trace:
    """A forward and a backward pass, step by step. `y` (N, n_out) are the targets; labels have become rows."""

    spec: NetworkSpec
    params: Mapping[str, Array]
    x: Array
    y: Array
    loss: float
    grads: Mapping[str, Array]
    steps: tuple[Step, ...]
    values: Mapping[str, Array] = field(repr=False)

    @property
    def n(self) -> int:
        """The batch size."""
        return len(self.x)

    @property
    def dtype(self) -> str:
        """float64 or float32."""
        return str(self.x.dtype)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "format": FORMAT,
            "network": self.spec.to_dict(),
            "dtype": self.dtype,
            "batch": self.n,
            "parameters": {name: tensor(array) for name, array in self.params.items()},
            "x": tensor(self.x),
            "y": tensor(self.y),
            "loss": number(self.loss),
            "gradients": {name: tensor(array) for name, array in self.grads.items()},
            "steps": [step.to_dict() for step in self.steps],
        }

    @property
    def conditions(self) -> str:
        """The network and the batch in one line."""
        spec = self.spec
        sizes = "-".join(map(str, spec.sizes))
        return f"{spec.name} {sizes} · {spec.loss.name}, {spec.reduction} · batch {self.n} · {self.dtype}".strip()

    def picture(self, sample: int = 1) -> str:
        """The network as SVG, with the activations of one sample, from 1, and the gradients of the weights."""
        gradients = self.spec.by_layer(self.grads)
        return network_svg(
            self.spec.sizes, self.spec.labels, self.conditions,
            lambda layer, j: float(self.values[f"a{layer + 1}"][sample - 1, j]),
            lambda layer, j, k: float(gradients[layer]["W"][j, k]),
        )  # fmt: skip

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{step.number}</td><td>{step.equation}</td><td>{mathml(Symbol(step.text, step.latex))}</td>"
            f'<td style="text-align:left"><code>{html.escape(step.code.source.splitlines()[-1])}</code></td>'
            f'<td style="text-align:left"><pre>{html.escape(array_text(step.value))}</pre></td></tr>'
            for step in self.steps
        )
        head = "".join(f"<th>{name}</th>" for name in ("step", "", "equation", "code", "value"))
        return (
            f"<figure>{self.picture()}<figcaption>{html.escape(self.conditions)}, sample 1: activations, and ∂C/∂w by "
            f"colour (blue above 0, orange below) and width</figcaption></figure>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def __repr__(self) -> str:
        return f"<Trace of {self.spec.name or 'a network'}: {len(self.steps)} steps, loss {self.loss:.9g}>"

    def __str__(self) -> str:
        lines, phase = [self.conditions], ""
        for step in self.steps:
            if step.phase != phase:
                phase = step.phase
                lines += ["", f"{phase} pass"]
            lines += ["", str(step)]
        return "\n".join(lines)
