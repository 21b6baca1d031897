"""No false alarm: random networks of every kind through the three backends.

`make soak` runs 10,000 a dtype, here some hundred.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from networks import BACKENDS, DTYPES

from refimpl.judge import soak
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, Row
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import random_problem

CHUNKS, CHUNK = 15, 12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_networks_have_no_failure(chunk: int, dtype: str, seed: int) -> None:
    tally = soak.Tally()
    for outcome in soak.run(CHUNK, BACKENDS, dtype, "cpu", seed, chunk * CHUNK, processes=1):
        tally.add(outcome)
    assert tally.failures == []
    assert not any(verdict == FAIL for _, verdict in tally.statistical)
    assert set(tally.elements) == set(BACKENDS)
    assert all(0 < tally.largest[name][0] < 1 for name in BACKENDS)


def test_the_draw_is_as_wide_as_it_says() -> None:
    problems = [random_problem(0, index, "float64") for index in range(0, 2400, 4)]
    specs = [p.spec for p in problems]
    assert {spec.depth for spec in specs} == set(range(1, 9))
    assert {layer.activation.name for spec in specs for layer in spec.layers} == set(ACTIVATIONS)
    assert {spec.loss.name for spec in specs} == set(LOSSES)
    assert {spec.reduction for spec in specs} == {"mean", "sum"}
    assert {layer.bias for spec in specs for layer in spec.layers} == {True, False}
    assert {1, 64} <= {layer.size for spec in specs for layer in spec.layers} <= set(range(1, 65))
    assert {1, 64} <= {len(p.x) for p in problems} <= set(range(1, 65))
    assert {len(spec.input_shape) for spec in specs} == {0, 1, 2, 3}
    scales = [float(np.abs(p.x).max()) for p in problems]
    assert min(scales) < 1e-250
    assert max(scales) > 1e3
    assert sum((p.x == 0).any() for p in problems) > 60


def test_a_problem_is_a_function_of_seed_and_index() -> None:
    one, same, other = random_problem(1, 5, "float64"), random_problem(1, 5, "float64"), random_problem(1, 8, "float64")
    assert one.spec == same.spec
    assert all((one.params[name] == same.params[name]).all() for name in one.params)
    assert (one.x == same.x).all()
    assert (one.y == same.y).all()
    assert (one.spec, one.x.shape) != (other.spec, other.x.shape)
    sibling = random_problem(1, 6, "float64")
    assert (one.spec, one.x.shape) == (sibling.spec, sibling.x.shape)
    assert (one.x != sibling.x).any()


def test_two_processes_find_what_one_finds() -> None:
    one = {outcome.index: outcome.rows for outcome in soak.run(6, ["numpy"], "float64", "cpu", 0, 0, processes=1)}
    two = {outcome.index: outcome.rows for outcome in soak.run(6, ["numpy"], "float64", "cpu", 0, 0, processes=2)}
    assert repr(sorted(one.items())) == repr(sorted(two.items()))


def row(verdict: str, **changes: object) -> Row:
    plain = {
        "backend": "b",
        "quantity": "W1",
        "size": 4,
        "failed": 0,
        "undetermined": 0,
        "ratio": 0.5,
        "ulps": 1.0,
        "index": (1, 2),
        "value": 1.0,
        "truth": 1.0,
        "bound": 1.0,
    }
    return Row(verdict=verdict, **{**plain, **changes})  # type: ignore[arg-type]


def test_the_tally_adds_up() -> None:
    tally = soak.Tally()
    tally.add(
        soak.Outcome(
            3,
            (
                row(PASS),
                row(FAIL, failed=1, ratio=9.0),
                row(UNDETERMINED, undetermined=2, reason="kink", statistical=PASS),
            ),
        )
    )
    tally.add(soak.Outcome(4, (row(PASS, ratio=0.75),)))
    found = tally.to_dict()
    assert found["backends"]["b"] == {
        "networks": 2,
        "elements": 16,
        "failed": 1,
        "undetermined": {"kink": 2},
        "statistical": {PASS: 1},
        "largest_ratio": 0.75,
        "largest_at": "W1[1,2] of network 4",
    }
    assert [(failure["network"], failure["at"]) for failure in found["failures"]] == [(3, "W1[1,2]")]
    assert Counter(index for index, _ in tally.failures) == {3: 1}
    assert len(soak.table(tally, 2, "float64", 0).rows) == 2
