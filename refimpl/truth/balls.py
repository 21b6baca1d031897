"""Graphs read over balls: `BallAlgebra`, whose arrays hold `flint.arb`, and `Balls`, their float64 form.

A *ball* is mid ± rad and provably contains the true value (python-flint's Arb; Johansson, "Arb: efficient
arbitrary-precision midpoint-radius interval arithmetic", IEEE Trans. Computers 66, 2017). Sums of products run through
Arb's matrix product.

What it does not do: decide a tie that no precision can. Where a ball cannot be told from a kink, it covers both sides,
and the place is listed in `BallAlgebra.undecided`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.network.functions import SMALLEST, Ball
from refimpl.truth.elementwise import Elementwise
from refimpl.truth.graph import Node, Shape
from refimpl.truth.precision import working_precision

Array = NDArray[Any]
Arbs = NDArray[Any]  # of dtype object, each element a flint.arb
Place = tuple[str, Node, int]
Axes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Balls:
    """Balls as float64 arrays of one shape: every true value lies in mid ± rad.

    `mid` is the true value rounded to float64, so `rad` cannot be smaller than that rounding. The finer ball is
    mid + tail ± tail_rad, with `tail` the rest of the midpoint.
    """

    mid: NDArray[np.float64]
    rad: NDArray[np.float64]
    tail: NDArray[np.float64]
    tail_rad: NDArray[np.float64]

    @classmethod
    def from_arbs(cls, balls: Sequence[Ball], shape: Shape) -> Balls:
        """The float64 form of arb balls, radii rounded outwards, in `shape`. But for the midpoints it is computed when
        it is first asked for.
        """
        found = object.__new__(cls)
        mid = np.array([float(ball.mid()) for ball in balls]).reshape(shape)
        vars(found).update(mid=mid, _arbs=(balls, flint.ctx.prec))
        return found

    def __getattr__(self, name: str) -> NDArray[np.float64]:
        if name not in ("rad", "tail", "tail_rad"):
            raise AttributeError(name)
        held = vars(self).get("_arbs")
        if held is None:  # another thread has just computed it
            return vars(self)[name]
        (balls, precision), mid = held, self.mid.ravel()
        with working_precision(precision), np.errstate(invalid="ignore", over="ignore"):
            pairs = zip(balls, mid.tolist(), strict=True)
            rests = [ball - f if math.isfinite(f) else ball * 0 for ball, f in pairs]
            tail = np.array([float(rest.mid()) for rest in rests])
            radius = np.array([float(rest.rad()) for rest in rests])
            # outwards, the rounding of the tail included; what is below float64's range must not become 0
            exact = np.array([rest.is_exact() for rest in rests], dtype=bool) & (tail == 0)
            widened = np.nextafter(np.nextafter(radius, np.inf) + 2.0**-53 * np.abs(tail), np.inf)
            tail_rad = np.where(np.isfinite(mid), np.where(exact, 0.0, widened), np.inf)
            rad = np.where(tail == 0, tail_rad, np.nextafter(np.abs(tail) + tail_rad, np.inf))
        parts = {"rad": rad, "tail": tail, "tail_rad": tail_rad}
        vars(self).update({part: array.reshape(self.mid.shape) for part, array in parts.items()})
        vars(self).pop("_arbs", None)
        return vars(self)[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Balls, (self.mid, self.rad, self.tail, self.tail_rad)  # arb balls cannot be copied to another process

    def distance(self, values: Array) -> NDArray[np.float64]:
        """How far `values` may lie from the truth at most, element by element (inf where not finite)."""
        with np.errstate(all="ignore"):
            values = np.asarray(values, dtype=np.float64)
            difference = np.abs((values - self.mid) - self.tail)
            # two roundings of the difference; a value equal to the midpoint is at no distance
            upper = np.where(difference > 0, difference * (1 + 2.0**-51) + self.tail_rad, self.tail_rad)
        return np.where(np.isfinite(values) & np.isfinite(upper), upper, np.inf)

    def overlaps(self, other: Balls) -> NDArray[np.bool_]:
        """Whether the finer balls have a point in common, element by element."""
        gap = np.abs((self.mid - other.mid) + (self.tail - other.tail))
        return gap <= self.tail_rad + other.tail_rad + 2.0**-100 * np.abs(self.mid)

    def __repr__(self) -> str:
        return f"Balls(shape={self.mid.shape}, mid={self.mid!r}, rad≤{self.rad.max(initial=0.0):.1e})"


def number(ball: Ball) -> float:
    """The midpoint; not 0 where that is only below float64's range."""
    mid = float(ball.mid())
    return mid if mid != 0 or ball == 0 else math.copysign(SMALLEST, float(ball.sgn()))


def arbs(values: Array) -> Arbs:
    """Floating-point numbers as exact balls."""
    return objects([flint.arb(value) for value in np.asarray(values, dtype=np.float64).ravel().tolist()], values.shape)


def objects(flat: Sequence[Any], shape: Shape) -> Arbs:
    """An array of objects in C order."""
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def as_matrices(subscripts: str, a: Array, b: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    """A contraction as products of matrices: factors (batch, m, k) and (batch, k, n), and what puts the results
    (batch, m, n) into the places that the subscripts ask for.
    """
    of_a, of_b, places = _axes(subscripts)

    def stacked(array: Array, groups: Axes) -> Array:
        shape = [math.prod([array.shape[axis] for axis in group]) for group in groups]
        return array.transpose([axis for group in groups for axis in group]).reshape(shape)

    def placed(products: Array) -> Array:
        batch, rows, _ = of_a
        made = [a.shape[axis] for axis in (*batch, *rows)] + [b.shape[axis] for axis in of_b[2]]
        return products.reshape(made).transpose(places)

    return stacked(a, of_a), stacked(b, of_b), placed


@cache
def _axes(subscripts: str) -> tuple[Axes, Axes, list[int]]:
    """Of the factors, what goes into the matrices' batches, rows and columns; where the results' axes come from."""
    left, out = subscripts.split("->")
    first, second = left.split(",")
    both = [c for c in first if c in second]
    batch, inner = [c for c in both if c in out], [c for c in both if c not in out]
    rows, columns = [c for c in first if c not in second], [c for c in second if c not in first]
    made = [*batch, *rows, *columns]
    of_a, of_b = (
        [[letters.index(c) for c in group] for group in groups]
        for letters, groups in ((first, (batch, rows, inner)), (second, (batch, inner, columns)))
    )
    return of_a, of_b, [made.index(c) for c in out]


def rows_over(array: Array, axes: tuple[int, ...]) -> Array:
    """(…, k): the elements over these axes, side by side, a row for each place of the others."""
    last = np.moveaxis(array, axes, range(array.ndim - len(axes), array.ndim))
    return last.reshape(-1, math.prod(array.shape[axis] for axis in axes))


@dataclass
class BallAlgebra:
    """Values are arrays of balls, at the working precision. `known` are the given numbers by name.

    `undecided`: the functions, nodes and places (in C order) whose side of a kink could not be told; `undefined`: the
    functions and arguments that are outside the domain.
    """

    known: dict[str, Arbs]
    undecided: list[Place] = field(default_factory=list)
    undefined: list[tuple[str, float]] = field(default_factory=list)
    _series: dict[tuple[Node, Elementwise], list[Any]] = field(default_factory=dict)

    def given(self, node: Node) -> Arbs:
        return self.known[node.static]

    def constant(self, node: Node) -> Arbs:
        return arbs(node.static)

    def add(self, node: Node, a: Arbs, b: Arbs) -> Arbs:
        return np.asarray(a + b)

    def mul(self, node: Node, a: Arbs, b: Arbs) -> Arbs:
        return np.asarray(a * b)

    def div(self, node: Node, a: Arbs, b: Arbs) -> Arbs:
        return np.asarray(a / b)

    def scale(self, node: Node, a: Arbs) -> Arbs:
        return np.asarray(a * flint.arb(flint.fmpq(node.static.numerator, node.static.denominator)))

    def contract(self, node: Node, a: Arbs, b: Arbs) -> Arbs:
        lefts, rights, placed = as_matrices(node.static, a, b)
        flat = [ball for left, right in zip(lefts, rights, strict=True) for ball in _matrix_product(left, right)]
        return placed(objects(flat, (len(flat),)))

    def _itself(self, node: Node, a: Arbs) -> Arbs:
        return a

    cast, about = _itself, _itself

    def apply(self, node: Node, a: Arbs) -> Arbs:
        function, times = node.static
        factor = math.factorial(times)
        return objects([one[times] * factor for one in self._expanded(node.inputs[0], function, times, a)], node.shape)

    def _expanded(self, where: Node, function: Elementwise, times: int, a: Arbs) -> list[Any]:
        """The function's series at each number, as far as that derivative, or the second."""
        length = max(times, 2) + 1
        series = self._series.get((where, function))
        if series is None or (series and series[0].prec < length):
            evaluated = [function.series(flint.arb_series([ball, 1], length)) for ball in a.ravel()]
            series = self._series[where, function] = [one for one, _ in evaluated]
            self.undecided += [
                (function.name, where, place) for place, (_, certain) in enumerate(evaluated) if not certain
            ]
            self.undefined += [(function.name, float(ball.mid())) for ball in a.flat if ball <= function.above]
        return series

    def slopes(self, where: Node) -> NDArray[np.float64]:
        """(3, *shape): the numbers next to the function that is applied at a node and its first two derivatives,
        (0, *shape) of none.
        """
        found = [series for (node, _), series in self._series.items() if node is where]
        rows = [[number(one[times]) * factor for one in found[0]] for times, factor in enumerate((1, 1, 2)) if found]
        return np.array(rows).reshape(len(rows), *where.shape)

    def softmax(self, node: Node, a: Arbs, total: Arbs) -> Arbs:
        return np.asarray(np.where(node.static, _exponential(a - total), objects([flint.arb(0)], ())))

    def log_sum_exp(self, node: Node, a: Arbs) -> Arbs:
        rows = [row[chosen] for row, chosen in zip(*(_rows(one) for one in (a, node.static)), strict=True)]
        return objects([_log_sum_exp(row, max(ball.mid() for ball in row)) for row in rows], node.shape)

    def normalise(self, node: Node, a: Arbs, inverse: Arbs, *mean: Arbs) -> Arbs:
        return np.asarray((a - sum(mean)) * inverse)

    def inverse_deviation(self, node: Node, a: Arbs) -> Arbs:
        epsilon, centred = node.static
        away = a - a.sum(axis=-1, keepdims=True) / a.shape[-1] if centred else a
        square = (away * away).sum(axis=-1, keepdims=True) / a.shape[-1] + flint.arb(epsilon)
        return np.asarray(_inverse_root(square))

    def sum(self, node: Node, a: Arbs) -> Arbs:
        return np.asarray(a.sum(axis=node.static, keepdims=True))

    def max(self, node: Node, a: Arbs) -> Arbs:
        return objects([_largest(row) for row in rows_over(a, node.static)], node.shape)

    def first_largest(self, node: Node, a: Arbs) -> Arbs:
        chosen = objects([flint.arb(0)] * a.size, a.shape)
        places = rows_over(np.arange(a.size).reshape(a.shape), node.static)
        for row, place in zip(rows_over(a, node.static), places, strict=True):
            top = max(range(len(row)), key=lambda i: (row[i].mid(), -i))
            chosen.flat[place[top]] = flint.arb(1)
            if not all(ball <= row[top] for ball in np.delete(row, top)):
                self.undecided.append(("max", node.inputs[0], int(place[top])))
        return chosen

    def select(self, node: Node, a: Arbs, b: Arbs) -> Arbs:
        return np.where(node.static, a, b)

    def gather(self, node: Node, a: Arbs) -> Arbs:
        return np.append(a.ravel(), [flint.arb(0)])[node.static]

    def scatter_add(self, node: Node, a: Arbs) -> Arbs:
        sums = objects([flint.arb(0)] * (node.size + 1), (node.size + 1,))
        np.add.at(sums, node.static.ravel(), a.ravel())
        return sums[:-1].reshape(node.shape)

    def reshape(self, node: Node, a: Arbs) -> Arbs:
        return a.reshape(node.shape)

    def transpose(self, node: Node, a: Arbs) -> Arbs:
        return a.transpose(node.static)

    def broadcast(self, node: Node, a: Arbs) -> Arbs:
        return np.broadcast_to(a, node.shape)


def _matrix_product(a: Arbs, b: Arbs) -> list[Ball]:
    left, right = (flint.arb_mat(len(part), part.shape[1], part.ravel().tolist()) for part in (a, b))
    return list((left * right).entries())


def _largest(row: Arbs) -> Ball:
    return reduce(lambda one, other: one.max(other), row)


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _log_sum_exp(row: Arbs, shift: Ball) -> Ball:
    return sum((one.exp() for one in row - shift), flint.arb(0)).log() + shift  # no exponential overflows


_exponential = np.frompyfunc(lambda ball: ball.exp(), 1, 1)
_inverse_root = np.frompyfunc(lambda ball: ball.rsqrt(), 1, 1)
