"""No false alarm: random networks of every kind through the three backends, and how they are counted.

`make soak` runs 10,000 a dtype, here some hundred.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from networks import BACKENDS, DTYPES, sampled

from refimpl.judge import soak
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, Row

CHUNK = 12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", sampled(15 * CHUNK, default=1, step=CHUNK))
def test_random_networks_have_no_failure(first: int, dtype: str, seed: int) -> None:
    soaked = soak.Soaked()
    for outcome in soak.run(CHUNK, BACKENDS, dtype, "cpu", seed, first, processes=1):
        soaked.add(outcome)
    assert soaked.failures == []
    assert set(soaked.backends) == set(BACKENDS)
    for tally in soaked.backends.values():
        assert 0 < (tally.largest_ratio or 0) < 1


def test_gradients_below_the_range_of_float64_are_not_held_against_0() -> None:
    """Softmax of logits a hundred thousand apart: the gradient is 1.5e-323, and every product of the bound is 0."""
    (outcome,) = soak.run(1, ["numpy", "torch"], "float32", "cpu", 0, 3336, processes=1)
    assert not [row for row in outcome.rows if row.verdict == FAIL]


def test_two_processes_find_what_one_finds() -> None:
    one = {outcome.index: outcome.rows for outcome in soak.run(6, ["numpy"], "float64", "cpu", 0, 0, processes=1)}
    two = {outcome.index: outcome.rows for outcome in soak.run(6, ["numpy"], "float64", "cpu", 0, 0, processes=2)}
    assert repr(sorted(one.items())) == repr(sorted(two.items()))


def row(verdict: str, **changes: Any) -> Row:
    plain = Row("b", "W1", verdict, 4, 0, 0, ratio=0.5, ulps=1.0, index=(1, 2), value=1.0, truth=1.0, bound=1.0)
    return replace(plain, **changes)


def test_the_tally_adds_up() -> None:
    soaked = soak.Soaked()
    wrong = row(FAIL, failed=1, ratio=9.0)
    unknown = row(UNDETERMINED, undetermined=2, reason="kink")
    soaked.add(soak.Outcome(3, (row(PASS), wrong, unknown)))
    soaked.add(soak.Outcome(4, (row(PASS, ratio=0.75),)))
    found = soaked.to_dict()
    assert found["backends"]["b"] == {
        "networks": 2,
        "elements": 16,
        "failed": 1,
        "undetermined": {"kink": 2},
        "largest_ratio": 0.75,
        "largest_at": "W1[1,2] of network 4",
    }
    assert [(failure["network"], failure["at"]) for failure in found["failures"]] == [(3, "W1[1,2]")]
    assert soaked.failures == [(3, wrong)]


def test_what_is_printed_says_how_to_replay_a_failure() -> None:
    soaked = soak.Soaked()
    soaked.add(soak.Outcome(3, (row(PASS), row(FAIL, failed=1, ratio=9.0))))
    text = soaked.markdown(2, "float64", 5)
    assert "W1[1,2]" in text
    assert "--seed 5 --first 3 --count 1" in text
