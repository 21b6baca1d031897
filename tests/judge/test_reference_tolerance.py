"""refimpl/judge/tolerance.py against the second statement of it in reference_tolerance.py: all three forms, element by
element, in arithmetics so coarse that every term of the recursion is seen, and in the real ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flint
import numpy as np
import pytest
from networks import network, problem
from reference_tolerance import Reference

from refimpl.judge.tolerance import (
    Tolerance,
    _scale,
    _Walk,
    activation_suprema,
    loss_suprema,
    softmax_factor,
    tolerance,
)
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING, Arithmetic
from refimpl.network.batch import Batch, validate
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.certification import Certificate, certify_batch

# u, the smallest normal and subnormal number, and the largest: what is far apart in float32 meets in these
COARSE = Arithmetic("coarse", 2.0**-9, 2.0**-6, 2.0**-9, 2.0**9)
MEDIUM = Arithmetic("medium", 2.0**-16, 2.0**-12, 2.0**-16, 2.0**30)
NO_ROUNDING = Arithmetic("no rounding", 0.0, 2.0**-20, 2.0**-24, math.inf)
INVENTED = [
    flushing for one in (MEDIUM, COARSE, NO_ROUNDING) for flushing in (one, replace(one, flushes_subnormals=True))
]
SMOOTH = [name for name, entry in ACTIVATIONS.items() if entry.elementwise and not entry.kinks]


def certified(p: Problem) -> tuple[Batch, Certificate]:
    batch = validate(p.spec, p.params, p.x, p.y)
    return batch, certify_batch(p.spec, batch)


def compared(p: Problem, arithmetics: Sequence[Arithmetic], truth: Certificate | None = None) -> list[Tolerance]:
    """The tolerances, once they agree with the reference: to 1e-9, or where the balls are wide, to the 30 bits of the
    radius of a ball.
    """
    batch, truth = certified(p) if truth is None else (validate(p.spec, p.params, p.x, p.y), truth)
    all_found = []
    for arithmetic in arithmetics:
        found = tolerance(p.spec, batch, truth, arithmetic)
        worst = Reference(p.spec, batch, truth, arithmetic)
        statistical = Reference(p.spec, batch, truth, arithmetic, statistical=True)
        relative = 1e-9 if arithmetic.unit_roundoff < 1e-6 else 1e-7
        for form, bounds, reference in (
            ("worst case", found.worst_case, worst.bounds()),
            ("across kinks", found.across_kinks, worst.bounds(across=True)),
            ("statistical", found.statistical, statistical.bounds()),
        ):
            assert bounds.keys() == reference.keys()
            assert found.arithmetic == arithmetic
            for name, bound in bounds.items():
                wanted = np.asarray(reference[name])
                assert bound.shape == wanted.shape, (name, form, p.spec)
                assert not np.isnan(bound).any(), (name, form, arithmetic, p)
                finite = np.isfinite(wanted)
                assert (np.isfinite(bound) == finite).all(), (name, form, bound, wanted, arithmetic, p)
                off = np.abs(bound[finite] - wanted[finite])
                assert (off <= relative * wanted[finite] + 1e-320).all(), (name, form, bound, wanted, arithmetic, p)
        all_found.append(found)
    return all_found


def small(
    activations: Sequence[Any], seed: int, loss: Any = "squared_error", reduction: str = "mean", scale: float = 1.0,
    dtype: str = "float64", n: int | None = None, rows: bool = False, sizes: Sequence[int] | None = None,
) -> Problem:  # fmt: skip
    """A network of one to four neurons a layer on one to three samples."""
    rng = np.random.default_rng(seed)
    sizes = sizes or rng.integers(1, 5, len(activations) + 1).tolist()
    spec = network(sizes, activations, loss, reduction, bias=bool(rng.random() < 0.6))
    p = problem(spec, n or int(rng.integers(1, 4)), seed, dtype)
    scaled = {name: (scale * array).astype(dtype) for name, array in p.params.items()}
    y = rng.dirichlet(np.ones(spec.n_out), len(p.x)).astype(dtype) if rows else p.y
    return Problem(spec, scaled, p.x, y, seed, 0)


@pytest.mark.parametrize("seed", range(4))
def test_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(4):
        activations = rng.choice(list(ACTIVATIONS), int(rng.integers(1, 4))).tolist()
        loss = str(rng.choice(list(LOSSES)))
        if loss == "negative_log_likelihood":
            activations[-1] = str(rng.choice(["sigmoid", "softmax"]))
        rows = LOSSES[loss].target == "classes" and rng.random() < 0.5
        reduction = str(rng.choice(["mean", "sum"]))
        p = small(activations, int(rng.integers(10**6)), loss, reduction, 10 ** rng.uniform(-1, 0.3), rows=rows)
        compared(p, INVENTED)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    for seed in range(2):
        compared(small([activation, activation], seed, "absolute_error", "sum", sizes=(2, 3, 2), n=2), INVENTED)
    compared(small([activation, "tanh"], 2, sizes=(2, 2, 1)), [ARITHMETICS["float64"], FLUSHING["float64"]])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_loss(loss: str, reduction: str) -> None:
    last = "sigmoid" if loss == "negative_log_likelihood" else "identity"
    for rows in {False, LOSSES[loss].target == "classes"}:
        p = small([last], 5, loss, reduction, sizes=(2, 3), n=2, rows=rows)
        compared(p, INVENTED)
        compared(small(["sigmoid", last], 6, loss, reduction, dtype="float32", rows=rows), [ARITHMETICS["float32"]])


def one(
    activations: Sequence[Any], x: float, loss: Any = "squared_error", y: float = 0.25, w: float = 1.0, **how: Any
) -> Problem:
    """One sample, one neuron a layer, weights w."""
    spec = network([1] * (len(activations) + 1), activations, loss, "sum", bias=False)
    dtype = how.get("dtype", "float64")
    params = {name: np.full((1, 1), w, dtype) for name in spec.parameter_shapes}
    return Problem(spec, params, np.array([[x]], dtype), np.array([[y]], dtype), 0, 0)


@pytest.mark.parametrize("activation", [name for name, entry in ACTIVATIONS.items() if entry.kinks])
def test_activations_whose_kink_is_near_or_at_z(activation: str) -> None:
    for x in (0.0, 1e-3, -1e-3, 0.3, -0.3):
        compared(one([activation, "identity"], x, "absolute_error"), INVENTED)
    for x in (0.0, 3e-16, -3e-16, 1e-15, -1e-15):
        p = one([activation], 1.0, "squared_error", y=0.5)
        p = Problem(network([2, 1], [activation], "squared_error", "sum", bias=False), {"W1": np.array([[1.0, x - 1]])},
                    np.ones((1, 2)), p.y, 0, 0)  # fmt: skip
        compared(p, [ARITHMETICS["float64"]])


@pytest.mark.parametrize("loss", ["absolute_error", {"name": "huber", "delta": 0.5}, {"name": "huber", "delta": 1e-3}])
def test_losses_whose_kink_is_near_or_at_the_residual(loss: Any) -> None:
    delta = loss["delta"] if isinstance(loss, dict) else 0.0
    for kink in {-delta, delta}:
        for off in (0.0, 1e-4, -1e-4, 0.2, -0.2):
            compared(one(["identity"], 1.0, loss, y=1.0 - kink - off), INVENTED)
            compared(one(["identity"], 0.0, loss, y=-kink - off), INVENTED[:2])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_largest_number(loss: str) -> None:
    """Each bound becomes infinite where the reference says, not at twice or half of it."""
    for seed, activation, reduction in ((1, "softmax", "mean"), (2, "identity", "mean"), (3, "softplus", "sum")):
        if loss != "negative_log_likelihood" or activation == "softmax":
            p = small([activation, activation], seed, loss, reduction, sizes=(2, 2, 2), n=2, scale=1.5)
            compared(p, [replace(MEDIUM, largest=1.3**k) for k in range(-6, 16)])


@pytest.mark.parametrize("name", ["loss", "delta2", "delta3", "W1"])
@pytest.mark.parametrize(
    ("last", "loss", "scale"),
    [("identity", "cross_entropy", 1.0), ("identity", "squared_error", 1.0), ("selu", "absolute_error", 0.1)],
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_largest_number_at_which_a_bound_becomes_infinite(
    name: str, last: str, loss: str, scale: float, reduction: str
) -> None:
    """To a millionth, found by halving. selu's f' is above 1, so that delta is larger than what it is made of."""
    p = small(["identity", last], 8, loss, reduction, scale, sizes=(2, 2, 2), n=2)
    p.y[:] = scale * p.y
    batch, truth = certified(p)

    def finite(largest: float, reference: bool) -> bool:
        arithmetic = replace(COARSE, largest=largest)
        if reference:
            bound = Reference(p.spec, batch, truth, arithmetic).bounds()[name]
        else:
            bound = tolerance(p.spec, batch, truth, arithmetic).worst_case[name]
        return bool(np.isfinite(bound).all())

    low, high = 0.0, 1e4
    assert finite(high, reference=True)
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if finite(middle, reference=True) else (middle, high)
    assert not finite(high * (1 - 1e-6), reference=False)
    assert finite(high * (1 + 1e-6), reference=False)


@pytest.mark.parametrize(("largest", "bounded"), [(1.0, False), (math.nextafter(1, 2), True)])
def test_the_largest_number_itself_may_be_an_overflow(largest: float, bounded: bool) -> None:
    """1 · 1 where nothing rounds or underflows."""
    exact = Arithmetic("exact", 0.0, 0.0, 0.0, largest)
    (found,) = compared(one(["identity"], 1.0, "absolute_error", y=1.0), [exact])
    assert (found.worst_case["z2"] == (0.0 if bounded else math.inf)).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("last", ["identity", "softmax"])
def test_one_output(loss: str, last: str) -> None:
    last = "softmax" if loss == "negative_log_likelihood" else last
    for n, seed in ((1, 0), (3, 1)):
        p = small(["tanh", last], seed, loss, n=n, sizes=(2, 2, 1))
        compared(p, [*INVENTED, replace(COARSE, largest=0.5)])
    if LOSSES[loss].target == "classes":
        p = Problem(p.spec, p.params, p.x, np.full((3, 1), 1 - 2.0**-53), 0, 0)
        compared(p, [COARSE, ARITHMETICS["float64"]])


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float32", 1e-30), ("float32", 1e-42), ("float32", 1e20), ("float32", 1e30),
     ("float64", 1e-160), ("float64", 1e-312), ("float64", 1e30)],
)  # fmt: skip
def test_the_ends_of_the_range(dtype: str, scale: float) -> None:
    for seed, (activations, loss) in enumerate(
        ((["identity", "relu"], "squared_error"), (["tanh", "identity"], "absolute_error"),
         (["softmax", "identity"], "huber"), (["identity"], "cross_entropy"), (["silu"], "binary_cross_entropy"))
    ):  # fmt: skip
        p = small(activations, seed, loss, "sum", scale, dtype)
        compared(p, [ARITHMETICS[dtype], FLUSHING[dtype]])
        tiny_input = Problem(p.spec, problem(p.spec, 1, seed, dtype).params, (scale * p.x).astype(dtype), p.y, seed, 0)
        compared(tiny_input, [ARITHMETICS[dtype], FLUSHING[dtype], COARSE])
    compared(one(["identity", "relu"], 1e150, w=1e150), [ARITHMETICS["float64"]])


@pytest.mark.parametrize("value", [1e-3, 2.0**-6, 2.0**-9, 3.0])
def test_parameters_of_functions_below_the_normal_range_and_above_it(value: float) -> None:
    for activation in ({"name": "leaky_relu", "negative_slope": value}, {"name": "elu", "alpha": value}):
        for x in (-1.5, 0.7):
            compared(one([activation, activation], x, {"name": "huber", "delta": value}), INVENTED)
            zero = {**activation, max(activation, key=lambda key: key != "name"): 0.0}
            compared(one([zero, zero], x), INVENTED)


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_probabilities_that_underflow_or_are_flushed(last: str) -> None:
    """Rows of y with elements below 2⁻⁶, COARSE's smallest normal number, and s as small."""
    p = small([last], 3, "negative_log_likelihood", sizes=(1, 3), n=2)
    y = np.array([[0.0, 2.0**-7, 1 - 2.0**-7], [2.0**-6, 0.0, 1 - 2.0**-6]])
    for scale in (1.0, 5.0, 20.0, 400.0):
        params = {name: scale * array for name, array in p.params.items()}
        for loss in ("negative_log_likelihood", "cross_entropy", "squared_error", "binary_cross_entropy"):
            spec = network((1, 3), [last if loss[0] == "n" else "identity"], loss, bias="b1" in params)
            if scale < 50 or loss != "negative_log_likelihood" or last == "softmax":
                compared(Problem(spec, params, p.x, y, 3, 0), [*INVENTED[:4], ARITHMETICS["float64"]])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8])
def test_sums_so_long_that_their_error_has_no_bound(n: int) -> None:
    """n u ≥ 1 for sums over inputs, neurons, samples and classes, each at its own n."""
    for sizes in ((n, 1, 1), (1, n, 1), (1, 1, n)):
        for samples in (1, n):
            for loss in ("squared_error", "cross_entropy"):
                p = small(["identity", "softmax"], n, loss, sizes=sizes, n=samples)
                compared(p, [replace(MEDIUM, unit_roundoff=2.0**-3)])


def test_a_certificate_with_wide_balls() -> None:
    """What the certificate does not know counts as well: the balls are mid + tail ± (radius + tail_rad)."""
    for activation, loss in (("tanh", "binary_cross_entropy"), ("elu", "absolute_error"), ("relu", "huber")):
        p = small([activation, activation], 4, loss, sizes=(2, 2, 2), n=2, scale=0.6)
        p = Problem(p.spec, p.params, p.x, np.abs(p.y) % 1, 4, 0)
        _, truth = certified(p)
        rng = np.random.default_rng(4)
        values = {
            name: Balls(balls.mid, balls.rad, 0.1 * rng.standard_normal(balls.mid.shape), rng.random(balls.mid.shape))
            for name, balls in truth.values.items()
        }
        compared(p, INVENTED[:4], replace(truth, values=values))


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "elu", "silu", "softmax"])
def test_a_value_beyond_float64_is_unbounded(activation: str) -> None:
    p = small(["identity", activation], 4, sizes=(2, 2, 2), n=2)
    _, truth = certified(p)
    for name in ("z2", "a2", "z3", "da3"):
        for beyond in (np.inf, -np.inf):
            b = truth.values[name]
            far = {name: Balls(np.full_like(b.mid, beyond), b.rad, b.tail, b.tail_rad)}
            compared(p, INVENTED[:1], replace(truth, values=truth.values | far))


def test_a_loss_beyond_float64_whose_derivative_is_none() -> None:
    """(s − y)²/2 overflows and s − y does not: whatever is not finite on the way counts as unbounded."""
    (found,) = compared(one(["identity"], 1e80, w=1e80), [ARITHMETICS["float64"]])
    assert np.isinf(found.worst_case["W1"]).all()


def ends(radius: float) -> list[tuple[float, bool]]:
    """Distances from a kink, and whether the ball of that radius meets it: ending there is meeting it."""
    end = float(flint.arb(0, radius).rad())  # the radius of a ball has 30 bits, rounded up
    return [(end, True), (math.nextafter(end, 1), False), (math.nextafter(end, 0), True)]


@pytest.mark.parametrize("activation", [name for name, entry in ACTIVATIONS.items() if entry.kinks])
@pytest.mark.parametrize("side", [1, -1])
def test_a_ball_that_ends_at_a_kink_has_met_it(activation: str, side: int) -> None:
    """Nothing rounds, and each of four products may lose η: z ± 4η."""
    for z, met in ends(4 * NO_ROUNDING.smallest_subnormal):
        (found,) = compared(one([activation], side * z, "absolute_error"), [NO_ROUNDING])
        assert (found.across_kinks["delta2"] > found.worst_case["delta2"]).all() == met


@pytest.mark.parametrize("loss", ["absolute_error", {"name": "huber", "delta": 0.5}])
@pytest.mark.parametrize("side", [1, -1])
def test_a_ball_that_ends_at_a_kink_of_the_loss_has_met_it(loss: Any, side: int) -> None:
    """And another 2η in the activation."""
    for off, met in ends(6 * NO_ROUNDING.smallest_subnormal):
        for kink in {0.0} if loss == "absolute_error" else {0.5, -0.5}:
            s = kink + side * off
            if s - kink == side * off:
                (found,) = compared(one(["identity"], s, loss, y=0.0), [NO_ROUNDING])
                assert (found.across_kinks["delta2"] > found.worst_case["delta2"]).all() == met


@pytest.mark.parametrize("biases", [(True, False), (False, True), (True, False, True)])
def test_some_layers_with_a_bias_and_some_without(biases: Sequence[bool]) -> None:
    layers = [LayerSpec(size, "tanh", bias) for size, bias in zip((2, 3, 1), biases, strict=False)]
    p = problem(NetworkSpec((2,), layers, "squared_error", "sum"), 2)
    compared(p, [MEDIUM])


@pytest.mark.parametrize(("sizes", "n"), [((1, 1), 1), ((2, 1, 3), 1), ((1, 3), 4)])
def test_the_evaluation_of_the_bounds_is_granted_its_own_roundings(sizes: Sequence[int], n: int) -> None:
    """Where nothing rounds and each of 2k + 2 products may lose η, the bound of z is that times 1 + operations 2⁻⁵²."""
    p = small(["identity"] * (len(sizes) - 1), 1, sizes=sizes, n=n)
    p.x[:], p.params["W1"][:] = 1.0, 1.0
    (found,) = compared(p, [NO_ROUNDING])
    operations = sum(2 * size + n + 64 for size in sizes)
    exact = 2 * (sizes[0] + 1) * NO_ROUNDING.smallest_subnormal
    assert (found.worst_case["z2"] == exact * (1 + operations * 2.0**-52)).all()


def test_products_that_float64_itself_loses() -> None:
    """Below 2⁻⁹⁶⁰ a sum of products may be 0 only because float64 says so: then η counts, if no factor is 0."""
    tiny = replace(NO_ROUNDING, smallest_subnormal=2.0**-500)
    for exponent in (-470, -479, -480, -481, -520, -537, -540):
        for other in (exponent, exponent - 1):
            for zero in (None, "x", "W1"):
                p = one(["identity", "identity"], 2.0**exponent, "absolute_error", w=2.0**other)
                if zero:
                    (p.x if zero == "x" else p.params["W1"])[:] = 0.0
                compared(p, [tiny, ARITHMETICS["float64"]])
    two = Problem(network([2, 2], ["identity"], "absolute_error", "sum", bias=True),
                  {"W1": np.array([[2.0**-481, 0.0], [1.0, 2.0**-600]]), "b1": np.array([0.0, 2.0**-970])},
                  np.array([[2.0**-481, 0.0], [0.0, 2.0**-600]]), np.ones((2, 2)), 0, 0)  # fmt: skip
    compared(two, [tiny, NO_ROUNDING, ARITHMETICS["float64"]])


def test_a_mean_that_cancels_within_softmax() -> None:
    """d − Σ a d is 0 for equal d, but for the float64 numbers it is taken of."""
    spec = network([2, 3, 1], ["softmax", "identity"], "absolute_error", "sum", bias=False)
    W1 = np.random.default_rng(0).standard_normal((3, 2))
    for d in (1.0, 0.1, 3.0):
        p = Problem(spec, {"W1": W1, "W2": np.full((1, 3), d)}, np.ones((1, 2)), np.zeros((1, 1)), 0, 0)
        compared(p, [ARITHMETICS["float64"], NO_ROUNDING])


@pytest.mark.parametrize("activation", [name for name, entry in ACTIVATIONS.items() if entry.elementwise])
def test_no_activation_has_suprema_over_a_ball_without_ends(activation: str) -> None:
    function = ACTIVATIONS[activation]
    kwargs = {key: parameter.default for key, parameter in function.parameters.items()}
    for mid, radius in itertools.product((-math.inf, -1.0, 0.0, 1.0, math.inf, math.nan), (0.0, 1.0, math.inf)):
        if not (math.isfinite(mid) and math.isfinite(radius)):
            found = activation_suprema(function, kwargs, ball(mid), np.array([radius]))
            assert (found.value, found.slope, found.curvature, found.jump) == (math.inf,) * 4


@pytest.mark.parametrize("loss", [name for name, entry in LOSSES.items() if entry.elementwise])
def test_no_loss_has_suprema_over_a_ball_without_ends(loss: str) -> None:
    function = LOSSES[loss]
    kwargs = {key: parameter.default for key, parameter in function.parameters.items()}
    for mid, radius in itertools.product((-math.inf, 0.5, math.inf, math.nan), (0.0, 1.0, math.inf)):
        if not (math.isfinite(mid) and math.isfinite(radius)):
            found = loss_suprema(function, kwargs, ball(mid), np.array([radius]), np.array([0.5]))
            assert (found.value, found.slope, found.curvature, found.jump) == (math.inf,) * 4


def ball(mid: float) -> Balls:
    return Balls(np.array([mid]), np.zeros(1), np.zeros(1), np.zeros(1))


def test_errors_of_very_different_sizes_add_up_like_their_squares() -> None:
    """Samples of 1e±120, neurons of 1e±120 before and after: no square is lost where a row or a column is alike."""
    rng = np.random.default_rng(1)
    spec = network([2, 2, 2], ["identity", "identity"], "absolute_error", "sum", bias=False)
    for before, after in itertools.product((0, 40, 120), repeat=2):
        sizes = np.array([[10.0**before], [10.0**-before]])
        params = {
            "W1": rng.standard_normal((2, 2)),
            "W2": rng.standard_normal((2, 2)) * 10.0 ** np.array([[after], [-after]]),
        }
        p = Problem(spec, params, rng.standard_normal((2, 2)) * sizes, np.zeros((2, 2)), 0, 0)
        compared(p, [ARITHMETICS["float64"]])


class TestTheStatisticalProduct:
    """The 2-norm of the errors of a matrix product, whose squares float64 may lose."""

    def product(self, left: Any, right: Any) -> float:
        p = one(["identity"], 1.0)
        walk = _Walk(p.spec, *certified(p), COARSE, statistical=True)
        return float(walk._product(np.array([left]), np.array([right]).T)[0, 0])

    def test_is_the_2_norm_unless_its_squares_are_lost_and_the_1_norm_then(self) -> None:
        t = 2.0**-481  # the largest of each side meets a 0
        assert self.product([1, 1, 1, 1, 1, 0], [t, t, t, t, 0, 1]) == 2 * t  # squares of 2⁻⁹⁶⁰ are not lost
        assert self.product([1, 1, 0, 1], [t, t, 1, 0]) == 2 * t
        assert self.product([1, 1, 1, 0], [t, t, t, 1]) == 3 * t
        assert self.product([3.0, 4.0], [1.0, 1.0]) == 5.0

    def test_its_scales_are_powers_of_two_along_an_axis(self) -> None:
        array = np.array([[3.0, 0.5], [1e-200, 1e300], [0.0, 0.0]])
        assert _scale(array, axis=0).tolist() == [[2.0, 2.0 ** math.floor(math.log2(1e300))]]
        assert _scale(array, axis=1).tolist() == [[2.0], [2.0 ** math.floor(math.log2(1e300))], [0.5]]


def test_the_mean_within_softmax_is_granted_what_float64_rounds_off() -> None:
    """Nothing but a_error there, and so little of it that its own square is less: a (d − Σ a d) for equal d."""
    for width, d in ((2, 1.0), (3, -0.5), (9, 4.0)):
        p = small(["softmax"], 0, sizes=(1, width), n=1)
        walk = _Walk(p.spec, *certified(p), Arithmetic("exact", 0.0, 0.0, 0.0, math.inf))
        a = np.eye(1, width)
        a_error = np.where(a == 0, 1e-40, 0.0)
        layer = replace(walk.layers[0], a=a, a_error=a_error)
        signal = walk._softmax_error_signal(layer, np.full((1, width), d), np.zeros((1, width)))
        mean = (width + 2) * 2.0**-53 * 2 * abs(d)  # |d| and Σ a |d|
        assert signal[0, 1:] == pytest.approx(1e-40 * mean, rel=1e-12, abs=0)


def test_probabilities_that_sum_to_more_than_one_leave_a_drift_that_is_unbounded_and_no_nan() -> None:
    a = np.array([[0.5, 0.5, 2.0**-50]])
    for radius in (40.0, 800.0, math.inf):
        with np.errstate(divide="ignore"):
            factor = softmax_factor(np.zeros((1, 3)), a, np.full((1, 3), radius), 2.0**-53)
        assert (factor == math.inf).all()
    factor = softmax_factor(np.zeros((1, 3)), np.full((1, 3), 0.25), np.full((1, 3), 40.0), 2.0**-53)
    assert factor == pytest.approx(4 * math.exp(40), rel=1e-12)  # e^R / (1 − Σ a)
