"""The graph: every primitive, found in the tables, agrees with NumPy and with itself by two routes."""

from __future__ import annotations

import flint
import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from programs import ALL, EXAMPLES, SHAPE, Build, balls, leaves, numbers

from refimpl.truth import graph as primitives
from refimpl.truth.balls import BallAlgebra, arbs
from refimpl.truth.duals import DualAlgebra
from refimpl.truth.elementwise import ABSOLUTE, SQUARE, activation
from refimpl.truth.gradients import VJPS, cotangents, gradients
from refimpl.truth.graph import PRIMITIVES, order, read

names = pytest.mark.parametrize("name", list(ALL))


def test_every_primitive_has_an_example_here_and_stands_in_every_table() -> None:
    assert set(EXAMPLES) == set(PRIMITIVES)
    assert set(VJPS) == set(PRIMITIVES) - {"given", "constant"}
    for algebra in (BallAlgebra, DualAlgebra):
        assert set(PRIMITIVES) <= set(dir(algebra))
    for name, (build, _) in EXAMPLES.items():
        assert name in {node.rule for node in order([build(*leaves())])}


@names
@over(seed=st.integers(0, 10**6))
def test_balls_hold_what_numpy_computes(name: str, seed: int) -> None:
    build, expected = ALL[name]
    at = numbers(seed)
    (found,) = balls([build(*leaves())], at)
    right = np.asarray(expected(at["a"], at["b"]))
    assert right.shape == found.mid.shape
    assert np.abs(found.mid - right).max() <= 1e-12 * max(1.0, np.abs(right).max())


@names
@over(seed=st.integers(0, 10**6))
def test_reverse_mode_agrees_with_forward_mode_twice(name: str, seed: int) -> None:
    """⟨∇f, v⟩ by vector–Jacobian products is the derivative along v by dual numbers; and so with ⟨∇f, w⟩ for f."""
    build, _ = ALL[name]
    at, rng = numbers(seed), np.random.default_rng(seed)
    a, b = leaves()
    along = {key: arbs(rng.integers(-8, 9, SHAPE) / 4) for key in at}
    output = build(a, b)
    total = (output * (rng.integers(1, 9, output.shape) / 4)).sum()
    for _ in range(2):
        found = gradients(total, [a, b])
        algebra = BallAlgebra({key: arbs(array) for key, array in at.items()})
        values = read(found, algebra)
        reverse = sum(((values[g] * along[key]).sum() for g, key in zip(found, at, strict=True)), flint.arb(0))
        slope = read([total], DualAlgebra(algebra, read([total], algebra), along))[total]
        forward = flint.arb(0) if slope is None else slope.item()
        assert forward.overlaps(reverse)
        assert float(forward.rad()) < 1e-9
        weights = {key: rng.integers(1, 9, SHAPE) / 4 for key in at}
        total = sum(((g * weights[key]).sum() for g, key in zip(found, at, strict=True)), primitives.constant(0.0))


def test_gradients_are_those_of_torch() -> None:
    """An independent implementation of what is composed here: a layer norm, attention and a cross-entropy."""
    torch = pytest.importorskip("torch")
    at = numbers(5)
    a, b = leaves()
    scores = primitives.contract("nik,njk->nij", primitives.normalise(a, 0.5), b)
    mixed = primitives.contract("nij,njk->nik", primitives.softmax(scores), b)
    loss = (primitives.log_sum_exp(mixed) - mixed[..., :1]).sum() / 6
    found = balls(gradients(loss, [a, b]), at)
    ta, tb = (torch.tensor(at[key], requires_grad=True) for key in at)
    normed = torch.nn.functional.layer_norm(ta, (4,), eps=0.5)
    out = torch.softmax(normed @ tb.transpose(1, 2), -1) @ tb
    (torch.nn.functional.cross_entropy(out.reshape(6, 4), torch.zeros(6, dtype=torch.long))).backward()
    for ball, tensor in zip(found, (ta, tb), strict=True):
        assert np.abs(ball.mid - tensor.grad.numpy()).max() < 1e-14


def test_balls_cover_both_sides_of_a_kink_that_cannot_be_told() -> None:
    a = primitives.given("a", (1,))
    wide = np.array([flint.arb(0, 0.5)], dtype=object)
    for function, slopes in ((activation("relu"), (0, 1)), (ABSOLUTE, (-1, 0, 1))):
        node = primitives.apply(function, a)
        algebra = BallAlgebra({"a": wide})
        (slope,) = gradients(node.sum(), [a])
        value = read([slope], algebra)[slope][0]
        assert all(value.contains(flint.arb(one)) for one in slopes)
        assert algebra.undecided == [(function.name, a, 0)]


def test_a_kink_itself_has_the_derivative_of_the_catalogue() -> None:
    a = primitives.given("a", (3,))
    for function, slopes in ((ABSOLUTE, [-1, 0, 1]), (activation("relu"), [0, 0, 1]), (SQUARE, [-2, 0, 2])):
        (found,) = balls(gradients(primitives.apply(function, a).sum(), [a]), {"a": np.array([-1.0, 0.0, 1.0])})
        assert found.mid.tolist() == slopes


def test_the_largest_of_overlapping_balls_is_not_decided() -> None:
    a = primitives.given("a", (1, 2))
    near = np.array([[flint.arb(1, 0.1), flint.arb(1.05, 0.1)]], dtype=object)
    algebra = BallAlgebra({"a": near})
    top = a.max(axis=1)
    values = read([*gradients(top.sum(), [a]), top], algebra)
    assert algebra.undecided == [("max", a, 1)]
    assert values[top][0].contains(flint.arb(1.15)) or float(values[top][0].upper()) >= 1.14


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda a, b: primitives.add(a, b[0]), "not of one shape"),
        (lambda a, b: a + b.reshape(4, 3, 2), "mismatch"),
        (lambda a, b: a.reshape(6, 4) @ b.reshape(6, 4), "do not fit"),
        (lambda a, b: primitives.contract("nij,kij->k", a, b), "one factor only"),
        (lambda a, b: primitives.gather(a, np.array([24])), "outside"),
        (lambda a, b: a.reshape(5, 5), "cannot reshape"),
        (lambda a, b: primitives.broadcast(a, (2, 3)), "mismatch|does not become"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(build: Build, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build(*leaves())


def test_what_the_output_does_not_depend_on_has_gradient_0() -> None:
    a, b = leaves()
    found = cotangents((a * 2).sum(), [a, b])
    assert balls([found[b]], numbers(1))[0].mid.max() == 0
