"""The worst case of refimpl/judge/tolerance.py, a walk over a graph of primitives, beside one recursion for fully
connected networks that knows nothing of graphs (reference_tolerance.py): element by element, on either side of kinks
and across them, in arithmetics so coarse that every term is seen, and in the real ones.

Both are bounds of the same roundings, granted in different places, so that their quotients are held and not their
digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import flint
import numpy as np
import pytest
from networks import network, problem
from reference_tolerance import Reference

from refimpl.judge.bounds import THEOREM, Bounds, Tolerance
from refimpl.judge.tolerance import tolerance
from refimpl.network.arithmetic import ARITHMETICS, FLUSHING, Arithmetic
from refimpl.network.batch import Batch, validate
from refimpl.network.functions import ACTIVATIONS, LOSSES, SMALLEST
from refimpl.network.random_problems import Problem
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.truth.balls import Balls
from refimpl.truth.certification import Certificate, certify_batch
from refimpl.truth.elementwise import activation as elementwise
from refimpl.truth.suprema import suprema

# u, the smallest normal and subnormal number, and the largest: what is far apart in float32 meets in these
COARSE = Arithmetic("coarse", 2.0**-9, 2.0**-6, 2.0**-9, 2.0**9)
MEDIUM = Arithmetic("medium", 2.0**-16, 2.0**-12, 2.0**-16, 2.0**30)
NO_ROUNDING = Arithmetic("no rounding", 0.0, 2.0**-20, 2.0**-24, math.inf)
INVENTED = [
    flushing for one in (MEDIUM, COARSE, NO_ROUNDING) for flushing in (one, replace(one, flushes_subnormals=True))
]

# What a bound is of the reference's, by the unit roundoff. In float64 and float32 these are quotients of roundings
# granted: 1 in the place of 4 for a square, γ₃ in the place of γ₁ for one product.
WITHIN = {
    ARITHMETICS["float64"].unit_roundoff: (0.249, 3.001),
    ARITHMETICS["float32"].unit_roundoff: (0.499, 1.46),
    MEDIUM.unit_roundoff: (0.40, 8.8),  # what underflows in σ(s) times 1/N counts more than once, here and below
    COARSE.unit_roundoff: (0.071, 6.9),
    NO_ROUNDING.unit_roundoff: (0.41, 9.4),
}
ACROSS_KINKS = WITHIN | {COARSE.unit_roundoff: (0.071, 92.0)}  # a kink may be within reach of one of the two only
# finite where the reference is at the largest number over SOONER × `parts`, infinite where it is at LATER times it
SOONER, LATER = 1.4, 1.8


def batch(p: Problem) -> Batch:
    return validate(p.spec, p.params, p.x, p.y)


def certified(p: Problem) -> Certificate:
    return certify_batch(p.spec, batch(p))


def compared(
    p: Problem, arithmetics: Sequence[Arithmetic], within: tuple[float, float] | None = None
) -> list[Tolerance]:
    """The tolerances, once every bound over the reference's lies `within` two numbers, by default those of the
    arithmetic, both are 0 where one is, and both become infinite at about the same largest number.
    """
    truth = certified(p)
    all_found = []
    for arithmetic in arithmetics:
        found = bounds_of(p, truth, arithmetic)
        for across, bounds in enumerate((found.worst_case, found.across_kinks)):
            low, high = within or (ACROSS_KINKS if across else WITHIN)[arithmetic.unit_roundoff]
            reference = wanted(p, truth, arithmetic, bool(across))
            assert bounds.keys() == reference.keys()
            for name, bound in bounds.items():
                case = (name, bool(across), arithmetic, p)
                assert bound.shape == reference[name].shape, case
                assert not np.isnan(bound).any(), case
                agree(bound, reference[name], low, high, case)
            same_infinities(p, truth, arithmetic, bool(across), bounds, reference)
        all_found.append(found)
    return all_found


def agree(bound: Any, reference: Any, low: float, high: float, case: tuple[Any, ...]) -> None:
    """Where both are finite."""
    both = np.isfinite(bound) & np.isfinite(reference)
    new, old = bound[both], reference[both]
    assert (low * old <= new).all(), (new, old, *case)
    # a product below float64's range, which is not 0, is none in the recursion
    assert (new <= high * old + 64 * SMALLEST).all(), (new, old, *case)


def bounds_of(p: Problem, truth: Certificate, arithmetic: Arithmetic) -> Tolerance:
    with np.errstate(all="ignore"):
        return tolerance(p.spec, batch(p), truth, arithmetic, inputs=True, by=THEOREM)


def wanted(p: Problem, truth: Certificate, arithmetic: Arithmetic, across: bool = False) -> dict[str, np.ndarray]:
    found = Reference(p.spec, batch(p), truth, arithmetic).bounds(across)
    return {name: np.asarray(bound) for name, bound in found.items()}


def same_infinities(
    p: Problem, truth: Certificate, arithmetic: Arithmetic, across: bool, bounds: Bounds, reference: Bounds
) -> None:
    """Where they differ, the largest number decides: the reference multiplies by `parts` backwards only, and adds up
    |s| and |y|, doubled, whatever the loss.
    """
    if all((np.isfinite(bound) == np.isfinite(reference[name])).all() for name, bound in bounds.items()):
        return
    fewer, more = (
        wanted(p, truth, replace(arithmetic, largest=arithmetic.largest * factor), across)
        for factor in (1 / (SOONER * parts(p)), LATER)
    )
    for name, bound in bounds.items():
        case = (name, across, bound, fewer[name], more[name], arithmetic, p)
        assert np.isfinite(bound[np.isfinite(fewer[name])]).all(), case
        assert np.isinf(bound[np.isinf(more[name])]).all(), case


def parts(p: Problem) -> int:
    """What the loss may be divided by last."""
    n = len(p.x) if p.spec.reduction == "mean" else 1
    half = 2 if p.spec.loss.name == "squared_error" else 1
    return half * n * (p.spec.n_out if LOSSES[p.spec.loss.name].averages_outputs else 1)


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


@pytest.mark.parametrize("seed", [0, 1, 2, 4])  # at 3, one of two balls of softsign's z reaches the pole of z/(1 − z)
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
    within = 0.127, 1045.0  # a y that is flushed may lie on the other side: that the reference forgets
    for kink in {-delta, delta}:
        for off in (0.0, 1e-4, -1e-4, 0.2, -0.2):
            compared(one(["identity"], 1.0, loss, y=1.0 - kink - off), INVENTED, within)
            compared(one(["identity"], 0.0, loss, y=-kink - off), INVENTED[:2], within)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_largest_number(loss: str) -> None:
    """Each bound becomes infinite about where the reference's does."""
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
    """Found by halving. selu's f' is above 1, so that delta is larger than what it is made of."""
    p = small(["identity", last], 8, loss, reduction, scale, sizes=(2, 2, 2), n=2)
    p.y[:] = scale * p.y
    truth = certified(p)

    def least(bounds: Callable[[Arithmetic], Bounds]) -> float:
        low, high = 0.0, 1e4
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            finite = np.isfinite(bounds(replace(COARSE, largest=middle))[name]).all()
            low, high = (low, middle) if finite else (middle, high)
        return high

    found = least(lambda arithmetic: bounds_of(p, truth, arithmetic).worst_case)
    reference = least(lambda arithmetic: wanted(p, truth, arithmetic))
    assert 0.4 * reference <= found <= 1.01 * parts(p) * reference


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
    # the reference knows that errors of s cancel in log Σ e^s − s and in log(1 + e^s) − y s
    within = (0.54, 2.4e5) if loss in {"cross_entropy", "binary_cross_entropy"} else None
    for n, seed in ((1, 0), (3, 1)):
        p = small(["tanh", last], seed, loss, n=n, sizes=(2, 2, 1))
        compared(p, [*INVENTED, replace(COARSE, largest=0.5)], within)
    if LOSSES[loss].target == "classes":
        p = Problem(p.spec, p.params, p.x, np.full((3, 1), 1 - 2.0**-53), 0, 0)
        compared(p, [COARSE, ARITHMETICS["float64"]], (0.5, 4.8))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float32", 1e-30), ("float32", 1e-42), ("float32", 1e20), ("float32", 1e30),
     ("float64", 1e-160), ("float64", 1e-312), ("float64", 1e30)],
)  # fmt: skip
def test_the_ends_of_the_range(dtype: str, scale: float) -> None:
    # the reference's sums with a bias lose η below the normal range, and are exact
    within = ({1e-42: 0.0, 1e-30: 0.14}.get(scale, 0.49), 10.5)
    for seed, (activations, loss) in enumerate(
        ((["identity", "relu"], "squared_error"), (["tanh", "identity"], "absolute_error"),
         (["softmax", "identity"], "huber"), (["identity"], "cross_entropy"), (["silu"], "binary_cross_entropy"))
    ):  # fmt: skip
        p = small(activations, seed, loss, "sum", scale, dtype)
        compared(p, [ARITHMETICS[dtype], FLUSHING[dtype]], within)
        tiny_input = Problem(p.spec, problem(p.spec, 1, seed, dtype).params, (scale * p.x).astype(dtype), p.y, seed, 0)
        compared(tiny_input, [ARITHMETICS[dtype], FLUSHING[dtype]], within)
        compared(tiny_input, [COARSE])
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
            # 4 roundings in the place of 11 (1 + y); else as for MEDIUM, where |s| counts in its third power
            within = (0.26, 51.0) if loss == "binary_cross_entropy" else None
            if scale < 50 or loss != "negative_log_likelihood" or last == "softmax":
                invented = INVENTED[: 4 if scale < 50 else 2]
                compared(Problem(spec, params, p.x, y, 3, 0), [*invented, ARITHMETICS["float64"]], within)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8])
def test_sums_so_long_that_their_error_has_no_bound(n: int) -> None:
    """n u ≥ 1 for sums over inputs, samples and neurons, and for the two roundings granted besides."""
    eighths = replace(MEDIUM, unit_roundoff=2.0**-3)
    for name, sizes, samples in (("z2", (n, 1), 1), ("W1", (1, 1), n), ("x", (1, n), 1)):
        p = small(["identity"], n, "absolute_error", "sum", sizes=sizes, n=samples)
        found = bounds_of(p, certified(p), eighths).worst_case[name]
        assert np.isfinite(found).all() == (n + 2 < 8), name


def test_what_the_certificate_does_not_know_is_no_part_of_a_bound() -> None:
    """The radii are granted where an answer is judged."""
    p = small(["tanh", "relu"], 4, "huber", sizes=(2, 2, 2), n=2, scale=0.6)
    truth = certified(p)
    rng = np.random.default_rng(4)
    values = {
        name: Balls(balls.mid, balls.rad, 0.1 * rng.standard_normal(balls.mid.shape), rng.random(balls.mid.shape))
        for name, balls in truth.values.items()
    }
    wide, narrow = (bounds_of(p, one, MEDIUM).across_kinks for one in (replace(truth, values=values), truth))
    assert all(np.array_equal(wide[name], bound) for name, bound in narrow.items())


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "elu", "silu"])
def test_a_value_beyond_float64_is_unbounded(activation: str) -> None:
    p = small(["identity", activation], 4, sizes=(2, 2, 2), n=2)
    truth = certified(p)
    for name in ("z2", "a2", "z3", "da3"):
        for beyond in (np.inf, -np.inf):
            b = truth.values[name]
            far = {name: Balls(np.full_like(b.mid, beyond), b.rad, b.tail, b.tail_rad)}
            found = bounds_of(p, replace(truth, values=truth.values | far), MEDIUM).worst_case
            assert all(np.isinf(found[of]).all() for of in ("W1", "W2", "delta2", "delta3", "x"))


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


def test_products_that_float64_itself_loses() -> None:
    """Below 2⁻⁹⁶⁰ a sum of products may be 0 only because float64 says so: then η counts, if no factor is 0."""
    tiny = replace(NO_ROUNDING, smallest_subnormal=2.0**-500)
    for exponent in (-470, -479, -480, -481, -520, -537, -540):
        for other in (exponent, exponent - 1):
            for zero in (None, "x", "W1"):
                p = one(["identity", "identity"], 2.0**exponent, "absolute_error", w=2.0**other)
                if zero:
                    (p.x if zero == "x" else p.params["W1"])[:] = 0.0
                # what is 0 rounds nothing, which the reference grants
                compared(p, [tiny, ARITHMETICS["float64"]], (0.0, 3.001) if zero else None)
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


@pytest.mark.parametrize("activation", [name for name, entry in ACTIVATIONS.items() if entry.pieces])
def test_no_activation_has_suprema_over_a_ball_without_ends(activation: str) -> None:
    parameters = ((key, parameter.default) for key, parameter in ACTIVATIONS[activation].parameters.items())
    function = elementwise(activation, tuple(parameters))
    for mid, radius in itertools.product((-math.inf, -1.0, 0.0, 1.0, math.inf, math.nan), (0.0, 1.0, math.inf)):
        if not (math.isfinite(mid) and math.isfinite(radius)):
            with np.errstate(all="ignore"):
                found = suprema(function, np.array([mid]), np.array([radius]))
            assert all(np.isinf(bound).all() for name, bound in vars(found).items() if name != "bend")


def test_errors_of_very_different_sizes() -> None:
    """Samples of 1e±120, neurons of 1e±120 before and after."""
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


# --------------------------------------------------------------------------------------------------------------
# Right implementations within the bounds, where a bound of less would not hold them

FLOAT32 = ARITHMETICS["float32"]


def single(params: dict[str, Any], x: Any, loss: str = "absolute_error", activation: str = "identity") -> Problem:
    """One layer on one sample in float32, all of y being 0."""
    W1 = np.array(params["W1"], "float32")
    spec = network([W1.shape[1], len(W1)], [activation], loss, "sum", bias="b1" in params)
    arrays = {name: np.array(value, "float32") for name, value in params.items()}
    return Problem(spec, arrays, np.array([x], "float32"), np.zeros((1, len(W1)), "float32"), 0, 0)


def worst(p: Problem) -> Bounds:
    return bounds_of(p, certified(p), FLOAT32).worst_case


def test_a_sum_that_begins_with_the_bias() -> None:
    x = np.full(1000, 1e-8, "float32")
    z = np.float32(1)
    for product in x:
        z += product
    found = worst(single({"W1": np.ones((1, 1000)), "b1": [1.0]}, x))
    assert 1 + float(x.astype(float).sum()) - float(z) <= found["z2"].item()


def test_a_sum_that_begins_with_the_bias_and_overflows() -> None:
    assert np.isinf(worst(single({"W1": [[2e38, -1e38]], "b1": [2e38]}, [1.0, 1.0]))["z2"]).all()


def test_the_softmax_of_what_may_overflow() -> None:
    assert np.isinf(worst(single({"W1": [[1e30], [-1e30]]}, [1e30], activation="softmax"))["a2"]).all()


def test_a_sum_of_squares_that_overflows_before_it_is_halved() -> None:
    assert np.isinf(worst(single({"W1": [[1.5e19], [1.5e19]]}, [1.0], "squared_error"))["loss"]).all()


def test_what_underflows_in_a_product_with_a_part_of_the_slope() -> None:
    """d σ(z) (1 + z(1 − σ(z))) from left to right, as PyTorch computes silu's error signal."""
    z = np.float32(-50)
    p = single({"W1": [[1.0]]}, [z], "squared_error", "silu")
    p.y[:] = -1.9643749e-20
    truth = certified(p)
    sigma = (1 / (1 + np.exp(-z.astype(float)))).astype("float32")
    delta = (z * sigma - p.y[0, 0]) * sigma * (1 + z * (1 - sigma))
    found = bounds_of(p, truth, FLOAT32).worst_case["delta2"]
    assert abs(float(delta) - truth.values["delta2"].mid.item()) <= found.item()
