"""The second statement of the truth: the backward recursion of a fully connected network, written out over balls, and
its forward mode on power series, one parameter's ε at a time. The graph's certificates are held against both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import CertificationError
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import Batch
from refimpl.network.functions import ACTIVATIONS, LOSSES, Activation, Ball, Series
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.certification import FIRST_PRECISION, LAST_PRECISION, Certificate, _missing_bits
from refimpl.truth.precision import working_precision

Array = NDArray[Any]
Matrix = Any  # flint.arb_mat
Along = Callable[[int, Series], Series]  # a function of one element alone, the others as they are


def by_recursion(spec: NetworkSpec, batch: Batch) -> Certificate:
    """The certificate of a batch that has been validated."""
    smallest_normal = ARITHMETICS[batch.dtype].smallest_normal
    precision = FIRST_PRECISION
    while True:
        with working_precision(precision), np.errstate(all="ignore"):
            try:
                walk = _Reverse(spec, batch)
            except _Imprecise:
                if precision == LAST_PRECISION:
                    raise CertificationError(
                        f"the loss cannot be told from infinity with {precision} bits of precision: the weights or the "
                        "data are too large; scale them down"
                    ) from None
                precision = min(4 * precision, LAST_PRECISION)
                continue
            missing = max(_missing_bits(walk.results(), smallest_normal), precision if walk.undecided else 0)
            if missing == 0 or precision == LAST_PRECISION:
                return walk.certificate(precision)
        precision = min(precision + missing + 32, LAST_PRECISION)


def by_series(spec: NetworkSpec, batch: Batch, precision: int = 400) -> tuple[Ball, dict[str, list[Ball]]]:
    """The loss and gradients by forward mode over the whole network: the second route, for small networks.

    One evaluation of the network a parameter, on series in that parameter's ε. Returns arb balls, gradients flat in C
    order.
    """
    with working_precision(precision):
        targets = _targets(spec, batch)
        grads: dict[str, list[Ball]] = {}
        loss = flint.arb(0)
        for name, array in batch.params.items():
            grads[name] = []
            for index in range(array.size):
                cost = _network_on_series(spec, batch, targets, name, index)
                loss = cost[0]
                grads[name].append(cost[1])
        return loss, grads


# --------------------------------------------------------------------------------------------------------------
# A function on a series: which piece of it, and both where that cannot be told


def _on_pieces(
    pieces: Sequence[Callable[[], Series]], where: Ball, kinks: Sequence[float], at_kink: Callable[[], Series] | None
) -> tuple[Series, bool]:
    """The value of the piece that the ball `where` lies in, and whether that is certain."""
    first = len(kinks)
    for index, kink in enumerate(kinks):
        if where < kink:
            return pieces[index](), True
        if where == kink:
            return (at_kink or pieces[index])(), True
        if not where > kink:
            first = index
            break
    if first == len(kinks):
        return pieces[-1](), True
    ends = zip((-math.inf, *kinks), (*kinks, math.inf), pieces, strict=True)
    touched = [piece() for left, right, piece in ends if not (where < left or where > right)]
    if at_kink is not None:
        touched.append(at_kink())
    return _hull(touched), False


def _hull(series: Sequence[Series]) -> Series:
    hull = series[0]
    for other in series[1:]:
        length = max(hull.prec, other.prec)
        hull = flint.arb_series([hull[i].union(other[i]) for i in range(length)], length)
    return hull


def activate(function: Activation, kwargs: dict[str, float], z: Series) -> tuple[Series, bool]:
    """An elementwise activation of the series z + ε, and whether its piece is certain."""
    if not function.kinks:
        return function.pieces[0](z, kwargs), True
    pieces = [lambda piece=piece: piece(z, kwargs) for piece in function.pieces]
    return _on_pieces(pieces, z[0], function.kinks, None)


LossFormula = Callable[[Series, Ball, Mapping[str, float]], Series]


@dataclass(frozen=True)
class Formulas:
    """An elementwise loss: formulas of (s, y) between the kinks of s − y, and at a kink itself."""

    pieces: tuple[LossFormula, ...]
    kinks: Callable[[Mapping[str, float]], tuple[float, ...]] = lambda p: ()
    at_kink: LossFormula | None = None


def _squared(s: Series, y: Ball, p: Mapping[str, float]) -> Series:
    return (s - y) * (s - y)


def _huber_far(s: Series, y: Ball, p: Mapping[str, float]) -> Series:
    delta = flint.arb(p["delta"])
    return delta * (s - y) - delta * delta / 2


def _huber_far_left(s: Series, y: Ball, p: Mapping[str, float]) -> Series:
    return _huber_far(-s, -y, p)


def _binary_cross_entropy(s: Series, y: Ball, p: Mapping[str, float]) -> Series:
    return ACTIVATIONS["softplus"].pieces[0](s, p) - y * s


def _negative_log_likelihood(s: Series, y: Ball, p: Mapping[str, float]) -> Series:
    return s * 0 if y == 0 else -y * s.log()


LOSS_FORMULAS = {
    "squared_error": Formulas((lambda s, y, p: _squared(s, y, p) / 2,)),
    "mean_squared_error": Formulas((_squared,)),
    "absolute_error": Formulas((lambda s, y, p: y - s, lambda s, y, p: s - y), lambda p: (0.0,), lambda s, y, p: s * 0),
    "huber": Formulas(
        (_huber_far_left, lambda s, y, p: _squared(s, y, p) / 2, _huber_far), lambda p: (-p["delta"], p["delta"])
    ),
    "binary_cross_entropy": Formulas((_binary_cross_entropy,)),
    "negative_log_likelihood": Formulas((_negative_log_likelihood,)),
}


def lose(function: Formulas, kwargs: dict[str, float], s: Series, y: Ball) -> tuple[Series, bool]:
    """An elementwise loss of the series s + ε and the target y, and whether its piece is certain."""
    kinks = function.kinks(kwargs)
    if not kinks:
        return function.pieces[0](s, y, kwargs), True
    pieces = [lambda piece=piece: piece(s, y, kwargs) for piece in function.pieces]
    at_kink = function.at_kink
    return _on_pieces(pieces, s[0] - y, kinks, None if at_kink is None else lambda: at_kink(s, y, kwargs))


def _series(constant: Ball, slope: int = 1) -> Series:
    return flint.arb_series([constant, slope], 2)


# --------------------------------------------------------------------------------------------------------------
# Functions of a row


def _exponentials(z: list[Series], largest: Ball) -> tuple[list[Series], Series]:
    # e^(z − m) and its sum: softmax does not change with m, and no e^z overflows
    e = [(zj - largest).exp() for zj in z]
    return e, sum(e[1:], e[0])


def _largest(z: list[Ball]) -> Ball:
    return max(zj.mid() for zj in z)


def softmax(z: list[Series]) -> list[Series]:
    e, total = _exponentials(z, _largest([zj[0] for zj in z]))
    return [ej / total for ej in e]


def softmax_along(z: list[Ball], weights: list[Ball]) -> Along:
    """Σᵢ weightsᵢ aᵢ, what does not vary summed beforehand."""
    largest = _largest(z)
    e, total = _exponentials(z, largest)
    weighted = sum((w * ej for w, ej in zip(weights, e, strict=True)), flint.arb(0))

    def weighted_softmax(j: int, zj: Series) -> Series:
        varied = (zj - largest).exp() - e[j]
        return (weighted + weights[j] * varied) / (total + varied)

    return weighted_softmax


def cross_entropy(s: list[Series], y: list[Ball]) -> Series:
    largest = _largest([sj[0] for sj in s])
    _, total = _exponentials(s, largest)
    log_total = total.log() + largest
    return sum((yj * (log_total - sj) for yj, sj in zip(y[1:], s[1:], strict=True)), y[0] * (log_total - s[0]))


def cross_entropy_along(s: list[Ball], y: list[Ball]) -> Along:
    largest = _largest(s)
    e, total = _exponentials(s, largest)
    mass = sum(y, flint.arb(0))
    expected = sum((yj * (sj - largest) for yj, sj in zip(y, s, strict=True)), flint.arb(0))

    def cross_entropy(j: int, sj: Series) -> Series:
        varied = (sj - largest).exp() - e[j]
        return mass * (total + varied).log() - (expected + y[j] * (sj - s[j]))

    return cross_entropy


# --------------------------------------------------------------------------------------------------------------
# Route 1: layer by layer, chained in reverse


class _Imprecise(Exception):
    """Balls so wide that something is not finite: a higher precision may help."""


class _Reverse:
    """One evaluation at the current precision.

    Matrices are flat lists of balls in C order but where they are multiplied.
    """

    def __init__(self, spec: NetworkSpec, batch: Batch) -> None:
        self.spec, self.batch = spec, batch
        self.n = batch.x.shape[0]
        self.undecided: list[str] = []
        self.weights = [_matrix(batch.params[f"W{layer}"]) for layer in range(1, spec.depth + 1)]
        self.inputs: list[Matrix] = [_matrix(batch.x)]
        self.slopes: list[list[Ball]] = []
        self.values: dict[str, list[Ball]] = {}
        self.grads: dict[str, list[Ball]] = {}
        try:
            self._walk()
        except CertificationError:
            raise
        except (ValueError, ZeroDivisionError):  # a ball that holds 0 where it is divided by
            raise _Imprecise from None

    def _walk(self) -> None:
        for number, layer in enumerate(self.spec.layers, start=1):
            self._forward(number, layer)
        self.loss, error = self._cost()
        for number in range(self.spec.depth, 0, -1):
            error = self._backward(number, self.spec.layers[number - 1], error)
        self.grads["x"] = error

    def _forward(self, number: int, layer: LayerSpec) -> None:
        z = (self.inputs[-1] * self.weights[number - 1].transpose()).entries()
        if layer.bias:
            bias = [flint.arb(b) for b in self.batch.params[f"b{number}"].tolist()]
            z = [zj + bias[index % layer.size] for index, zj in enumerate(z)]
        function, kwargs = ACTIVATIONS[layer.activation.name], layer.activation.kwargs
        if not function.elementwise:
            rows = [softmax([_series(zj) for zj in row]) for row in _rows(z, layer.size)]
            a = [series[0] for row in rows for series in row]
            self.slopes.append([])
        else:
            evaluated = [activate(function, kwargs, _series(zj)) for zj in z]
            a = [series[0] for series, _ in evaluated]
            self.slopes.append([series[1] for series, _ in evaluated])
            self._note_undecided((certain for _, certain in evaluated), f"z{number + 1}", layer.size, function.name)
        self.values[f"z{number + 1}"], self.values[f"a{number + 1}"] = z, a
        self.inputs.append(flint.arb_mat(self.n, layer.size, a))

    def _cost(self) -> tuple[Ball, list[Ball]]:
        function, kwargs = LOSS_FORMULAS.get(self.spec.loss.name), self.spec.loss.kwargs
        s, y = self.inputs[-1].entries(), _targets(self.spec, self.batch)
        width = self.spec.n_out
        if function:
            evaluated = [lose(function, kwargs, _series(sj), yj) for sj, yj in zip(s, y, strict=True)]
            self._note_undecided((certain for _, certain in evaluated), "s − y", width, self.spec.loss.name)
            series = [value for value, _ in evaluated]
            total = sum((value[0] for value in series), flint.arb(0))
        else:
            series, total = [], flint.arb(0)
            for row, target in zip(_rows(s, width), _rows(y, width), strict=True):
                along = cross_entropy_along(row, target)
                series += [along(j, _series(sj)) for j, sj in enumerate(row)]
                total += series[-1][0]
        share = _share(self.spec, self.n)
        loss, error = total * share, [value[1] * share for value in series]
        if not all(value.is_finite() for value in (loss, *error)):
            if function and any(sj <= 0 and not value[0].is_finite() for sj, value in zip(s, series, strict=True)):
                raise CertificationError(_undefined(self.spec, s))
            raise _Imprecise
        return loss, error

    def _backward(self, number: int, layer: LayerSpec, error: list[Ball]) -> list[Ball]:
        if ACTIVATIONS[layer.activation.name].elementwise:
            delta = [slope * d for slope, d in zip(self.slopes[number - 1], error, strict=True)]
        else:
            delta = []
            for z, d in zip(_rows(self.values[f"z{number + 1}"], layer.size), _rows(error, layer.size), strict=True):
                weighted = softmax_along(z, d)
                delta += [weighted(j, _series(zj))[1] for j, zj in enumerate(z)]
        self.values[f"da{number + 1}"], self.values[f"delta{number + 1}"] = error, delta
        matrix = flint.arb_mat(self.n, layer.size, delta)
        if layer.bias:
            self.grads[f"b{number}"] = (flint.arb_mat(1, self.n, [1] * self.n) * matrix).entries()
        self.grads[f"W{number}"] = (matrix.transpose() * self.inputs[number - 1]).entries()
        return list((matrix * self.weights[number - 1]).entries())

    def _note_undecided(self, certain: Iterator[bool], quantity: str, width: int, function: str) -> None:
        for index, known in enumerate(certain):
            if not known:
                self.undecided.append(f"{quantity}[{index // width + 1},{index % width + 1}] at a kink of {function}")

    def results(self) -> Iterator[Ball]:
        """The balls that must be narrow."""
        yield self.loss
        for balls in self.grads.values():
            yield from balls

    def certificate(self, precision: int) -> Certificate:
        shapes: dict[str, tuple[int, ...]] = {**self.spec.parameter_shapes, "x": (self.n, *self.spec.input_shape)}
        widths = {
            f"{kind}{number + 2}": (self.n, layer.size)
            for number, layer in enumerate(self.spec.layers)
            for kind in ("z", "a", "da", "delta")
        }
        return Certificate(
            loss=Balls.from_arbs([self.loss], ()),
            grads={name: Balls.from_arbs(self.grads[name], shape) for name, shape in shapes.items()},
            values={name: Balls.from_arbs(self.values[name], shape) for name, shape in widths.items()},
            dtype=self.batch.dtype,
            precision=precision,
            undecided=tuple(self.undecided),
        )


def _undefined(spec: NetworkSpec, s: Sequence[Ball]) -> str:
    worst = min(float(sj.mid()) for sj in s)
    return (
        f"loss {spec.loss.name!r} is not defined here: the smallest prediction is {worst:g}, and its logarithm "
        "is needed; end the network in softmax or sigmoid, or use cross_entropy on the logits"
    )


# --------------------------------------------------------------------------------------------------------------
# Route 2: the whole network on series, one parameter's ε at a time


def _network_on_series(spec: NetworkSpec, batch: Batch, targets: list[Ball], name: str, index: int) -> Series:
    total = _series(flint.arb(0), 0)
    for sample, row in enumerate(batch.x.tolist()):
        a = [_series(flint.arb(value), 0) for value in row]
        for number, layer in enumerate(spec.layers, start=1):
            a = _layer_on_series(
                layer, _varied(batch, f"W{number}", name, index), _varied(batch, f"b{number}", name, index), a
            )
        total += _loss_on_series(spec, a, targets[sample * spec.n_out : (sample + 1) * spec.n_out])
    return total * _share(spec, batch.x.shape[0])


def _varied(batch: Batch, key: str, name: str, index: int) -> list[Series]:
    if key not in batch.params:
        return []
    return [
        _series(flint.arb(value), int(key == name and i == index))
        for i, value in enumerate(batch.params[key].ravel().tolist())
    ]


def _layer_on_series(layer: LayerSpec, weights: list[Series], bias: list[Series], a: list[Series]) -> list[Series]:
    z = [
        sum((w * ak for w, ak in zip(row, a, strict=True)), bias[j] if bias else _series(flint.arb(0), 0))
        for j, row in enumerate(_rows(weights, len(a)))
    ]
    function = ACTIVATIONS[layer.activation.name]
    if not function.elementwise:
        return softmax(z)
    return [activate(function, layer.activation.kwargs, zj)[0] for zj in z]


def _loss_on_series(spec: NetworkSpec, s: list[Series], y: list[Ball]) -> Series:
    function = LOSS_FORMULAS.get(spec.loss.name)
    if not function:
        return cross_entropy(s, y)
    return sum(
        (lose(function, spec.loss.kwargs, sj, yj)[0] for sj, yj in zip(s, y, strict=True)), _series(flint.arb(0), 0)
    )


# --------------------------------------------------------------------------------------------------------------
# Shared small things


def _matrix(array: Array) -> Matrix:
    return flint.arb_mat(array.astype(np.float64).tolist())


def _rows(flat: list[Any], width: int) -> list[list[Any]]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _share(spec: NetworkSpec, n: int) -> Ball:
    """What one sample's loss is multiplied by."""
    parts = n if spec.reduction == "mean" else 1
    return flint.arb(1) / (parts * spec.n_out if LOSSES[spec.loss.name].averages_outputs else parts)


def _targets(spec: NetworkSpec, batch: Batch) -> list[Ball]:
    """The targets (N · n_out,): labels become rows of zeros and a one."""
    return [flint.arb(value) for value in batch.targets(spec.n_out).ravel().tolist()]
