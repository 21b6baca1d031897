"""Programs as graphs of coarse primitives.

A `Node` is an array that has yet to be computed: the rule that makes it, the nodes it is made from, its shape, and what
else the rule needs (`static`: axes, an index, a function of the catalogue). Nodes have the operators and methods of
NumPy's arrays that a definition of a layer or of a loss uses, so that it reads as it does over arrays. `read` computes
nodes, over balls, dual numbers, floating-point numbers or error bounds: an *algebra* is an object with one method a
rule. Gradients are graphs too (:mod:`refimpl.truth.gradients`).

The primitives are coarse on purpose. What is judged is a *class* of implementations (any order of summation, softmax by
any formula, variance in two passes or by Welford's), so softmax, log-sum-exp and the norms are primitives of their own,
with an error of their own; slices, padding and the windows of a convolution are all `gather`.

What it does not do: choose an arithmetic, or compute anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.network.arithmetic import FLUSHING, Arithmetic
from refimpl.truth.elementwise import Elementwise

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """An array of `shape`, which `rule` makes from `inputs`."""

    rule: str
    inputs: tuple[Node, ...]
    shape: Shape
    static: Any = None

    __array_ufunc__ = None  # an ndarray on the left leaves the operation to this class

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def T(self) -> Node:
        """The transpose."""
        return transpose(self, tuple(reversed(range(self.ndim))))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Node:
        return gather(self, np.arange(self.size).reshape(self.shape)[index])

    def __neg__(self) -> Node:
        return scale(self, Fraction(-1))

    def __add__(self, other: Any) -> Node:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Node:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Node:
        return self + -lifted(other)

    def __rsub__(self, other: Any) -> Node:
        return lifted(other) + -self

    def __mul__(self, other: Any) -> Node:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Node:
        return _binary("mul", other, self)

    def __truediv__(self, other: Any) -> Node:
        return scale(self, Fraction(1, other)) if isinstance(other, int) else _binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return _binary("div", other, self)

    def __matmul__(self, other: Any) -> Node:
        return contract("ij,jk->ik", self, lifted(other))

    def __rmatmul__(self, other: Any) -> Node:
        return contract("ij,jk->ik", lifted(other), self)

    def sum(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Node:
        """The sum over an axis, several or all."""
        return _reduced("sum", self, axis, keepdims)

    def max(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Node:
        """The largest over an axis, several or all."""
        return _reduced("max", self, axis, keepdims)

    def reshape(self, *shape: Any) -> Node:
        """The same elements, in C order, in another shape."""
        whole = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return reshape(self, np.empty(self.shape, dtype=bool).reshape(whole).shape)

    def astype(self, dtype: Any) -> Node:
        """Rounded to another dtype, in whose arithmetic, which may flush, the rest is computed where it is coarser."""
        return cast(self, FLUSHING[np.dtype(dtype).name])

    def __repr__(self) -> str:
        return f"<{self.rule} {self.shape}>"


# --------------------------------------------------------------------------------------------------------------
# The primitives. Each raises ValueError where the shapes do not fit.


def given(name: str, shape: Iterable[int]) -> Node:
    """Numbers that are handed in when the graph is read."""
    return Node("given", (), tuple(shape), name)


def constant(values: Any) -> Node:
    """Numbers that every implementation has exactly."""
    array = np.asarray(values, dtype=np.float64)
    return Node("constant", (), array.shape, array)


def lifted(value: Any) -> Node:
    """The node itself, or the constant."""
    return value if isinstance(value, Node) else constant(value)


def add(a: Node, b: Node) -> Node:
    """a + b, of one shape."""
    return Node("add", (a, b), _same(a, b))


def mul(a: Node, b: Node) -> Node:
    """a b, element by element, of one shape."""
    return Node("mul", (a, b), _same(a, b))


def div(a: Node, b: Node) -> Node:
    """a / b, element by element, of one shape."""
    return Node("div", (a, b), _same(a, b))


def scale(a: Node, factor: Fraction) -> Node:
    """a times a rational number."""
    return a if factor == 1 else Node("scale", (a,), a.shape, factor)


def contract(subscripts: str, a: Node, b: Node) -> Node:
    """Sums of products, as `numpy.einsum` writes them: "ni,oi->no". An index stands at most once in each factor, and is
    summed over where it is in both and not in the result.
    """
    left, out = subscripts.split("->")
    first, second = left.split(",")
    sizes = dict(zip(first, a.shape, strict=True))
    for letter, size in zip(second, b.shape, strict=True):
        if sizes.setdefault(letter, size) != size:
            raise ValueError(f"{subscripts}: {a.shape} and {b.shape} do not fit")
    if alone := set(sizes) - set(out) - (set(first) & set(second)):
        raise ValueError(f"{subscripts}: {min(alone)} is in one factor only and not in the result")
    return Node("contract", (a, b), tuple(sizes[letter] for letter in out), subscripts)


def summed(node: Node) -> int:
    """How many products each element of a `contract` sums."""
    left, out = node.static.split("->")
    first, _ = left.split(",")
    return math.prod(size for letter, size in zip(first, node.inputs[0].shape, strict=True) if letter not in out)


def cast(a: Node, arithmetic: Arithmetic) -> Node:
    """a rounded to the numbers of an arithmetic."""
    return Node("cast", (a,), a.shape, arithmetic)


def about(a: Node, off: Array, order: int = 0) -> Node:
    """a itself (of `order` 0), whose derivative, 1, implementations may take for a number up to `off` away."""
    return Node("about", (a,), a.shape, (off, order)) if off.any() else a


def apply(function: Elementwise, a: Node, order: int = 0) -> Node:
    """A function of the catalogue, or a derivative of it, of each element."""
    return Node("apply", (a,), a.shape, (function, order))


def softmax(a: Node, mask: Array | None = None) -> Node:
    """e^a / Σ e^a along the last axis, 0 where a mask does not hold."""
    return share(a, log_sum_exp(a, mask))


def share(a: Node, total: Node) -> Node:
    """The softmax of a from its `log_sum_exp`, whose rounding is one error in the whole row."""
    return Node("softmax", (a, total), a.shape, total.static)


def log_sum_exp(a: Node, mask: Array | None = None) -> Node:
    """log Σ e^a along the last axis, which stays with length 1, over what a mask leaves of it. Raises ValueError where
    that is nothing.
    """
    chosen = np.broadcast_to(True if mask is None else mask, a.shape)
    if not chosen.any(axis=-1).all():
        raise ValueError("a row is masked throughout")
    return Node("log_sum_exp", (a,), (*a.shape[:-1], 1), chosen)


def normalise(a: Node, epsilon: float, centred: bool = True) -> Node:
    """(a − mean) / √(variance + ε) along the last axis; not `centred`: a / √(mean of a² + ε)."""
    inverse, last = inverse_deviation(a, epsilon, centred), a.ndim - 1
    mean = (scale(sum_over(a, (last,)), Fraction(1, a.shape[last])),) if centred else ()
    return Node("normalise", (a, inverse, *mean), a.shape)


def inverse_deviation(a: Node, epsilon: float, centred: bool = True) -> Node:
    """1 / √(variance + ε) along the last axis, which stays with length 1; what `normalise` multiplies by."""
    return Node("inverse_deviation", (a,), (*a.shape[:-1], 1), (epsilon, centred))


def sum_over(a: Node, axes: tuple[int, ...]) -> Node:
    """The sum over axes, which stay with length 1."""
    return Node("sum", (a,), _kept(a.shape, axes), axes) if axes else a


def largest(a: Node, axes: tuple[int, ...]) -> Node:
    """The largest over axes, which stay with length 1."""
    return Node("max", (a,), _kept(a.shape, axes), axes)


def first_largest(a: Node, axes: tuple[int, ...]) -> Node:
    """1 at the first of the largest elements over axes, else 0: the derivative of `max`."""
    return Node("first_largest", (a,), a.shape, axes)


def select(mask: Array, a: Node, b: Node) -> Node:
    """a where the mask holds, else b."""
    return Node("select", (a, b), _same(a, b), np.broadcast_to(mask, a.shape))


def gather(a: Node, index: NDArray[np.int64]) -> Node:
    """Elements of a by their place in C order, 0 for the place −1: slices, padding, windows, embeddings."""
    index = np.ascontiguousarray(index, dtype=np.int64)
    if index.size and not -1 <= index.min() <= index.max() < a.size:
        raise ValueError(f"a place outside an array of {a.size}")
    return Node("gather", (a,), index.shape, index)


def scatter_add(a: Node, index: NDArray[np.int64], shape: Shape) -> Node:
    """The sums of the elements of a that have the same place in C order; the place −1 is nowhere."""
    return Node("scatter_add", (a,), shape, index.reshape(a.shape))


def reshape(a: Node, shape: Shape) -> Node:
    """The same elements in C order."""
    return a if shape == a.shape else Node("reshape", (a,), shape)


def transpose(a: Node, axes: tuple[int, ...]) -> Node:
    """The axes in another order."""
    return a if axes == tuple(range(a.ndim)) else Node("transpose", (a,), tuple(a.shape[i] for i in axes), axes)


def broadcast(a: Node, shape: Shape) -> Node:
    """Axes of length 1, and new ones before them, repeated."""
    if shape == a.shape:
        return a
    if np.broadcast_shapes(a.shape, shape) != shape:
        raise ValueError(f"{a.shape} does not become {shape}")
    return Node("broadcast", (a,), shape)


PRIMITIVES: Mapping[str, Callable[..., Node]] = {
    "given": given, "constant": constant, "add": add, "mul": mul, "div": div, "scale": scale, "contract": contract,
    "cast": cast, "about": about, "apply": apply, "softmax": softmax, "log_sum_exp": log_sum_exp,
    "normalise": normalise,
    "inverse_deviation": inverse_deviation, "sum": sum_over, "max": largest, "first_largest": first_largest,
    "select": select, "gather": gather, "scatter_add": scatter_add, "reshape": reshape, "transpose": transpose,
    "broadcast": broadcast,
}  # fmt: skip


def _same(a: Node, b: Node) -> Shape:
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} are not of one shape")
    return a.shape


def _binary(rule: str, a: Any, b: Any) -> Node:
    left, right = lifted(a), lifted(b)
    if left.shape == right.shape:
        return PRIMITIVES[rule](left, right)
    shape = np.broadcast_shapes(left.shape, right.shape)
    return PRIMITIVES[rule](broadcast(left, shape), broadcast(right, shape))


def _kept(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _reduced(rule: str, a: Node, axis: int | Sequence[int] | None, keepdims: bool) -> Node:
    chosen = range(a.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = tuple(sorted(i % a.ndim for i in chosen))
    made = PRIMITIVES[rule](a, axes)
    return made if keepdims else reshape(made, tuple(size for i, size in enumerate(a.shape) if i not in axes))


# --------------------------------------------------------------------------------------------------------------
# Reading


def order(ends: Iterable[Node], but: Collection[Node] = ()) -> list[Node]:
    """All nodes that these are made from, and themselves, each after its inputs; `but` not those, nor what only they
    are made from.
    """
    done: dict[Node, None] = {}
    stack = [end for end in ends if end not in but][::-1]
    while stack:
        node = stack[-1]
        missing = [one for one in node.inputs[::-1] if one not in done and one not in but]
        if missing:
            stack += missing
        else:
            done[stack.pop()] = None
    return list(done)


def read(ends: Iterable[Node], algebra: Any, known: Mapping[Node, Any] | None = None) -> dict[Node, Any]:
    """The values of all nodes that `ends` are made from, in an algebra; those `known` are not computed again."""
    values: dict[Node, Any] = dict(known or {})
    extend(values, order(ends), algebra)
    return values


def extend(values: dict[Node, Any], nodes: Iterable[Node], algebra: Any) -> None:
    """The values of nodes, each after its inputs, beside those that are there."""
    for node in nodes:
        if node not in values:
            values[node] = getattr(algebra, node.rule)(node, *[values[node_in] for node_in in node.inputs])
