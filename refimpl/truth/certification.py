"""The certified gradient: balls that provably contain the true loss and its derivatives.

`certify` evaluates the exact function that a spec defines, at the given floating-point parameters and data, over balls.
It knows the definitions of functions and nothing of :mod:`refimpl.equations`: the truth may not share a derivation with
what it judges. The gradient is a graph made of vector–Jacobian products; and **every certificate is checked as it is
made**: the derivative of the loss along a random direction, by forward mode, must overlap the gradient's product with
it.

Nouns: `Balls` is an array of balls mid ± rad (:mod:`refimpl.truth.balls`); a `Certificate` holds those of the loss, the
gradients and the values between. The working precision rises until every ball of the loss and the gradients has a
radius of at most 2⁻⁸⁰ of its magnitude, or of the smallest normal number of the data's dtype where the value is
(nearly) zero.

What it does not do: decide a tie that no precision can. Where a kink's argument cannot be told from the kink, the ball
covers both sides, stays wide, and the place is listed in `Certificate.undecided`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import CertificationError
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import Batch, validate
from refimpl.network.functions import Ball
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import Arbs, BallAlgebra, Balls, arbs
from refimpl.truth.duals import DualAlgebra
from refimpl.truth.gradients import cotangents
from refimpl.truth.graph import Node, read
from refimpl.truth.network import NetworkGraph, network_graph
from refimpl.truth.numbers import NumberAlgebra, blas_in_one_thread
from refimpl.truth.precision import working_precision
from refimpl.truth.rounding import RoundingAlgebra, unbounded

FIRST_PRECISION = 200
FLOAT64_BITS = 53
LAST_PRECISION = 8192
CHECKED_BITS = 64  # of a certificate's check
ACCURACY_BITS = 80  # every radius is at most 2^-80 of its value

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Certificate:
    """The certified loss, gradients and intermediate values of one network on one batch.

    `grads` has the parameters' keys and shapes, and `x` (in the shape of the batch's x); `values` holds, for the layers
    l = 2 … of the article's numbering, `zl`, `al`, `deltal` = ∂C/∂zl and `dal` = ∂C/∂al, each (N, n_l).
    `undecided` names what lies so near a kink that no precision tried could tell on which side. `slopes`: the numbers
    next to f(z), f'(z) and f''(z), (3, N, n), by the name of z, or "s − y" of a loss.
    """

    loss: Balls
    grads: dict[str, Balls]
    values: dict[str, Balls]
    dtype: str
    precision: int
    undecided: tuple[str, ...] = ()
    slopes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def certify(spec: NetworkSpec, params: dict[str, Array], x: Array, y: Array) -> Certificate:
    """The true loss and gradients, as balls.

    Parameters: `params` with the spec's keys and shapes, `x` (N, *input_shape), `y` as the loss asks; all float64 or
    all float32. Raises DataError for bad arrays and CertificationError where the loss is not defined (the logarithm
    of a number ≤ 0).
    """
    return certify_batch(spec, validate(spec, params, x, y))


def certify_batch(spec: NetworkSpec, batch: Batch) -> Certificate:
    """`certify` for a batch that has been validated."""
    graph = network_graph(spec, batch.targets(spec.n_out))
    nodes = named_nodes(graph)
    grads = {name: nodes[name] for name in graph.inputs}
    between = {name: node for name, node in nodes.items() if name not in grads and name != "loss"}
    shapes = {**spec.parameter_shapes, "x": (len(batch.x), *spec.input_shape)}

    def made(values: Mapping[Node, Arbs], algebra: BallAlgebra, precision: int) -> Certificate:
        return Certificate(
            loss=_balls(values[graph.loss], ()),
            grads={name: _balls(values[node], shapes[name]) for name, node in grads.items()},
            values={name: _balls(values[node], node.shape) for name, node in between.items()},
            dtype=batch.dtype,
            precision=precision,
            undecided=tuple(_place(graph, *place) for place in algebra.undecided),
            slopes={place: algebra.slopes(node) for node, place in graph.places.items()},
        )

    numbers = {**batch.params, "x": batch.x}
    smallest = ARITHMETICS[batch.dtype].smallest_normal
    return certified(graph.loss, [graph.loss], grads, numbers, smallest, partial(_defined, spec), made)


def certified(
    total: Node,
    ends: Sequence[Node],
    grads: Mapping[str, Node],
    numbers: Mapping[str, Array],
    smallest: float,
    defined: Callable[[BallAlgebra, int], None],
    made: Callable[[Mapping[Node, Arbs], BallAlgebra, int], T],
) -> T:
    """What is `made` of the values of `ends` and of the gradients of `total` by given name, at the precision that
    suffices: every ball of them has a radius of at most 2⁻⁸⁰ of its value, or of `smallest`. Where no precision helps
    `defined` raises, which is asked where some were too few.
    """
    precision = FIRST_PRECISION
    while True:
        with working_precision(precision), np.errstate(all="ignore"):
            algebra = BallAlgebra({name: arbs(array) for name, array in numbers.items()})
            values = _read([*ends, *grads.values()], total, algebra)
            if values is None:
                defined(algebra, precision)
                precision = min(4 * precision, LAST_PRECISION)
                continue
            results = [ball for node in (*ends, *grads.values()) for ball in values[node].ravel()]
            missing = _missing_bits(results, smallest)
            missing = max(missing, precision if algebra.undecided else 0)
            if missing == 0 or precision == LAST_PRECISION:
                _check(total, grads, values, algebra, numbers)
                return made(values, algebra, precision)
        precision = min(precision + missing + 32, LAST_PRECISION)


def certify_in_float64(spec: NetworkSpec, batch: Batch) -> Certificate:
    """What `certify_batch` says, with 53 bits and at the speed of BLAS: float64 values, and as radii the bounds of
    their own rounding, inf where they say nothing.
    """
    graph = network_graph(spec, batch.targets(spec.n_out))
    nodes, shapes = named_nodes(graph), {**spec.parameter_shapes, "x": (len(batch.x), *spec.input_shape)}
    numbers = NumberAlgebra({**batch.params, "x": batch.x})

    def mids(node: Node, *inputs: Array) -> Array:
        return np.asarray(getattr(numbers, node.rule)(node, *inputs))

    with blas_in_one_thread(), np.errstate(all="ignore"):
        walk = RoundingAlgebra(ARITHMETICS["float64"], mids, {}, numbers.derivatives, across_kinks=True)
        found = read(nodes.values(), walk)
    balls = {name: _in_float64(found[node], shapes.get(name, node.shape)) for name, node in nodes.items()}
    of_functions = {where: rows for (where, _), rows in numbers.evaluated.items() if where in graph.places}
    return Certificate(
        balls["loss"],
        {name: balls[name] for name in graph.inputs},
        {name: ball for name, ball in balls.items() if name not in graph.inputs and name != "loss"},
        batch.dtype,
        FLOAT64_BITS,
        slopes={graph.places[where]: rows for where, rows in of_functions.items()},
    )


def _in_float64(pair: tuple[Array, Array], shape: tuple[int, ...]) -> Balls:
    mid, err = pair
    rad, nothing = np.broadcast_to(unbounded(err), mid.shape).reshape(shape), np.zeros(shape)
    return Balls(mid.reshape(shape), rad, nothing, rad)


def named_nodes(graph: NetworkGraph) -> dict[str, Node]:
    """The loss, the gradients of the parameters and of x, and what lies between, by name."""
    found = cotangents(graph.loss, [*graph.inputs.values(), *graph.values.values()])
    nodes = {"loss": graph.loss, **{name: found[node] for name, node in graph.inputs.items()}}
    for number in range(2, len(graph.values) // 2 + 2):
        z, a = graph.values[f"z{number}"], graph.values[f"a{number}"]
        nodes |= {f"z{number}": z, f"a{number}": a, f"da{number}": found[a], f"delta{number}": found[z]}
    return nodes


def _read(ends: Sequence[Node], total: Node, algebra: BallAlgebra) -> dict[Node, Arbs] | None:
    """The values of all nodes; None where the balls are so wide that a higher precision may help."""
    try:
        values = read([total, *ends], algebra)
    except (ValueError, ZeroDivisionError):  # a ball that holds 0 where it is divided by
        return None
    return values if values[total].item().is_finite() else None


def _check(
    total: Node,
    grads: Mapping[str, Node],
    values: Mapping[Node, Arbs],
    algebra: BallAlgebra,
    numbers: Mapping[str, Array],
) -> None:
    """Raises AssertionError where the gradient's product with a direction misses the derivative along it."""
    rng = np.random.default_rng(zlib.crc32(b"".join(array.tobytes() for array in numbers.values())))
    short = arbs(np.array([-4, -3, -2, -1, 1, 2, 3, 4]))  # of few bits, as their products are then
    along = {name: short[rng.integers(len(short), size=node.shape)] for name, node in grads.items()}
    with working_precision(CHECKED_BITS):
        forward = read([total], DualAlgebra(algebra, values, along))[total]
    along_it = forward.item() if forward is not None else flint.arb(0)
    reverse = sum((np.asarray(values[node] * along[name]).sum() for name, node in grads.items()), flint.arb(0))
    if not along_it.overlaps(reverse):
        raise AssertionError("forward and reverse mode disagree: this would be no certificate; please report it")


def _place(graph: NetworkGraph, function: str, node: Node, place: int) -> str:
    indices = ",".join(str(index + 1) for index in np.unravel_index(place, node.shape))
    return f"{graph.places[node]}[{indices}] at a kink of {function}"


def _defined(spec: NetworkSpec, algebra: BallAlgebra, precision: int) -> None:
    """Raises CertificationError where no precision helps: a logarithm was taken of what is not positive, or the last
    was tried.
    """
    if algebra.undefined:
        worst = min(argument for _, argument in algebra.undefined)
        raise CertificationError(
            f"loss {spec.loss.name!r} is not defined here: the smallest prediction is {worst:g}, and its logarithm "
            "is needed; end the network in softmax or sigmoid, or use cross_entropy on the logits"
        )
    if precision == LAST_PRECISION:
        raise CertificationError(
            f"the loss cannot be told from infinity with {precision} bits of precision: the weights or the data are "
            "too large; scale them down"
        )


def _balls(values: Arbs, shape: tuple[int, ...]) -> Balls:
    return Balls.from_arbs(list(values.ravel()), shape)


def _missing_bits(balls: Iterable[Ball], smallest_normal: float) -> int:
    """By how many bits the precision must rise for every radius to be small enough; 0 if it is."""
    floor = flint.arb(smallest_normal) * flint.arb(2) ** -ACCURACY_BITS
    floor_bits = 1 - _exponent(floor)
    missing = 0
    for ball in balls:
        accuracy = ball.rel_accuracy_bits()
        if accuracy >= ACCURACY_BITS or ball.rad() <= floor:
            continue
        if not ball.is_finite():
            return FIRST_PRECISION
        missing = max(missing, min(ACCURACY_BITS - accuracy, _exponent(ball.rad()) + floor_bits))
    return missing


def _exponent(value: Ball) -> int:
    mantissa, exponent = value.mid().man_exp()
    return int(exponent) + int(mantissa).bit_length()
