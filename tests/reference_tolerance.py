"""The worst case a second time: one recursion for a fully connected network, layer by layer, in loops over floats.

With Z, A, Δ the certified weighted inputs, activations and error signals, |X|⁺ = |X| + E_X what an implementation holds
and absolute values taken element by element,

    E_Z  = γ_{n+1} (|A|⁺|W|ᵀ + |b|) + E_A |W|ᵀ
    E_A  = sup|f'| E_Z + c_f u |f|⁺
    E_Δ  = sup|f'| E_dA + |dA|⁺ (sup|f''| E_Z + c_f' u |f'|⁺) + u |Δ|⁺
    E_dA = γ_k |Δ|⁺|W| + E_Δ |W|
    E_dW = γ_{N+2} |Δ|⁺ᵀ|A|⁺ + E_Δᵀ|A| + |Δ|ᵀE_A + E_ΔᵀE_A        E_db = γ_{N+1} Σ|Δ|⁺ + ΣE_Δ

and for each what may underflow or be flushed. It shares with the graph of primitives that it is held against the
catalogue's roundings, scales and activations, and the certificate; it knows nothing of graphs, and states the losses
itself. Whatever is not finite on the way counts as unbounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from refimpl.network.arithmetic import Arithmetic
from refimpl.network.batch import Batch
from refimpl.network.functions import ACTIVATIONS, ELEMENTARY, FLUSH_FACTOR, LOSSES, Interval
from refimpl.network.spec import NetworkSpec
from refimpl.truth.certification import Certificate

INF = math.inf
Table = list[list[float]]  # one row a sample


@dataclass(frozen=True)
class Suprema:
    """sup |f|, |f'| and |f''| over a ball, |f'| on the true piece alone, and by how much f' may jump within it."""

    value: float = INF
    slope: float = INF
    curvature: float = INF
    own_slope: float = INF
    jump: float = INF


def largest(ball: Any) -> float:
    """The end of |ball|; a positive one never becomes 0."""
    end = abs(ball).upper()
    return float(end) or (math.ulp(0.0) if end > 0 else 0.0)


def on_the_ball(
    pieces: Sequence[Callable[[Any], Any]], kinks: Sequence[float], at_kink: Any, ball: Any, place: Any
) -> Suprema:
    """`pieces` lie between the `kinks` of `place`, which is the ball but for a shift; its midpoint says which piece is
    the true one, and the others are those on both sides of every kink that it reaches.
    """
    try:
        argument = flint.arb_series([ball, 1], 3)
        own = pieces[len([kink for kink in kinks if place.mid() > kink])](argument)
        others = []
        if place.rad() > 0:
            for side, kink in enumerate(kinks):
                if place.overlaps(flint.arb(kink)):
                    others += [pieces[side](argument), pieces[side + 1](argument)]
                    others += [at_kink(argument)] if at_kink else []
        everywhere = [own, *others]
        found = (
            max(largest(f[0]) for f in everywhere),
            max(largest(f[1]) for f in everywhere),
            2 * largest(own[2]),
            largest(own[1]),
            max((largest(f[1] - own[1]) for f in others), default=0.0),
        )
    except (ValueError, ZeroDivisionError):
        return Suprema()
    return Suprema(*found) if all(map(math.isfinite, found)) else Suprema()


def _times(a: float, b: float) -> float:
    """0 · ∞ = 0: what does not depend on a value does not depend on its error."""
    return 0.0 if a == 0 or b == 0 else a * b


def _finite(value: float) -> float:
    return value if math.isfinite(value) else INF


def _softplus(s: Any) -> Any:
    return s + _softplus(-s) if s[0] > 0 else (1 + s.exp()).log()


def _no_kinks(p: dict[str, float]) -> tuple[float, ...]:
    return ()


# of a series s and a ball y: the formulas between the kinks of s − y, the kinks, and the formula at a kink itself
NO_PIECES: tuple[tuple[Any, ...], Any, Any] = ((), _no_kinks, None)
ELEMENTWISE_LOSSES = {
    "squared_error": ((lambda s, y, p: (s - y) * (s - y) / 2,), _no_kinks, None),
    "mean_squared_error": ((lambda s, y, p: (s - y) * (s - y),), _no_kinks, None),
    "absolute_error": (
        (lambda s, y, p: y - s, lambda s, y, p: s - y),
        lambda p: (0.0,),
        lambda s, y, p: s * 0,
    ),
    "huber": (
        (
            lambda s, y, p: flint.arb(p["delta"]) * (y - s - flint.arb(p["delta"]) / 2),
            lambda s, y, p: (s - y) * (s - y) / 2,
            lambda s, y, p: flint.arb(p["delta"]) * (s - y - flint.arb(p["delta"]) / 2),
        ),
        lambda p: (-p["delta"], p["delta"]),
        None,
    ),
    "binary_cross_entropy": ((lambda s, y, p: _softplus(s) - y * s,), _no_kinks, None),
    "negative_log_likelihood": ((lambda s, y, p: s * 0 if y == 0 else -y * s.log(),), _no_kinks, None),
}
LIBRARY = {"binary_cross_entropy", "negative_log_likelihood"}  # what underflows in exp or log may be flushed


class Reference:
    """The forward half of the bounds; `bounds` gives the rest."""

    def __init__(self, spec: NetworkSpec, batch: Batch, truth: Certificate, arithmetic: Arithmetic) -> None:
        self.spec, self.batch, self.truth = spec, batch, truth
        self.u, self.largest, self.tiny = arithmetic.unit_roundoff, arithmetic.largest, arithmetic.smallest_normal
        self.flushing = arithmetic.flushes_subnormals
        self.eta = arithmetic.smallest_normal if self.flushing else arithmetic.smallest_subnormal
        self.n = len(batch.x)
        self.parts = self.n if spec.reduction == "mean" else 1
        if LOSSES[spec.loss.name].averages_outputs:
            self.parts *= spec.n_out
        self.forward: dict[str, Any] = {}
        x = batch.x.astype(float).tolist()
        a = [[(abs(value), self.flushed(value)) for value in row] for row in x]
        self.inputs: list[Any] = []
        self.local: list[Any] = []
        self.slope_rounding: list[Any] = []
        self.z_error: list[Table] = []
        with flint.ctx.workprec(64), np.errstate(all="ignore"):
            for number in range(1, spec.depth + 1):
                self.inputs.append(a)
                a = self._forward(number, a)
            self.error, self.jump = self._cost([[error for _, error in row] for row in a])

    def bounds(self, across: bool = False) -> dict[str, Any]:
        """By name, with the truth's side of every kink, or `across` them."""
        bounds = dict(self.forward)
        error = self.error
        if across:
            error = [[e + j for e, j in zip(*rows, strict=True)] for rows in zip(error, self.jump, strict=True)]
        for number in range(self.spec.depth, 0, -1):
            error = self._backward(number, error, across, bounds)
        bounds["x"] = np.reshape(error, (self.n, *self.spec.input_shape))
        return {name: np.where(np.isfinite(bound), bound, INF) for name, bound in bounds.items()}

    # -- how errors add up, and what else may be lost

    def add(self, *errors: float) -> float:
        """e₁ + e₂ + …"""
        return math.fsum(errors) if all(map(math.isfinite, errors)) else INF

    def gamma(self, n: int) -> float:
        """γ_n = nu/(1 − nu)."""
        return n * self.u / (1 - n * self.u) if n * self.u < 1 else INF

    def flushed(self, value: float) -> float:
        """What an arithmetic that flushes takes for 0."""
        return abs(value) if self.flushing and abs(value) < self.tiny else 0.0

    def product_underflow(self, pairs: Sequence[tuple[float, float]], terms: float, count: int) -> float:
        """At most `count` products underflow, and none loses more than itself, as far as float64 can tell."""
        if terms < 2.0**-960:
            return count * self.eta if any(a > 0 and b > 0 for a, b in pairs) else 0.0
        return min(terms, count * self.eta)

    def unless_overflow(self, bound: float, magnitude: float) -> float:
        """∞ where the arithmetic's largest number may be passed."""
        return bound if magnitude + bound < self.largest else INF

    def stored_parameter(self, kwargs: dict[str, float]) -> float:
        """What is lost of a function's parameter below the normal range."""
        return self.eta if any(0 < abs(value) < self.tiny for value in kwargs.values()) else 0.0

    def magnitudes(self, name: str) -> Table:
        return np.abs(self.truth.values[name].mid).tolist()

    def product(
        self, left: Sequence[tuple[float, float]], right: Sequence[tuple[float, float]], roundings: int, count: int,
        bias: float = 0.0, bias_error: float = 0.0,
    ) -> tuple[float, float]:  # fmt: skip
        """Σ |left||right| + |bias|, the errors of `left` in it, and the error of the sum: γ of it, the errors of each
        side times the other, and underflow. Both sides are (magnitude, error).
        """
        held = [a + e for a, e in left]
        plain = [b for b, _ in right]
        terms = math.fsum(_finite(h * b) for h, b in zip(held, plain, strict=True)) + bias
        error = self.add(
            self.gamma(roundings) * terms,
            *(e * b for (_, e), b in zip(left, plain, strict=True)),
            *(h * e for h, (_, e) in zip(held, right, strict=True)),
            bias_error,
            self.product_underflow(list(zip(held, plain, strict=True)), terms, count),
        )
        return terms, error

    # -- forward

    def _forward(self, number: int, a: Any) -> Any:
        layer, truth = self.spec.layers[number - 1], self.truth.values
        W = self.batch.params[f"W{number}"].astype(float).tolist()
        b = self.batch.params[f"b{number}"].astype(float).tolist() if layer.bias else [0.0] * layer.size
        count = len(W[0])
        z_error: Table = []
        for row in a:
            z_error.append([])
            for weights, bias in zip(W, b, strict=True):
                right = [(abs(w), self.flushed(w)) for w in weights]
                terms, error = self.product(
                    row, right, count + (1 if layer.bias else 0), 2 * count + 2, abs(bias), self.flushed(bias)
                )
                z_error[-1].append(self.unless_overflow(error, terms))
        self.z_error.append(z_error)
        size, function = self.magnitudes(f"a{number + 1}"), ACTIVATIONS[layer.activation.name]
        if function.pieces:
            errors = self._elementwise(number, z_error, size)
        else:
            z = truth[f"z{number + 1}"].mid.tolist()
            self.local.append(None)
            self.slope_rounding.append(None)
            errors = [
                [
                    min(max(p, 5e-324) * factor, 1.0) + min(p, self.tiny) if all(map(math.isfinite, es)) else INF
                    for p, factor in zip(ps, self._softmax_factors(zs, ps, es), strict=True)
                ]
                for zs, ps, es in zip(z, size, z_error, strict=True)
            ]
        self.forward[f"z{number + 1}"], self.forward[f"a{number + 1}"] = z_error, errors
        return [list(zip(ps, es, strict=True)) for ps, es in zip(size, errors, strict=True)]

    def ball(self, balls: Any, i: int, j: int, radius: float) -> Any:
        """The ball around a certified value, or None where it has no end."""
        mid = float(balls.mid[i, j])
        return flint.arb(mid, radius) if math.isfinite(mid) and math.isfinite(radius) else None

    def _elementwise(self, number: int, z_error: Table, size: Table) -> Table:
        activation = self.spec.layers[number - 1].activation
        function, kwargs, z = ACTIVATIONS[activation.name], activation.kwargs, self.truth.values[f"z{number + 1}"]
        lost_parameter = self.stored_parameter(kwargs)
        errors: Table = []
        local: list[list[Suprema]] = []
        roundings: Table = []
        for i in range(self.n):
            errors.append([])
            local.append([])
            roundings.append([])
            for j, e in enumerate(z_error[i]):
                ball = self.ball(z, i, j, e)
                formulas = [lambda s, piece=piece: piece(s, kwargs) for piece in function.pieces]
                f = Suprema() if ball is None else on_the_ball(formulas, function.kinks, None, ball, ball)
                at = self._interval(z.mid[i, j], e, size[i][j] + f.slope * e, f.slope)
                reach = abs(float(z.mid[i, j])) + e
                flush = FLUSH_FACTOR * (1 + reach) * self.tiny if function.smooth_library else 2 * self.eta
                scale = function.value_scale(at, kwargs).item()
                error = self.add(
                    f.slope * e, function.value_ulps * self.u * scale, min(scale, flush), lost_parameter * reach
                )
                errors[-1].append(self.unless_overflow(error, at.value.item()))
                local[-1].append(f)
                scale = function.slope_scale(at, kwargs).item()
                roundings[-1].append(function.slope_ulps * self.u * scale + min(scale, flush) + lost_parameter)
        self.local.append(local)
        self.slope_rounding.append(roundings)
        return errors

    @staticmethod
    def _interval(mid: float, radius: float, value: float, slope: float) -> Interval:
        return Interval(*(np.array([float(number)]) for number in (mid - radius, mid + radius, value, slope)))

    def _softmax_factors(self, z: Sequence[float], p: Sequence[float], z_error: Sequence[float]) -> list[float]:
        """e^(±R) over a sum that holds e^(∓R): R_i is the error of z_i and the roundings of its exponent."""
        width = len(z)
        top = max(z)
        log_total = top + math.log(math.fsum(math.exp(zi - top) for zi in z))
        R = [
            e + self.u * (2 * (log_total - zi) + 2 * abs(log_total) + ELEMENTARY * (2 + math.log(width)))
            for zi, e in zip(z, z_error, strict=True)
        ]
        smallest = math.fsum(_times(pi, math.expm1(-Ri)) for pi, Ri in zip(p, R, strict=True))
        gamma = (width + 2) * self.u
        factors = []
        for Ri in R:
            if smallest <= -1 or Ri - math.log1p(smallest) > 709:
                factors.append(INF)
            else:
                factors.append(math.expm1(Ri - math.log1p(smallest)) * (1 + gamma) + gamma)
        return factors

    # -- the loss

    def _cost(self, s_error: Table) -> tuple[Table, Table]:
        function, kwargs = LOSSES[self.spec.loss.name], self.spec.loss.kwargs
        pieces, loss_kinks, loss_at_kink = ELEMENTWISE_LOSSES.get(function.name, NO_PIECES)
        s, y = self.truth.values[f"a{self.spec.depth + 1}"], self.batch.targets(self.spec.n_out).tolist()
        width, share = self.spec.n_out, 1 / self.parts
        held = [[0.0] * width for _ in range(self.n)]
        jump = [[0.0] * width for _ in range(self.n)]
        slopes = [[0.0] * width for _ in range(self.n)]
        values: list[float] = []
        value_errors: list[float] = []
        error: Table = []
        for i in range(self.n):
            if not pieces:
                value, value_error, row = self._cross_entropy(s.mid[i].tolist(), s_error[i], y[i])
                values.append(value)
                value_errors.append(value_error)
                error.append([self.add(e, self.flushed(t)) for e, t in zip(row, y[i], strict=True)])
                held[i] = [abs(m) + e for m, e in zip(s.mid[i].tolist(), s_error[i], strict=True)]
                continue
            error.append([])
            for j, target in enumerate(y[i]):
                radius = s_error[i][j]
                ball, exact = self.ball(s, i, j, radius), flint.arb(target)
                formulas = [lambda t, piece=piece, exact=exact: piece(t, exact, kwargs) for piece in pieces]
                at_kink = loss_at_kink and (lambda t, exact=exact: loss_at_kink(t, exact, kwargs))
                f = Suprema()
                if ball is not None:
                    f = on_the_ball(formulas, loss_kinks(kwargs), at_kink, ball, ball - exact)
                at, targets = self._interval(s.mid[i, j], radius, f.value, f.slope), np.array([target])
                reach = abs(float(s.mid[i, j])) + radius
                held[i][j], jump[i][j] = reach + abs(target), share * f.jump
                lost = self.flushed(target)
                if function.target == "classes":
                    lost, value_lost = (f.slope, f.value) if lost > 0 else (0.0, 0.0)
                else:
                    lost, value_lost = 2 * lost, lost * (f.slope + reach)
                parameter = self.stored_parameter(kwargs)
                values.append(f.value)
                scale = function.value_scale(at, targets, kwargs).item()
                library = FLUSH_FACTOR * (1 + reach) * self.tiny if function.name in LIBRARY else 0.0
                value_errors.append(
                    self.add(
                        f.slope * s_error[i][j], function.value_ulps * self.u * scale, value_lost,
                        parameter * held[i][j], min(scale, library),
                    )
                )  # fmt: skip
                scale = function.slope_scale(at, targets).item()
                error[-1].append(
                    self.add(
                        _times(f.curvature, s_error[i][j]), function.slope_ulps * self.u * scale, lost, parameter,
                        min(scale, library),
                    )
                )  # fmt: skip
                slopes[i][j] = share * f.slope
        self._loss(values, value_errors, share, held)
        magnitude = self.magnitudes(f"da{self.spec.depth + 1}")
        shares = 3 if self.parts > 1 else 0
        for i in range(self.n):
            for j in range(width):
                size, e = magnitude[i][j], share * error[i][j]
                e = self.add(e, shares * self.u * size, min(size + e + slopes[i][j], 3 * self.eta))
                e = self.unless_overflow(e, max(self.parts * size, 2 * held[i][j]))
                error[i][j] = e
        return error, jump

    def _loss(self, values: list[float], errors: list[float], share: float, held: Table) -> None:
        total, summands = math.fsum(map(_finite, values)), sum(value != 0 for value in values)
        error = self.add(
            *(share * e for e in errors),
            self.gamma(summands + 3) * share * total if summands > 1 or self.parts > 1 else 0.0,
            min(total, 3 * len(values) * self.eta),
        )
        largest = max(total, *(h for row in held for h in row))
        self.forward["loss"] = np.array(self.unless_overflow(error, 2 * largest))

    def _cross_entropy(self, s: list[float], s_error: list[float], y: list[float]) -> tuple[float, float, list[float]]:
        """Of one sample: |loss|, its bound, and the bounds of (Σy) p − y."""
        width = len(s)
        top = max(s)
        log_total = top + math.log(math.fsum(math.exp(si - top) for si in s))
        p = [math.exp(si - log_total) for si in s]
        mass = math.fsum(y)
        largest = max(abs(si) for si in s)
        gamma = self.gamma(width + 1)
        errors, slopes = [], []
        for pj, yj, factor in zip(p, y, self._softmax_factors(s, p, s_error), strict=True):
            drift = min(max(pj, 5e-324) * factor, 1.0)
            off = mass * (drift + min(pj, self.tiny)) + abs(mass - 1) * pj
            errors.append(self.add(off, self.u * (2 * yj + (ELEMENTARY + 4) * mass * pj), gamma * mass * pj))
            slopes.append(abs(mass * pj - yj) + off)
        value = math.fsum(yj * (log_total - sj) for yj, sj in zip(y, s, strict=True))
        logs = (ELEMENTARY + 4) * (1 + math.log(width))
        sizes = math.fsum(yj * (4 * abs(sj) + 4 * largest + logs) for yj, sj in zip(y, s, strict=True))
        value_error = self.add(
            *(_times(slope, e) for slope, e in zip(slopes, s_error, strict=True)),
            self.u * sizes,
            gamma * (value + mass),
        )
        return value, value_error, errors

    # -- backward

    def _backward(self, number: int, error: Table, across: bool, bounds: dict[str, Any]) -> Table:
        layer, a_in = self.spec.layers[number - 1], self.inputs[number - 1]
        da = self.magnitudes(f"da{number + 1}")
        size = self.magnitudes(f"delta{number + 1}")
        if self.local[number - 1] is None:
            bound = [self._softmax_error_signal(number, i, error[i]) for i in range(self.n)]
        else:
            bound = [
                [self._error_signal(number, (i, j), *sizes, across) for j, sizes in enumerate(zip(*rows, strict=True))]
                for i, rows in enumerate(zip(da, size, error, strict=True))
            ]
        bounds[f"delta{number + 1}"] = bound
        delta = [list(zip(ds, es, strict=True)) for ds, es in zip(size, bound, strict=True)]
        bounds[f"W{number}"] = [
            [self._of_samples([row[j] for row in delta], [row[k] for row in a_in]) for k in range(len(a_in[0]))]
            for j in range(layer.size)
        ]
        if layer.bias:
            bounds[f"b{number}"] = [self._of_bias([row[j] for row in delta]) for j in range(layer.size)]
        W = self.batch.params[f"W{number}"].astype(float)
        return [[self._to_input(row, W[:, k].tolist()) for k in range(W.shape[1])] for row in delta]

    def _error_signal(
        self, number: int, at: tuple[int, int], da: float, delta: float, error: float, across: bool
    ) -> float:
        i, j = at
        activation, f = self.spec.layers[number - 1].activation, self.local[number - 1][i][j]
        z_error = self.z_error[number - 1][i][j]
        held = da + error
        bound = self.add(
            (f.slope if across else f.own_slope) * error,
            _times(held, _times(f.curvature, z_error)),
            _times(held, self.slope_rounding[number - 1][i][j]),
            self.u * delta,
        )
        if across:
            bound += _times(f.jump, held)
        magnified = 1.0  # what underflows before it is multiplied by a part of f'
        if ACTIVATIONS[activation.name].smooth_library:
            z = self.magnitudes(f"z{number + 1}")[i][j] + z_error
            magnified = FLUSH_FACTOR * (1 + z) * (1 + z) * (1 + z) * max([1.0, *activation.kwargs.values()])
        bound += min(delta + bound, 2 * self.eta * magnified)
        return self.unless_overflow(bound, self.parts * max(held, delta + bound))

    def _softmax_error_signal(self, number: int, i: int, error: list[float]) -> list[float]:
        """a_j (d_j − Σ a d), or Σ of the products with the whole Jacobian."""
        d = self.truth.values[f"da{number + 1}"].mid[i].tolist()
        sizes = self.magnitudes(f"da{number + 1}")[i]
        width = len(d)
        top = max(size + e for size, e in zip(sizes, error, strict=True))
        a = self.magnitudes(f"a{number + 1}")[i]
        a_error = self.forward[f"a{number + 1}"][i]
        held_a = [p + e for p, e in zip(a, a_error, strict=True)]
        held = [abs(dj) + e for dj, e in zip(d, error, strict=True)]
        total = math.fsum(_finite(p * h) for p, h in zip(held_a, held, strict=True))
        mean = math.fsum(p * dj for p, dj in zip(a, d, strict=True))
        bounds = []
        for j in range(width):
            centred = abs(d[j] - mean) + (width + 2) * (abs(d[j]) + total) / 2**53  # the mean is of float64 numbers
            terms = held_a[j] * (held[j] + total)
            bound = self.add(
                self.gamma(width + 4) * terms,
                _times(a_error[j], centred),
                _times(held_a[j], error[j]),
                *(_times(held_a[j], _times(p, e)) for p, e in zip(held_a, error, strict=True)),
                *(_times(held_a[j], _times(e, h)) for e, h in zip(a_error, held, strict=True)),
                min(terms, (2 * width + 2) * self.eta),
            )
            bounds.append(self.unless_overflow(bound, 2 * self.parts * top))
        return bounds

    def _of_samples(self, delta: Any, a: Any) -> float:
        """∂C/∂w: a sum over the samples of two factors, each with an error."""
        held_a = [(p + e, e) for p, e in a]
        held = [d + e for d, e in delta]
        terms = math.fsum(_finite(d * p) for d, (p, _) in zip(held, held_a, strict=True))
        error = self.add(
            self.gamma(self.n + 2) * terms,
            *(e * p for (_, e), (p, _) in zip(delta, a, strict=True)),
            *(d * e for d, (_, e) in zip(held, held_a, strict=True)),
            self.product_underflow([(d, p) for d, (p, _) in zip(held, held_a, strict=True)], terms, 2 * self.n + 2),
        )
        return self.unless_overflow(error, self.parts * terms)

    def _of_bias(self, delta: Any) -> float:
        terms = math.fsum(_finite(d + e) for d, e in delta)
        own = [self.gamma(self.n + 1) * terms, min(terms, (self.n + 1) * self.eta)]
        error = self.add(*(e for _, e in delta), *(own if sum(d + e != 0 for d, e in delta) > 1 else []))
        return self.unless_overflow(error, self.parts * terms)

    def _to_input(self, delta: Any, weights: list[float]) -> float:
        right = [(abs(w), self.flushed(w)) for w in weights]
        terms, error = self.product(delta, right, len(delta), 2 * len(delta))
        return self.unless_overflow(error, self.parts * terms)
