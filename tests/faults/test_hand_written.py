"""What people get wrong, written by hand without the catalogue, is named in one line over a whole run."""

from __future__ import annotations

import random

import pytest
from hand_written import MISTAKES, Hand
from planted import report

from refimpl.conformance.vectors import Case, Suite, load

CASES = load().cases
COUNT = 60
FEW = ("slope_of_layer_above", "nothing_propagated", "softmax_for_binary_cross_entropy")
OTHERS = 0.05  # of the cases, which may have another line
# what only few cases show
FLAGS = {"kink_slope_one": ("KinkAtZero", "DeadReLU"), "leaky_slope_fixed": ("Basic", "KinkAtZero")}


def supported(hand: Hand, name: str) -> list[Case]:
    found = [case for case in CASES if hand.supports(case.spec, dtype="float64", device="cpu") is True]
    return [case for case in found if set(FLAGS.get(name, case.flags)) & set(case.flags)]


def test_what_is_written_by_hand_is_right() -> None:
    found = report(Hand(), Suite.of(supported(Hand(), "")))
    assert found.conforms, found.summary


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.soak) for n in MISTAKES])
def test_a_mistake_is_named_in_one_line(name: str) -> None:
    wrong = MISTAKES[name]()
    cases = supported(wrong, name)
    count = COUNT // 2 if name in FEW else COUNT
    found = report(wrong, Suite.of(random.Random(1).sample(cases, min(count, len(cases)))))
    assert found.wrong
    first, *others = found.causes()
    assert name in first.faults, [cause.text for cause in found.causes()]
    assert sum(len(cause.cases) for cause in others) <= OTHERS * len(found.wrong), [cause.text for cause in others]
