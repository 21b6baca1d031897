"""What `check` says that a network and a batch cannot tell apart is so: no answer shows it."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, problem

from refimpl import check
from refimpl.network.indistinct import indistinct
from refimpl.network.spec import NetworkSpec
from refimpl_numpy import NumpyBackend


def gradients(spec: NetworkSpec, seed: int = 0, n: int = 4) -> dict[str, np.ndarray]:
    p = problem(spec, n, seed)
    grads: dict[str, np.ndarray] = NumpyBackend().gradient_function(spec, dtype="float64", device="cpu")(
        p.params, p.x, p.y
    )[1]
    return grads


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.allclose(one[name], other[name], rtol=1e-12, atol=0) for name in one)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_both_squared_errors_have_one_slope_for_two_outputs(outputs: int) -> None:
    half, mean = (
        network((3, 4, outputs), ["tanh", "identity"], loss) for loss in ("squared_error", "mean_squared_error")
    )
    said = any("2/n_out" in text for text in indistinct(half, 4))
    assert said == same(gradients(half), gradients(mean)) == (outputs == 2)


@pytest.mark.parametrize("n", [1, 3])
def test_a_mean_of_one_sample_is_a_sum(n: int) -> None:
    mean, total = (network((3, 4, 3), ["tanh", "identity"], "squared_error", how) for how in ("mean", "sum"))
    said = any("N = 1" in text for text in indistinct(mean, n))
    assert said == same(gradients(mean, n=n), gradients(total, n=n)) == (n == 1)


def test_it_is_part_of_the_report() -> None:
    p = problem(network((3, 4, 2), ["tanh", "identity"]), 2)
    report = check(p.spec, p.params, p.x, p.y, ["numpy"])
    assert report.indistinct == indistinct(p.spec, 2)
    assert len(report.indistinct) == 3  # N is n_out and the 2 of the square, and 2/n_out is 1
    assert report.to_dict()["indistinct"] == list(report.indistinct)
    assert "cannot tell N from n_out (both are 2); " in report._repr_html_()


def test_an_ordinary_network_tells_everything_apart() -> None:
    assert indistinct(network((3, 4, 3), ["tanh", "identity"]), 5) == ()


def test_no_hidden_layer_or_linear_ones_are_said() -> None:
    assert any("no hidden layer" in text for text in indistinct(network((3, 3), ["tanh"]), 5))
    assert any("all are identity" in text for text in indistinct(network((3, 4, 3), ["identity", "tanh"]), 5))
