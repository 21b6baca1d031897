"""CuPy's part in the hand-derived backend, played by NumPy where there is no GPU: arrays that, as CuPy's do, answer
NumPy's functions themselves and refuse to be mixed with arrays in the processor's memory.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class DeviceArray(NDArrayOperatorsMixin):
    """An array on the pretended device."""

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    T = property(lambda self: DeviceArray(self.host.T))

    def __len__(self) -> int:
        return len(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __array__(self, *ignored: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        assert method == "__call__"
        assert not options
        result = ufunc(*map(_host, inputs), **({} if out is None else {"out": tuple(map(_host, out))}))
        return DeviceArray(result) if out is None else out[0]

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        assert function in (np.where, np.clip, np.ones_like, np.arange, np.copyto, np.dot), function
        return DeviceArray(function(*map(_host, inputs), **{name: _host(value) for name, value in options.items()}))

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(self.host[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[index] = _host(value)

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self.host.reshape(*shape))

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.host.astype(dtype))

    def copy(self) -> DeviceArray:
        return DeviceArray(self.host.copy())

    def sum(self, **options: Any) -> DeviceArray:
        return DeviceArray(self.host.sum(**options))

    def max(self, **options: Any) -> DeviceArray:
        return DeviceArray(self.host.max(**options))


def _host(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.host
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _on_device(function: Any) -> Any:
    """A function of NumPy's as CuPy has it: device arrays in and out."""

    def call(*inputs: Any, **options: Any) -> Any:
        return DeviceArray(function(*map(_host, inputs), **{name: _host(value) for name, value in options.items()}))

    return call


def _made(function: Any) -> Any:
    return lambda *shape, **options: DeviceArray(function(*shape, **options))


class FakeCupy(SimpleNamespace):
    """The module. What it lacks CuPy may have, but the backend may not use it untested."""

    def __init__(self, devices: int = 1) -> None:
        names = (
            "absolute add copyto divide dot equal exp greater greater_equal less_equal log log1p expm1 maximum minimum "
            "multiply negative sign subtract sum amax tanh"
        )
        super().__init__(**{name: _on_device(getattr(np, name)) for name in names.split()})
        self.empty, self.zeros, self.ones = _made(np.empty), _made(np.zeros), _made(np.ones)
        self.asnumpy = lambda array: array.host.copy()
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: devices),
            get_current_stream=lambda: SimpleNamespace(synchronize=self._wait),
        )
        self.waited = 0

    def _wait(self) -> None:
        self.waited += 1

    def asarray(self, value: Any, dtype: Any = None) -> DeviceArray:
        return value if isinstance(value, DeviceArray) and dtype is None else DeviceArray(np.array(_raw(value), dtype))

    def array(self, value: Any) -> DeviceArray:
        return DeviceArray(np.array(_raw(value)))


def _raw(value: Any) -> Any:
    return value.host if isinstance(value, DeviceArray) else value
