"""The verdict on every element of an array, against a judge in loops, and at the very ends of the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from networks import DTYPES, judge, network, problem

from refimpl.judge.bounds import Tolerance
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, STATISTICAL, UNDETERMINED, WORST_CASE, Row
from refimpl.judge.verdicts import judged, largest_element, refused
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.truth.balls import Balls

OVERFLOW = "an intermediate value may overflow, or its derivative is unbounded, within the rounding errors"
WIDE = "the tolerance exceeds the largest element"
KINK = "a kink lies within the rounding errors"
NAN, INF = math.nan, math.inf


def balls(mid: Any, tail: Any = 0.0, tail_rad: Any = 0.0) -> Balls:
    mid = np.asarray(mid, dtype=np.float64)
    rest = [np.broadcast_to(np.asarray(part, dtype=np.float64), mid.shape).copy() for part in (tail, tail_rad)]
    return Balls(mid, np.zeros_like(mid), *rest)


def verdict_on(
    values: Any, truth: Balls, worst: Any, across: Any = None, statistical: Any = INF, statistical_across: Any = None,
    dtype: str = "float64", others: Mapping[str, Balls] | None = None,
) -> Row:  # fmt: skip
    """On `values` as the gradient W1; `others` are the other gradients."""
    jumped = statistical if statistical_across is None else statistical_across
    forms = [worst, worst if across is None else across, statistical, jumped]
    bounds = [{"W1": np.broadcast_to(np.asarray(form, dtype=np.float64), truth.mid.shape)} for form in forms]
    tolerance = Tolerance(*bounds, ARITHMETICS[dtype])
    largest = largest_element(truth.mid, {"W1": truth, **(others or {})})
    return judged("someone", "W1", np.asarray(values, dtype), truth, tolerance, dtype, largest)


def in_loops(
    values: Any, truth: Balls, worst: Any, across: Any, statistical: Any, jumped: Any, dtype: str = "float64",
    largest: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """What the row must say, from the docstrings of refimpl.judge.verdicts and Row, one element at a time."""
    largest = max(np.abs(truth.mid).max(), largest)
    nothing, largest = largest == 0, max(largest, ARITHMETICS[dtype].smallest_normal)
    distances = truth.distance(values)
    verdicts, ratios, ulps, kinked, bounds = {}, {}, {}, [], {}
    for at in np.ndindex(truth.mid.shape):
        slack, off = 2 * float(truth.tail_rad[at]), float(distances[at])
        bound = bounds[at] = min(worst[at], statistical[at])
        inside = off <= bound + slack
        outside = [off > limit[at] + slack and limit[at] < INF for limit in (across, jumped)]
        if not inside and any(outside):
            verdicts[at] = FAIL
        elif (nothing and values[at] == 0) or (inside and bound < INF and bound + slack < largest):
            verdicts[at] = PASS
        else:
            verdicts[at] = UNDETERMINED
            kinked.append(not inside and bound < INF)
        excess = max(off - slack, 0.0)
        if not math.isfinite(values[at]):
            ratios[at] = INF
        else:
            ratios[at] = 0.0 if excess == 0 or bound == INF else excess / bound if bound else INF
        ulp = float(np.spacing(np.abs(truth.mid[at]).astype(dtype)))
        excess = float(abs(truth.tail[at])) if values[at] == truth.mid[at] else off
        ulps[at] = INF if excess > ulp * 1e308 else excess / ulp
    found = set(verdicts.values())
    verdict = FAIL if FAIL in found else UNDETERMINED if UNDETERMINED in found else PASS
    at = max((at for at in verdicts if verdicts[at] == verdict), key=lambda at: ratios[at])
    still_open = [at for at in verdicts if verdicts[at] == UNDETERMINED]
    reason = by = ""
    if verdict == FAIL:
        reason = "" if math.isfinite(values[at]) else f"{values[at]} where the truth is finite"
        by = WORST_CASE if distances[at] > across[at] + 2 * truth.tail_rad[at] else STATISTICAL
    elif verdict == UNDETERMINED:
        reason = OVERFLOW if any(bounds[place] == INF for place in still_open) else KINK if any(kinked) else WIDE
    top = max(np.ndindex(truth.mid.shape), key=lambda place: abs(truth.mid[place]))
    change, size = min(across[top], jumped[top]) + 2 * truth.tail_rad[top], abs(truth.mid[top])
    return {
        "backend": "someone", "quantity": "W1", "verdict": verdict, "size": truth.mid.size,
        "failed": list(verdicts.values()).count(FAIL), "undetermined": len(still_open),
        "ratio": float(ratios[at]), "ulps": float(ulps[at]), "index": tuple(i + 1 for i in at),
        "value": float(values[at]), "truth": float(truth.mid[at]), "bound": float(bounds[at]), "reason": reason,
        "by": by, "saturated": 0, "noticed": float(change / size) if size else INF if change else NAN,
    }  # fmt: skip


def drawn(rng: np.random.Generator, worst: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Bounds across kinks, statistical, and that across kinks, beside a worst case."""
    across = np.maximum(worst, rng.choice([0.0, 0.0, 0.1, INF], shape))
    statistical = np.where(np.isinf(worst), rng.choice([1e-4, INF], shape), worst * rng.choice([0.01, 0.5, 1.0], shape))
    return across, statistical, np.maximum(statistical, rng.choice([0.0, 0.0, 0.05, INF], shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3)])
def test_every_field_of_a_row_is_that_of_a_judge_in_loops(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> None:
    seen = set()
    for trial in range(80):
        truth = balls(
            rng.choice([0.0, 1.0, -3.0, 1e-3], shape), rng.choice([0.0, 1e-12], shape), rng.choice([0.0, 1e-9], shape)
        )
        worst = rng.choice([1e-7, 1e-4] if trial % 4 else [0.0, 1e-4, 0.02, 0.5, INF], shape)
        forms = drawn(rng, worst, shape)
        times = rng.choice([0.0, 0.3, 0.999, -0.999] if trial % 2 else [0.0, 0.999, 1.5, -1.5, 300.0], shape)
        bound = np.minimum(worst, forms[1])
        values = (truth.mid + times * np.where(np.isfinite(bound), bound, 0.01)).astype(dtype)
        if trial % 7 == 0:
            values = np.where(rng.random(shape) < 0.4, rng.choice([NAN, INF, -INF]), values).astype(dtype)
        row = verdict_on(values, truth, worst, *forms, dtype)
        wanted = in_loops(values, truth, worst, *forms, dtype)
        assert str(vars(row)) == str(wanted)
        seen.add(row.verdict)
    assert seen == {PASS, FAIL, UNDETERMINED}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", ["W1", "z2", "delta3"])
def test_one_element_is_judged_as_it_is_among_all(rng: np.random.Generator, key: str, dtype: str) -> None:
    known = judge(problem(network((2, 3, 2), ["tanh", "identity"]), n=4, dtype=dtype))
    kind = "grads" if key in known.truth.grads else "values"
    among = getattr(known.truth, kind)
    shape = among[key].mid.shape
    seen = set()
    for trial in range(60):
        mid = rng.choice([0.0, 1.0, -3.0], shape) if trial % 4 else np.zeros(shape)
        truth = balls(mid, rng.choice([0.0, 1e-12], shape), rng.choice([0, 1e-9], shape))
        worst = rng.choice([1e-7, 1e-4, 0.5, INF], shape)
        forms = (worst, *drawn(rng, worst, shape))
        bounds = [{key: form} for form in forms]
        asked: list[Arithmetic] = []

        def tolerance(arithmetic: Arithmetic, bounds: Any = bounds, asked: Any = asked) -> Tolerance:
            asked.append(arithmetic)
            return Tolerance(*bounds, arithmetic)

        certificate = replace(known.truth, **{kind: {**among, key: truth}})
        at = tuple(int(rng.integers(size)) for size in shape)
        value = truth.mid[at] + rng.choice([0.0, 0.9e-7, 0.9e-4, 0.05, 300.0, NAN])
        alone = Balls(*(getattr(truth, part)[at].reshape(1) for part in ("mid", "rad", "tail", "tail_rad")))
        here = [form[at].reshape(1) for form in forms]
        of_its_kind = getattr(certificate, kind).values() if kind == "grads" and not mid.any() else [truth]
        largest = max(np.abs(b.mid).max() for b in of_its_kind)
        wanted = in_loops(np.array([value], dtype), alone, *here, dtype, largest=largest)
        wanted |= {"quantity": key, "index": tuple(i + 1 for i in at)}
        row = Judge(known.spec, known.batch, certificate, tolerance).judge_element("someone", key, float(value), at)
        assert str(vars(row)) == str(wanted)
        assert set(asked) == {ARITHMETICS[dtype]}
        seen.add(row.verdict)
    assert seen == {PASS, FAIL, UNDETERMINED}


def test_what_no_number_can_be_compared_with_fails_without_numbers() -> None:
    found = asdict(refused("someone", "W1", "is missing", size=6))
    blank = dict.fromkeys(("value", "truth", "bound", "noticed"))
    assert all(math.isnan(found.pop(name)) for name in blank)
    assert found == {
        "backend": "someone", "quantity": "W1", "verdict": FAIL, "size": 6, "failed": 6, "undetermined": 0,
        "ratio": INF, "ulps": INF, "index": (), "reason": "is missing", "by": "", "saturated": 0,
    }  # fmt: skip


def test_a_value_at_its_bound_passes_and_the_next_one_fails() -> None:
    bound = 2.0**-20
    at, beyond = 1 + bound, np.nextafter(1 + bound, 2) + 2.0**-51
    assert verdict_on([at], balls([1.0]), bound * (1 + 2.0**-51)).verdict == PASS
    assert verdict_on([beyond], balls([1.0]), bound).verdict == FAIL


def test_the_certificates_own_radius_is_granted_twice() -> None:
    """Once for the distance, which is taken to the far end of the ball, and once for the bound."""
    truth = balls([1.0], 0.0, 2.0**-10)
    off = {times: verdict_on([1.0 + times * 2.0**-10], truth, 0.0).verdict for times in (0, 0.99, 1.01)}
    assert off == {0: PASS, 0.99: PASS, 1.01: FAIL}
    wide = balls([0.0, 1.0], 0.0, [2.0**-8, 0.0])
    assert verdict_on([0.0, 1.0], wide, 0.0).undetermined == 0
    assert verdict_on([0.0, 1.0], wide, 0.995).undetermined == 1


@pytest.mark.parametrize(("bound", "verdict"), [(np.nextafter(1, 0), PASS), (1.0, UNDETERMINED)])
def test_a_bound_below_the_largest_element_decides_and_another_does_not(bound: float, verdict: str) -> None:
    assert verdict_on([1.0, 0.5], balls([1.0, 0.5]), bound).verdict == verdict
    assert verdict_on([1.0, 0.5], balls([1.0, 0.5]), 2.0, statistical=bound).verdict == verdict


def test_zeros_are_held_against_the_largest_gradient_and_then_the_smallest_normal_number() -> None:
    zeros, smallest = balls([0.0, 0.0]), ARITHMETICS["float64"].smallest_normal
    others = {"W2": balls([1.0, -5.0]), "x": balls([2.0])}
    assert verdict_on([0.0, 0.0], zeros, 4.999, others=others).verdict == PASS
    assert verdict_on([0.0, 0.0], zeros, 5.0, others=others).verdict == UNDETERMINED
    least = 0.001 * smallest
    assert verdict_on([0.0, least], zeros, 0.999 * smallest).verdict == PASS
    assert verdict_on([0.0, least], zeros, smallest).verdict == UNDETERMINED
    assert verdict_on([0.0, 0.0], zeros, smallest).verdict == PASS


def test_what_the_certificate_does_not_know_is_granted_across_kinks_by_either_bound() -> None:
    """Values at the very end of what is granted, in numbers that are exact."""
    truth = balls([1.0], 0.0, 2.0**-10)
    end = np.array([1 + 0.5])  # at most 0.5 (1 + 2⁻⁵¹) + 2⁻¹⁰ away
    away = float(truth.distance(end)[0])
    for across, verdict in ((away - 2.0**-9, UNDETERMINED), (np.nextafter(away, 0) - 2.0**-9, FAIL)):
        assert verdict_on(end, truth, 0.0, across).verdict == verdict
        row = verdict_on(end, truth, 1.0, statistical=0.0, statistical_across=across)
        assert (row.verdict, row.by) == (verdict, STATISTICAL if verdict == FAIL else "")


def test_the_theorem_alone_decides_where_the_statistical_bound_does_not_and_the_other_way_round() -> None:
    truth = balls([1.0, 0.5])
    for worst, statistical in ((1e-3, INF), (INF, 1e-3)):
        assert verdict_on([1.0005, 0.5], truth, worst, statistical=statistical).verdict == PASS
        assert verdict_on([1.002, 0.5], truth, worst, statistical=statistical).verdict == FAIL
    assert verdict_on([1.002, 0.5], truth, 1e-3, statistical=1e-4).by == WORST_CASE
    assert verdict_on([1.0005, 0.5], truth, 1e-3, statistical=1e-4).by == STATISTICAL
    assert verdict_on([1.0, 0.5], truth, INF).verdict == UNDETERMINED


def test_what_would_have_been_noticed_is_the_smallest_failing_change_of_the_largest_element() -> None:
    truth = balls([-4.0, 0.5])
    noticed = verdict_on([-4.0, 0.5], truth, [1e-3, 9.0], statistical=[4e-4, 9.0]).noticed
    assert noticed == pytest.approx(1e-4, rel=1e-12)
    for share, verdict in ((0.999, PASS), (1.001, FAIL)):
        changed = [-4.0 * (1 + share * noticed), 0.5]
        assert verdict_on(changed, truth, [1e-3, 1e-3], statistical=[4e-4, 1e-3]).verdict == verdict


def test_the_largest_element_is_the_arrays_own_or_where_it_is_zero_that_of_its_kind() -> None:
    kind = {"W1": balls([[0.0]]), "W2": balls([1.0, -7.0]), "b2": balls([3.0])}
    assert largest_element(np.array([0.5, -2.0]), kind) == 2.0
    assert largest_element(np.array([1e-3]), kind) == 1e-3
    assert largest_element(np.array([0.0]), kind) == 7.0
    assert largest_element(np.array(0.0), {}) == 0.0
    assert largest_element(np.zeros(0), {"none": balls(np.zeros(0))}) == 0.0


def test_a_loss_and_a_z_of_zero_are_not_held_against_the_gradients() -> None:
    """Bounds of a hundredth of the largest gradient: what is nearly 0 among gradients passes, other such values do not
    and are undetermined.
    """
    known = judge(problem(network((2, 1), ["identity"], bias=False)))
    grads, zero = {"W1": balls([[0.0, 0.0]]), "x": balls(np.ones((5, 2)))}, balls(np.zeros((5, 1)))
    truth = replace(known.truth, loss=balls(0.0), grads=grads, values={**known.truth.values, "z2": zero})
    shapes = {"loss": truth.loss, **truth.grads, **truth.values}
    bounds = {key: np.full(ball.mid.shape, 0.009) for key, ball in shapes.items()}
    judging = Judge(known.spec, known.batch, truth, lambda arithmetic: Tolerance(*[bounds] * 4, arithmetic))
    found = {row.quantity: row.verdict for row in judging.judge_answer("a", (1e-3, {"W1": np.full((1, 2), 1e-3)}))}
    assert found == {"loss": UNDETERMINED, "W1": PASS}
    assert judging.judge_element("a", "z2", 1e-3, (0, 0)).verdict == UNDETERMINED
    assert judging.judge_element("a", "W1", 1e-3, (0, 0)).verdict == PASS


def test_a_truth_beyond_float64_passes_by_no_bound() -> None:
    row = verdict_on([1e308], balls([INF], 0.0, INF), INF)
    assert (row.verdict, row.reason, row.ratio) == (UNDETERMINED, OVERFLOW, 0.0)
