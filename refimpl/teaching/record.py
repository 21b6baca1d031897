"""Tracing a forward and a backward pass: `trace` runs the hand-derived backend over equations that note what they are
given and what they make, so that the numbers are the backend's own, bit for bit.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import EquationsBackend, InputGradientBackend, able
from refimpl.equations import Equations
from refimpl.equations import dense as written
from refimpl.formats.errors import DataError
from refimpl.network.batch import one_hot, validate
from refimpl.network.functions import ACTIVATIONS
from refimpl.network.spec import NetworkSpec
from refimpl.teaching.forms import FORMS, FORWARD
from refimpl.teaching.trace import Code, Step, Trace

MAX_NUMBERS = 10**6

Array = NDArray[Any]


def trace(spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array) -> Trace:
    """The steps of the hand-derived forward and backward pass.

    Parameters: `params` with the spec's keys and shapes, `x` (N, *input_shape), `y` as the loss asks; all float64 or
    all float32. Raises DataError for bad arrays, and for more than `MAX_NUMBERS` values.
    """
    return traced(spec, params, x, y, [written.EQUATIONS] * spec.depth)


def traced(spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, equations: Sequence[Equations]) -> Trace:
    """`trace` over given equations, one entry a layer: those of a planted fault, say."""
    batch = validate(spec, dict(params), x, y)
    n = len(batch.x)
    count = n * sum(spec.sizes) + sum(array.size for array in batch.params.values())
    if count > MAX_NUMBERS:
        raise DataError(
            f"a trace of {count:,} numbers is too long to read (at most {MAX_NUMBERS:,}); take fewer samples or neurons"
        )
    recorder = _Recorder(spec)
    running = able(EquationsBackend).with_equations(
        [recorder.recording(i + 1, each) for i, each in enumerate(equations)]
    )
    assert isinstance(running, InputGradientBackend)
    run = running.input_gradient_function(spec, dtype=batch.dtype, device="cpu")
    shaped = batch.x.reshape(n, *spec.input_shape)
    loss, grads = run(batch.params, shaped, batch.y)
    targets = batch.y if batch.y.ndim == 2 else one_hot(batch.y, spec.n_out).astype(batch.dtype)
    steps = recorder.in_order()
    inputs = {"a1": batch.x.reshape(n, spec.n_in), "da1": grads["x"].reshape(n, spec.n_in)}
    values = {step.name: step.value for step in steps} | recorder.between | inputs
    return Trace(spec, batch.params, shaped, targets, loss, grads, steps, values)


class _Recorder:
    """Equations that note each call as a step."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.steps: list[Step] = []
        self.between: dict[str, Array] = {}  # what is computed within an equation: ∂C/∂a, f'(z)

    def recording(self, layer: int, right: Equations) -> Equations:
        """The equations of the layer that W^layer leads to."""
        here, last = layer + 1, self.spec.depth + 1

        def weighted_input(a: Array, W: Array, b: Array | None) -> Array:
            operands = {f"a{layer}": a, f"W{layer}": W} | ({} if b is None else {f"b{layer}": b})
            return self._note("weighted_input", here, operands, right.weighted_input(a, W, b))

        def activation(z: Array, f: Callable[[Array], Array]) -> Array:
            return self._note("activation", here, {f"z{here}": z}, right.activation(z, f))

        def cost(losses: Array, how: str) -> Array:
            return self._note("cost", last, {"losses": losses}, right.cost(losses, how))

        def cost_gradient(d: Array, how: str) -> Array:
            return self._note("cost_gradient", last, {"dlosses_ds": d}, right.cost_gradient(d, how))

        def output_error(d: Array, z: Array, a: Array, vjp: Callable[..., Array]) -> Array:
            operands = self._vjp_operands(last, z, a, vjp) | {f"da{last}": d}
            return self._note("output_error", last, operands, right.output_error(d, z, a, vjp))

        def hidden_error(W: Array, delta: Array, z: Array, a: Array, vjp: Callable[..., Array]) -> Array:
            def noting(z: Array, a: Array, d: Array) -> Array:
                self.between[f"da{layer}"] = d.copy()
                return vjp(z, a, d)

            operands = {f"W{layer}": W, f"delta{here}": delta} | self._vjp_operands(layer, z, a, vjp)
            made = right.hidden_error(W, delta, z, a, noting)
            return self._note("hidden_error", layer, operands | {f"da{layer}": self.between[f"da{layer}"]}, made)

        def weight_gradient(delta: Array, a: Array) -> Array:
            operands = {f"delta{here}": delta, f"a{layer}": a}
            return self._note("weight_gradient", layer, operands, right.weight_gradient(delta, a))

        def bias_gradient(delta: Array) -> Array:
            return self._note("bias_gradient", layer, {f"delta{here}": delta}, right.bias_gradient(delta))

        def input_gradient(delta: Array, W: Array) -> Array:
            return self._note("input_gradient", 1, {"delta2": delta, "W1": W}, right.input_gradient(delta, W))

        return Equations(
            weighted_input, activation, cost, cost_gradient, output_error, hidden_error, weight_gradient,
            bias_gradient, input_gradient,
        )  # fmt: skip

    def in_order(self) -> tuple[Step, ...]:
        """The forward pass, then the backward pass: the cost is computed when it is convenient."""
        ordered = sorted(self.steps, key=lambda step: step.phase != FORWARD)
        return tuple(replace(step, number=number) for number, step in enumerate(ordered, start=1))

    def _vjp_operands(self, layer: int, z: Array, a: Array, vjp: Callable[..., Array]) -> dict[str, Array]:
        """What an activation's backward form takes beside ∂C/∂a: f'(z), or for softmax the a of its Jacobian."""
        if not ACTIVATIONS[self.spec.layers[layer - 2].activation.name].elementwise:
            return {f"a{layer}": a}
        self.between[f"slope{layer}"] = vjp(z, a, np.ones_like(a))
        return {f"z{layer}": z, f"slope{layer}": self.between[f"slope{layer}"]}

    def _note(self, function: str, layer: int, operands: Mapping[str, Array], value: Array) -> Array:
        form = FORMS[function]
        one, rows = form.says(self.spec, layer)
        self.steps.append(
            Step(
                len(self.steps) + 1, form.phase, form.equation, layer, form.name.format(layer), one.plain, one.latex,
                rows, form.note(self.spec, layer), code(function),
                {name: array.copy() for name, array in operands.items()}, np.array(value),
            )
        )  # fmt: skip
        return value


@cache
def code(function: str) -> Code:
    """Where a function of ``refimpl/equations/dense.py`` stands, and its lines after the docstring."""
    source, first = inspect.getsourcelines(getattr(written, function))
    definition = ast.parse(textwrap.dedent("".join(source))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    start = definition.body[1].lineno - 1
    return Code(
        function, "refimpl/equations/dense.py", first + start, textwrap.dedent("".join(source[start:])).rstrip()
    )
