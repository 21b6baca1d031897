"""`value_and_grad`: the loss and the gradients by one backend, and how a notebook shows them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend.protocols import ArithmeticBackend, Backend, GradientFunction, InputGradientBackend
from refimpl.backend.registry import check_supported, resolve
from refimpl.backend.untrusted import FAILURES, contained, described
from refimpl.formats.errors import BackendError
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.network.batch import validate
from refimpl.network.picture import network_svg
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]


class Gradients(dict[str, Array]):
    """Gradients by name: a dictionary, which a notebook shows as a picture and tables."""

    def __init__(self, spec: NetworkSpec, grads: Mapping[str, Array]) -> None:
        super().__init__(grads)
        self.spec = spec

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def _repr_html_(self) -> str:
        spec, layers = self.spec, self.spec.by_layer(self)
        picture = network_svg(
            spec.sizes, spec.labels, f"∂C/∂w of {spec.title}",
            gradient=lambda layer, j, k: float(layers[layer]["W"][j, k]),
        )  # fmt: skip
        rows = "".join(
            f"<tr><th>∂C/∂{name}</th><td style='text-align:left'><pre>{html.escape(_shown(array))}</pre></td></tr>"
            for name, array in self.items()
        )
        return f"{picture}<table>{rows}</table>"


def _shown(array: Array) -> str:
    return np.array2string(np.asarray(array), threshold=24, edgeitems=3, precision=5)


def gradient_function(
    backend: Backend, spec: NetworkSpec, dtype: str, device: str, inputs: bool = False
) -> GradientFunction:
    """(params, x, y) → (loss, gradients), with that of x where `inputs` asks for it. Raises BackendError where the
    backend does not give it.
    """
    if not inputs:
        return backend.gradient_function(spec, dtype=dtype, device=device)
    if not isinstance(backend, InputGradientBackend):
        raise BackendError(f"backend {backend.name!r} does not give the gradient of x; leave inputs out")
    return backend.input_gradient_function(spec, dtype=dtype, device=device)


def declared_arithmetic(backend: Backend, dtype: str, device: str) -> Arithmetic:
    """IEEE's of the dtype, or what the backend declares. Raises BackendError where that is none."""
    if not isinstance(backend, ArithmeticBackend):
        return ARITHMETICS[dtype]
    try:
        with contained():
            declared: Any = backend.arithmetic(dtype=dtype, device=device)
    except FAILURES as error:
        raise BackendError(f"backend {backend.name!r} cannot be judged: arithmetic raised {described(error)}") from None
    if not isinstance(declared, Arithmetic):
        raise BackendError(
            f"backend {backend.name!r} cannot be judged: arithmetic returned a {type(declared).__name__}; "
            "return a refimpl.backend.Arithmetic"
        )
    return declared


def value_and_grad(
    spec: NetworkSpec,
    params: Mapping[str, Array],
    x: Array,
    y: Array,
    *,
    backend: str | Backend | None = None,
    device: str = "cpu",
    inputs: bool = False,
) -> tuple[float, dict[str, Array]]:
    """The loss and its gradients by one backend; by default the first that is registered, the hand-derived one.

    Parameters: `params` with the spec's keys and shapes, `x` (N, *input_shape), `y` as the loss asks, all float64 or
    all float32; `inputs`: the gradient of x too. Returns (loss, gradients by name, in the parameters' shapes and
    dtype). Raises DataError, BackendError.
    """
    batch = validate(spec, params, x, y)
    chosen = resolve(backend)
    check_supported(chosen, spec, batch.dtype, device)
    run = gradient_function(chosen, spec, batch.dtype, device, inputs)
    answer: Any = run(*batch.copies(spec))
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        raise BackendError(
            f"backend {chosen.name!r} returned {type(answer).__name__}; it must return (loss, gradients)"
        )
    return answer[0], Gradients(spec, answer[1])
