"""What a function does over balls by Taylor's theorem, against its series over each ball and numbers in them."""

from __future__ import annotations

import numpy as np
import pytest

from refimpl.network.functions import ACTIVATIONS
from refimpl.truth.elementwise import ABSOLUTE, LOGISTIC, SQUARE, Elementwise, activation, huber
from refimpl.truth.numbers import derivatives
from refimpl.truth.precision import working_precision
from refimpl.truth.suprema import suprema

FUNCTIONS = (
    *(
        activation(name, tuple((key, parameter.default) for key, parameter in entry.parameters.items()))
        for name, entry in ACTIVATIONS.items()
        if entry.elementwise
    ),
    *(SQUARE, ABSOLUTE, LOGISTIC, huber(0.7)),
)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.name)
def test_they_bound_what_lies_in_each_ball_and_are_no_wider_than_from_the_series(
    rng: np.random.Generator, function: Elementwise
) -> None:
    mid = rng.choice([0.01, 1.0, 30.0], 60) * rng.standard_normal(60)
    mid[:4] = 0.0, *(kink for kink in (*function.kinks, 1.0, 2.0, 3.0)[:3])
    err = np.abs(mid) * rng.choice([0.0, 1e-15, 1e-7, 1e-2, 1.0], 60)
    err[:6] = [0.0, 1e-300, 0.0, 1e-9, np.inf, 5.0]
    with working_precision(64):
        known = np.array([derivatives(function, number, 2) for number in mid.tolist()]).T
    with np.errstate(all="ignore"):
        found, exact = suprema(function, mid, err, known), suprema(function, mid, err)
    for name in ("value", "slope"):
        assert (getattr(found, name) <= 1.02 * getattr(exact, name) + 1e-300).all()
    assert (found.jump >= exact.jump * (1 - 1e-12)).all()
    for number, radius, *bounds in zip(mid, err, found.value, found.slope, strict=True):
        if not np.isfinite(radius):
            assert np.isinf(bounds).all()
            continue
        with working_precision(64):
            for at in number + radius * np.array([-0.999, -0.3, 0.0, 0.5, 0.999]):
                there = np.abs(derivatives(function, float(at), 1))
                assert (there <= np.array(bounds) * (1 + 1e-12) + 1e-300).all()
