"""Random problems: as wide a draw as is said, and the same one for the same seed and index."""

from __future__ import annotations

import numpy as np

from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import random_problem


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
