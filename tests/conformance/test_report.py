"""One run of the suite as a report: in words, as data and as JUnit's XML."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from refimpl.conformance.report import ConformanceReport, junit
from refimpl.conformance.run import SKIP, XFAIL, XPASS, CaseResult, Diagnosis
from refimpl.conformance.vectors import HIDDEN_LAYERS
from refimpl.faults.catalogue import FAULTS
from refimpl.faults.findings import Cause, Finding
from refimpl.judge.report import FAIL, PASS, UNDETERMINED


@pytest.fixture
def mixed() -> ConformanceReport:
    finding = Finding("W1", "is the right one times -1", ((Cause(FAULTS["wrong_sign"], 0),),))
    return ConformanceReport(
        "mine",
        "backend mine",
        "float64",
        "float64",
        [
            CaseResult("a", ("Basic",), PASS, seconds=0.25),
            CaseResult(
                "b", ("Basic", "Tie"), FAIL, "W1[1,1] is 1, should be -1", diagnosis=Diagnosis((finding,)), seconds=0.5
            ),
            CaseResult("c", ("Tie",), XFAIL, "expected to fail (known <bug>)"),
            CaseResult("d", ("Tie",), XPASS, "expected to fail, but passes"),
            CaseResult("e", ("Deep",), SKIP, "only on Mondays"),
            CaseResult("f", ("Deep",), SKIP, "only on Mondays"),
        ],
    )


def shown(report: ConformanceReport) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(report)
    return captured.get()


def test_the_summary_is_one_line(mixed: ConformanceReport) -> None:
    assert mixed.summary == "refimpl float64 | mine fails: 1 of 4, 1 FAIL, 1 XFAIL, 1 XPASS, none with hidden layers"
    mixed.results = mixed.results[:1]
    assert mixed.summary == "refimpl float64 | mine too little to say: 1 of 1, none with hidden layers"
    mixed.results = []
    assert mixed.summary == "refimpl float64 | mine was not judged: no case"


def test_conforms_is_said_of_enough_cases_with_hidden_layers_and_of_what(mixed: ConformanceReport) -> None:
    mixed.results = [
        CaseResult(str(number), ("Basic",), PASS, traits=("the activation relu", f"the loss {loss}", HIDDEN_LAYERS))
        for number, loss in enumerate(["huber", "squared_error"] * 10)
    ]
    skipped = CaseResult("gelu", ("Basic",), SKIP, traits=("the activation relu", "the activation gelu"))
    assert not ConformanceReport("mine", "", "float64", "float64", mixed.results[:19]).conforms
    mixed.results.append(skipped)
    assert mixed.conforms
    assert mixed.summary == (
        "refimpl float64 | mine conforms: 20 of 20, 20 with hidden layers, 1 activation, 2 losses; not declared: gelu"
    )


@pytest.mark.parametrize(
    ("verdicts", "ok"),
    [
        ([PASS, XFAIL, SKIP], True),
        ([XFAIL], True),
        ([], False),
        ([SKIP], False),
        ([PASS, FAIL], False),
        ([PASS, XPASS], False),
        ([PASS, UNDETERMINED], False),
    ],
)
def test_ok_is_when_a_case_was_judged_and_none_is_wrong_or_open(verdicts: list[str], ok: bool) -> None:
    results = [CaseResult(str(number), (), verdict) for number, verdict in enumerate(verdicts)]
    assert ConformanceReport("mine", "", "float64", "float64", results).ok == ok


def test_as_data_it_is_json(mixed: ConformanceReport) -> None:
    data = json.loads(json.dumps(mixed.to_dict(), allow_nan=False))
    assert data["counts"] == {PASS: 1, FAIL: 1, XFAIL: 1, XPASS: 1, SKIP: 2}
    assert data["flags"] == {"Basic": {PASS: 1, FAIL: 1}, "Tie": {FAIL: 1, XFAIL: 1, XPASS: 1}, "Deep": {SKIP: 2}}
    assert data["ok"] is False
    assert data["cases"][1]["findings"][0]["explanations"][0][0]["fault"] == "wrong_sign"
    assert data["cases"][1]["seconds"] == 0.5
    assert [cause["cases"] for cause in data["causes"]] == [["b"], ["d"]]


def test_as_junit_what_is_wrong_is_a_failure(mixed: ConformanceReport) -> None:
    suite = ElementTree.fromstring(junit([mixed]))[0]
    assert [suite.get(key) for key in ("tests", "failures", "skipped", "errors")] == ["6", "2", "3", "0"]
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [[], ["failure"], ["skipped"], ["failure"], ["skipped"], ["skipped"]]
    assert "wrong_sign" in suite[1][0].get("message", "")
    assert suite[2][0].get("message") == "expected to fail (known <bug>)"


def test_junit_takes_any_text(mixed: ConformanceReport) -> None:
    mixed.implementation = "a\x00\x1b<b>\ud800"
    assert ElementTree.fromstring(junit([mixed]))[0].get("name", "").startswith("refimpl.conformance a??<b>?")


def test_a_terminal_shows_the_cause_and_why_nothing_ran(mixed: ConformanceReport) -> None:
    text = shown(mixed)
    assert FAULTS["wrong_sign"].remedy in text
    assert "SKIP 2 cases: only on Mondays" in text
    assert mixed.summary in text


def test_many_causes_are_counted_and_some_are_shown(mixed: ConformanceReport) -> None:
    def strange(number: int) -> Any:
        finding = Finding("W1", f"{chr(ord('a') + number)} is strange")
        return CaseResult(str(number), ("Basic",), FAIL, diagnosis=Diagnosis((finding,)))

    mixed.results = [strange(number) for number in range(25)]
    assert "and 5 other causes" in shown(mixed)
