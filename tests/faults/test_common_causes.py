"""The verdict over a whole run: few faults, what the wrong cases have in common, and no coincidences."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Everywhere, report
from rich.console import Console

from refimpl.conformance.report import ConformanceReport
from refimpl.conformance.vectors import Suite, load
from refimpl.faults.catalogue import FAULTS
from refimpl.faults.common_causes import CommonCause, Wrong, _fewest, common_causes
from refimpl.faults.findings import Cause, Finding
from refimpl.judge.report import FAIL
from refimpl_numpy import NumpyBackend

SUITE = load()
NAMES = ("wrong_sign", "not_averaged", "slope_dropped", "accumulated_twice", "weight_gradient_transposed")
SETS = st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=2)


def some(count: int) -> Suite:
    """The basic cases, from which one learns, and others drawn at random."""
    basic = [case for case in SUITE.cases if case.flags[0] == "Basic"]
    others = [case for case in SUITE.cases if case.flags[0] != "Basic"]
    return Suite.of([*basic[:30], *random.Random(1).sample(others, count)])


def shown(found: ConformanceReport) -> str:
    console = Console(width=1000)
    with console.capture() as captured:
        console.print(found)
    return captured.get()


@pytest.mark.parametrize(
    "faults",
    [
        ("slope_dropped",),
        ("not_averaged", "slope_dropped"),
        pytest.param(("weight_gradient_column_major",), marks=pytest.mark.soak),
        pytest.param(("bias_gradient_averaged", "weight_gradient_column_major"), marks=pytest.mark.soak),
    ],
)
def test_what_was_made_wrong_everywhere_leads_the_report(faults: tuple[str, ...]) -> None:
    found = report(Everywhere(*faults), some(24))
    causes = found.causes()
    assert {cause.faults[0] for cause in causes[: len(faults)]} == set(faults)
    explained = {case for cause in causes[: len(faults)] for case in cause.cases}
    assert len(explained) >= 0.9 * len(found.wrong), [cause.text for cause in causes]
    assert sum(len(cause.cases) for cause in causes[len(faults) :]) <= 0.1 * len(found.wrong)
    text = shown(found)
    for cause in causes[: len(faults)]:
        assert FAULTS[cause.faults[0]].remedy in text
        assert f"in {len(cause.cases)} cases, as " in text
    assert [cause["cases"] for cause in found.to_dict()["causes"]] == [cause.cases for cause in causes]


class WrongForTanh(NumpyBackend):
    """Every gradient times a number that is no known fault's, of networks with a tanh."""

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        right = super().gradient_function(spec, dtype=dtype, device=device)
        factor = 0.37 if any(layer.activation.name == "tanh" for layer in spec.layers) else 1.0

        def run(*data: Any) -> Any:
            loss, grads = right(*data)
            return loss, {name: grad * factor for name, grad in grads.items()}

        return run


def test_a_mistake_in_one_activation_is_told_by_what_the_cases_have_in_common() -> None:
    found = report(WrongForTanh(), some(60))
    (cause,) = [cause for cause in found.causes() if len(cause.cases) > 2]
    assert cause.traits[0] == "the activation tanh"
    assert "the activation tanh" in cause.text
    assert cause.faults == ("gradients_scaled × 0.37",)


def wrong(case: str, *explanations: Sequence[str], symptom: str = "is right in no element") -> Wrong:
    causes = tuple(tuple(Cause(FAULTS[name], 0) for name in names) for names in explanations)
    return Wrong(case, FAIL, "", Finding("W1", symptom, causes))


def texts(found: list[CommonCause]) -> list[tuple[tuple[str, ...], list[str]]]:
    return [(cause.faults, cause.cases) for cause in found]


def test_the_fault_that_explains_most_is_taken_where_a_case_has_several() -> None:
    given_ = [
        wrong("a", ["wrong_sign"], ["not_averaged"]),
        wrong("b", ["not_averaged"]),
        wrong("c", ["wrong_sign", "slope_dropped"], ["accumulated_twice", "not_averaged"], ["not_averaged"]),
    ]
    assert texts(common_causes(given_, {})) == [(("not_averaged",), ["b", "a", "c"])]


def test_faults_that_no_case_tells_apart_stand_together() -> None:
    both = [["weight_gradient_transposed"], ["weight_gradient_column_major"]]
    given_ = [wrong("a", *both), wrong("b", *both)]
    (found,) = common_causes(given_, {})
    assert found.faults == ("weight_gradient_transposed", "weight_gradient_column_major")
    assert (
        "weight_gradient_transposed or weight_gradient_column_major (which no case tells apart) in 2 cases"
        in found.text
    )
    (found,) = common_causes([*given_, wrong("c", ["weight_gradient_column_major"])], {})
    assert found.faults == ("weight_gradient_column_major",)


def test_a_factor_that_most_cases_cannot_explain_is_a_coincidence_in_the_others() -> None:
    half, third = "is the right one times 0.5; W2 is right", "is the right one times 0.333333 = 1/N; b1 is right"
    given_ = [
        wrong("a", ["wrong_sign", "layer_averaged_again"], symptom=half),
        wrong("b", symptom=half),
        wrong("c", symptom=half),
        wrong("d", ["layer_averaged_again"], symptom=third),
        wrong("e", symptom=third),
    ]
    assert texts(common_causes(given_, {})) == [((), ["a", "b", "c"]), (("layer_averaged_again",), ["d"]), ((), ["e"])]


def test_factors_of_one_case_each_are_one_group() -> None:
    given_ = [wrong(f"case {i}", symptom=f"is the right one times 0.{i}; b1 is right") for i in range(1, 9)]
    given_ += [wrong(f"half {i}", symptom="is the right one times 0.5") for i in range(2)]
    assert [len(cause.cases) for cause in common_causes(given_, {})] == [7, 3]


def test_the_example_is_placed_by_the_explanation_that_was_chosen() -> None:
    """The first case has another explanation with the same fault at another layer."""

    def placed(case: str, *explanations: list[tuple[str, int]]) -> Wrong:
        causes = tuple(tuple(Cause(FAULTS[name], layer) for name, layer in each) for each in explanations)
        return Wrong(case, FAIL, "", Finding("W1", "is right in no element", causes))

    first = [("slope_dropped", 1), ("wrong_sign", 1)], [("slope_dropped", 2), ("accumulated_twice", 2)]
    found = common_causes([placed("u", *first), placed("v", [("wrong_sign", 1)])], {})
    (slope,) = [cause for cause in found if cause.faults[0] == "slope_dropped"]
    assert "slope_dropped in 1 case, namely 'u' at layer 1, where" in slope.text


def test_the_same_symptom_with_other_numbers_is_one_group() -> None:
    given_ = [
        wrong("a", symptom="is wrong in 2 of 9 elements, first W1[1,2]; W3 is right"),
        wrong("b", symptom="is wrong in 13 of 20 elements, first W1[2,2]"),
        Wrong("c", FAIL, "no answer within 1.5 s"),
        Wrong("d", FAIL, "no answer within 10 s"),
        Wrong("e", FAIL, "was ended by SIGSEGV"),
        *[Wrong(case, FAIL, "not asked: the program failed 5 times in a row") for case in "fgh"],
    ]
    assert [cause.cases for cause in common_causes(given_, {})] == [["a", "b"], ["c", "d"], ["e"], ["f", "g", "h"]]


def test_what_all_wrong_cases_have_is_told_where_it_is_no_accident() -> None:
    names = [f"case {number}" for number in range(20)]
    traits = {name: ["mean", *(["tanh"] if number < 6 else [])] for number, name in enumerate(names)}
    (six,) = common_causes([wrong(name, ["wrong_sign"]) for name in names[:6]], traits)
    assert six.where == "These are all cases with tanh, and no others."
    (five,) = common_causes([wrong(name, ["wrong_sign"]) for name in names[:5]], traits)
    assert five.where == "All of them have: tanh."
    (two,) = common_causes([wrong(name, ["wrong_sign"]) for name in names[:2]], traits)
    assert two.where == ""  # 0.3² is no small likelihood
    (all_,) = common_causes([wrong(name, ["wrong_sign"]) for name in names], traits)
    assert all_.where == ""


@given(st.lists(st.lists(SETS, min_size=1, max_size=4), max_size=12))
def test_the_chosen_faults_explain_all_and_none_is_one_too_many(explained: list[list[frozenset[str]]]) -> None:
    chosen = _fewest(explained)
    assert all(any(names <= chosen for names in explanations) for explanations in explained)
    for name in chosen:
        assert not all(any(names <= chosen - {name} for names in explanations) for explanations in explained)


def test_nothing_wrong_has_no_cause() -> None:
    assert report(NumpyBackend(), Suite.of(SUITE.cases[:3])).causes() == []
