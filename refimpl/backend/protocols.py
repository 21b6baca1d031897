"""What a backend is: `Backend`, and a protocol for each further ability that one may have.

Arrays in and out are NumPy; what runs inside is a backend's own. The smallest backend:

    class MyBackend:
        name = "mine"
        def supports(self, spec, *, dtype, device): return device == "cpu"
        def gradient_function(self, spec, *, dtype, device):
            return lambda params, x, y: my_backprop(spec, params, x, y)

Training by a backend's own framework has a module of its own (:mod:`refimpl.backend.training`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self, runtime_checkable

from numpy.typing import NDArray

from refimpl.network.arithmetic import Arithmetic
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]
GradientFunction = Callable[[Mapping[str, Array], Array, Array], tuple[float, dict[str, Array]]]
ForwardFunction = Callable[[Mapping[str, Array], Array], Array]
IntermediatesFunction = Callable[[Mapping[str, Array], Array, Array], dict[str, Array]]


class Backend(Protocol):
    """Something that turns a spec into a gradient function."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""
        ...

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """True, or the reason why not."""
        ...

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients by the parameters' names); NumPy arrays of `dtype` in and out."""
        ...


@runtime_checkable
class InputGradientBackend(Protocol):
    """A backend that can give ∂C/∂x too."""

    def input_gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """As `gradient_function`; the gradients hold `x` too, in x's shape."""
        ...


@runtime_checkable
class IntermediatesBackend(Protocol):
    """A backend that can show z, a and delta."""

    def intermediates_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> IntermediatesFunction:
        """(params, x, y) → {"z2": …, "a2": …, "delta2": …, "z3": …}, each (N, n_l), in the article's numbering:
        layer 1 is the input.
        """
        ...


@runtime_checkable
class ArithmeticBackend(Protocol):
    """A backend whose arithmetic is not plain IEEE, and which says so."""

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        """The arithmetic by which it is to be judged."""
        ...


def named_intermediates(z: Sequence[Any], a: Sequence[Any], delta: Sequence[Any]) -> dict[str, Any]:
    """z, a and delta of the layers 2, 3 … under their names in the article's numbering."""
    named: dict[str, Any] = {}
    for layer, values in enumerate(zip(z, a, delta, strict=True), start=2):
        named |= {f"{kind}{layer}": value for kind, value in zip(("z", "a", "delta"), values, strict=True)}
    return named


class InModes:
    """Work that is done inside `with`, which sets the modes of a framework and puts them back: a base for `Placed` and
    `Trainer`. `modes()` gives what is entered; by default nothing.
    """

    modes: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __enter__(self) -> Self:
        self._entered = self.modes()
        self._entered.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)


class Placed(Protocol):
    """A network with parameters and a batch of its own, where its framework has them: nothing is converted or moved
    by a call.

    Calls are made inside `with placed:`, which sets the framework's modes and puts them back. What they return is the
    framework's own; it may be computed later (`wait`) and be overwritten by the next call.
    """

    def __enter__(self) -> Any:
        """Set the framework's modes."""
        ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Put them back."""
        ...

    def loss(self) -> Any:
        """The loss, by the forward pass alone."""
        ...

    def gradients(self) -> Any:
        """The loss and the gradients."""
        ...

    def descend(self, steps: int) -> Any:
        """The parameters after `steps` more steps of gradient descent, W ← W − ε ∂C/∂W, all updated at once."""
        ...

    def wait(self, result: Any) -> None:
        """Return when `result` has been computed."""
        ...

    def answer(self) -> tuple[float, dict[str, Array]]:
        """`gradients` as a backend's gradient function gives them."""
        ...

    def parameters(self) -> dict[str, Array]:
        """The parameters as NumPy arrays."""
        ...


@runtime_checkable
class PlacingBackend(Protocol):
    """A backend that can place a network."""

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, *, device: str, learning_rate: float
    ) -> Placed:
        """The network over copies of `params`, `x` and `y`, in x's dtype, on the device."""
        ...


@runtime_checkable
class ForwardBackend(Protocol):
    """A backend that gives the network's outputs."""

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> ForwardFunction:
        """(params, x) → s (N, n_out)."""
        ...


@runtime_checkable
class EquationsBackend(Protocol):
    """A backend that runs given equations: the hand-derived one. Mistakes are planted in it."""

    def with_equations(self, equations: Sequence[Any]) -> Backend:
        """The same backend over these :class:`refimpl.equations.Equations`, one a layer."""
        ...
