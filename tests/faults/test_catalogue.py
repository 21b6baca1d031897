"""No miss: every fault of the catalogue, planted at every layer where it can act, is FAIL."""

from __future__ import annotations

import re

import numpy as np
import pytest
from diagnosis_measure import planted_backend, singles
from networks import BACKENDS, judge, network, problem, verdicts

from refimpl import backend as backends
from refimpl.equations import EQUATIONS, Equations
from refimpl.faults.catalogue import FAULTS, places
from refimpl.faults.mistaken import WHOLE, Mistaken
from refimpl.judge.report import FAIL, PASS
from refimpl_numpy import NumpyBackend


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_where_it_is_planted(name: str) -> None:
    for planted in singles(1, FAULTS[name], 0):
        rows = planted.judge.judge_answer("planted", (planted.loss, planted.grads))
        assert FAIL in verdicts(rows).values(), planted.plantings


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_what_it_is_and_what_to_do(name: str) -> None:
    fault = FAULTS[name]
    assert fault.name == name
    assert re.fullmatch(r"[a-z0-9_]+", name)
    for text in (fault.explanation, fault.remedy):
        assert text.endswith(".")
        assert "\n" not in text
    assert bool(fault.parameter) == bool(fault.example)


def test_no_two_faults_read_alike() -> None:
    assert len({fault.explanation for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_the_layers_of_a_fault_are_the_networks(name: str) -> None:
    for sizes, activations in (((3, 3), ["softmax"]), ((2, 2, 2, 1), ["gelu", "leaky_relu", "sigmoid"])):
        spec = network(sizes, activations)
        layers = list(FAULTS[name].where(spec, 4))
        assert len(set(layers)) == len(layers)
        assert set(layers) <= {WHOLE, *range(1, spec.depth + 1)}


def test_nothing_planted_is_the_right_backend() -> None:
    p = problem(network((3, 3, 2), ["sigmoid", "identity"]))
    assert set(verdicts(judge(p).rows(planted_backend())).values()) == {PASS}


def test_planting_leaves_the_right_equations_alone() -> None:
    spec = network((3, 3, 3), ["softmax", "leaky_relu"], loss="mean_squared_error")
    before = dict(vars(EQUATIONS))
    for fault, layer in places(spec, 4, "float64"):
        fault.plant(Mistaken.right(spec, np.zeros((4, 3))), layer, fault.example)
    assert dict(vars(EQUATIONS)) == before


def test_a_mistake_at_one_layer_leaves_the_layers_after_it_right() -> None:
    p = problem(network((3, 3, 3, 3), ["sigmoid"] * 3))
    equations = [EQUATIONS, Equations(weight_gradient=lambda delta, a: -delta.T @ a), EQUATIONS]
    found = verdicts(judge(p).rows(NumpyBackend(equations)))
    assert found == {"loss": PASS, "W1": PASS, "b1": PASS, "W2": FAIL, "b2": PASS, "W3": PASS, "b3": PASS}


def test_the_backends_that_are_checked_have_no_fault_in_them() -> None:
    p = problem(network((3, 3, 2), ["gelu", "softmax"], loss="negative_log_likelihood"))
    for name in BACKENDS:
        assert set(verdicts(judge(p).rows(backends.load(name))).values()) == {PASS}
