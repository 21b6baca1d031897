"""What a report says: the same in a terminal, a notebook and JSON, and never more than it was told."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from networks import article, judge
from rich.console import Console

from refimpl import value_and_grad
from refimpl.judge.report import FAIL, PASS, STATISTICAL, UNDETERMINED, WORST_CASE, Report, Row, apart


def shown(report: Report) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(report)
    return console.export_text()


def report(*rows: Row, **options: Any) -> Report:
    return Report(article().spec, "float64", "cpu", 6, 200, rows, **options)


def row(verdict: str, **changes: Any) -> Row:
    failed, undetermined = 2 * (verdict == FAIL), 3 * (verdict == UNDETERMINED)
    plain = Row("mine", "W1", verdict, 4, failed, undetermined, 0.5, 1.0, (1, 2), value=1.0, truth=1.0, bound=1.0)
    return replace(plain, **changes)


def test_the_terminal_the_notebook_and_json_say_the_same() -> None:
    p = article(6, seed=4)
    loss, grads = value_and_grad(p.spec, p.params, p.x, p.y)
    grads["W2"][1, 0] = 7.0
    rows = judge(p).judge_answer("<b>mine</b>", (loss, grads))
    found = report(*rows, unavailable={"jax": "not <i>installed</i>"})
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["ok"], data["network"]["format"]) == (False, "refimpl.network/1")
    wrong = [row for row in data["rows"] if row["verdict"] == FAIL]
    assert [(row["quantity"], row["index"], row["value"]) for row in wrong] == [("W2", [2, 1], 7.0)]
    text, page = shown(found), found._repr_html_()
    for piece in ("W2[2,1]", "FAIL", "1 of 4 wrong", "18 PASS, 1 FAIL, 0 UNDETERMINED of 19 elements", "jax: not run"):
        assert piece in text
        assert piece in page
    assert "<b>mine</b>" not in page
    assert "<i>installed</i>" not in page
    assert "4-2-2-1" in repr(found)


def test_json_has_no_nan_or_infinity() -> None:
    rows = judge(article()).judge_answer("wrong", (float("nan"), {}))
    text = json.dumps(report(*rows).to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][0]["value"] is None


def test_ok_is_a_pass_of_everything_and_of_something() -> None:
    assert report(row(PASS), row(PASS)).ok
    for rows in ((), (row(PASS), row(UNDETERMINED)), (row(FAIL), row(PASS))):
        assert not report(*rows).ok
    assert report(row(FAIL), row(UNDETERMINED), row(PASS)).failures == (row(FAIL),)
    assert report().summary == "no backend ran"
    assert report(row(FAIL), row(UNDETERMINED)).summary == "mine: 3 PASS, 2 FAIL, 3 UNDETERMINED of 8 elements"


def test_a_remark_counts_what_is_no_pass_and_says_why() -> None:
    assert row(PASS).remark == ""
    assert row(FAIL).remark == "2 of 4 wrong"
    assert row(FAIL, by=WORST_CASE).remark == "2 of 4 wrong"
    assert row(FAIL, by=STATISTICAL).remark == "2 of 4 wrong; by the statistical bound"
    assert row(UNDETERMINED, reason="a kink lies near").remark == "3 of 4 undetermined; a kink lies near"


@pytest.mark.parametrize(
    ("noticed", "text"), [(2.34e-4, "0.023 %"), (3.4e-15, "3.4e-13 %"), (math.inf, ""), (math.nan, "")]
)
def test_what_would_be_noticed_is_a_percentage_of_the_largest_element(noticed: float, text: str) -> None:
    assert row(PASS, noticed=noticed).cells()[4] == text


@pytest.mark.parametrize(
    ("value", "truth", "digits"),
    [(1.0, 2.0, ("1", "2")), (1 / 3, 1 / 3 + 1e-11, ("0.333333333333", "0.333333333343")),
     (1.0, math.nextafter(1, 2), ("1", "1.0000000000000002"))],
)  # fmt: skip
def test_two_numbers_are_shown_with_the_digits_that_tell_them_apart(
    value: float, truth: float, digits: tuple[str, str]
) -> None:
    assert apart(value, truth) == digits
    assert row(FAIL, value=value, truth=truth).numbers == digits


def test_what_was_not_compared_has_no_numbers() -> None:
    nan = float("nan")
    cells = row(FAIL, value=nan, truth=nan, index=(), reason="is missing").cells()
    assert cells == ("mine", "W1", FAIL, *6 * ("",), "is missing")
