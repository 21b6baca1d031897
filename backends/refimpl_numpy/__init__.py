"""refimpl's hand-derived backend: ``refimpl/equations.py`` run with NumPy. The only backend in which backpropagation is written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.equations import EQUATIONS, Equations
from refimpl.spec import NetworkSpec
from refimpl_numpy.network import backward, cost, forward, targets

Array = NDArray[Any]
Answer = tuple[float, dict[str, Array]]


class NumpyBackend:
    """Hand-derived backpropagation on the CPU, float64 and float32.

    `equations` gives every layer its equations (default: the right ones); a mistake can be planted in one of them at one layer.
    """

    name = "numpy"

    def __init__(self, equations: Sequence[Equations] | None = None) -> None:
        self.equations = equations

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32 on the CPU."""
        if dtype not in ("float64", "float32"):
            return f"dtype {dtype}: use float64 or float32"
        return True if device == "cpu" else f"device {device}: NumPy runs on cpu"

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b)."""
        run = self.input_gradient_function(spec, dtype=dtype, device=device)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            loss, grads = run(params, x, y)
            return loss, {name: grads[name] for name in spec.parameter_shapes}

        return gradients

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Callable[[Mapping[str, Array], Array, Array], Answer]:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""
        equations = self._equations(spec)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> Answer:
            with np.errstate(all="ignore"):
                known = forward(spec, params, x, equations)
                rows = targets(spec, y, dtype)
                grads, _ = backward(spec, params, known, rows, equations)
                grads["x"] = grads["x"].reshape(x.shape)
                return float(cost(spec, known.a[-1], rows)), grads

        return gradients

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Callable[[Mapping[str, Array], Array, Array], dict[str, Array]]:
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
        return [EQUATIONS] * spec.depth if self.equations is None else self.equations


backend = NumpyBackend()
