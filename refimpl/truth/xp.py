"""What definitions are written with: array-API style Python, traced onto the graph.

A definition is a function of this module, as `xp`, and of its arrays:

    def rms_norm(xp, x, weight, eps=1e-6):
        return x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps) * weight

What is differentiated is a `Traced` array: real numbers, of which only the graph is known. Integers, booleans and masks
are NumPy arrays as they were given, and index, mask and count. A Python number is the rational that it is, rounded
where an implementation may have rounded it.

Names are the array API's (https://data-apis.org/array-api/2024.12), and what neural networks are made of beside them:
`softmax`, `log_softmax`, `logsumexp`, `standardise`, `rsqrt`, `erf`, `einsum`, `pad`, and the activations of the
catalogue. `__all__` is the list. What the graph has no primitive for raises `NotImplementedError`, with what to write
instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.network.functions import ACTIVATIONS
from refimpl.truth import elementwise as functions
from refimpl.truth import graph
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import Node, Shape

__all__ = [
    "abs", "add", "all", "any", "arange", "asarray", "broadcast_to", "clip", "concat", "cos",
    "cumulative_sum", "divide", "einsum", "elu", "equal", "erf", "exp", "expand_dims", "expm1", "flip", "full", "gelu",
    "gelu_tanh", "greater", "greater_equal", "inf", "leaky_relu", "less", "less_equal", "log", "log1p", "log_softmax",
    "logical_and", "logical_not", "logical_or", "logsumexp", "matmul", "matrix_transpose", "max", "maximum", "mean",
    "min", "minimum", "moveaxis", "multiply", "negative", "newaxis", "not_equal", "ones", "ones_like", "pad",
    "permute_dims", "pi", "pow", "relu", "repeat", "reshape", "roll", "rsqrt", "selu", "sigmoid", "sign", "silu",
    "sin", "softmax", "softplus", "softsign", "sqrt", "square", "squeeze", "stack", "standardise", "std", "subtract",
    "sum", "take", "take_along_axis", "tanh", "tile", "tril", "triu", "unstack", "var", "vecdot", "where", "zeros",
    "zeros_like",
]  # fmt: skip

Axis = int | Sequence[int] | None
newaxis, pi, inf = None, math.pi, math.inf


class Traced:
    """Real numbers that are yet to be computed, of `shape`; operators and indices as NumPy's."""

    __array_ufunc__ = None  # an ndarray on the left leaves the operation to this class

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def shape(self) -> Shape:
        """The length of every axis."""
        return self.node.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.node.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.node.size

    @property
    def T(self) -> Traced:
        """With its axes in the other order."""
        return Traced(self.node.T)

    @property
    def mT(self) -> Traced:
        """With its last two axes in the other order."""
        return matrix_transpose(self)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import refimpl.truth.xp as namespace

        return namespace

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Traced:
        return Traced(self.node[index])

    def __bool__(self) -> bool:
        raise TypeError(
            "what is traced has no numbers yet, so that Python cannot branch on it; write xp.where(condition, a, b)"
        )

    def __neg__(self) -> Traced:
        return Traced(-self.node)

    def __pos__(self) -> Traced:
        return self

    def __abs__(self) -> Traced:
        return abs(self)

    def __add__(self, other: Any) -> Traced:
        return add(self, other)

    def __radd__(self, other: Any) -> Traced:
        return add(other, self)

    def __sub__(self, other: Any) -> Traced:
        return subtract(self, other)

    def __rsub__(self, other: Any) -> Traced:
        return subtract(other, self)

    def __mul__(self, other: Any) -> Traced:
        return multiply(self, other)

    def __rmul__(self, other: Any) -> Traced:
        return multiply(other, self)

    def __truediv__(self, other: Any) -> Traced:
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return divide(other, self)

    def __pow__(self, other: Any) -> Traced:
        return pow(self, other)

    def __matmul__(self, other: Any) -> Traced:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Traced:
        return matmul(other, self)

    def __gt__(self, other: Any) -> Condition:
        return greater(self, other)

    def __ge__(self, other: Any) -> Condition:
        return greater_equal(self, other)

    def __lt__(self, other: Any) -> Condition:
        return less(self, other)

    def __le__(self, other: Any) -> Condition:
        return less_equal(self, other)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Traced:
        """The sum over an axis, several or all."""
        return sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Traced:
        """The mean over an axis, several or all."""
        return mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Traced:
        """The largest over an axis, several or all."""
        return max(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Traced:
        """The same elements in C order."""
        return reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def __repr__(self) -> str:
        return f"<traced {self.shape}>"


class Condition:
    """Where a comparison of traced numbers holds: 1, else 0, and of that only the graph."""

    __array_ufunc__ = None

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def shape(self) -> Shape:
        """The length of every axis."""
        return self.node.shape

    def __invert__(self) -> Condition:
        return Condition(1 - self.node)

    def __and__(self, other: Any) -> Condition:
        return Condition(self.node * _node(other))

    def __or__(self, other: Any) -> Condition:
        return ~(~self & ~Condition(_node(other)))

    __rand__, __ror__ = __and__, __or__

    def __bool__(self) -> bool:
        return Traced.__bool__(self)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------
# What is traced, and what is not


def _node(value: Any) -> Node:
    """The node of what is traced; of plain numbers that every implementation has them, but for their rounding."""
    if isinstance(value, Traced | Condition):
        return value.node
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{type(value).__name__} is no array of real numbers")
    if array.ndim == 0 and not _short(float(array)):
        return graph.scale(graph.constant(1.0), Fraction(float(array)))
    return graph.constant(array)


def _short(number: float) -> bool:
    """Whether every format of floating-point numbers has it."""
    return math.isfinite(number) and (number == 0 or float(np.ldexp(math.frexp(number)[0], 8)).is_integer())


def _traced(*values: Any) -> bool:
    return bool([value for value in values if isinstance(value, Traced | Condition)])


def _elementwise(function: Elementwise, value: Any) -> Traced:
    return Traced(graph.apply(function, _node(value)))


def _together(*values: Any) -> list[Node]:
    """Of one shape."""
    nodes = [_node(value) for value in values]
    shape = np.broadcast_shapes(*(node.shape for node in nodes))
    return [graph.broadcast(node, shape) for node in nodes]


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    chosen = range(ndim) if axis is None else (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    found = tuple(sorted(int(one) % ndim if -ndim <= one < ndim else _no_axis(one, ndim) for one in chosen))
    if len(set(found)) < len(found):
        raise ValueError(f"an axis stands twice in {tuple(chosen)}")
    return found


def _no_axis(axis: int, ndim: int) -> int:
    raise ValueError(f"there is no axis {axis} of {ndim}")


def _number(value: Any) -> float | None:
    """A plain number that is no array."""
    return float(value) if isinstance(value, int | float | np.integer | np.floating) else None


# --------------------------------------------------------------------------------------------------------------
# Arithmetic


def add(x1: Any, x2: Any) -> Any:
    """x1 + x2."""
    return Traced(graph.add(*_together(x1, x2))) if _traced(x1, x2) else x1 + x2


def subtract(x1: Any, x2: Any) -> Any:
    """x1 − x2."""
    return add(x1, negative(x2)) if _traced(x1, x2) else x1 - x2


def negative(x: Any) -> Any:
    """−x."""
    return Traced(-_node(x)) if _traced(x) else -np.asarray(x)[()]


def multiply(x1: Any, x2: Any) -> Any:
    """x1 · x2."""
    if not _traced(x1, x2):
        return x1 * x2
    for one, other in ((x1, x2), (x2, x1)):
        if (factor := _number(one)) is not None:
            return Traced(graph.scale(_node(other), Fraction(factor)))
    return Traced(graph.mul(*_together(x1, x2)))


def divide(x1: Any, x2: Any) -> Any:
    """x1 / x2."""
    if not _traced(x1, x2):
        return x1 / x2
    if (divisor := _number(x2)) is not None:
        return Traced(graph.scale(_node(x1), 1 / Fraction(divisor)))
    return Traced(graph.div(*_together(x1, x2)))


def pow(x1: Any, x2: Any) -> Any:
    """x1 to the power of a plain number."""
    if not _traced(x1, x2):
        return x1**x2
    exponent = _number(x2)
    if exponent is None:
        raise NotImplementedError("pow with a traced exponent; write xp.exp(y * xp.log(x))")
    if exponent == 2:
        return square(x1)
    return _elementwise(functions.power(exponent), x1)


def square(x: Any) -> Any:
    """x · x."""
    return multiply(x, x)


def _named(function: Any, name: str, text: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


def _function(name: str, function: Elementwise, text: str) -> Callable[[Any], Traced]:
    return _named(lambda x: _elementwise(function, x), name, text)


exp = _function("exp", functions.EXP, "e^x.")
expm1 = _function("expm1", functions.EXPM1, "e^x − 1.")
log = _function("log", functions.LOGARITHM, "The natural logarithm, of x > 0.")
log1p = _function("log1p", functions.LOG1P, "log(1 + x), of x > −1.")
sqrt = _function("sqrt", functions.SQRT, "√x, of x > 0.")
rsqrt = _function("rsqrt", functions.RSQRT, "1/√x, of x > 0.")
sin = _function("sin", functions.SIN, "sin x.")
cos = _function("cos", functions.COS, "cos x.")
erf = _function("erf", functions.ERF, "2/√π ∫₀ˣ e^(−t²) dt.")
abs = _function("abs", functions.ABSOLUTE, "|x|, with the derivative 0 at 0.")
sign = _function("sign", functions.SIGN, "−1, 0 or 1.")


def _activation(name: str) -> Callable[..., Traced]:
    entry = ACTIVATIONS[name]

    def applied(x: Any, **parameters: float) -> Traced:
        unknown = set(parameters) - set(entry.parameters)
        if unknown:
            raise TypeError(f"{name} has no parameter {min(unknown)!r}")
        values = {key: float(parameters.get(key, one.default)) for key, one in entry.parameters.items()}
        return _elementwise(functions.activation(name, tuple(values.items())), x)

    return _named(applied, name, f"{entry.definition_text}, as the catalogue has it.")


relu, leaky_relu, elu, selu = (_activation(name) for name in ("relu", "leaky_relu", "elu", "selu"))
gelu, gelu_tanh, silu = (_activation(name) for name in ("gelu", "gelu_tanh", "silu"))
softplus, softsign = (_activation(name) for name in ("softplus", "softsign"))
sigmoid, tanh = (_activation(name) for name in ("sigmoid", "tanh"))


# --------------------------------------------------------------------------------------------------------------
# Comparisons and choices


def _compared(function: Elementwise, larger: Any, smaller: Any) -> Condition:
    return Condition(graph.apply(function, _node(subtract(larger, smaller))))


def greater(x1: Any, x2: Any) -> Any:
    """x1 > x2."""
    return _compared(functions.POSITIVE, x1, x2) if _traced(x1, x2) else np.greater(x1, x2)


def greater_equal(x1: Any, x2: Any) -> Any:
    """x1 ≥ x2."""
    return _compared(functions.NOT_NEGATIVE, x1, x2) if _traced(x1, x2) else np.greater_equal(x1, x2)


def less(x1: Any, x2: Any) -> Any:
    """x1 < x2."""
    return greater(x2, x1)


def less_equal(x1: Any, x2: Any) -> Any:
    """x1 ≤ x2."""
    return greater_equal(x2, x1)


def equal(x1: Any, x2: Any) -> Any:
    """x1 = x2."""
    return less_equal(x1, x2) & greater_equal(x1, x2) if _traced(x1, x2) else np.equal(x1, x2)


def not_equal(x1: Any, x2: Any) -> Any:
    """x1 ≠ x2."""
    return logical_not(equal(x1, x2))


def logical_not(x: Any) -> Any:
    """Where x does not hold."""
    return ~x if isinstance(x, Condition) else np.logical_not(x)


def logical_and(x1: Any, x2: Any) -> Any:
    """Where both hold."""
    return x1 & x2 if _traced(x1, x2) else np.logical_and(x1, x2)


def logical_or(x1: Any, x2: Any) -> Any:
    """Where one of them holds, or both."""
    return x1 | x2 if _traced(x1, x2) else np.logical_or(x1, x2)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether plain conditions hold everywhere."""
    return np.all(_plain("all", x), axis=_tuple(axis), keepdims=keepdims)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether plain conditions hold somewhere."""
    return np.any(_plain("any", x), axis=_tuple(axis), keepdims=keepdims)


def _plain(name: str, value: Any) -> NDArray[np.generic]:
    if _traced(value):
        raise NotImplementedError(f"{name} of what is traced; use it on what is given as integers or booleans")
    return np.asarray(value)


def _tuple(axis: Axis) -> int | tuple[int, ...] | None:
    return axis if axis is None or isinstance(axis, int) else tuple(axis)


def where(condition: Any, x1: Any, x2: Any) -> Any:
    """x1 where the condition holds, else x2."""
    if isinstance(condition, Condition):
        chosen, first, second = _together(condition, x1, x2)
        return Traced(graph.mul(chosen, first) + graph.mul(1 - chosen, second))
    mask = np.asarray(condition, dtype=bool)
    if not _traced(x1, x2):
        return np.where(mask, x1, x2)
    nodes = [_node(value) for value in (x1, x2)]
    shape = np.broadcast_shapes(mask.shape, *(node.shape for node in nodes))
    return Traced(graph.select(mask, *(graph.broadcast(node, shape) for node in nodes)))


def maximum(x1: Any, x2: Any) -> Any:
    """The larger, element by element; of two that are equal, half of the derivative goes to each."""
    if not _traced(x1, x2):
        return np.maximum(x1, x2)
    return where(_compared(functions.LARGER, x1, x2), x1, x2)


def minimum(x1: Any, x2: Any) -> Any:
    """The smaller, element by element; of two that are equal, half of the derivative goes to each."""
    return where(_compared(functions.LARGER, x2, x1), x1, x2) if _traced(x1, x2) else np.minimum(x1, x2)


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """x within [min, max]."""
    if min is not None:
        x = where(greater(x, min), x, min) if _traced(x, min) else np.maximum(x, min)
    if max is not None:
        x = where(less(x, max), x, max) if _traced(x, max) else np.minimum(x, max)
    return x


# --------------------------------------------------------------------------------------------------------------
# Sums, moments, rows


def _reduced(rule: Callable[[Node, tuple[int, ...]], Node], x: Any, axis: Axis, keepdims: bool) -> Traced:
    node = _node(x)
    axes = _axes(axis, node.ndim)
    made = rule(node, axes)
    rest = tuple(size for i, size in enumerate(node.shape) if i not in axes)
    return Traced(made if keepdims else graph.reshape(made, rest))


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum over an axis, several or all."""
    return (
        _reduced(graph.sum_over, x, axis, keepdims) if _traced(x) else np.sum(x, axis=_tuple(axis), keepdims=keepdims)
    )


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The mean over an axis, several or all."""
    return divide(sum(x, axis, keepdims), _count(np.shape(x), axis))


def _count(shape: Shape, axis: Axis) -> int:
    return math.prod(shape[i] for i in _axes(axis, len(shape)))


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest over an axis, several or all; the derivative goes to the first of the largest."""
    return _reduced(graph.largest, x, axis, keepdims) if _traced(x) else np.max(x, axis=_tuple(axis), keepdims=keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest over an axis, several or all; the derivative goes to the first of the smallest."""
    return negative(max(negative(x), axis, keepdims)) if _traced(x) else np.min(x, axis=_tuple(axis), keepdims=keepdims)


def var(x: Any, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Traced:
    """The mean of the squares of x − its mean, over n − correction."""
    away = x - mean(x, axis, keepdims=True)
    return divide(sum(square(away), axis, keepdims), _count(np.shape(x), axis) - correction)


def std(x: Any, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Traced:
    """The square root of `var`."""
    return sqrt(var(x, axis, correction, keepdims))


def cumulative_sum(x: Any, axis: int = -1) -> Any:
    """The sums of all up to each, along an axis."""
    if not _traced(x):
        return np.cumsum(x, axis=axis)
    (at,) = _axes(axis, x.ndim)
    n = x.shape[at]
    return moveaxis(matmul(moveaxis(x, at, -1), np.triu(np.ones((n, n)))), -1, at)


def _along(x: Any, axis: int, rule: Callable[..., Node], mask: Any) -> Traced:
    """A rule of the last axis along another."""
    node = _node(x)
    (at,) = _axes(axis, node.ndim)
    moved = moveaxis(x, at, -1)
    chosen = None if mask is None else np.moveaxis(np.broadcast_to(mask, node.shape), at, -1)
    return moveaxis(Traced(rule(_node(moved), chosen)), -1, at)


def softmax(x: Any, axis: int = -1, mask: Any = None) -> Traced:
    """e^x / Σ e^x along an axis, by any formula; 0 where a plain mask does not hold."""
    return _along(x, axis, graph.softmax, mask)


def logsumexp(x: Any, axis: int = -1, keepdims: bool = False, mask: Any = None) -> Traced:
    """log Σ e^x along an axis, by any formula, over what a plain mask leaves."""
    found = _along(x, axis, graph.log_sum_exp, mask)
    return found if keepdims else squeeze(found, axis)


def log_softmax(x: Any, axis: int = -1) -> Traced:
    """x − log Σ e^x along an axis."""
    return x - logsumexp(x, axis, keepdims=True)


def standardise(x: Any, eps: float, axis: Axis = -1, centred: bool = True) -> Traced:
    """(x − mean) / √(variance + ε) over an axis or several, in two passes or by Welford's method; not `centred`:
    x / √(mean of x² + ε).
    """
    node = _node(x)
    axes = _axes(axis, node.ndim)
    rest = [i for i in range(node.ndim) if i not in axes]
    moved = permute_dims(x, (*rest, *axes))
    rows = reshape(moved, (*(node.shape[i] for i in rest), -1))
    made = reshape(Traced(graph.normalise(_node(rows), float(eps), centred)), moved.shape)
    return permute_dims(made, tuple(np.argsort((*rest, *axes)).tolist()))


# --------------------------------------------------------------------------------------------------------------
# Products


def matmul(x1: Any, x2: Any) -> Any:
    """The product of matrices, of a stack of them, or of vectors."""
    if not _traced(x1, x2):
        return np.matmul(x1, x2)
    a, b = _node(x1), _node(x2)
    if not (a.ndim and b.ndim):
        raise ValueError("matmul of a number; write x * y")
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    letters = STACKED[: len(shape)]
    # a matrix in every product of a stack is one matrix; stacks are repeated to one length, and their gradients summed
    (left, a), (right, b) = (
        (letters, graph.broadcast(node, (*shape, *node.shape[-2:]))) if node.ndim > 2 else ("", node) for node in (a, b)
    )
    left, right = left + ("ij" if a.ndim > 1 else "j"), right + ("jk" if b.ndim > 1 else "j")
    out = letters + "".join(c for c in left + right if c in "ik")
    return einsum(f"{left},{right}->{out}", Traced(a), Traced(b))


STACKED = "abcdefgh"


def vecdot(x1: Any, x2: Any, axis: int = -1) -> Any:
    """Σ x1 · x2 along an axis."""
    return sum(multiply(x1, x2), axis=axis)


def matrix_transpose(x: Any) -> Any:
    """The last two axes in the other order."""
    ndim = np.ndim(x)
    return permute_dims(x, (*range(ndim - 2), ndim - 1, ndim - 2))


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sums of products, as `numpy.einsum` writes them with all subscripts: "bhqd,bhkd->bhqk"."""
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    if not arrow or len(inputs) != len(operands) or "." in subscripts:
        raise ValueError(f'einsum: {subscripts!r} must name every axis of {len(operands)} operands, as "ij,jk->ik"')
    if not _traced(*operands):
        return np.einsum(subscripts, *operands)
    terms = [_diagonal(one, _node(operand)) for one, operand in zip(inputs, operands, strict=True)]
    while len(terms) > 1:
        (first, a), (second, b), *rest = terms
        needed = set(out).union(*(letters for letters, _ in rest))
        first, a = _summed_alone(first, a, needed | set(second))
        second, b = _summed_alone(second, b, needed | set(first))
        made = "".join(c for c in dict.fromkeys(first + second) if c in needed)
        terms = [(made, graph.contract(f"{first},{second}->{made}", a, b)), *rest]
    letters, node = _summed_alone(*terms[0], set(out))
    if set(letters) != set(out) or len(set(out)) < len(out):
        raise ValueError(f"einsum: {subscripts!r}: {out!r} are not axes of the operands")
    return Traced(graph.transpose(node, tuple(letters.index(c) for c in out)))


def _diagonal(letters: str, node: Node) -> tuple[str, Node]:
    """An axis that is named twice is one."""
    if len(letters) != node.ndim:
        raise ValueError(f"einsum: {letters!r} for an array of shape {node.shape}")
    if len(set(letters)) == len(letters):
        return letters, node
    own = "".join(dict.fromkeys(letters))
    places = np.einsum(f"{letters}->{own}", np.arange(node.size).reshape(node.shape))
    return own, graph.gather(node, places)


def _summed_alone(letters: str, node: Node, needed: set[str]) -> tuple[str, Node]:
    axes = tuple(i for i, c in enumerate(letters) if c not in needed)
    left = "".join(c for c in letters if c in needed)
    return left, graph.reshape(graph.sum_over(node, axes), tuple(node.shape[letters.index(c)] for c in left))


# --------------------------------------------------------------------------------------------------------------
# What moves


def reshape(x: Any, shape: int | Sequence[int]) -> Any:
    """The same elements in C order; one length may be −1."""
    return Traced(x.node.reshape(tuple(np.atleast_1d(shape)))) if _traced(x) else np.reshape(x, shape)


def permute_dims(x: Any, axes: Sequence[int]) -> Any:
    """The axes in another order."""
    if not _traced(x):
        return np.transpose(x, axes)
    return Traced(graph.transpose(x.node, tuple(int(axis) % x.ndim for axis in axes)))


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """One axis to another place."""
    ndim = np.ndim(x)
    order = [i for i in range(ndim) if i != source % ndim]
    order.insert(destination % ndim, source % ndim)
    return permute_dims(x, order)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """Axes of length 1, and new ones before them, repeated."""
    return Traced(graph.broadcast(x.node, tuple(shape))) if _traced(x) else np.broadcast_to(x, tuple(shape))


def _moved(name: str, move: Callable[..., NDArray[Any]], text: str) -> Callable[..., Any]:
    """What NumPy does to the places of elements is done to what is traced."""

    def moved(x: Any, *arguments: Any, **keywords: Any) -> Any:
        if not _traced(x):
            return move(x, *arguments, **keywords)
        places = move(np.arange(x.size).reshape(x.shape), *arguments, **keywords)
        return Traced(graph.gather(x.node, places))

    return _named(moved, name, text)


flip = _moved("flip", np.flip, "In the other order along an axis, several or all.")
roll = _moved("roll", np.roll, "Moved along axes, what leaves at one end coming in at the other.")
repeat = _moved("repeat", np.repeat, "Every element so many times, along an axis.")
tile = _moved("tile", np.tile, "The whole array so many times, along every axis.")
take = _moved("take", np.take, "Elements by their places along an axis: embeddings.")
take_along_axis = _moved("take_along_axis", np.take_along_axis, "Elements by places of their own in every row.")


def expand_dims(x: Any, axis: int = 0) -> Any:
    """A new axis of length 1."""
    shape = list(np.shape(x))
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 1)
    return reshape(x, shape)


def squeeze(x: Any, axis: int | Sequence[int]) -> Any:
    """Without axes of length 1."""
    shape = np.shape(x)
    gone = _axes(axis, len(shape))
    if [i for i in gone if shape[i] != 1]:
        raise ValueError(f"squeeze: axis {axis} of {shape} is not of length 1")
    return reshape(x, [size for i, size in enumerate(shape) if i not in gone])


def pad(x: Any, widths: Any) -> Any:
    """With so many zeros (before, after) every axis."""
    if not _traced(x):
        return np.pad(x, widths)
    return Traced(graph.gather(x.node, np.pad(np.arange(x.size).reshape(x.shape), widths, constant_values=-1)))


def tril(x: Any, k: int = 0) -> Any:
    """0 above the k-th diagonal of the last two axes."""
    return where(np.tril(np.ones(x.shape[-2:], dtype=bool), k), x, 0.0) if _traced(x) else np.tril(x, k)


def triu(x: Any, k: int = 0) -> Any:
    """0 below the k-th diagonal of the last two axes."""
    return where(np.triu(np.ones(x.shape[-2:], dtype=bool), k), x, 0.0) if _traced(x) else np.triu(x, k)


def concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    """One after the other along an axis."""
    if not _traced(*arrays):
        return np.concatenate(arrays, axis=axis)
    nodes = [_node(one) for one in arrays]
    (at,) = _axes(axis, nodes[0].ndim)
    lengths = [node.shape[at] for node in nodes]
    parts = []
    for i, node in enumerate(nodes):
        widths = [(0, 0)] * node.ndim
        widths[at] = (int(np.sum(lengths[:i])), int(np.sum(lengths[i + 1 :])))
        parts.append(_node(pad(Traced(node), widths)))
    return Traced(reduce(graph.add, parts))  # each a number and zeros: exact


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Side by side along a new axis."""
    if not _traced(*arrays):
        return np.stack(arrays, axis=axis)
    return concat([expand_dims(Traced(_node(one)), axis) for one in arrays], axis=axis)


def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """The arrays along an axis."""
    moved = moveaxis(x, axis, 0)
    return tuple(moved[i] for i in range(moved.shape[0]))


# --------------------------------------------------------------------------------------------------------------
# Numbers that are known


def asarray(value: Any, dtype: Any = None) -> Any:
    """An array: what is traced stays so."""
    return value if _traced(value) else np.asarray(value, dtype=dtype)


def arange(*arguments: Any) -> NDArray[Any]:
    """Plain integers, or numbers, in steps."""
    return np.arange(*arguments)


def zeros(shape: Any) -> NDArray[np.float64]:
    """Plain zeros."""
    return np.zeros(shape)


def ones(shape: Any) -> NDArray[np.float64]:
    """Plain ones."""
    return np.ones(shape)


def full(shape: Any, value: float) -> NDArray[np.float64]:
    """A plain number everywhere."""
    return np.full(shape, value)


def zeros_like(x: Any) -> NDArray[np.float64]:
    """Plain zeros, as many."""
    return np.zeros(x.shape)


def ones_like(x: Any) -> NDArray[np.float64]:
    """Plain ones, as many."""
    return np.ones(x.shape)
