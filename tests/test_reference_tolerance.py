"""refimpl/tolerance.py against the second statement of it in reference_tolerance.py: all three forms, element by
element, in arithmetics so coarse that every term of the recursion is seen, and in the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import DTYPES, network, problem
from reference_tolerance import Reference

from refimpl.arithmetic import ARITHMETICS, FLUSHING, Arithmetic
from refimpl.batch import Batch, validate
from refimpl.certification import Certificate, certify_batch
from refimpl.functions import ACTIVATIONS, LOSSES
from refimpl.sampling import Problem
from refimpl.tolerance import Tolerance, tolerance

# u, the smallest normal and subnormal number, and the largest: what is far apart in float32 meets in these
COARSE = Arithmetic("coarse", 2.0**-9, 2.0**-6, 2.0**-9, 2.0**9)
MEDIUM = Arithmetic("medium", 2.0**-16, 2.0**-12, 2.0**-16, 2.0**30)
NO_ROUNDING = Arithmetic("no rounding", 0.0, 2.0**-20, 2.0**-24, math.inf)
INVENTED = [
    flushing for one in (MEDIUM, COARSE, NO_ROUNDING) for flushing in (one, replace(one, flushes_subnormals=True))
]
SMOOTH = [name for name, entry in ACTIVATIONS.items() if entry.elementwise and not entry.kinks]


def certified(p: Problem) -> tuple[Batch, Certificate]:
    batch = validate(p.spec, p.params, p.x, p.y)
    return batch, certify_batch(p.spec, batch)


def compared(p: Problem, arithmetics: Sequence[Arithmetic]) -> list[Tolerance]:
    """The tolerances, once they agree with the reference: to 1e-9, or where the balls are wide, to the 30 bits of the
    radius of a ball.
    """
    batch, truth = certified(p)
    all_found = []
    for arithmetic in arithmetics:
        found = tolerance(p.spec, batch, truth, arithmetic)
        for bounds, form in (
            (found.worst_case, {}), (found.across_kinks, {"across": True}), (found.statistical, {"statistical": True})
        ):  # fmt: skip
            reference = Reference(p.spec, batch, truth, arithmetic, **form).bounds
            assert bounds.keys() == reference.keys()
            for name, bound in bounds.items():
                wanted = np.asarray(reference[name])
                where = f"{name} {form} {arithmetic} {p.spec} seed {p.seed}"
                assert bound.shape == wanted.shape, where
                np.testing.assert_allclose(
                    bound, wanted, rtol=1e-9 if arithmetic.unit_roundoff < 1e-6 else 1e-7, atol=1e-320, err_msg=where
                )
        all_found.append(found)
    return all_found


def small(
    activations: Sequence[Any], seed: int, loss: Any = "squared_error", reduction: str = "mean", scale: float = 1.0,
    dtype: str = "float64", n: int | None = None, rows: bool = False, sizes: Sequence[int] | None = None,
) -> Problem:  # fmt: skip
    """A network of one to four neurons a layer on one to three samples."""
    rng = np.random.default_rng(seed)
    sizes = sizes or rng.integers(1, 5, len(activations) + 1).tolist()
    spec = network(sizes, activations, loss, reduction, bias=bool(rng.random() < 0.6))
    p = problem(spec, n or int(rng.integers(1, 4)), seed, dtype)
    scaled = {name: (scale * array).astype(dtype) for name, array in p.params.items()}
    y = rng.dirichlet(np.ones(spec.n_out), len(p.x)).astype(dtype) if rows else p.y
    return Problem(spec, scaled, p.x, y, seed, 0)


@pytest.mark.parametrize("seed", range(4))
def test_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(4):
        activations = rng.choice(list(ACTIVATIONS), int(rng.integers(1, 4))).tolist()
        loss = str(rng.choice(list(LOSSES)))
        if loss == "negative_log_likelihood":
            activations[-1] = str(rng.choice(["sigmoid", "softmax"]))
        rows = LOSSES[loss].target == "classes" and rng.random() < 0.5
        reduction = str(rng.choice(["mean", "sum"]))
        p = small(activations, int(rng.integers(10**6)), loss, reduction, 10 ** rng.uniform(-1, 0.3), rows=rows)
        compared(p, INVENTED)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    for seed in range(2):
        compared(small([activation, activation], seed, "absolute_error", "sum", sizes=(2, 3, 2), n=2), INVENTED)
    compared(small([activation, "tanh"], 2, sizes=(2, 2, 1)), [ARITHMETICS["float64"], FLUSHING["float64"]])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_loss(loss: str, reduction: str) -> None:
    last = "sigmoid" if loss == "negative_log_likelihood" else "identity"
    for rows in {False, LOSSES[loss].target == "classes"}:
        p = small([last], 5, loss, reduction, sizes=(2, 3), n=2, rows=rows)
        compared(p, INVENTED)
        compared(small(["sigmoid", last], 6, loss, reduction, dtype="float32", rows=rows), [ARITHMETICS["float32"]])
