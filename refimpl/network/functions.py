"""The catalogue: every activation and loss a network may name, defined once.

An entry is data. It says what a function *is* (a formula on truncated power series of balls, from which
:mod:`refimpl.truth.certification` takes the derivative: none is written here but as LaTeX to be read), where its kinks
are and what the derivative is taken to be there, which parameters it has, and how far a sound implementation may be
off (`value_ulps`, `slope_ulps`), the one assumption behind :mod:`refimpl.judge.tolerance`.

Words: a *formula* maps a series z + ε (and the function's parameters) to a series; its ε-coefficient is f'(z).
A *piece* is the formula between two kinks. An *elementwise* function acts on each number alone; a *row-wise* one
(softmax, cross-entropy) on a whole sample. Adding a function is one entry here and one line or function in each
backend; ``tests/backends`` fails for a backend that lacks it.

What it does not do: compute floating-point values. Each backend states that for itself.

Rounding assumptions
--------------------
``value_ulps`` and ``slope_ulps`` are multiples of the unit roundoff u (half an ulp), relative to ``value_scale`` and
``slope_scale`` (by default the function's own magnitude). They are counted from the roundings of the textbook
formula, adding relative errors up (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed. 2002, §3.1), and
grant a library's functions

- exp: 2.52 ulp, the largest error measured for NumPy's vectorised float32 exp (numpy pull request 13134, which
  introduced it); `EXPONENTIAL`;
- expm1, log, log1p, tanh, erf, erfc: 4 ulp, the largest error of the SVML kernels that NumPy calls (numpy pull
  request 19478; 3.83 for its own float32 log, 13134); `ELEMENTARY`. SLEEF's ``u10`` functions, which PyTorch calls,
  are documented to stay within 1.0 ulp, and the tables of the GNU C Library manual ("Known Maximum Errors in Math
  Functions"), of the CUDA C++ Programming Guide ("Mathematical Functions") and of JAX ("Numerical accuracy") are where
  to look a function of another library up. ``tests/backends`` measures the three backends here.

Where the textbook's formula cancels (σ' = a(1 − a), tanh' = 1 − a², e^z − 1, 1 + erf), the scale is that of the terms
that cancel: it is how people write it, and it is not a mistake in the backpropagation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

Series = Any  # flint.arb_series: z + ε, truncated
Ball = Any  # flint.arb
Parameters = Mapping[str, float]
Bound = NDArray[np.float64]
Formula = Callable[[Series, Parameters], Series]

REDUCTIONS = ("mean", "sum")
EXPONENTIAL = 5.04
ELEMENTARY = 8.0
SIGMOID_SLOPE_ULPS = EXPONENTIAL + 5.0
SOFTPLUS_SLOPE_ULPS = EXPONENTIAL + 4.0
BCE_SLOPE_ULPS = EXPONENTIAL + 6.0
FLUSH_FACTOR = 4.0
SMALLEST = 5e-324  # what stands for a positive bound that is below float64's range


@dataclass(frozen=True)
class FunctionParameter:
    """A number that belongs to a function, such as the negative slope of a leaky ReLU."""

    default: float
    low: float
    high: float
    meaning: str
    open_low: bool = False

    def admits(self, value: float) -> bool:
        """Whether `value` is finite and within the range."""
        above = value > self.low if self.open_low else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    @property
    def range_text(self) -> str:
        """The range in words, for messages."""
        return f"{'>' if self.open_low else '≥'} {self.low:g} and ≤ {self.high:g}"


@dataclass(frozen=True)
class Interval:
    """What the tolerance knows of z and f there, all arrays of one shape: z in [low, high], |f| ≤ value, |f'| ≤
    slope.
    """

    low: Bound
    high: Bound
    value: Bound
    slope: Bound

    @property
    def magnitude(self) -> Bound:
        """The largest |z|."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def nearest(self) -> Bound:
        """The smallest |z|."""
        crosses = (self.low < 0) & (self.high > 0)
        return np.where(crosses, 0.0, np.minimum(np.abs(self.low), np.abs(self.high)))


Scale = Callable[[Interval, Parameters], Bound]


def own_value(at: Interval, p: Parameters) -> Bound:
    return at.value


def own_slope(at: Interval, p: Parameters) -> Bound:
    return at.slope


@dataclass(frozen=True)
class Activation:
    """One activation: an elementwise one has `pieces`, a row-wise one is a primitive of :mod:`refimpl.truth.graph`.

    `pieces` are the formulas between the `kinks`, left to right. At a kink itself the derivative is the left piece's.
    `smooth_library` says that a library function is called; what it returns may be flushed below the normal range
    (SLEEF, XLA), and is multiplied by at most `FLUSH_FACTOR` (1 + |z|) after.
    """

    name: str
    definition_text: str
    derivative_text: str
    latex: str
    derivative_latex: str
    pieces: tuple[Formula, ...] = ()
    kinks: tuple[float, ...] = ()
    parameters: Mapping[str, FunctionParameter] = field(default_factory=dict)
    value_ulps: float = 0.0
    slope_ulps: float = 0.0
    value_scale: Scale = own_value
    slope_scale: Scale = own_slope
    smooth_library: bool = True

    @property
    def elementwise(self) -> bool:
        """Whether the function acts on each number alone."""
        return bool(self.pieces)


@dataclass(frozen=True)
class Loss:
    """One loss, per sample and summed over the outputs (over n_out as well where `averages_outputs`).

    `target` is what y holds: "values" (N, n_out), "probabilities" (N, n_out) in [0, 1], or "classes" (labels (N,)
    or probability rows (N, n_out)). What it is of primitives stands in :mod:`refimpl.truth.network`.
    """

    name: str
    definition_text: str
    derivative_text: str
    latex: str
    derivative_latex: str
    target: str
    parameters: Mapping[str, FunctionParameter] = field(default_factory=dict)
    averages_outputs: bool = False
    value_ulps: float = 0.0
    slope_ulps: float = 0.0
    value_scale: Callable[[Interval, Bound, Parameters], Bound] = lambda at, y, p: at.value
    slope_scale: Callable[[Interval, Bound], Bound] = lambda at, y: at.slope


# --------------------------------------------------------------------------------------------------------------
# Formulas: what each function is. z and s are series, y a ball, p the function's parameters.


def _zero(z: Series, p: Parameters) -> Series:
    return z * 0


def _identity(z: Series, p: Parameters) -> Series:
    return z


def _sigmoid(z: Series, p: Parameters) -> Series:
    if z[0] < 0:
        e = z.exp()
        return e / (1 + e)
    return 1 / (1 + (-z).exp())


def _tanh(z: Series, p: Parameters) -> Series:
    if z[0] < 0:
        return -_tanh(-z, p)
    e = (z * -2).exp()
    return (1 - e) / (1 + e)


def _softplus(z: Series, p: Parameters) -> Series:
    return z + _softplus(-z, p) if z[0] > 0 else (1 + z.exp()).log()


def _gelu(z: Series, p: Parameters) -> Series:
    return z * (-z / flint.arb(2).sqrt()).erfc() / 2


def _gelu_tanh(z: Series, p: Parameters) -> Series:
    # ½(1 + tanh w) = σ(2w), which keeps its relative accuracy where 1 + tanh w cancels
    w = (2 / flint.arb.pi()).sqrt() * (z + flint.arb("0.044715") * z * z * z)
    return z * _sigmoid(2 * w, p)


def _elu_left(z: Series, p: Parameters) -> Series:
    return flint.arb(p["alpha"]) * (z.exp() - 1)


# Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, appendix A4
SELU_SCALE = "1.0507009873554804934193349852946"
SELU_ALPHA = "1.6732632423543772848170429916717"


def _selu_left(z: Series, p: Parameters) -> Series:
    return flint.arb(SELU_SCALE) * flint.arb(SELU_ALPHA) * (z.exp() - 1)


def _selu_right(z: Series, p: Parameters) -> Series:
    return flint.arb(SELU_SCALE) * z


# --------------------------------------------------------------------------------------------------------------
# Scales: the magnitude of the terms that a textbook formula adds up, where it is larger than the result's.


def _one(at: Interval, p: Parameters) -> Bound:
    return np.ones_like(at.low)


def _sigmoid_value(at: Interval, p: Parameters) -> Bound:
    return at.value + EXPONENTIAL / 2 * at.slope  # 1/(1 + t): an error of t = e^−|z| comes out times 1 − a


def _sigmoid_slope(at: Interval, p: Parameters) -> Bound:
    # t/(1 + t)²: an error of t comes out times |1 − 2a| = tanh |z|/2, and so does an error of a in a(1 − a); in
    # σ(z)σ(−z) with an exponential each, the errors of both come out times a and 1 − a
    return at.slope + (EXPONENTIAL + 2) / SIGMOID_SLOPE_ULPS * at.value * np.tanh(at.magnitude / 2)


def _tanh_slope(at: Interval, p: Parameters) -> Bound:
    # 4t/(1 + t)², t = e^−2|z|: an error of t comes out times |a|; in 1 − a² an error of a times 2|a|
    return at.slope * (1 + EXPONENTIAL / 4 * at.value) + (ELEMENTARY + 2) / 2 * at.value * at.value


def _exponent(at: Interval) -> Bound:
    # JAX differentiates o = log(1 + e^z) as e^(z − o), whose exponent is off by an error of o and one of the difference
    return at.magnitude + (ELEMENTARY + EXPONENTIAL + 3) * np.log1p(np.exp(-at.nearest))


def _softplus_slope(at: Interval, p: Parameters) -> Bound:
    return at.slope * (1 + _exponent(at) / SOFTPLUS_SLOPE_ULPS)


def _silu_slope(at: Interval, p: Parameters) -> Bound:
    sigmoid = np.maximum(np.exp(-np.logaddexp(0.0, -at.high)), SMALLEST)
    return sigmoid * (1.0 + at.magnitude)  # σ + zσ(1 − σ)


def _softsign_slope(at: Interval, p: Parameters) -> Bound:
    return 1.0 / (1.0 + at.nearest)  # 1/(1 + |z|) − |z|/(1 + |z|)²


def _gelu_tanh_slope(at: Interval, p: Parameters) -> Bound:
    # ½(1 + t) + ½z(1 − t²)w', t = tanh w: an error of t comes out of 1 − t² times |z w' t|
    cubic = 0.044715 * at.magnitude**2
    w = math.sqrt(2 / math.pi) * at.magnitude * (1 + cubic)
    dw_dz = math.sqrt(2 / math.pi) * (1 + 3 * cubic)
    return 1.0 + at.magnitude * dw_dz * np.tanh(w) ** 2


def _argument(at: Interval, p: Parameters) -> Bound:
    return at.magnitude  # z·½(1 + erf)


def _exponential_left(at: Interval, alpha: float) -> Bound:
    return np.where(at.low <= 0, alpha, 0.0)  # α(e^z − 1), and f' = a + α


def _elu_value(at: Interval, p: Parameters) -> Bound:
    return np.maximum(_exponential_left(at, p["alpha"]), np.where(at.low <= 0, at.value, 0.0))


def _elu_slope(at: Interval, p: Parameters) -> Bound:
    return _exponential_left(at, p["alpha"])


def _selu_value(at: Interval, p: Parameters) -> Bound:
    return np.maximum(at.value, _exponential_left(at, float(SELU_SCALE) * float(SELU_ALPHA)))


def _selu_slope(at: Interval, p: Parameters) -> Bound:
    return np.maximum(at.slope, _exponential_left(at, float(SELU_SCALE) * float(SELU_ALPHA)))


def _bce_value(at: Interval, y: Bound, p: Parameters) -> Bound:
    return np.maximum(at.high, 0.0) + np.abs(y) * at.magnitude + np.exp(-np.abs(at.low)) + at.value


def _bce_slope(at: Interval, y: Bound) -> Bound:
    sigmoid = np.exp(-np.logaddexp(0.0, -at.high))
    return 1.0 + np.abs(y) + sigmoid * _exponent(at) / BCE_SLOPE_ULPS


# --------------------------------------------------------------------------------------------------------------
# The tables

_ALPHA = FunctionParameter(1.0, 0.0, 1e6, "what the left side tends to, negated")

_ACTIVATIONS = (
    Activation(
        "identity", "z", "1", r"z", r"1",
        pieces=(_identity,), smooth_library=False,
    ),
    Activation(
        "relu", "max(z, 0)", "1 where z > 0, else 0", r"\max(z, 0)", r"\begin{cases}0 & z \le 0\\ 1 & z > 0\end{cases}",
        pieces=(_zero, _identity), kinks=(0.0,), smooth_library=False,
    ),
    Activation(
        "leaky_relu", "z, or negative_slope · z where z ≤ 0", "1 where z > 0, else negative_slope",
        r"\begin{cases}\alpha z & z \le 0\\ z & z > 0\end{cases}",
        r"\begin{cases}\alpha & z \le 0\\ 1 & z > 0\end{cases}",
        pieces=(lambda z, p: flint.arb(p["negative_slope"]) * z, _identity), kinks=(0.0,), smooth_library=False,
        parameters={"negative_slope": FunctionParameter(0.01, 0.0, 1e6, "slope at and left of 0")},
        value_ulps=2.0, slope_ulps=1.0,
    ),
    Activation(
        "elu", "z, or alpha (e^z − 1) where z ≤ 0", "1 where z > 0, else alpha e^z",
        r"\begin{cases}\alpha(e^z - 1) & z \le 0\\ z & z > 0\end{cases}",
        r"\begin{cases}\alpha e^z & z \le 0\\ 1 & z > 0\end{cases}",
        pieces=(_elu_left, _identity), kinks=(0.0,), parameters={"alpha": _ALPHA},
        value_ulps=ELEMENTARY + 2, slope_ulps=ELEMENTARY + 4, value_scale=_elu_value, slope_scale=_elu_slope,
    ),
    Activation(
        "selu", "λz, or λα(e^z − 1) where z ≤ 0; λ = 1.0507…, α = 1.6732…", "λ where z > 0, else λα e^z",
        r"\lambda\begin{cases}\alpha(e^z - 1) & z \le 0\\ z & z > 0\end{cases}",
        r"\lambda\begin{cases}\alpha e^z & z \le 0\\ 1 & z > 0\end{cases}",
        pieces=(_selu_left, _selu_right), kinks=(0.0,),
        value_ulps=ELEMENTARY + 4, slope_ulps=ELEMENTARY + 6, value_scale=_selu_value, slope_scale=_selu_slope,
    ),
    Activation(
        "gelu", "z Φ(z), Φ the normal distribution function", "Φ(z) + z φ(z), φ the normal density",
        r"\tfrac{z}{2}\left(1 + \operatorname{erf}\tfrac{z}{\sqrt 2}\right)",
        r"\Phi(z) + z\,\varphi(z),\ \varphi(z) = \tfrac{1}{\sqrt{2\pi}} e^{-z^2/2}",
        pieces=(_gelu,), value_ulps=ELEMENTARY + 4, slope_ulps=ELEMENTARY + 8, value_scale=_argument, slope_scale=_one,
    ),
    Activation(
        "gelu_tanh", "z/2 · (1 + tanh(√(2/π) (z + 0.044715 z³)))",
        "½(1 + tanh w) + z/2 · (1 − tanh² w) · √(2/π) (1 + 0.134145 z²), w the argument of tanh",
        r"\tfrac{z}{2}\left(1 + \tanh w\right),\ w = \sqrt{2/\pi}\,(z + 0.044715 z^3)",
        r"\tfrac12(1 + \tanh w) + \tfrac{z}{2}(1 - \tanh^2 w)\sqrt{2/\pi}\,(1 + 0.134145 z^2)",
        pieces=(_gelu_tanh,), value_ulps=ELEMENTARY + 8, slope_ulps=4 * ELEMENTARY,
        value_scale=_argument, slope_scale=_gelu_tanh_slope,
    ),
    Activation(
        "softplus", "log(1 + e^z)", "1/(1 + e^−z)", r"\log(1 + e^z)", r"\sigma(z)",
        pieces=(_softplus,), value_ulps=ELEMENTARY + EXPONENTIAL + 2, slope_ulps=SOFTPLUS_SLOPE_ULPS,
        slope_scale=_softplus_slope,
    ),
    Activation(
        "sigmoid", "1/(1 + e^−z)", "σ(z)(1 − σ(z))", r"\frac{1}{1 + e^{-z}}", r"\sigma(z)\,(1 - \sigma(z))",
        pieces=(_sigmoid,), value_ulps=2.0, slope_ulps=SIGMOID_SLOPE_ULPS,
        value_scale=_sigmoid_value, slope_scale=_sigmoid_slope,
    ),
    Activation(
        "tanh", "(e^z − e^−z)/(e^z + e^−z)", "1 − tanh² z", r"\tanh z", r"1 - \tanh^2 z",
        pieces=(_tanh,), value_ulps=ELEMENTARY + 2, slope_ulps=4.0, slope_scale=_tanh_slope,
    ),
    Activation(
        "silu", "z σ(z)", "σ(z)(1 + z(1 − σ(z)))", r"z\,\sigma(z)", r"\sigma(z)\left(1 + z(1 - \sigma(z))\right)",
        pieces=(lambda z, p: z * _sigmoid(z, p),),
        value_ulps=EXPONENTIAL + 3, slope_ulps=2 * EXPONENTIAL + 4, slope_scale=_silu_slope,
    ),
    Activation(
        "softsign", "z/(1 + |z|)", "1/(1 + |z|)²", r"\frac{z}{1 + |z|}", r"\frac{1}{(1 + |z|)^2}",
        pieces=(lambda z, p: z / (1 - z), lambda z, p: z / (1 + z)), kinks=(0.0,), smooth_library=False,
        value_ulps=4.0, slope_ulps=8.0, slope_scale=_softsign_slope,
    ),
    Activation(
        "softmax", "e^z_i / Σ_j e^z_j, over the row", "∂a_i/∂z_j = a_i(δ_ij − a_j)", r"\frac{e^{z_i}}{\sum_j e^{z_j}}",
        r"\frac{\partial a_i}{\partial z_j} = a_i(\delta_{ij} - a_j)",
        value_ulps=EXPONENTIAL,
    ),
)  # fmt: skip

_LOSSES = (
    Loss(
        "squared_error", "½ Σ (s − y)²", "s − y", r"\tfrac12\sum_j (s_j - y_j)^2", r"s_j - y_j",
        target="values", value_ulps=4.0, slope_ulps=2.0,
    ),
    Loss(
        "mean_squared_error", "(1/n_out) Σ (s − y)²", "(2/n_out)(s − y)",
        r"\tfrac{1}{n}\sum_j (s_j - y_j)^2", r"\tfrac{2}{n}(s_j - y_j)",
        target="values", averages_outputs=True, value_ulps=4.0, slope_ulps=4.0,
    ),
    Loss(
        "absolute_error", "Σ |s − y|", "sign(s − y)", r"\sum_j |s_j - y_j|", r"\operatorname{sign}(s_j - y_j)",
        target="values", value_ulps=1.0,
    ),
    Loss(
        "huber", "Σ ½r² where |r| ≤ delta, else delta (|r| − ½ delta); r = s − y", "max(−delta, min(delta, s − y))",
        r"\sum_j \begin{cases}\tfrac12 r_j^2 & |r_j| \le \delta\\"
        r" \delta(|r_j| - \tfrac12\delta) & |r_j| > \delta\end{cases}",
        r"\max(-\delta, \min(\delta, r_j))",
        target="values",
        parameters={"delta": FunctionParameter(1.0, 0.0, 1e6, "where the square ends", True)},
        value_ulps=8.0, slope_ulps=2.0,
        value_scale=lambda at, y, p: at.value + p["delta"] * np.minimum(at.slope, p["delta"]),
    ),
    Loss(
        "cross_entropy", "−Σ y log softmax(s); y labels or probability rows", "softmax(s) − y",
        r"-\sum_j y_j \log\frac{e^{s_j}}{\sum_k e^{s_k}}", r"\Big(\sum_k y_k\Big)\operatorname{softmax}(s)_j - y_j",
        target="classes", value_ulps=ELEMENTARY,
    ),
    Loss(
        "binary_cross_entropy", "Σ log(1 + e^s) − y s; s logits", "σ(s) − y",
        r"\sum_j \log(1 + e^{s_j}) - y_j s_j", r"\sigma(s_j) - y_j",
        target="probabilities",
        value_ulps=ELEMENTARY + EXPONENTIAL + 4, slope_ulps=BCE_SLOPE_ULPS,
        value_scale=_bce_value, slope_scale=_bce_slope,
    ),
    Loss(
        "negative_log_likelihood", "−Σ y log s; s probabilities, y labels or probability rows", "−y/s",
        r"-\sum_j y_j \log s_j", r"-y_j / s_j",
        target="classes", value_ulps=ELEMENTARY + 1, slope_ulps=2.0,
    ),
)  # fmt: skip

ACTIVATIONS: Mapping[str, Activation] = {entry.name: entry for entry in _ACTIVATIONS}
LOSSES: Mapping[str, Loss] = {entry.name: entry for entry in _LOSSES}
