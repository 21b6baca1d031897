"""A third party's backend as it was written against refimpl 0.1.0, kept unchanged: what it imports and what it is
called with must go on working. Tanh and identity layers with the squared error, by hand, and every further ability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refimpl.arithmetic import ARITHMETICS, Arithmetic
from refimpl.backend import Backend, GradientFunction
from refimpl.descent import DIVERGED, Leg, Limits, UpdateRule, norm_of, reached
from refimpl.equations import EQUATIONS, Equations
from refimpl.errors import BackendError
from refimpl.functions import ACTIVATIONS, LOSSES
from refimpl.spec import LayerSpec, NetworkSpec

NAMES = ("identity", "tanh")


class Placed:
    def __init__(self, owner: Mine, spec: NetworkSpec, params: Any, x: Any, y: Any, rate: float) -> None:
        self.run = owner.gradient_function(spec, dtype=x.dtype.name, device="cpu")
        self.params, self.x, self.y, self.rate = {k: v.copy() for k, v in params.items()}, x, y, rate

    def __enter__(self) -> Placed:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        return None

    def loss(self) -> Any:
        return self.run(self.params, self.x, self.y)[0]

    def gradients(self) -> Any:
        return self.run(self.params, self.x, self.y)

    def descend(self, steps: int) -> Any:
        for _ in range(steps):
            grads = self.gradients()[1]
            self.params = {k: v - self.params[k].dtype.type(self.rate) * grads[k] for k, v in self.params.items()}
        return self.params

    def wait(self, result: Any) -> None:
        return None

    def answer(self) -> tuple[float, dict[str, Any]]:
        return self.gradients()

    def parameters(self) -> dict[str, Any]:
        return dict(self.params)


class Trainer:
    def __init__(self, owner: Mine, spec: NetworkSpec, state: Any, x: Any, y: Any, rule: UpdateRule) -> None:
        self.gradient = owner.gradient_function(spec, dtype=x.dtype.name, device="cpu")
        self.outputs_of = owner.forward_function(spec, dtype=x.dtype.name, device="cpu")
        self.x, self.y, self.rule = x, y, rule
        self.params = {name: state[name] for name in spec.parameter_shapes}
        self.buffers = {name: tuple(state[f"{buffer}.{name}"] for buffer in rule.buffers) for name in self.params}
        self.good = self.params

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        return None

    def run(self, batches: Any, coefficients: Any, limits: Limits, previous: float) -> Leg:
        losses, norms, found = [], [], 0
        for i, row in enumerate(coefficients.tolist()):
            rows = slice(None) if batches is None else batches[i]
            loss, grads = self.gradient(self.params, self.x[rows], self.y[rows])
            losses.append(loss)
            norms.append(norm_of(list(grads.values())))
            found = reached(loss, norms[-1], previous, limits)
            if found:
                break
            previous, self.good, moved = loss, self.params, {}
            for name, grad in grads.items():
                moved[name], self.buffers[name] = self.rule.update(self.params[name], grad, self.buffers[name], row)
            self.params = moved
        if found & DIVERGED:
            self.revert()
        return Leg(np.array(losses), np.array(norms), found)

    def revert(self) -> None:
        self.params = self.good

    def measure(self, x: Any, y: Any) -> tuple[float, float]:
        loss, grads = self.gradient(self.params, x, y)
        return loss, norm_of(list(grads.values()))

    def outputs(self, x: Any) -> Any:
        return self.outputs_of(self.params, x)

    def state(self) -> dict[str, Any]:
        found = dict(self.params)
        for i, buffer in enumerate(self.rule.buffers):
            found |= {f"{buffer}.{name}": kept[i] for name, kept in self.buffers.items()}
        return found


class Mine:
    name = "third-party"

    def __init__(self, equations: Sequence[Equations] | None = None) -> None:
        self.equations = equations

    def with_equations(self, equations: Sequence[Equations]) -> Backend:
        return Mine(equations)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        if device != "cpu" or dtype not in ARITHMETICS:
            return "float64 and float32 on the CPU"
        if not all(layer.activation.name in NAMES for layer in spec.layers) or spec.loss.name != "squared_error":
            return f"{', '.join(NAMES)} of {len(ACTIVATIONS)} activations, and one of {len(LOSSES)} losses"
        return True

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        return ARITHMETICS[dtype]

    def _pass(self, spec: NetworkSpec, params: Any, x: Any, y: Any) -> tuple[float, dict[str, Any], list[Any]]:
        equations = self.equations or [EQUATIONS] * spec.depth
        if len(equations) != spec.depth:
            raise BackendError("one Equations a layer")
        a, zs = [x.reshape(len(x), spec.n_in)], []
        functions = {"identity": lambda z: z * 1, "tanh": np.tanh}
        slopes = {"identity": np.ones_like, "tanh": lambda z: 1 - np.tanh(z) ** 2}

        def vjp(layer: LayerSpec) -> Any:
            return lambda z, a, d: d * slopes[layer.activation.name](z)

        for number, layer in enumerate(spec.layers, start=1):
            equation = equations[number - 1]
            zs.append(equation.weighted_input(a[-1], params[f"W{number}"], params.get(f"b{number}")))
            a.append(equation.activation(zs[-1], functions[layer.activation.name]))
        loss = equations[-1].cost((a[-1] - y) ** 2 / 2, spec.reduction)
        dC_ds = equations[-1].cost_gradient(a[-1] - y, spec.reduction)
        delta = equations[-1].output_error(dC_ds, zs[-1], a[-1], vjp(spec.layers[-1]))
        deltas, grads = [delta], {}
        for number in range(spec.depth, 0, -1):
            equation = equations[number - 1]
            grads[f"W{number}"] = equation.weight_gradient(delta, a[number - 1])
            if f"b{number}" in spec.parameter_shapes:
                grads[f"b{number}"] = equation.bias_gradient(delta)
            if number > 1:
                before = spec.layers[number - 2]
                delta = equation.hidden_error(params[f"W{number}"], delta, zs[number - 2], a[number - 1], vjp(before))
                deltas.insert(0, delta)
        grads["x"] = equations[0].input_gradient(deltas[0], params["W1"]).reshape(x.shape)
        values = {}
        for number, (z, activation, error) in enumerate(zip(zs, a[1:], deltas, strict=True), start=2):
            values |= {f"z{number}": z, f"a{number}": activation, f"delta{number}": error}
        self.values = values
        return float(loss), {name: grads[name] for name in (*spec.parameter_shapes, "x")}, [a, zs]

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        def gradients(params: Mapping[str, Any], x: Any, y: Any) -> tuple[float, dict[str, Any]]:
            loss, grads, _ = self._pass(spec, params, x, y)
            del grads["x"]
            return loss, grads

        return gradients

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        return lambda params, x, y: self._pass(spec, params, x, y)[:2]

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        def intermediates(params: Mapping[str, Any], x: Any, y: Any) -> dict[str, Any]:
            self._pass(spec, params, x, y)
            return self.values

        return intermediates

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        return lambda params, x: self._pass(spec, params, x, np.zeros((len(x), spec.n_out)))[2][0][-1]

    def place(self, spec: NetworkSpec, params: Any, x: Any, y: Any, *, device: str, learning_rate: float) -> Placed:
        return Placed(self, spec, params, x, y, learning_rate)

    def trainer(self, spec: NetworkSpec, state: Any, x: Any, y: Any, *, rule: UpdateRule, device: str) -> Trainer:
        if not math.prod(spec.input_shape):
            raise BackendError("no input")
        return Trainer(self, spec, state, x, y, rule)


backend = Mine()
