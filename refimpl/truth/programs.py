"""Functions as programs on the graph: traced from a definition, certified at numbers.

A *definition* is a function `(xp, *inputs)` of :mod:`refimpl.truth.xp`. Its floating-point inputs are
differentiated; integers, booleans and whatever is no array are handed to it as they are. `trace` runs it once, on
arrays of which only the shape is known.

A function has no loss: what is certified is the vector–Jacobian product ∂(Σ cotangent · output)/∂input, for a
cotangent of every output.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import CertificationError, DataError
from refimpl.truth import graph, xp
from refimpl.truth.balls import Arbs, BallAlgebra, Balls
from refimpl.truth.certification import LAST_PRECISION, certified
from refimpl.truth.gradients import cotangents
from refimpl.truth.graph import Node

Array = NDArray[Any]
Definition = Callable[..., Any]
OUTPUT = "output"
COTANGENT = "cotangent of "


@dataclass(frozen=True)
class Program:
    """A function as a graph: what it is differentiated by, and what it returns, by name."""

    inputs: Mapping[str, Node]
    outputs: Mapping[str, Node]


@dataclass(frozen=True)
class Differentiated:
    """A program with the gradients of Σ cotangent · output: all `ends` by name, `grads` those by input. The cotangents
    are given numbers, by the names that `COTANGENT` begins.
    """

    program: Program
    total: Node
    grads: Mapping[str, Node]

    @property
    def ends(self) -> dict[str, Node]:
        """The outputs and the gradients."""
        return {**self.program.outputs, **{gradient_of(name): node for name, node in self.grads.items()}}


@dataclass(frozen=True)
class FunctionCertificate:
    """The certified outputs and gradients of a function, as balls by name."""

    ends: Mapping[str, Balls]
    precision: int


def gradient_of(name: str) -> str:
    """What the gradient by an input is called."""
    return f"∂/∂{name}"


def names_of(definition: Definition, inputs: Sequence[Any]) -> list[str]:
    """What a definition calls its inputs. Raises DataError where it takes fewer."""
    try:
        parameters = list(inspect.signature(definition).parameters.values())[1:]
    except (TypeError, ValueError):
        return [f"input {number}" for number in range(1, len(inputs) + 1)]
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{i}]" for i in range(len(inputs) - len(names))]
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            names.append(parameter.name)
    if len(names) < len(inputs):
        raise DataError(f"the definition takes {len(names)} inputs, got {len(inputs)}")
    return names[: len(inputs)]


def trace(definition: Definition, inputs: Mapping[str, Any]) -> Program:
    """The graph of a definition. `inputs` by name, in its order: floating-point arrays are traced, by their shapes
    alone; whatever else is given is handed over. Raises DataError where it does not return real arrays; what it raises
    itself is passed on.
    """
    nodes = {name: graph.given(name, value.shape) for name, value in inputs.items() if is_real(value)}
    handed = [xp.Traced(nodes[name]) if name in nodes else value for name, value in inputs.items()]
    returned = definition(xp, *handed)
    several = isinstance(returned, tuple | list)
    outputs = {
        f"{OUTPUT} {number}" if several else OUTPUT: _output(number, one)
        for number, one in enumerate(returned if several else [returned], start=1)
    }
    if not outputs:
        raise DataError("the definition returns nothing")
    return Program(nodes, outputs)


def is_real(value: Any) -> bool:
    """Whether something is an array of floating-point numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _output(number: int, value: Any) -> Node:
    if isinstance(value, xp.Traced):
        return value.node
    try:
        return graph.constant(value)
    except (TypeError, ValueError):
        raise DataError(
            f"the definition's output {number} is a {type(value).__name__}; return arrays made with xp"
        ) from None


def differentiated(program: Program, wrt: Sequence[str]) -> Differentiated:
    """The program with its vector–Jacobian products by these inputs."""
    weighted = [
        graph.mul(node, graph.given(COTANGENT + name, node.shape)).sum() for name, node in program.outputs.items()
    ]
    total = weighted[0]
    for more in weighted[1:]:
        total = total + more
    inputs = {name: program.inputs[name] for name in wrt}
    found = cotangents(total, inputs.values())
    return Differentiated(program, total, {name: found[node] for name, node in inputs.items()})


def certify_program(found: Differentiated, numbers: Mapping[str, Array], smallest: float) -> FunctionCertificate:
    """The outputs and gradients at the given numbers, the cotangents among them, as balls of a radius of at most 2⁻⁸⁰
    of their values, or of `smallest`. Raises CertificationError where the function is not defined.
    """
    outputs = found.program.outputs

    def made(values: Mapping[Node, Arbs], algebra: BallAlgebra, precision: int) -> FunctionCertificate:
        ends = {name: Balls.from_arbs(list(values[node].ravel()), node.shape) for name, node in found.ends.items()}
        return FunctionCertificate(ends, precision)

    return certified(found.total, [*outputs.values()], found.grads, numbers, smallest, _defined, made)


def _defined(algebra: BallAlgebra, precision: int) -> None:
    if algebra.undefined:
        name, argument = min(algebra.undefined, key=lambda place: place[1])
        raise CertificationError(f"the function is not defined here: {name} is taken of {argument:g}")
    if precision == LAST_PRECISION:
        raise CertificationError(
            f"the function cannot be told from infinity with {precision} bits of precision: it divides by 0, or the "
            "inputs are too large"
        )
