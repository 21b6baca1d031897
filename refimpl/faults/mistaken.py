"""A network about to be got wrong: `Mistaken`, a `Fault` to plant in it, and the backend that runs both.

Layers count from 1, as in the article: layer l owns Wl, bl and the activation after them. `WHOLE` (0) stands for a
fault that is one line for the whole network. A fault with an unknown number in it (a learning rate, the strength of a
regulariser) names it in `parameter`. What a changed network computes is run by any runner of
:mod:`refimpl.equations`: NumPy's (`PlantedBackend`), or the nodes of a graph, which brings the fault's own tolerance
along (:mod:`refimpl.faults.prediction`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import EquationsBackend, GradientFunction
from refimpl.equations import EQUATIONS, Equations
from refimpl.network.batch import one_hot
from refimpl.network.spec import NetworkSpec

WHOLE = 0


Array = NDArray[Any]


Jacobian = Callable[[Any, Any, Any], Any]


@dataclass
class Mistaken:
    """A network about to be got wrong.

    `spec` is what is computed in place of the right network, `equations` how, one entry a layer, and `names` under
    which name each gradient is returned. `y` (N, n_out) are the targets. With a `step`, there is no backward pass,
    but the difference quotients of the loss over it, two-sided or (`one_sided`) not. `changes` are the equations that
    are not as they should be, as (layer, name): faults that change different ones may be planted in any order, as long
    as they leave the network as it is. `losses` of s, nodes, are those that code with the mistake may report, where
    they are not the network's.
    """

    spec: NetworkSpec
    equations: list[Equations]
    names: dict[str, str]
    y: Array
    step: float = 0.0
    one_sided: bool = False
    changes: set[tuple[int, str]] = field(default_factory=set)
    losses: Callable[[Any], Any] | None = None

    @classmethod
    def right(cls, spec: NetworkSpec, y: Array) -> Mistaken:
        """Nothing wrong yet; y (N, n_out)."""
        names = {name: name for name in spec.parameter_shapes}
        return cls(spec, [EQUATIONS] * spec.depth, names, np.asarray(y, dtype=np.float64))

    @property
    def n(self) -> int:
        """The batch size."""
        return len(self.y)

    def change(self, layer: int, equation: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `make(the equation as it is)` in the place of one equation of a layer."""
        present = self.equations[layer - 1]
        changed: dict[str, Any] = {equation: make(getattr(present, equation))}
        self.equations[layer - 1] = replace(present, **changed)
        self.changes.add((layer, equation))

    def change_vjp(self, layer: int, make: Callable[[Jacobian], Jacobian]) -> None:
        """Change the step through a layer's activation, wherever that is taken."""
        if layer == self.spec.depth:
            self.change(layer, "output_error", lambda right: lambda d, z, a, vjp: right(d, z, a, make(vjp)))
        else:
            self.change(
                layer + 1, "hidden_error", lambda right: lambda W, delta, z, a, vjp: right(W, delta, z, a, make(vjp))
            )

    def returned(self, grads: Mapping[str, Any]) -> dict[str, Any]:
        """The gradients under the names that the mistaken code gives them."""
        return {name: grads[source] for name, source in self.names.items()}


Plant = Callable[[Mistaken, int, Any], None]


Where = Callable[[NetworkSpec, int], Sequence[int]]


@dataclass(frozen=True)
class Fault:
    """One known mistake.

    `where(spec, N)` are the layers it can act on, or (`WHOLE`,); empty where it cannot. `plant(mistaken, layer,
    parameter)` makes it. `parameter` names the unknown number in it, `example` a usual value of it. `evidence`, where
    it is given, is a trace that the fault leaves in all the wrong numbers. `dtype` is the only one it can act in,
    where there is one. `on_loss`: it is the loss that is wrong, and no gradient.
    """

    name: str
    explanation: str
    remedy: str
    where: Where = field(repr=False)
    plant: Plant = field(repr=False)
    parameter: str = ""
    example: float = 0.0
    evidence: Callable[[Array], bool] | None = field(default=None, repr=False)
    dtype: str = ""
    on_loss: bool = False

    @property
    def exact(self) -> bool:
        """Whether what it computes says enough before any rounding."""
        return not self.evidence


def like(other: Any, values: Array) -> Array:
    """Given numbers in the dtype that is being computed in."""
    return values.astype(other.dtype) if isinstance(other, np.ndarray) else values


@dataclass(frozen=True)
class PlantedBackend:
    """A backend that runs given equations, with faults planted: (fault, layer, parameter) in turn."""

    plantings: tuple[tuple[Fault, int, float], ...]
    runner: EquationsBackend

    @property
    def name(self) -> str:
        """What is wrong with it."""
        return "+".join(f"{fault.name}@{layer}" if layer else fault.name for fault, layer, _ in self.plantings)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """As the backend that runs it."""
        return self.runner.with_equations([EQUATIONS] * spec.depth).supports(spec, dtype=dtype, device=device)

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (a wrong loss, wrong gradients)."""

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            mistaken = Mistaken.right(spec, y if y.ndim == 2 else one_hot(y, spec.n_out))
            for fault, layer, parameter in self.plantings:
                fault.plant(mistaken, layer, parameter)
            wrong = self.runner.with_equations(mistaken.equations)
            run = wrong.gradient_function(mistaken.spec, dtype=dtype, device=device)
            if mistaken.step:
                return _quotients(run, params, x, y, mistaken.step, mistaken.one_sided)
            loss, grads = run(params, x, y)
            return loss, {name: np.asarray(grad).astype(dtype) for name, grad in mistaken.returned(grads).items()}

        return gradients


def _quotients(
    run: GradientFunction, params: Mapping[str, Array], x: Array, y: Array, step: float, one_sided: bool
) -> tuple[float, dict[str, Array]]:
    loss = run(params, x, y)[0]
    grads = {}
    for name, array in params.items():
        grads[name] = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            up, down = moved(params, name, index, step), moved(params, name, index, -step)
            high = run(up, x, y)[0]
            grads[name][index] = (high - loss) / step if one_sided else (high - run(down, x, y)[0]) / (2 * step)
    return loss, grads


def moved(params: Mapping[str, Array], name: str, index: tuple[int, ...], by: float) -> dict[str, Array]:
    """The parameters with one element moved, rounded to its dtype."""
    array = params[name].copy()
    array[index] += by
    return {**params, name: array}
