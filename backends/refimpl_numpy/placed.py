"""The hand-derived gradients run over planned memory: `PlannedGradients` for arrays that come and go,
`PlacedNetwork` for a network that stays where it is.

NumPy's warnings are off while they run and as they were afterwards: a context of their own holds that setting, which
costs a tenth of `np.errstate`.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import BackendError, NetworkSpec
from refimpl.backend import InModes
from refimpl.equations import EQUATIONS, Equations
from refimpl_numpy.network import backward, cost, forward, targets
from refimpl_numpy.noting import Unplanned
from refimpl_numpy.plan import Plan

Array = NDArray[Any]
Answer = tuple[float, dict[str, Array]]
PLANS = 8  # shapes of a batch that are kept planned


def gradients_of(
    spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, equations: Sequence[Equations]
) -> tuple[Array, dict[str, Array], list[Array]]:
    """The loss, the gradients in the parameters' order, and the error signals; y as rows of targets."""
    known = forward(spec, params, x, equations)
    grads, deltas = backward(spec, params, known, y, equations)
    return cost(spec, known.a[-1], y, equations), grads, deltas


def loss_of(
    spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, equations: Sequence[Equations]
) -> Array:
    """The loss, by the forward pass alone."""
    return cost(spec, forward(spec, params, x, equations).a[-1], y, equations)


def plan_of(
    spec: NetworkSpec, arrays: Mapping[str, Array], equations: Sequence[Equations], xp: ModuleType,
    gradients: bool = True,
) -> Plan:  # fmt: skip
    """The plan of `gradients_of`, or of `loss_of`; `arrays` are x, y and the parameters. Raises Unplanned where none
    can be made.
    """

    def planned(x: Any, y: Any, **params: Any) -> tuple[Any, Mapping[str, Any]]:
        given = spec, params, x, targets(spec, y, x.dtype.name), equations
        return gradients_of(*given)[:2] if gradients else (loss_of(*given), {})

    with np.errstate(all="ignore"):
        return Plan(planned, arrays, xp)


def _silent() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(lambda: np.seterr(all="ignore"))
    return context


class PlannedGradients:
    """(params, x, y) → (loss, gradients), planned at the first call with arrays of these shapes.

    A network with a function that a plan cannot note (gelu, whose erfc NumPy lacks) is run as the equations stand, and
    so is the call of a thread while another one runs.
    """

    def __init__(self, spec: NetworkSpec, dtype: str, xp: ModuleType) -> None:
        self.spec, self.dtype, self.xp = spec, dtype, xp
        self.equations = [EQUATIONS] * spec.depth
        self.plans: dict[Any, Plan | None] = {}
        self.context = _silent()
        self.lock = threading.Lock()

    def __call__(self, params: Mapping[str, Array], x: Array, y: Array, out: dict[str, Array] | None = None) -> Answer:
        """The gradients are new arrays, or `out`'s: one a parameter, C-contiguous, of its shape and dtype, sharing no
        memory with the arguments. Raises BackendError where `out` does not fit.
        """
        if out is not None:
            self._check(out, params)
        if self.xp is not np:
            return self._on_device(params, x, y, out)
        written = (
            out if out is not None else {n: np.empty(s, self.dtype) for n, s in self.spec.parameter_shapes.items()}
        )
        return float(self._run(params, x, y, written)), written

    def _run(self, params: Mapping[str, Array], x: Array, y: Array, out: dict[str, Array]) -> Array:
        arrays = {name: params[name] for name in self.spec.parameter_shapes} | {"x": x, "y": y}
        if self.lock.acquire(blocking=False):
            try:
                plan = self._plan(arrays)
                if plan is not None:
                    return self.context.run(plan.bind(arrays, out))
            finally:
                self.lock.release()
        with np.errstate(all="ignore"):
            loss, grads, _ = gradients_of(self.spec, params, x, targets(self.spec, y, self.dtype), self.equations)
        for name, array in out.items():
            array[...] = grads[name]
        return loss

    def _plan(self, arrays: Mapping[str, Array]) -> Plan | None:
        key = tuple((array.shape, array.dtype) for array in arrays.values())
        if key not in self.plans:
            if len(self.plans) >= PLANS:
                del self.plans[next(iter(self.plans))]
            try:
                self.plans[key] = plan_of(self.spec, arrays, self.equations, self.xp)
            except Unplanned:
                self.plans[key] = None
        return self.plans[key]

    def _on_device(self, params: Mapping[str, Array], x: Array, y: Array, out: dict[str, Array] | None) -> Answer:
        there = {name: self.xp.asarray(params[name]) for name in self.spec.parameter_shapes}
        made = {name: self.xp.empty(array.shape, array.dtype) for name, array in there.items()}
        loss = float(self._run(there, self.xp.asarray(x), self.xp.asarray(y), made))
        if out is None:
            return loss, {name: self.xp.asnumpy(array) for name, array in made.items()}
        for name, array in made.items():
            out[name][...] = self.xp.asnumpy(array)
        return loss, out

    def _check(self, out: Mapping[str, Array], params: Mapping[str, Array]) -> None:
        for name, shape in self.spec.parameter_shapes.items():
            array = out.get(name)
            if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != self.dtype:
                raise BackendError(f"out[{name!r}] must be an array of {self.dtype} and shape {shape}")
            if not array.flags.c_contiguous or not array.flags.writeable or array is params[name]:
                raise BackendError(f"out[{name!r}] must be writable, C-contiguous and not the parameter itself")
        if len(out) != len(self.spec.parameter_shapes):
            raise BackendError(f"out must hold {', '.join(self.spec.parameter_shapes)} and nothing else")


class PlacedNetwork(InModes):
    """A network with parameters, gradients and a batch of its own, where `xp` has them, ready to be run.

    All parameters lie in one array, and all gradients in another, so that a step of gradient descent is two calls.
    For one thread.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        params: Mapping[str, Array],
        x: Array,
        y: Array,
        learning_rate: float,
        equations: Sequence[Equations],
        xp: ModuleType,
    ) -> None:
        self.spec, self.xp, self.equations, self.dtype = spec, xp, equations, x.dtype.name
        self.context = _silent()
        self.flat, self.params = _flat(spec, x.dtype, xp)
        self.flat_gradient, self.grads = _flat(spec, x.dtype, xp)
        self.rate = xp.asarray(learning_rate, dtype=x.dtype)
        for name, array in self.params.items():
            array[...] = xp.asarray(params[name])
        self.arrays = {**self.params, "x": xp.array(x), "y": xp.array(y)}
        self._gradients = self._bound(self._gradients_unplanned, gradients=True)
        self._loss = self._bound(self._loss_unplanned, gradients=False)

    def loss(self) -> Array:
        """The loss (), by the forward pass alone. The next call overwrites it."""
        return self.context.run(self._loss)

    def gradients(self) -> tuple[Array, dict[str, Array]]:
        """The loss () and the gradients. The next call overwrites them."""
        return self.context.run(self._gradients), self.grads

    def descend(self, steps: int) -> dict[str, Array]:
        """The parameters after `steps` more steps of gradient descent, all updated at once."""
        self.context.run(self._descend, steps)
        return self.params

    def wait(self, result: Any) -> None:
        """Return when `result` has been computed."""
        if self.xp is not np:
            self.xp.cuda.get_current_stream().synchronize()

    def answer(self) -> Answer:
        """`gradients` as numbers and NumPy arrays."""
        loss, grads = self.gradients()
        return float(loss), self._fetched(grads)

    def parameters(self) -> dict[str, Array]:
        """The parameters as NumPy arrays."""
        return self._fetched(self.params)

    def _fetched(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        fetch = np.array if self.xp is np else self.xp.asnumpy
        return {name: fetch(array) for name, array in arrays.items()}

    def _descend(self, steps: int) -> None:
        run, gradient, flat, rate = self._gradients, self.flat_gradient, self.flat, self.rate
        multiply, subtract = self.xp.multiply, self.xp.subtract
        for _ in range(steps):
            run()
            multiply(gradient, rate, gradient)
            subtract(flat, gradient, flat)

    def _bound(self, otherwise: Callable[[], Array], gradients: bool) -> Callable[[], Array]:
        try:
            return plan_of(self.spec, self.arrays, self.equations, self.xp, gradients).bind(self.arrays, self.grads)
        except Unplanned:
            return otherwise

    def _gradients_unplanned(self) -> Array:
        loss, grads, _ = gradients_of(self.spec, self.params, self.arrays["x"], self._targets(), self.equations)
        for name, array in self.grads.items():
            array[...] = grads[name]
        return loss

    def _loss_unplanned(self) -> Array:
        return loss_of(self.spec, self.params, self.arrays["x"], self._targets(), self.equations)

    def _targets(self) -> Array:
        return targets(self.spec, self.arrays["y"], self.dtype)


def _flat(spec: NetworkSpec, dtype: np.dtype[Any], xp: ModuleType) -> tuple[Array, dict[str, Array]]:
    """One array of zeros, and the parameters' views of it, each beginning on a cache line."""
    line = 64 // dtype.itemsize
    starts, end = {}, 0
    for name, shape in spec.parameter_shapes.items():
        starts[name] = end
        end += -(-int(np.prod(shape)) // line) * line
    flat = xp.zeros(end, dtype)
    views = {
        name: flat[starts[name] : starts[name] + int(np.prod(shape))].reshape(shape)
        for name, shape in spec.parameter_shapes.items()
    }
    return flat, views
