r"""How far a *correct* implementation may lie from the certified gradient, element by element.

Model
-----
Every +, −, ×, / and fused multiply-add in the declared arithmetic returns the exact result times (1 + ε), |ε| ≤ u, or
the exact result plus at most half the smallest subnormal number (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed. 2002, eqs. 2.4 and 2.8). An arithmetic that flushes loses up to the smallest normal number
instead, of inputs too. A sum of n products, in *any* order and with or without FMA, is then off by at most γ_{n+1}
Σ|aᵢ||wᵢ|, γ_n = nu/(1 − nu) (Higham 2002, §3.1 and eq. 3.5; one rounding a product and at most n additions a term,
the bias being one of them). With Z, A, Δ the certified weighted inputs, activations and error signals, absolute
values taken element by element,

    E_Z  = γ_{n+1} (|A|⁺|W|ᵀ + |b|) + E_A |W|ᵀ
    E_A  = sup|f'| E_Z + c_f u |f|⁺
    E_Δ  = sup|f'| E_dA + |dA|⁺ (sup|f''| E_Z + c_f' u |f'|⁺) + u |Δ|⁺
    E_dA = γ_k |Δ|⁺|W| + E_Δ |W|
    E_dW = γ_{N+2} |Δ|⁺ᵀ|A|⁺ + E_Δᵀ|A| + |Δ|ᵀE_A + E_ΔᵀE_A        E_db = γ_{N+1} Σ|Δ|⁺ + ΣE_Δ

where |X|⁺ = |X| + E_X bounds what an implementation holds, and the two extra roundings in E_dW and E_db let the factor
1/N stand anywhere. Each line also carries an absolute term for underflow, never more than the products that can
underflow. The suprema are taken over Z ± E_Z by evaluating the *definition* of f on a power series over that ball
(:mod:`refimpl.network.functions`), so that f' and f'' are nowhere written by hand. Softmax and cross-entropy act on
rows: their bounds are `softmax_factor` and the methods under "Row-wise functions".

Assumption
----------
c_f and c_f', the roundings granted to a library's evaluation of f and f' (`value_ulps`, `slope_ulps` of the
catalogue, where their sources stand), are all that is assumed. Nothing here is tuned.

Verdicts
--------
PASS          |g − true| ≤ E.
FAIL          outside every bound below, or not finite where the truth and the bound are.
UNDETERMINED  the bound decides nothing: E exceeds 1 % of the array's largest element, or of the smallest normal
              number where the whole array lies below it, where digits are lost anyway (long chains of layers in
              float32), an intermediate value may overflow, or g lies outside E but within the wider bound
              `across_kinks`, in which every kink within Z ± E_Z may have been taken from its other side.

Statistical form
----------------
The same recursion in the 2-norm: errors are taken as independent, of mean zero and bounded as above, so that they add
up like √Σe² (Higham & Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41, 2019,
whose √n u it reproduces for one inner product) and, by Hoeffding's inequality, exceed λ√Σe² with probability at most
2 exp(−λ²/2). λ follows from the number of elements judged and the probability `FALSE_ALARM` of a single false alarm
among them. Neurons share ancestors, so independence is a model and no theorem: the statistical verdict is given
beside the worst case, labelled, and only where the worst case is UNDETERMINED.

Not covered
-----------
Algorithms that do not compute the sums of products above (Strassen's and Winograd's; their bounds are normwise),
evaluation of f by formulas less stable than the catalogue's scales say, overflow inside a library function, and
arithmetic that is not declared (TF32, bfloat16, fast-math): that is what must FAIL. Terms of second order in u are
kept in the worst case and dropped from the statistical one. For error analysis of automatic differentiation see
Christianson, "Reverse accumulation and accurate rounding error estimates for Taylor series coefficients", Optim.
Methods Softw. 1, 1992.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from refimpl.network.arithmetic import Arithmetic
from refimpl.network.batch import Batch
from refimpl.network.functions import (
    ACTIVATIONS,
    ELEMENTARY,
    FLUSH_FACTOR,
    LOSSES,
    SMALLEST,
    Activation,
    Interval,
    Loss,
)
from refimpl.network.spec import NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.certification import Certificate
from refimpl.truth.precision import working_precision
from refimpl.truth.rounding import UNBOUNDED, Local, over_ball

FALSE_ALARM = 2.0**-40  # of the statistical form: the probability of one or more false alarms in one check
WORKING_BITS = 64  # precision of the suprema; the balls they are taken over are far wider

Bound = NDArray[np.float64]
Bounds = dict[str, Bound]


@dataclass(frozen=True)
class Tolerance:
    """The bounds E for `loss`, every gradient (and `x`), and the values `zl`, `al`, `deltal`, in the shapes of what
    they bound.

    `worst_case` holds for any correct implementation that is on the right side of every kink, `across_kinks` for one
    on either side; `statistical` is λ√Σe². inf where the arithmetic may overflow.
    """

    worst_case: Bounds
    across_kinks: Bounds
    statistical: Bounds
    arithmetic: Arithmetic


def tolerance(spec: NetworkSpec, batch: Batch, truth: Certificate, arithmetic: Arithmetic) -> Tolerance:
    """The bounds for a correct implementation in `arithmetic`, around the certified values `truth` of the same
    batch.
    """
    with working_precision(WORKING_BITS), np.errstate(all="ignore"):
        worst = _Walk(spec, batch, truth, arithmetic)
        statistical = _Walk(spec, batch, truth, arithmetic, statistical=True)
        return Tolerance(worst.bounds(), worst.bounds(across_kinks=True), statistical.bounds(), arithmetic)


# --------------------------------------------------------------------------------------------------------------
# Local derivatives over a ball


def _balls(z: Balls, radius: Bound) -> list[Any]:
    """The balls z ± radius; exact where z is and the radius is 0, and None where they are unbounded."""
    total = radius + z.tail_rad
    rows = zip(z.mid.ravel().tolist(), z.tail.ravel().tolist(), total.ravel().tolist(), strict=True)
    return [
        flint.arb(mid, rad) + flint.arb(tail) if math.isfinite(mid) and math.isfinite(rad) else None
        for mid, tail, rad in rows
    ]


def activation_suprema(function: Activation, kwargs: dict[str, float], z: Balls, radius: Bound) -> Local:
    """The suprema of an elementwise activation over z ± radius."""
    pieces = [lambda s, piece=piece: piece(s, kwargs) for piece in function.pieces]
    rows = [
        UNBOUNDED if ball is None else over_ball(pieces, function.kinks, flint.arb_series([ball, 1], 3), ball)
        for ball in _balls(z, radius)
    ]
    return Local.of(rows, z.mid.shape)


def loss_suprema(function: Loss, kwargs: dict[str, float], s: Balls, radius: Bound, y: Bound) -> Local:
    """The suprema of an elementwise loss over s ± radius."""
    rows = []
    for ball, target in zip(_balls(s, radius), y.ravel().tolist(), strict=True):
        if ball is None:
            rows.append(UNBOUNDED)
            continue
        exact = flint.arb(target)
        pieces = [lambda t, piece=piece, exact=exact: piece(t, exact, kwargs) for piece in function.pieces]
        rows.append(over_ball(pieces, function.kinks(kwargs), flint.arb_series([ball, 1], 3), ball - exact))
    return Local.of(rows, s.mid.shape)


# --------------------------------------------------------------------------------------------------------------
# The recursion, in the 1-norm (worst case) or the 2-norm (statistical)


@dataclass(frozen=True)
class _LayerBounds:
    """What the forward walk leaves for the backward walk at one layer; all (N, n_out) but `weight` (n_out, n_in)."""

    weight: Bound
    weight_flush: Bound
    a_in: Bound
    a_in_error: Bound
    z_error: Bound
    a: Bound
    a_error: Bound
    elementwise: tuple[Local, Bound] | None = None  # the suprema, and how far an evaluated f' may be off


class _Walk:
    """The forward bounds, computed once, and the backward bounds from them."""

    def __init__(
        self, spec: NetworkSpec, batch: Batch, truth: Certificate, arithmetic: Arithmetic, statistical: bool = False
    ) -> None:
        self.spec, self.batch, self.truth, self.statistical = spec, batch, truth, statistical
        self.u = arithmetic.unit_roundoff
        self.largest, self.tiny = arithmetic.largest, arithmetic.smallest_normal
        self.flushes = arithmetic.flushes_subnormals
        self.eta = self.tiny if self.flushes else arithmetic.smallest_subnormal
        self.n = batch.x.shape[0]
        averages = spec.n_out if LOSSES[spec.loss.name].averages_outputs else 1
        # the loss and the gradients may be divided by this last, and overflow until then
        self.parts = averages * (self.n if spec.reduction == "mean" else 1)
        values = self.n * sum(spec.sizes)
        judged = 1 + spec.n_parameters + 3 * values
        # Hoeffding with a union over everything judged
        self.spread = math.sqrt(2 * math.log(2 * judged / FALSE_ALARM)) if statistical else 1.0
        # the float64 evaluation of the bounds themselves: nonnegative sums, so relative errors add up
        operations = sum(2 * size + self.n + 64 for size in spec.sizes)
        self.inflation = 1 + operations * 2.0**-52
        self.layers: list[_LayerBounds] = []
        a, a_error = _absolute(batch.x), self._flushed(batch.x)
        for number in range(1, spec.depth + 1):
            self.layers.append(self._forward(number, a, a_error))
            a, a_error = self.layers[-1].a, self.layers[-1].a_error
        self._cost()

    def bounds(self, across_kinks: bool = False) -> Bounds:
        """All the bounds, by name."""
        bounds: Bounds = {"loss": self.loss_error}
        error = self.error + self.error_jump if across_kinks else self.error
        for number in range(self.spec.depth, 0, -1):
            layer = self.layers[number - 1]
            bounds[f"z{number + 1}"], bounds[f"a{number + 1}"] = layer.z_error, layer.a_error
            delta_error = self._error_signal(number, layer, error, across_kinks)
            bounds[f"delta{number + 1}"] = delta_error
            delta = self._magnitude(f"delta{number + 1}")
            bounds[f"W{number}"] = self._weight_gradient(layer, delta, delta_error)
            if self.spec.layers[number - 1].bias:
                bounds[f"b{number}"] = self._bias_gradient(delta, delta_error)
            error = self._propagated(layer, delta, delta_error)
        bounds["x"] = error.reshape(self.n, *self.spec.input_shape)
        factor = self.spread * self.inflation
        # what is not a number, 0 · inf and the like, is unbounded
        return {name: np.where(np.isnan(bound), np.inf, bound * factor) for name, bound in bounds.items()}

    # The equations of the module's docstring

    def _forward(self, number: int, a: Bound, a_error: Bound) -> _LayerBounds:
        layer = self.spec.layers[number - 1]
        parameters = self.batch.params
        raw = parameters[f"W{number}"]
        weight, weight_flush = _absolute(raw), self._flushed(raw)
        bias = _absolute(parameters[f"b{number}"]) if layer.bias else np.zeros(layer.size)
        held = a + self.spread * a_error
        terms = held @ weight.T + bias
        count = weight.shape[1]
        z_error = self._add(
            self._gamma(count + int(layer.bias)) * terms,
            self._product(a_error, weight.T),
            self._product(held, weight_flush.T),
            self._flushed(parameters[f"b{number}"]) if layer.bias else 0.0,
            self._product_underflow(terms, 2 * count + 2, held, weight.T),
        )
        z_error = self._overflowing(z_error, terms)
        function, z = ACTIVATIONS[layer.activation.name], self.truth.values[f"z{number + 1}"]
        value = self._magnitude(f"a{number + 1}")
        if not function.elementwise:
            error = self._softmax_value(z.mid, value, z_error)
            return _LayerBounds(weight, weight_flush, a, a_error, z_error, value, error)
        kwargs, radius = layer.activation.kwargs, self.spread * z_error
        local = activation_suprema(function, kwargs, z, radius)
        at = Interval(z.mid - radius, z.mid + radius, value + local.slope * radius, local.slope)
        scale = function.value_scale(at, kwargs)
        flush = FLUSH_FACTOR * (1 + at.magnitude) * self.tiny if function.smooth_library else 2 * self.eta
        tiny_parameter = self._parameter_underflow(kwargs)
        error = self._add(
            local.slope * z_error,
            function.value_ulps * self.u * scale,
            np.minimum(scale, flush),
            tiny_parameter * at.magnitude,
        )
        error = self._overflowing(error, at.value)
        slope_scale = function.slope_scale(at, kwargs)
        slope_rounding = function.slope_ulps * self.u * slope_scale + np.minimum(slope_scale, flush) + tiny_parameter
        return _LayerBounds(weight, weight_flush, a, a_error, z_error, value, error, (local, slope_rounding))

    def _cost(self) -> None:
        """`loss_error` (), and `error`, the bound of ∂C/∂a at the output, with `error_jump` for the loss's own
        kinks.
        """
        function, kwargs = LOSSES[self.spec.loss.name], self.spec.loss.kwargs
        s, s_error = self.truth.values[f"a{self.spec.depth + 1}"], self.layers[-1].a_error
        jump: Bound | float = 0.0
        y = self.batch.targets(self.spec.n_out)
        share = 1.0 / self.parts
        flushed = self._flushed(y)
        if not function.elementwise:
            values, value_errors, error = self._cross_entropy(s.mid, s_error, y)
            error = self._add(error, flushed)
            held = np.abs(s.mid) + self.spread * s_error
        else:
            radius = self.spread * s_error
            held = np.abs(s.mid) + radius + np.abs(y)
            local = loss_suprema(function, kwargs, s, radius, y)
            at = Interval(s.mid - radius, s.mid + radius, local.value, local.slope)
            values, jump = local.value, local.jump
            rounding = function.value_ulps * self.u * function.value_scale(at, y, kwargs)
            if function.target == "classes":  # −y log s: a flushed y takes its whole term with it
                lost, value_lost = np.where(flushed > 0, local.slope, 0.0), np.where(flushed > 0, values, 0.0)
            else:
                lost, value_lost = 2 * flushed, flushed * (local.slope + at.magnitude)
            tiny_parameter = self._parameter_underflow(kwargs)
            value_errors = self._add(local.slope * s_error, rounding, value_lost, tiny_parameter * held)
            rounding = (function.slope_ulps + 3) * self.u * function.slope_scale(at, y)
            error = self._add(local.curvature * s_error, rounding, lost, tiny_parameter)
        magnitude = self._magnitude(f"da{self.spec.depth + 1}")
        error = self._add(share * error, 3 * self.u * magnitude, self._underflow(magnitude + share * error, 3))
        # the square and twice the residual are formed before they are halved or divided
        self.error = self._overflowing(error, np.maximum(self.parts * magnitude, 2 * held))
        self.error_jump = share * jump
        total = np.asarray(np.sum(values))
        loss_error = self._add(
            share * self._sum(value_errors.ravel()),
            self._gamma(values.size + 3) * share * total,
            self._underflow(total, 3 * values.size),
        )
        self.loss_error = self._overflowing(loss_error, np.maximum(2 * total, 2 * held.max()))

    def _error_signal(self, number: int, layer: _LayerBounds, error: Bound, across_kinks: bool) -> Bound:
        incoming = self._magnitude(f"da{number + 1}")
        held = incoming + self.spread * error
        if layer.elementwise is None:
            signal = self._softmax_error_signal(layer, self.truth.values[f"da{number + 1}"].mid, error)
            return self._overflowing(signal, 2 * self.parts * held.max(axis=1, keepdims=True))
        delta = self._magnitude(f"delta{number + 1}")
        local, slope_rounding = layer.elementwise
        bound = self._add(
            local.slope * error, held * (local.curvature * layer.z_error), held * slope_rounding, self.u * delta
        )
        if across_kinks:
            bound = bound + local.jump * held
        bound = bound + np.minimum(delta + bound, self._magnified(number, layer) * 2 * self.eta)
        return self._overflowing(bound, self.parts * np.maximum(held, delta + bound))

    def _magnified(self, number: int, layer: _LayerBounds) -> Bound | float:
        """By how much what underflowed in a product with a part of f' may be multiplied after."""
        activation = self.spec.layers[number - 1].activation
        if not ACTIVATIONS[activation.name].smooth_library:
            return 1.0
        z = self._magnitude(f"z{number + 1}") + self.spread * layer.z_error
        return FLUSH_FACTOR * (1 + z) ** 3 * max((1.0, *activation.kwargs.values()))

    def _propagated(self, layer: _LayerBounds, delta: Bound, delta_error: Bound) -> Bound:
        held = delta + self.spread * delta_error
        terms = held @ layer.weight
        count = layer.weight.shape[0]
        bound = self._add(
            self._gamma(count) * terms,
            self._product(delta_error, layer.weight),
            self._product(held, layer.weight_flush),
            self._product_underflow(terms, 2 * count, held, layer.weight),
        )
        return self._overflowing(bound, self.parts * terms)

    def _weight_gradient(self, layer: _LayerBounds, delta: Bound, delta_error: Bound) -> Bound:
        held = delta + self.spread * delta_error
        held_a = layer.a_in + self.spread * layer.a_in_error
        terms = held.T @ held_a
        bound = self._add(
            self._gamma(self.n + 2) * terms,
            self._product(delta_error.T, layer.a_in),
            self._product(held.T, layer.a_in_error),
            self._product_underflow(terms, 2 * self.n + 2, held.T, held_a),
        )
        return self._overflowing(bound, self.parts * terms)

    def _bias_gradient(self, delta: Bound, delta_error: Bound) -> Bound:
        terms = np.sum(delta + self.spread * delta_error, axis=0)
        bound = self._add(self._gamma(self.n + 1) * terms, self._sum(delta_error), self._underflow(terms, self.n + 1))
        return self._overflowing(bound, self.parts * terms)

    # Row-wise functions

    def _softmax_value(self, z: Bound, a: Bound, z_error: Bound) -> Bound:
        """E_A of softmax, directly or as the exponential of log-softmax, the exponents shifted by the row's largest.

        e^(z ± R) / Σ e^(z ± R) differs from a by a factor of at most e^R / Σ a e^(−R), whatever common shift is left
        in z. R takes in the roundings of the exponents (of size |log a|, twice), of log Σ e^z and of exp and log.
        """
        flushed = np.minimum(a, self.tiny) if z.shape[1] > 1 else 0.0
        return a * self._softmax_factor(z, a, z_error) / self.spread + flushed

    def _softmax_factor(self, z: Bound, a: Bound, z_error: Bound) -> Bound:
        return softmax_factor(z, a, self.spread * z_error, self.u)

    def _softmax_error_signal(self, layer: _LayerBounds, incoming: Bound, error: Bound) -> Bound:
        """E_Δ of a (d − Σ a d), or of the product with the Jacobian written out."""
        if incoming.shape[1] == 1:  # 1 (d − 1 d): exactly 0, whatever d
            return np.where(np.isfinite(error), 0.0, np.inf)
        a, a_error = layer.a, layer.a_error
        held_a = a + self.spread * a_error
        held = np.abs(incoming) + self.spread * error
        total = np.sum(held_a * held, axis=1, keepdims=True)
        mean = np.sum(a * incoming, axis=1, keepdims=True)
        width = a.shape[1]
        # the mean is a float64 sum of float64 numbers
        centred = np.abs(incoming - mean) + (width + 2) * 2.0**-53 * (np.abs(incoming) + total)
        terms = held_a * (held + total)
        return self._add(
            self._gamma(width + 4) * terms,
            a_error * centred,
            held_a * error,
            held_a * self._sum_rows(held_a * error),
            held_a * self._sum_rows(a_error * held),
            self._underflow(terms, 2 * width + 2),
        )

    def _cross_entropy(self, s: Bound, s_error: Bound, y: Bound) -> tuple[Bound, Bound, Bound]:
        """|loss| and its bound, one a sample, and the bound of ∂C/∂s, all before the reduction."""
        if (
            s.shape[1] == 1
        ):  # one class is certain: the loss is 0, and so is y p − y; p − y is as far off as y is from 1
            unbounded = np.where(np.isfinite(s_error), 0.0, np.inf)
            return np.zeros(len(s)), unbounded[:, 0], unbounded + np.abs(y - 1.0)
        largest = s.max(axis=1, keepdims=True)
        log_total = largest + np.log(np.exp(s - largest).sum(axis=1, keepdims=True))
        probability = np.exp(s - log_total)
        mass = y.sum(axis=1, keepdims=True)
        drift = self._softmax_factor(s, probability, s_error)
        # a probability below float64's range is still none that cannot drift; and none drifts by more than 1
        drifted = np.minimum(np.maximum(probability, SMALLEST) * drift, 1.0) / self.spread
        off = mass * (drifted + np.minimum(probability, self.tiny))
        # p − y in place of (Σy) p − y, for rows that sum to 1 only in floating point
        off = off + np.abs(mass - 1.0) * probability
        width_gamma = self._gamma(s.shape[1] + 1)  # Σy, Σe^s and −Σ y log p are sums over the classes
        error = self._add(off, (ELEMENTARY + 4) * self.u * (y + mass * probability), width_gamma * mass * probability)
        slope = np.abs(mass * probability - y) + self.spread * off
        scale = y * (2 * np.abs(s) + 2 * np.abs(s).max(axis=1, keepdims=True) + 2 * math.log(s.shape[1]))
        values = np.sum(y * (log_total - s), axis=1)
        value_errors = self._add(
            self._sum_rows(slope * s_error)[:, 0],
            (ELEMENTARY + 4) * self.u * np.sum(scale, axis=1),
            width_gamma * (values + mass[:, 0]),
        )
        return values, value_errors, error

    # What the two norms do differently

    def _gamma(self, n: int) -> float:
        if n * self.u >= 1:
            return math.inf
        return (math.sqrt(n) if self.statistical else n) * self.u / (1 - n * self.u)

    def _add(self, *terms: Bound | float) -> Bound:
        if not self.statistical:
            return np.asarray(sum(terms))
        return np.asarray(reduce(np.hypot, terms))

    def _product(self, error: Bound, matrix: Bound) -> Bound:
        """How the errors of one factor come out of a matrix product with the other's absolute values."""
        total = np.asarray(error @ matrix)
        if not self.statistical:
            return total
        scale_left, scale_right = _scale(error, axis=1), _scale(matrix, axis=0)
        squares = np.square(error / scale_left) @ np.square(matrix / scale_right)
        # the largest of a row may meet only the smallest of a column; the 1-norm is never less than the 2-norm
        return np.where(squares < 2.0**-960, total, np.sqrt(squares) * scale_left * scale_right)

    def _sum(self, error: Bound) -> Bound:
        """The sum over the first axis."""
        return np.asarray((np.hypot if self.statistical else np.add).reduce(error))

    def _sum_rows(self, error: Bound) -> Bound:
        return self._sum(error.T)[:, None]

    # Underflow, flushing, overflow

    def _underflow(self, terms: Bound, count: int) -> Bound:
        # a product that underflows loses at most itself
        return np.minimum(terms, count * self.eta)

    def _product_underflow(self, terms: Bound, count: int, left: Bound, right: Bound) -> Bound:
        """`_underflow` of the matrix product `terms`, whose own float64 evaluation may have underflowed."""
        some = (left > 0).astype(np.float64) @ (right > 0).astype(np.float64)
        return np.where(terms < 2.0**-960, np.minimum(some, 1.0) * (count * self.eta), self._underflow(terms, count))

    def _parameter_underflow(self, kwargs: dict[str, float]) -> float:
        """What a function's parameter loses when it is stored below the normal range."""
        return self.eta if any(0 < abs(value) < self.tiny for value in kwargs.values()) else 0.0

    def _flushed(self, array: NDArray[Any]) -> Bound:
        magnitude = _absolute(array)
        return np.where(magnitude < self.tiny, magnitude, 0.0) if self.flushes else np.zeros_like(magnitude)

    def _overflowing(self, bound: Bound, magnitude: Bound) -> Bound:
        # what is not a number is not below it
        return np.where(magnitude + self.spread * bound < self.largest, bound, np.inf)

    def _magnitude(self, name: str) -> Bound:
        balls = self.truth.values[name]
        return (
            np.abs(balls.mid) + balls.tail_rad
        )  # not 0 where the truth is not, though it may be below float64's range


def softmax_factor(z: Bound, a: Bound, radius: Bound, u: float) -> Bound:
    """By what factor of itself a softmax of z ± radius, all (N, n), may be off in an arithmetic of unit roundoff u."""
    width = z.shape[1]
    if width == 1:  # e⁰/e⁰: exact in any arithmetic
        return np.zeros_like(z)
    largest = z.max(axis=1, keepdims=True)
    log_total = largest + np.log(np.exp(z - largest).sum(axis=1, keepdims=True))
    roundings = 2 * (log_total - z) + 2 * np.abs(log_total) + ELEMENTARY * (2 + math.log(width))
    total = radius + u * roundings
    shrink = np.maximum(np.sum(a * np.expm1(-total), axis=1, keepdims=True), -1.0)
    gamma = (width + 2) * u
    return np.expm1(total - np.log1p(shrink)) * (1 + gamma) + gamma


def _absolute(array: NDArray[Any]) -> Bound:
    return np.abs(array.astype(np.float64))


def _scale(array: Bound, axis: int) -> Bound:
    """Powers of two near the largest elements along the axis, so that squares neither overflow nor underflow."""
    return np.ldexp(0.5, np.frexp(np.max(array, axis=axis, keepdims=True))[1])
