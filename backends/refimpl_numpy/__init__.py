"""refimpl's hand-derived backend: ``refimpl/equations.py`` run with NumPy. The only backend in which backpropagation
is written out.

Tests and lessons plant mistakes in it: `NumpyBackend(equations)` takes the equations of every layer, from the first
to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.equations import EQUATIONS, Equations
from refimpl.errors import BackendError
from refimpl.spec import NetworkSpec
from refimpl_numpy.network import backward, cost, forward, targets

Array = NDArray[Any]
Answer = tuple[float, dict[str, Array]]


class NumpyBackend:
    """Hand-derived backpropagation on the CPU, float64 and float32."""

    name = "numpy"

    def __init__(self, equations: Sequence[Equations] | None = None) -> None:
        self.equations = equations

    def with_equations(self, equations: Sequence[Equations]) -> NumpyBackend:
        """The same backend over these equations, one entry a layer."""
        return NumpyBackend(equations)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32 on the CPU."""
        if dtype not in ("float64", "float32"):
            return f"dtype {dtype}: use float64 or float32"
        return True if device == "cpu" else f"device {device}: NumPy runs on cpu"

    def gradient_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b)."""
        equations = self._equations(spec)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with np.errstate(all="ignore"):
                loss, grads, _ = _run(spec, params, x, targets(spec, y, dtype), equations)
            return loss, grads

        return gradients

    def input_gradient_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""
        equations = self._equations(spec)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with np.errstate(all="ignore"):
                loss, grads, deltas = _run(spec, params, x, targets(spec, y, dtype), equations)
                return loss, {**grads, "x": equations[0].input_gradient(deltas[0], params["W1"]).reshape(x.shape)}

        return gradients

    def intermediates_function(
        self, spec: NetworkSpec, *, dtype: str, device: str
    ) -> Callable[[Mapping[str, Array], Array, Array], dict[str, Array]]:
        """(params, x, y) → z2, a2, delta2, z3 …, each (N, n_l)."""
        equations = self._equations(spec)

        def intermediates(params: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
            with np.errstate(all="ignore"):
                known = forward(spec, params, x, equations)
                _, deltas = backward(spec, params, known, targets(spec, y, dtype), equations)
            values: dict[str, Array] = {}
            for layer, (z, a, delta) in enumerate(zip(known.z, known.a[1:], deltas, strict=True), start=2):
                values |= {f"z{layer}": z, f"a{layer}": a, f"delta{layer}": delta}
            return values

        return intermediates

    def _equations(self, spec: NetworkSpec) -> Sequence[Equations]:
        if self.equations is None:
            return [EQUATIONS] * spec.depth
        if len(self.equations) != spec.depth:
            raise BackendError(
                f"equations has {len(self.equations)} entries; the network has {spec.depth} layers, "
                "give one Equations a layer"
            )
        return self.equations


def _run(
    spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, equations: Sequence[Equations]
) -> tuple[float, dict[str, Array], list[Array]]:
    known = forward(spec, params, x, equations)
    grads, deltas = backward(spec, params, known, y, equations)
    return float(cost(spec, known.a[-1], y, equations)), {name: grads[name] for name in spec.parameter_shapes}, deltas


backend = NumpyBackend()
