"""The certified gradient: two routes overlap, the radii are small, ties follow the spec, and mpmath agrees."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from threading import Barrier

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from networks import DTYPES, article, judge, network, problem
from recursion import by_recursion, by_series

from refimpl import CertificationError, certify, examples
from refimpl.judge.tolerance import tolerance
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.batch import validate
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem, random_problem
from refimpl.truth.balls import Balls
from refimpl.truth.certification import Certificate, certify_batch
from refimpl.truth.gradients import VJPS


def small_problem(index: int, dtype: str, work: int = 720_000) -> Problem:
    """The first problem from `index` on that takes so little of the second route: its time goes with the square of the
    parameters and the samples.
    """
    while True:
        p = random_problem(99, index, dtype)
        if p.spec.n_parameters**2 * len(p.x) <= work:
            return p
        index += 1


@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_the_graph_and_the_recursion_overlap(index: int, dtype: str) -> None:
    p = small_problem(index, dtype)
    batch = validate(p.spec, p.params, p.x, p.y)
    truth, other = certify_batch(p.spec, batch), by_recursion(p.spec, batch)
    assert (truth.undecided, truth.dtype) == (other.undecided, batch.dtype)
    assert truth.loss.overlaps(other.loss).all()
    assert (list(truth.grads), set(truth.values)) == (list(other.grads), set(other.values))
    for name, balls in {**truth.grads, **truth.values}.items():
        assert balls.overlaps((other.grads | other.values)[name]).all(), f"{name} of problem {p.index}"


def test_a_gradient_that_misses_the_derivative_along_a_direction_is_no_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vector–Jacobian product that is off by 2⁻⁵⁰ is caught as the certificate is made."""
    right = VJPS["softmax"]
    wrong = {**VJPS, "softmax": lambda node, g: (right(node, g)[0] * (1 + 2.0**-50), right(node, g)[1])}
    monkeypatch.setattr("refimpl.truth.gradients.VJPS", wrong)
    p = problem(network((3, 4, 2), ["softmax", "tanh"]))
    with pytest.raises(AssertionError, match="forward and reverse mode disagree"):
        certify(p.spec, p.params, p.x, p.y)


@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_reverse_and_forward_mode_overlap(index: int, dtype: str) -> None:
    p = small_problem(index, dtype, 40_000)
    batch = validate(p.spec, p.params, p.x, p.y)
    truth = certify_batch(p.spec, batch)
    loss, grads = by_series(p.spec, batch, max(400, truth.precision))
    assert Balls.from_arbs([loss], ()).overlaps(truth.loss).all()
    assert set(grads) == set(p.spec.parameter_shapes)
    for name, balls in grads.items():
        assert Balls.from_arbs(balls, truth.grads[name].mid.shape).overlaps(truth.grads[name]).all(), (
            f"{name} of problem {p.index}"
        )


@given(index=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
@example(index=480, dtype="float64")  # exact gradients below float64's range
def test_every_radius_is_at_most_2_to_the_minus_80_of_its_value(index: int, dtype: str) -> None:
    p = small_problem(index, dtype)
    truth = certify(p.spec, p.params, p.x, p.y)
    assume(not truth.undecided)  # a tie that no precision can decide covers both sides and stays wide
    floor = ARITHMETICS[dtype].smallest_normal
    for name, balls in {"loss": truth.loss, **truth.grads}.items():
        # below float64's range, each of the three outward roundings of a radius adds the smallest subnormal
        assert (balls.tail_rad <= 2.0**-80 * np.maximum(np.abs(balls.mid), floor) + 3 * 5e-324).all(), (
            f"{name} of problem {p.index}"
        )


def test_forward_mode_differs_when_the_network_does() -> None:
    p = small_problem(3, "float64", 40_000)
    batch = validate(p.spec, p.params, p.x, p.y)
    nudged = validate(p.spec, {**p.params, "W1": p.params["W1"] * (1 + 1e-15)}, p.x, p.y)
    loss, _ = by_series(p.spec, nudged)
    assert not Balls.from_arbs([loss], ()).overlaps(certify_batch(p.spec, batch).loss).all()


MPMATH = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else mpmath.mpf(0.01) * z,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "selu": lambda z: (
        mpmath.mpf("1.0507009873554804934193349852946")
        * (z if z > 0 else mpmath.mpf("1.6732632423543772848170429916717") * mpmath.expm1(z))
    ),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3))),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "softsign": lambda z: z / (1 + abs(z)),
}


@pytest.mark.parametrize("name", [name for name, entry in ACTIVATIONS.items() if entry.elementwise])
@pytest.mark.parametrize("z", [-30.0, -2.5, -0.3, 0.2, 1.7, 20.0])
def test_activation_and_its_derivative_are_those_of_mpmath(name: str, z: float) -> None:
    """One neuron with W = 1: a = f(z), and with ∂C/∂a = 1 the delta is f'(z)."""
    spec = network((1, 1), [name], "absolute_error", "sum", bias=False)
    one = np.ones((1, 1))
    truth = certify(spec, {"W1": one}, np.array([[z]]), np.array([[-1e6]]))
    with mpmath.workdps(120):
        assert (
            abs(MPMATH[name](mpmath.mpf(z)) - mpmath.mpf(truth.values["a2"].mid.item()))
            <= truth.values["a2"].rad.item()
        )
        derivative = mpmath.diff(MPMATH[name], mpmath.mpf(z), h=mpmath.mpf(10) ** -40)
        distance = abs(derivative - mpmath.mpf(truth.values["delta2"].mid.item()))
        assert distance <= truth.values["delta2"].rad.item() + mpmath.mpf(10) ** -38


def mp_losses(s: list[mpmath.mpf], y: list[mpmath.mpf]) -> dict[str, mpmath.mpf]:
    r = [a - b for a, b in zip(s, y, strict=True)]
    log_total = mpmath.log(sum(mpmath.exp(value) for value in s))
    return {
        "squared_error": sum(v * v for v in r) / 2,
        "mean_squared_error": sum(v * v for v in r) / len(r),
        "absolute_error": sum(abs(v) for v in r),
        "huber": sum(v * v / 2 if abs(v) <= 1 else abs(v) - mpmath.mpf(1) / 2 for v in r),
        "cross_entropy": sum(b * (log_total - a) for a, b in zip(s, y, strict=True)),
        "binary_cross_entropy": sum(mpmath.log1p(mpmath.exp(a)) - a * b for a, b in zip(s, y, strict=True)),
        "negative_log_likelihood": -sum(b * mpmath.log(a) for a, b in zip(s, y, strict=True)),
    }


@pytest.mark.parametrize("name", list(LOSSES))
def test_loss_is_that_of_mpmath(name: str) -> None:
    spec = network((3, 3), ["identity"], name, bias=False)
    x, y = np.array([[0.25, 2.5, 0.125], [1.5, 0.75, 3.0]]), np.array([[0.25, 0.5, 0.25], [0.5, 0.125, 0.375]])
    truth = certify(spec, {"W1": np.eye(3)}, x, y)
    with mpmath.workdps(60):
        rows = [
            mp_losses([mpmath.mpf(v) for v in s], [mpmath.mpf(v) for v in t])[name]
            for s, t in zip(x.tolist(), y.tolist(), strict=True)
        ]
        assert abs(sum(rows) / 2 - mpmath.mpf(truth.loss.mid.item())) <= truth.loss.rad.item()


def test_exact_ties_follow_the_convention_of_the_spec() -> None:
    """z = 0 exactly, by cancellation: relu's derivative is 0 there, leaky_relu's the slope, elu's alpha."""
    x, y, W = np.array([[1.0, 1.0]]), np.array([[-1e6]]), np.array([[0.1, -0.1]])
    for name, slope in (("relu", 0.0), ("leaky_relu", 0.01), ({"name": "elu", "alpha": 0.5}, 0.5), ("identity", 1.0)):
        truth = certify(network((2, 1), [name], "absolute_error", "sum", bias=False), {"W1": W}, x, y)
        assert truth.values["z2"].mid.item() == 0
        assert truth.values["delta2"].mid.item() == slope
        assert truth.undecided == ()


def test_a_residual_of_exactly_zero_has_derivative_zero() -> None:
    truth = certify(
        network((1, 1), ["identity"], "absolute_error", bias=False),
        {"W1": np.ones((1, 1))},
        np.array([[0.3]]),
        np.array([[0.3]]),
    )
    assert truth.grads["W1"].mid.item() == 0
    assert truth.loss.mid.item() == 0


def test_a_tie_that_no_precision_decides_is_listed_and_stays_wide() -> None:
    """tanh(0.3) − tanh(0.3) is 0, but no finite precision proves it."""
    spec = network((1, 2, 1), ["tanh", "relu"], "absolute_error", "sum", bias=False)
    params = {"W1": np.array([[0.3], [0.3]]), "W2": np.array([[1.0, -1.0]])}
    truth = certify(spec, params, np.array([[1.0]]), np.array([[-1.0]]))
    assert truth.undecided == ("z3[1,1] at a kink of relu",)
    assert truth.grads["W2"].rad.max() > 0.1
    assert judge(Problem(spec, params, np.array([[1.0]]), np.array([[-1.0]]), 0, 0)).truth.undecided


def test_a_logarithm_of_a_negative_number_is_an_error_that_says_so() -> None:
    p = problem(network((3, 2), ["identity"], "negative_log_likelihood"))
    with pytest.raises(CertificationError, match=r"negative_log_likelihood.*softmax or sigmoid"):
        certify(p.spec, p.params, p.x, p.y)


def cancelling(activation: str) -> Problem:
    """The last z is 2 tanh ½ · 10¹⁰⁰ less itself: 0, which 200 bits do not know to within 10³⁹."""
    spec = network((1, 2, 2), ["tanh", activation], reduction="sum", bias=False)
    params = {"W1": np.array([[0.5], [0.5]]), "W2": np.array([[1e100, -1e100], [2.0, -1.0]])}
    return Problem(spec, params, np.ones((1, 1)), np.ones((1, 2)), 0, 0)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name not in ("relu", "leaky_relu", "identity")])
def test_huge_weights_that_cancel_take_more_precision(activation: str) -> None:
    truth = judge(cancelling(activation)).truth
    assert truth.precision > 500
    assert abs(truth.values["z3"].mid[0, 0]) <= truth.values["z3"].rad[0, 0] <= 1e-30
    assert np.isfinite(truth.loss.mid)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_logits_beyond_what_200_bits_tell_apart_are_certified(loss: str) -> None:
    spec = network((1, 2), ["identity"], loss, "sum", bias=False)
    truth = certify(spec, {"W1": np.array([[1e100], [2e100]])}, np.ones((1, 1)), np.array([[1.0, 0.0]]))
    assert truth.loss.mid == pytest.approx({"cross_entropy": 1e100, "binary_cross_entropy": 2e100}[loss], rel=1e-15)


def test_one_float64_ulp_away_is_told_from_the_truth() -> None:
    x, y = examples.article_batch()
    truth = certify(examples.article(), examples.article().init(0), x, y).grads["W2"]
    assert (truth.distance(truth.mid) <= np.spacing(np.abs(truth.mid))).all()
    assert (truth.distance(np.nextafter(truth.mid, np.inf)) > 0.4 * np.spacing(np.abs(truth.mid))).all()
    assert np.isinf(truth.distance(np.full_like(truth.mid, np.nan))).all()


def test_repr_says_shape_and_radius() -> None:
    x, y = examples.article_batch()
    assert "shape=(2, 4)" in repr(certify(examples.article(), examples.article().init(0), x, y).grads["W1"])


def test_the_finer_ball_holds_what_is_below_float64s_range(rng: np.random.Generator) -> None:
    for _ in range(20):
        w, x, y = rng.uniform(1, 2), rng.uniform(1, 2) * 2.0**-500, rng.uniform(1, 2) * 2.0**-500
        spec = network((1, 1), ["identity"], reduction="sum", bias=False)
        ball = certify(spec, {"W1": np.array([[w]])}, np.array([[x]]), np.array([[y]])).grads["W1"]
        mid, tail, tail_rad = (Fraction(float(part[0, 0])) for part in (ball.mid, ball.tail, ball.tail_rad))
        assert abs((Fraction(w) * Fraction(x) - Fraction(y)) * Fraction(x) - mid - tail) <= tail_rad


def test_a_tie_at_one_kink_leaves_the_far_pieces_out() -> None:
    spec = network((1, 2, 1), ["sigmoid", "identity"], {"name": "huber", "delta": 1.0}, "sum", bias=False)
    params = {"W1": np.array([[0.3], [0.3]]), "W2": np.array([[1.0, -1.0]])}
    truth = certify(spec, params, np.ones((1, 1)), np.array([[-1.0]]))
    assert truth.undecided
    assert (truth.grads["W2"].rad < 1e-15).all()


def everything(truth: Certificate) -> dict[str, bytes]:
    balls = {"loss": truth.loss, **truth.grads, **truth.values}
    return {
        f"{name} {part}": getattr(ball, part).tobytes()
        for name, ball in balls.items()
        for part in ("mid", "rad", "tail", "tail_rad")
    }


def test_several_threads_get_the_balls_that_one_gets_and_the_precision_stays() -> None:
    """Certificates of 200 and of more than 500 bits, and tolerances, which take 64."""
    problems = [article(3), cancelling("tanh"), problem(network((3, 4, 2), ["gelu", "softmax"]), 4)]
    alone = [judge(p) for p in problems]
    assert alone[1].truth.precision > 500 > alone[0].truth.precision
    bounds = alone[2].tolerance(ARITHMETICS["float64"]).worst_case
    tasks = 2 * len(problems) + 2
    together = Barrier(tasks)

    def work(task: int) -> None:
        together.wait(timeout=60)
        for turn in range(12):
            p, known = problems[(task + turn) % 3], alone[(task + turn) % 3]
            if task < 2 * len(problems):
                assert everything(certify(p.spec, p.params, p.x, p.y)) == everything(known.truth)
            else:
                found = tolerance(alone[2].spec, alone[2].batch, alone[2].truth, ARITHMETICS["float64"]).worst_case
                assert {name: bound.tobytes() for name, bound in found.items()} == {
                    name: bound.tobytes() for name, bound in bounds.items()
                }

    interval = sys.getswitchinterval()
    with flint.ctx.workprec(77), ThreadPoolExecutor(tasks) as pool:
        sys.setswitchinterval(1e-6)
        try:
            list(pool.map(work, range(tasks)))
        finally:
            sys.setswitchinterval(interval)
        assert flint.ctx.prec == 77


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda balls: pickle.loads(pickle.dumps(balls))])
@pytest.mark.parametrize("asked", [False, True])
def test_balls_are_copied_and_pickled_with_their_radii(again: Callable[[Balls], Balls], asked: bool) -> None:
    balls, other = (judge(article()).truth.grads["W1"] for _ in range(2))
    if asked:
        assert balls.rad.any()
    copied = again(balls)
    for part in ("mid", "rad", "tail", "tail_rad"):
        assert np.array_equal(getattr(copied, part), getattr(other, part))
