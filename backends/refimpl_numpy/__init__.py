"""refimpl's hand-derived backend: ``refimpl/equations/dense.py`` run with NumPy, or with CuPy on a CUDA device. The
only backend in which backpropagation is written out.

The equations are planned once for a spec and the shapes of a batch (``plan.py``) and then run over preallocated
memory. Tests and lessons plant mistakes in them: `NumpyBackend(equations)` takes the equations of every layer, from
the first to the last, and runs those as they stand.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import BackendError, NetworkSpec
from refimpl.backend import ForwardFunction, GradientFunction, IntermediatesFunction, named_intermediates
from refimpl.equations import EQUATIONS, Equations
from refimpl_numpy.network import backward, forward, targets
from refimpl_numpy.placed import PlacedNetwork, PlannedGradients, gradients_of

Array = NDArray[Any]


class NumpyBackend:
    """Hand-derived backpropagation, float64 and float32, "cpu" (NumPy) and "cuda" (CuPy, where it is installed)."""

    name = "numpy"

    def __init__(self, equations: Sequence[Equations] | None = None) -> None:
        self.equations = equations

    def with_equations(self, equations: Sequence[Equations]) -> NumpyBackend:
        """The same backend over these equations, one entry a layer."""
        return NumpyBackend(equations)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True for float64 and float32, on the CPU and on a CUDA device that CuPy sees."""
        if dtype not in ("float64", "float32"):
            return f"dtype {dtype}: use float64 or float32"
        if device not in ("cpu", "cuda"):
            return f"device {device}: use cpu or cuda"
        try:
            _module(device)
        except BackendError as error:
            return f"device {device}: {error}"
        return True

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b). What it returns also takes `out`, arrays by the
        parameters' names into which the gradients are then written; without it they are new arrays.
        """
        if self.equations is None:
            return PlannedGradients(spec, dtype, _module(device))
        return self._gradients(spec, dtype, device)

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b, and of x in x's shape)."""
        return self._gradients(spec, dtype, device, inputs=True)

    def _gradients(self, spec: NetworkSpec, dtype: str, device: str, inputs: bool = False) -> GradientFunction:
        equations, xp = self._equations(spec), _module(device)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            with np.errstate(all="ignore"):
                there = _placed(xp, params)
                rows = targets(spec, xp.asarray(y), dtype)
                loss, grads, deltas = gradients_of(spec, there, xp.asarray(x), rows, equations)
                if inputs:
                    grads["x"] = equations[0].input_gradient(deltas[0], spec.by_layer(there)[0]["W"]).reshape(x.shape)
                return float(loss), _fetched(xp, grads)

        return gradients

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> ForwardFunction:
        """(params, x) → the outputs (N, n_out)."""
        xp, equations = _module(device), self._equations(spec)

        def outputs(params: Mapping[str, Array], x: Array) -> Array:
            with np.errstate(all="ignore"):
                s = forward(spec, _placed(xp, params), xp.asarray(x), equations).a[-1]
            return s if xp is np else xp.asnumpy(s)

        return outputs

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> IntermediatesFunction:
        """(params, x, y) → z2, a2, delta2, z3 …, each (N, n_l)."""
        equations, xp = self._equations(spec), _module(device)

        def intermediates(params: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
            with np.errstate(all="ignore"):
                there = _placed(xp, params)
                known = forward(spec, there, xp.asarray(x), equations)
                _, deltas = backward(spec, there, known, targets(spec, xp.asarray(y), dtype), equations)
            return _fetched(xp, named_intermediates(known.z, known.a[1:], deltas))

        return intermediates

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, *, device: str, learning_rate: float
    ) -> PlacedNetwork:
        """The network over arrays of its own, in x's dtype, ready to be run."""
        return PlacedNetwork(spec, params, x, y, learning_rate, self._equations(spec), _module(device))

    def _equations(self, spec: NetworkSpec) -> Sequence[Equations]:
        if self.equations is None:
            return [EQUATIONS] * spec.depth
        if len(self.equations) != spec.depth:
            raise BackendError(
                f"equations has {len(self.equations)} entries; the network has {spec.depth} layers, "
                "give one Equations a layer"
            )
        return self.equations


def _module(device: str) -> ModuleType:
    """NumPy, or CuPy for a CUDA device. Raises BackendError."""
    if device == "cpu":
        return np
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        raise BackendError("CuPy is not installed; pip install cupy-cuda12x, or the build for your CUDA") from None
    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # cupy.cuda.runtime.CUDARuntimeError: no driver
        raise BackendError(f"CuPy sees no CUDA device ({error})") from None
    if not found:
        raise BackendError("CuPy sees no CUDA device")
    return cupy


def _placed(xp: ModuleType, params: Mapping[str, Array]) -> dict[str, Array]:
    return {name: xp.asarray(array) for name, array in params.items()}


def _fetched(xp: ModuleType, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return dict(arrays) if xp is np else {name: xp.asnumpy(array) for name, array in arrays.items()}


backend = NumpyBackend()
