"""Parameters and a batch of data, checked against a spec before anything is computed: `validate`.

Everything that could go wrong later in a framework, with a message about broadcasting, goes wrong here with the name
of the array and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import DataError, SpecError
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import LOSSES
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Validated data: parameters in the spec's order, x (N, n_in), y (N, n_out) or int64 labels (N,), and the
    dtype of all but labels.
    """

    params: dict[str, Array]
    x: Array
    y: Array
    dtype: str

    def targets(self, n_out: int) -> NDArray[np.float64]:
        """y as float64 (N, n_out): labels become rows of zeros and a one."""
        return one_hot(self.y, n_out) if self.y.ndim == 1 else self.y.astype(np.float64)

    def copies(self, spec: NetworkSpec) -> tuple[dict[str, Array], Array, Array]:
        """The parameters, x in the shape of the samples, and y, for code that may write into what it is given."""
        params = {name: array.copy() for name, array in self.params.items()}
        return params, self.x.reshape(len(self.x), *spec.input_shape).copy(), self.y.copy()


def one_hot(labels: Array, n_out: int) -> NDArray[np.float64]:
    """Labels (N,) as rows of zeros and a one (N, n_out)."""
    return (labels[:, None] == np.arange(n_out)).astype(np.float64)


def validate(spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array) -> Batch:
    """Check parameters and data against the spec.

    Parameters: `params` with exactly the spec's keys and shapes; `x` (N, *input_shape), N ≥ 1; `y` (N, n_out), or
    integer labels (N,) from 0 to n_out − 1 for the losses of classes. All real arrays finite and of one dtype,
    float64 or float32. Raises SpecError, DataError.
    """
    if not isinstance(spec, NetworkSpec):
        raise SpecError(f"spec must be a NetworkSpec, got {type(spec).__name__}; use NetworkSpec.load or from_dict")
    if not isinstance(params, Mapping):
        raise DataError(f"params must be a dict of arrays by name, got {type(params).__name__}")
    _check_keys(params, list(spec.parameter_shapes))
    dtype = _dtype(x, "x")
    checked = {name: _real(params[name], name, shape, dtype) for name, shape in spec.parameter_shapes.items()}
    return Batch(checked, _inputs(spec, x, dtype), _targets(spec, _array(y, "y"), len(x), dtype), dtype)


def validate_parameters(spec: NetworkSpec, params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters alone: exactly the spec's keys and shapes, finite and of one dtype. Raises DataError."""
    shapes = spec.parameter_shapes
    _check_keys(params, list(shapes))
    dtype = _dtype(params["W1"], "W1")
    return {name: _real(params[name], name, shape, dtype) for name, shape in shapes.items()}


def _dtype(array: Any, name: str) -> str:
    dtype = str(_array(array, name).dtype.newbyteorder("="))
    if dtype not in ARITHMETICS:
        raise DataError(f"{name} has dtype {dtype}; use float64 or float32, e.g. {name}.astype('float64')")
    return dtype


def _check_keys(params: Mapping[str, Array], names: list[str]) -> None:
    known = set(names)
    missing = [name for name in names if name not in params]
    extra = [str(name) for name in params if name not in known]
    if missing:
        raise DataError(f"params lacks {', '.join(missing[:5])}; the network's parameters are {_listed(names)}")
    if extra:
        raise DataError(
            f"params has {', '.join(extra[:5])}, which the network has not; its parameters are {_listed(names)}"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 12 else [*names[:6], "…", *names[-2:]])


def _array(value: Any, name: str) -> Array:
    if not isinstance(value, np.ndarray):
        raise DataError(f"{name} must be a NumPy array, got {type(value).__name__}; use numpy.asarray")
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(
            f"{name} is a masked array, and a mask has no gradient; give a plain array, e.g. {name}.filled(0)"
        )
    return value


def _real(value: Any, name: str, shape: tuple[int, ...], dtype: str) -> Array:
    array = _array(value, name)
    _check_dtype(array, name, dtype)
    if array.shape != shape:
        raise DataError(f"{name} has shape {array.shape}; it must be {shape}")
    return _finite(array, name, dtype)


def _check_dtype(array: Array, name: str, dtype: str) -> None:
    if str(array.dtype.newbyteorder("=")) != dtype:
        raise DataError(
            f"{name} has dtype {array.dtype} and x has {dtype}; all must be the same, float64 or float32, "
            f"e.g. {name}.astype('{dtype}')"
        )


def _finite(array: Array, name: str, dtype: str) -> Array:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ",".join(str(int(index) + 1) for index in bad[0])
        raise DataError(f"{name}[{place}] is {array[tuple(bad[0])]}; all numbers must be finite (indices count from 1)")
    return np.ascontiguousarray(array, dtype=dtype)


def _inputs(spec: NetworkSpec, x: Array, dtype: str) -> Array:
    if x.ndim == 0 or x.shape[1:] != spec.input_shape:
        wanted = ", ".join(["N", *map(str, spec.input_shape)])
        hint = "; add a batch axis: x[None]" if x.shape == spec.input_shape else ""
        raise DataError(
            f"x has shape {x.shape}; it must be ({wanted}{',' if not spec.input_shape else ''}), one row a sample{hint}"
        )
    if len(x) == 0:
        raise DataError("x holds no sample; give at least one")
    return _finite(x, "x", dtype).reshape(len(x), spec.n_in)


def _targets(spec: NetworkSpec, y: Array, n: int, dtype: str) -> Array:
    target = LOSSES[spec.loss.name].target
    if target == "classes" and y.dtype.kind in "iu":
        return _labels(spec, y, n)
    if y.dtype.kind != "f":
        also = " or integer labels" if target == "classes" else ""
        raise DataError(f"y has dtype {y.dtype}; {spec.loss.name} takes {dtype} of shape ({n}, {spec.n_out}){also}")
    if target == "classes" and y.ndim == 1:
        raise DataError(f"y has dtype {y.dtype} and shape {y.shape}; labels must be integers, e.g. y.astype('int64')")
    checked = _real(y, "y", (n, spec.n_out), dtype)
    if target != "values":
        _check_probabilities(checked, spec, rows=target == "classes")
    return checked


def _labels(spec: NetworkSpec, y: Array, n: int) -> Array:
    if y.shape != (n,):
        raise DataError(f"y has shape {y.shape}; labels must have shape ({n},), one a sample")
    bad = np.flatnonzero((y < 0) | (y >= spec.n_out))
    if len(bad):
        raise DataError(
            f"y[{int(bad[0]) + 1}] is the label {y[bad[0]]}; labels must be from 0 to {spec.n_out - 1}, "
            f"the network has {spec.n_out} outputs"
        )
    return np.ascontiguousarray(y, dtype=np.int64)


def _check_probabilities(y: Array, spec: NetworkSpec, rows: bool) -> None:
    bad = np.argwhere((y < 0) | (y > 1))
    if len(bad):
        place = ",".join(str(int(index) + 1) for index in bad[0])
        raise DataError(f"y[{place}] is {y[tuple(bad[0])]}; {spec.loss.name} takes probabilities, from 0 to 1")
    if not rows:
        return
    # n·u for the sum and the division of whoever normalised the row, n·u for the sum here (Higham 2002, section 4.2),
    # and as much again
    allowed = 4 * spec.n_out * ARITHMETICS[str(y.dtype)].unit_roundoff
    off = np.abs(y.astype(np.float64).sum(axis=1) - 1)
    if (off > allowed).any():
        row = int(np.argmax(off))
        raise DataError(
            f"y[{row + 1}] sums to {float(y[row].astype(np.float64).sum()):.9g}; each row of probabilities "
            "must sum to 1, or give integer labels of shape (N,)"
        )
