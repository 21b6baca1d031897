"""The table of what is noticed (`make detection`): its bugs are the ones that it names, right answers pass in it and
large errors do not, and what is published is a table of these bugs and networks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detection import (
    ERRORS,
    NETWORKS,
    SMALL,
    Answer,
    Found,
    bugs,
    least_noticed,
    on_network,
    outcome,
    page,
    run,
    short,
    smallest,
)
from networks import judge

import refimpl
from refimpl import value_and_grad
from refimpl.judge.report import FAIL, PASS
from refimpl.network.random_problems import Problem

DTYPES = tuple(ERRORS)
HIDDEN = tuple(hidden for hidden, draws in NETWORKS.items() if SMALL in draws)
PUBLISHED = (Path(refimpl.__file__).parent.parent / "docs" / "detection-table.md").read_text()
Cells = dict[str, list[str]]


@cache
def small(hidden: str, dtype: str) -> Found:
    return on_network(hidden, SMALL, 0, dtype)


def tables(text: str) -> Iterator[tuple[str, list[str], Cells]]:
    """Heading, columns, and rows by their names."""
    for title, body in re.findall(r"^### (.*)\n\n((?:\|.*\n)+)", text.replace("\N{NO-BREAK SPACE}", " "), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        yield title, head[1:], {name: cells for name, *cells in rows}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_nothing_is_a_pass_and_large_errors_are_a_fail_in_every_array(hidden: str, dtype: str) -> None:
    found = small(hidden, dtype)
    assert (found.right.verdict, found.right.failed, found.right.wrong) == (PASS, 0, 0)
    assert found.right.ratio < 0.5
    for name in ("gradient × (1 ± 1e-2)", "largest element × (1 + 1e-2)"):
        large = found.outcomes[name]
        assert large is not None
        assert large.verdict == FAIL
        assert large.failed > 0.9 * large.wrong
    one_each = found.outcomes["largest element × (1 + 1e-2)"]
    assert one_each is not None
    assert one_each.failed == one_each.wrong == 6  # W and b of three layers


def test_gradients_of_units_that_are_off_are_decided() -> None:
    """They are 0, and stay so but in the worst case, which knows nothing of a deep network."""
    problem = NETWORKS["relu"]["12 layers of 64 (N = 16)"](0, "float32")
    right = run(problem)
    assert outcome(judge(problem), right, right).verdict == PASS


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bug_changes_something(dtype: str) -> None:
    found = [small(hidden, dtype) for hidden in HIDDEN]
    assert [name for name in found[0].outcomes if not any(one.outcomes[name] for one in found)] == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_change_that_changes_nothing_has_no_outcome(dtype: str) -> None:
    problem = NETWORKS["tanh"][SMALL](0, dtype)
    assert least_noticed(judge(problem), run(problem), [run(problem)]) is None


def test_the_form_that_is_noticed_least_counts() -> None:
    problem = NETWORKS["tanh"][SMALL](0, "float64")
    loss, grads = run(problem)
    answers = [(loss, {name: grad * factor for name, grad in grads.items()}) for factor in (2, 1 + 1e-14, 1 + 1e-11)]
    found = least_noticed(judge(problem), run(problem), answers)
    assert found == outcome(judge(problem), (loss, grads), answers[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_smallest_error_is_where_the_verdict_turns(hidden: str, dtype: str) -> None:
    problem = NETWORKS[hidden][SMALL](0, dtype)
    held = judge(problem)
    for name, (of_largest, of_median) in [(n, s) for n, s in smallest(held).items() if n != "loss"]:
        truth = held.truth.grads[name].mid
        for share, size in ((of_largest, np.abs(truth).max()), (of_median, _median(truth))):
            at = tuple(int(i) for i in np.argwhere(np.abs(truth) == size)[0])
            beyond, within = (
                held.judge_element("", name, truth[at] * (1 + times * share), at) for times in (1.05, 0.9)
            )
            assert beyond.verdict == FAIL
            assert within.verdict != FAIL


def _median(truth: np.ndarray) -> float:
    there = np.sort(np.abs(truth[truth != 0]))
    return float(there[len(there) // 2])


# --------------------------------------------------------------------------------------------------------------
# The bugs, by other means


def answers(name: str, problem: Problem) -> list[Answer]:
    return list(next(bug for bug in bugs(str(problem.x.dtype)) if bug.name == name).answers(problem))


def close(answer: Answer, loss: Any, grads: dict[str, Any]) -> None:
    assert answer[0] == pytest.approx(float(loss), rel=1e-13)
    for name, grad in answer[1].items():
        np.testing.assert_allclose(grad, np.asarray(grads[name]), rtol=1e-10, atol=1e-15)


def test_the_missing_sample_is_in_no_sum() -> None:
    p = NETWORKS["gelu"][SMALL](0, "float64")
    loss, fewer = value_and_grad(p.spec, p.params, p.x[:-1], p.y[:-1], backend="torch")
    share = (len(p.x) - 1) / len(p.x)
    fewer = {name: grad * share for name, grad in fewer.items()}
    close(answers("last sample missing in everything", p)[0], loss * share, fewer)
    right_loss, right = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
    for layer, answer in enumerate(answers("last sample missing in one bias's gradient", p), start=1):
        close(answer, right_loss, {**right, f"b{layer}": fewer[f"b{layer}"]})


def test_divided_by_one_less() -> None:
    p = NETWORKS["relu"][SMALL](0, "float64")
    loss, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend="torch")
    more = len(p.x) / (len(p.x) - 1)
    close(answers("divided by N − 1 for N", p)[0], loss * more, {name: grad * more for name, grad in grads.items()})


def by_autograd(p: Problem, loss: Any) -> tuple[Any, dict[str, Any]]:
    """Of a loss of the outputs of the tanh network, and labels."""
    params = {name: torch.tensor(array, requires_grad=True) for name, array in p.params.items()}
    a = torch.tensor(p.x)
    for layer in range(1, p.spec.depth + 1):
        z = a @ params[f"W{layer}"].T + params[f"b{layer}"]
        a = torch.tanh(z) if layer < p.spec.depth else z
    value = loss(a, torch.tensor(p.y))
    value.backward()
    return value.detach(), {name: param.grad for name, param in params.items()}


def test_what_is_added_in_the_logarithm_and_smoothed_in_the_labels() -> None:
    p = NETWORKS["tanh"][SMALL](0, "float64")

    def logarithm(s: Any, y: Any) -> Any:
        return -torch.log(torch.softmax(s, dim=1).gather(1, y[:, None]) + 1e-7).mean()

    close(answers("log(p + 1e-7) for log p", p)[0], *by_autograd(p, logarithm))
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=1e-4)
    close(answers("labels smoothed by 1e-4", p)[0], *by_autograd(p, smoothed))


@pytest.mark.parametrize(("name", "bits"), [("products in bfloat16", 8), ("products in TF32", 11)])
def test_factors_are_rounded_in_every_product_both_ways(name: str, bits: int) -> None:
    p = NETWORKS["relu"][SMALL](0, "float64")

    def short_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        kept = [np.round(m * 2.0**bits) / 2.0**bits * 2.0**e for m, e in (np.frexp(a), np.frexp(b))]
        return kept[0] @ kept[1]

    a, z = [p.x], []
    for W, b in ((p.params[f"W{layer}"], p.params[f"b{layer}"]) for layer in (1, 2, 3)):
        z.append(short_product(a[-1], W.T) + b)
        a.append(np.maximum(z[-1], 0))
    e = np.exp(z[-1] - z[-1].max(axis=1, keepdims=True))
    softmax = e / e.sum(axis=1, keepdims=True)
    loss = -np.log(softmax[np.arange(len(p.y)), p.y]).mean()
    delta, grads = (softmax - np.eye(10)[p.y]) / len(p.x), {}
    for layer in (3, 2, 1):
        grads |= {f"W{layer}": short_product(delta.T, a[layer - 1]), f"b{layer}": delta.sum(axis=0)}
        delta = short_product(delta, p.params[f"W{layer}"]) * (z[layer - 2] > 0) if layer > 1 else delta
    found = answers(name, p)[0]
    assert found[0] == pytest.approx(loss, rel=1e-12)
    for key, grad in grads.items():  # δ, which differs by roundings, may be cut to a neighbour
        assert np.abs(found[1][key] - grad).max() <= 2.0 ** (2 - bits) * np.abs(grad).max() / 100


# --------------------------------------------------------------------------------------------------------------
# Tables


def test_the_tables_have_a_row_for_every_bug_that_changes_something_and_a_column_for_every_network() -> None:
    found = [small(hidden, "float32") for hidden in HIDDEN]
    made = list(tables(page(found, seed=0)))
    assert [title for title, *_ in made] == [*(f"float32, {hidden}" for hidden in HIDDEN), SMALL]
    for one, (_, columns, rows) in zip(found, made, strict=False):
        assert columns == [SMALL]
        assert list(rows) == ["*nothing*", *(name for name, each in one.outcomes.items() if each)]
        for name, each in one.outcomes.items():
            if each:
                assert rows[name][0].startswith("×" if each.verdict == FAIL else f"**{each.verdict}** ")
    _, columns, rows = made[-1]
    assert columns == [f"{hidden}, float32" for hidden in HIDDEN]
    assert list(rows) == ["loss", *(f"{role}{layer}" for layer in (1, 2, 3) for role in "Wb")]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (6.14e-3, "6.1e−3"), (0.28, "0.28"), (3.14, "3.1"), (263.4, "263"), (9.7e11, "1e12"), (np.inf, "∞")],
)
def test_numbers_have_two_digits_at_most(number: float, text: str) -> None:
    assert short(number) == text


def test_what_is_published_is_of_these_bugs_and_networks_and_holds_no_surprise() -> None:
    made = {title: (columns, rows) for title, columns, rows in tables(PUBLISHED)}
    for dtype in DTYPES:
        seen = set()
        for hidden, draws in NETWORKS.items():
            columns, rows = made.pop(f"{dtype}, {hidden}")
            assert columns == list(draws)
            assert all(cell.startswith("PASS ") for cell in rows.pop("*nothing*"))
            for error in ("1e-2", "1e-3"):
                assert all(cell.startswith("×") for cell in rows[f"gradient × (1 ± {error})"])
            seen |= set(rows)
        assert seen == {bug.name for bug in bugs(dtype)}
    assert set(made) == {size for draws in NETWORKS.values() for size in draws}
