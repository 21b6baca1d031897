"""Backends: what one is, and finding those that are installed.

A backend turns a spec into a gradient function. It is found by name through the entry-point group
``refimpl.backends``, ours exactly like a third party's; nothing here imports a framework, and a framework is imported
only when its backend is loaded. The smallest backend:

    class MyBackend:
        name = "mine"
        def supports(self, spec, *, dtype, device): return device == "cpu"
        def gradient_function(self, spec, *, dtype, device):
            return lambda params, x, y: my_backprop(spec, params, x, y)

Further abilities are protocols of their own, which a backend may satisfy too: the gradient of x, the intermediate
values, an arithmetic that is not IEEE's, and networks placed on the device, for timing and training.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from refimpl.arithmetic import Arithmetic
from refimpl.batch import validate
from refimpl.descent import Leg, Limits, UpdateRule
from refimpl.equations import Equations
from refimpl.errors import BackendError
from refimpl.picture import network_svg
from refimpl.spec import NetworkSpec
from refimpl.strangers import first_line, kept, printable, told

GROUP = "refimpl.backends"
MAX_REASON = 200
INSTALLED_BY = {"torch": "pip install 'refimpl[torch]'", "jax": "pip install 'refimpl[jax]'"}

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
        self,
        spec: NetworkSpec,
        params: Mapping[str, Array],
        x: Array,
        y: Array,
        *,
        device: str,
        learning_rate: float,
    ) -> Placed:
        """The network over copies of `params`, `x` and `y`, in x's dtype, on the device."""
        ...


class Trainer(Protocol):
    """A network in training, where its framework has it: parameters, the buffers of an update rule, and the training
    data. Calls are made inside `with trainer:`, which sets the framework's modes and puts them back.
    """

    def __enter__(self) -> Any:
        """Set the framework's modes."""
        ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Put them back."""
        ...

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """One step a row of `coefficients`, until a limit is reached; the step at which one is makes no update.

        `batches` (steps, size) are the rows of the training data that each step takes; None: all of them. `previous`
        is the loss of the step before.
        """
        ...

    def revert(self) -> None:
        """Back to the parameters before the last update of the last `run`."""
        ...

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """The loss and the 2-norm of the gradient on a batch."""
        ...

    def outputs(self, x: Array) -> Array:
        """The network's outputs (N, n_out)."""
        ...

    def state(self) -> dict[str, Array]:
        """Copies of the parameters by name, and of the buffers: "velocity.W1" and the like."""
        ...


@runtime_checkable
class TrainingBackend(Protocol):
    """A backend that trains by means of its own framework. Any other trains by its gradient function."""

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> Trainer:
        """A network with `state` (parameters, and buffers where a run goes on) over the training data."""
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

    def with_equations(self, equations: Sequence[Equations]) -> Backend:
        """The same backend over these equations, one entry a layer."""
        ...


class Gradients(dict[str, Array]):
    """Gradients by name: a dictionary, which a notebook shows as a picture and tables."""

    def __init__(self, spec: NetworkSpec, grads: Mapping[str, Array]) -> None:
        super().__init__(grads)
        self.spec = spec

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def _repr_html_(self) -> str:
        spec = self.spec
        title = f"∂C/∂w of {spec.name} {'-'.join(map(str, spec.sizes))}".strip()
        picture = network_svg(
            spec.sizes, spec.labels, title, gradient=lambda layer, j, k: float(self[f"W{layer + 1}"][j, k])
        )
        rows = "".join(
            f"<tr><th>∂C/∂{name}</th><td style='text-align:left'><pre>{html.escape(_shown(array))}</pre></td></tr>"
            for name, array in self.items()
        )
        return f"{picture}<table>{rows}</table>"


def _shown(array: Array) -> str:
    return np.array2string(np.asarray(array), threshold=24, edgeitems=3, precision=5)


def available() -> dict[str, EntryPoint]:
    """The registered backends by name, ours first. Raises BackendError where two have one name."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BackendError(
                f"two backends are called {entry.name!r}: {other.value} and {entry.value}; uninstall one"
            )
    order = {"numpy": 0, "torch": 1, "jax": 2}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def load(name: str) -> Backend:
    """The backend of that name, or at `module:attribute`. Raises BackendError where it is unknown or its framework
    is not installed.
    """
    if ":" in name:
        return _imported(name)
    known = available()
    if name not in known:
        raise BackendError(
            f"there is no backend {name!r}; known are {', '.join(known) or 'none (is refimpl itself installed?)'}"
        )
    try:
        with kept(), _global_generators_kept():
            loaded = known[name].load()
            backend = loaded() if isinstance(loaded, type) else loaded
    except ImportError as error:
        remedy = INSTALLED_BY.get(name, f"install what {known[name].value} needs")
        raise BackendError(f"backend {name!r} is not installed: {first_line(error)}; {remedy}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing a stranger's module may raise anything
        raise BackendError(f"backend {name!r} ({known[name].value}) cannot be loaded: {told(error)}") from error
    return usable(backend, name)


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Importing a framework may draw from the global random generators (JAX does): put them back."""
    states = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _imported(place: str) -> Backend:
    """The backend at `module:attribute`."""
    module, _, attribute = place.partition(":")
    try:
        with kept(), _global_generators_kept():
            found: Any = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
            backend = found() if isinstance(found, type) else found
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing a stranger's module may raise anything
        raise BackendError(f"backend {place!r} cannot be loaded: {told(error)}") from error
    return usable(backend, place)


def usable(backend: Any, place: str = "") -> Backend:
    """The object, if it has the form of a backend. Raises BackendError."""
    shown = f"backend {place!r}" if place else "the backend"
    if isinstance(backend, type):
        raise BackendError(f"{shown} is the class {backend.__name__}; give an instance of it")
    try:
        missing = [name for name in ("supports", "gradient_function") if not callable(getattr(backend, name, None))]
        name = getattr(backend, "name", None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a property of a stranger's may raise anything
        raise BackendError(f"{shown} cannot be asked: {told(error)}") from error
    if missing:
        raise BackendError(f"{shown} is a {type(backend).__name__} without {' and '.join(missing)}")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 200:
        raise BackendError(f"{shown}: its name must be one line of 1 to 200 printable characters")
    return cast(Backend, backend)


def supported(backend: Backend, spec: NetworkSpec, dtype: str, device: str) -> bool | str:
    """True, or why the backend cannot run this, whatever it does when it is asked."""
    try:
        with kept():
            answer: Any = backend.supports(spec, dtype=dtype, device=device)
            # NumPy's True is one too
            if answer is True or answer is np.True_:
                return True
            return printable(" ".join(str(answer or "no reason given").split())[:MAX_REASON])
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's code may raise anything
        return f"supports raised {told(error)}"


def value_and_grad(
    spec: NetworkSpec,
    params: Mapping[str, Array],
    x: Array,
    y: Array,
    *,
    backend: str | Backend = "numpy",
    device: str = "cpu",
    inputs: bool = False,
) -> tuple[float, dict[str, Array]]:
    """The loss and its gradients by one backend.

    Parameters: `params` with the spec's keys and shapes, `x` (N, *input_shape), `y` as the loss asks, all float64 or
    all float32; `inputs`: the gradient of x too. Returns (loss, gradients by name, in the parameters' shapes and
    dtype). Raises DataError, BackendError.
    """
    batch = validate(spec, params, x, y)
    chosen = load(backend) if isinstance(backend, str) else usable(backend)
    reason = supported(chosen, spec, batch.dtype, device)
    if reason is not True:
        raise BackendError(f"backend {chosen.name!r} does not support this: {reason}")
    if inputs and not isinstance(chosen, InputGradientBackend):
        raise BackendError(f"backend {chosen.name!r} does not give the gradient of x; leave inputs out, or use numpy")
    prepare = cast(InputGradientBackend, chosen).input_gradient_function if inputs else chosen.gradient_function
    # copies: what a backend writes into its arguments is not the caller's
    data = {name: array.copy() for name, array in batch.params.items()}, batch.x.reshape(x.shape).copy(), batch.y.copy()
    answer: Any = prepare(spec, dtype=batch.dtype, device=device)(*data)
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        raise BackendError(
            f"backend {chosen.name!r} returned {type(answer).__name__}; it must return (loss, gradients)"
        )
    return answer[0], Gradients(spec, answer[1])
