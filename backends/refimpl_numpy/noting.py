"""Arrays that note what is done with them, for :mod:`refimpl_numpy.plan`: `Traced`, and the `Trace` of `Node`s that
they leave. What they do not know how to note is `Unplanned`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

Array = NDArray[Any]


class Unplanned(TypeError):
    """A plan does not know how to note what was done with an array."""


@dataclass(eq=False)
class Node:
    """One value of the program: what it is computed by, from which others, and where it lives."""

    kind: str  # input, constant, elementwise, where, cast, matmul, sum, max, view
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    operands: tuple[Node, ...]
    detail: Any

    @property
    def base(self) -> Node:
        """The value whose memory this one is."""
        return self.operands[0].base if self.kind == "view" else self

    @property
    def elementwise(self) -> bool:
        return self.kind in ("elementwise", "where", "cast")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Trace:
    """The nodes in the order in which they were noted, each once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.known: dict[Any, Node] = {}

    def node(self, kind: str, result: Any, operands: Sequence[Node] = (), detail: Any = None, key: Any = None) -> Node:
        identity = (kind, tuple(map(id, operands)), detail if key is None else key)
        if identity not in self.known:
            made = Node(kind, result.shape, result.dtype, tuple(operands), detail)
            self.known[identity] = made
            self.nodes.append(made)
        return self.known[identity]

    def constant(self, value: Any) -> Node:
        array = np.asarray(value)
        made = self.node("constant", array, key=(array.dtype.str, array.shape, array.tobytes()))
        made.detail = array
        return made


class Traced(NDArrayOperatorsMixin):
    """An array that notes what is done with it. Shapes and dtypes are NumPy's own, found by doing it."""

    def __init__(self, trace: Trace, node: Node, value: Array) -> None:
        self.trace, self.node, self.value = trace, node, value

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, *ignored: Any, **options: Any) -> Array:
        raise Unplanned("a planned array cannot be turned into numbers while the plan is made")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise Unplanned(f"a plan knows no numpy.{ufunc.__name__}.{method} with {', '.join(options) or 'nothing'}")
        result = ufunc(*map(_value, inputs))
        if ufunc is np.matmul:
            return self._made("matmul", result, inputs)
        unchanged = _unchanged(ufunc, inputs, result)
        if unchanged is not None:
            return unchanged
        common = np.result_type(*(getattr(value, "dtype", value) for value in inputs))
        operands = [_of_dtype(value, common) for value in inputs]
        return self._made("elementwise", result, operands, ufunc)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        if function is np.where and not options:
            result = np.where(*map(_value, inputs))
            return self._made("where", result, [inputs[0], *(_of_dtype(value, result.dtype) for value in inputs[1:])])
        if function is np.clip and not options:
            array, low, high = inputs
            return np.minimum(np.maximum(array, low), high)
        if function is np.ones_like and not options:
            return np.ones((1,) * self.ndim, self.dtype)
        if function is np.arange and not options:
            return np.arange(*inputs)
        raise Unplanned(f"a plan knows no numpy.{function.__name__} with {', '.join(options) or 'nothing'}")

    @property
    def T(self) -> Traced:
        return self._view(self.value.T, "T")

    def reshape(self, *shape: Any) -> Traced:
        result = self.value.reshape(*shape)
        return self if result.shape == self.shape else self._view(result, f"reshape({result.shape})")

    def __getitem__(self, index: Any) -> Traced:
        if index != (slice(None), None):
            raise Unplanned(f"a plan knows no index but [:, None], not {index}")
        return self._view(self.value[index], f"reshape({self.value[index].shape})")

    def copy(self) -> Traced:
        """The same value: nothing is written to where it lives while it is needed."""
        return self

    def astype(self, dtype: Any) -> Traced:
        result = self.value.astype(dtype)
        return self if result.dtype == self.dtype else self._made("cast", result, [self], result.dtype.str)

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Traced:
        if axis is not None and (self.ndim != 2 or axis not in (0, 1) or (keepdims and axis == 0)):
            raise Unplanned(f"a plan knows no sum of {self.ndim} axes over axis {axis}, keepdims={keepdims}")
        return self._reduced("sum", self.value.sum(axis=axis, keepdims=keepdims), axis)

    def max(self, axis: int | None = None, keepdims: bool = False) -> Traced:
        if self.ndim != 2 or axis != 1 or not keepdims:
            raise Unplanned(f"a plan knows no largest of {self.ndim} axes over axis {axis}, keepdims={keepdims}")
        return self._reduced("max", self.value.max(axis=axis, keepdims=keepdims), axis)

    def _reduced(self, kind: str, result: Any, axis: int | None) -> Traced:
        result = np.asarray(result)
        if result.size == self.value.size:
            return self._view(result, f"reshape({result.shape})")
        return self._made(kind, result, [self], (axis, result.shape))

    def _view(self, result: Array, how: str) -> Traced:
        return self._made("view", result, [self], how)

    def _made(self, kind: str, result: Any, operands: Sequence[Any], detail: Any = None) -> Traced:
        nodes = [value.node if isinstance(value, Traced) else self.trace.constant(value) for value in operands]
        return Traced(self.trace, self.trace.node(kind, result, nodes, detail), result)


def _value(item: Any) -> Any:
    return item.value if isinstance(item, Traced) else item


def _of_dtype(value: Any, dtype: np.dtype[Any]) -> Any:
    """A constant in the dtype that NumPy computes in."""
    return value if isinstance(value, Traced) else np.asarray(value, dtype=dtype)


def _unchanged(ufunc: np.ufunc, inputs: Sequence[Any], result: Array) -> Traced | None:
    """The operand that is the result: what is multiplied or divided by ones."""
    if ufunc in (np.multiply, np.divide):
        for this, other in (inputs, inputs[::-1]) if ufunc is np.multiply else (inputs,):
            whole = isinstance(this, Traced) and this.shape == result.shape and this.dtype == result.dtype
            if whole and not isinstance(other, Traced) and np.all(np.asarray(other) == 1):
                return this
    return None
