"""The graph: every primitive, found in the tables, agrees with NumPy and with itself by two routes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from refimpl.truth import graph as primitives
from refimpl.truth.balls import BallAlgebra, Balls, arbs
from refimpl.truth.duals import DualAlgebra
from refimpl.truth.elementwise import ABSOLUTE, LOGARITHM, SQUARE, activation, huber
from refimpl.truth.gradients import VJPS, cotangents, gradients
from refimpl.truth.graph import PRIMITIVES, Node, order, read

Build = Callable[[Node, Node], Node]
SHAPE = (2, 3, 4)
PLACES = np.array([[0, 5, -1], [23, 5, 7]])
MASK = np.arange(24).reshape(SHAPE) % 3 == 0


def softmax(a: Any) -> Any:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def norm(a: Any, centred: bool = True) -> Any:
    c = a - a.mean(axis=-1, keepdims=True) if centred else a
    return c / np.sqrt((c * c).mean(axis=-1, keepdims=True) + 0.5)


def scattered(a: Any) -> Any:
    out = np.zeros(6)
    np.add.at(out, np.arange(24) % 6, a.ravel())
    return out.reshape(2, 3)


# what each primitive is to NumPy, on two arrays of SHAPE whose numbers lie between ¼ and 3
EXAMPLES: dict[str, tuple[Build, Callable[[Any, Any], Any]]] = {
    "given": (lambda a, b: a, lambda a, b: a),
    "constant": (lambda a, b: a * np.full(SHAPE, 0.75), lambda a, b: a * 0.75),
    "add": (lambda a, b: a + b[0], lambda a, b: a + b[0]),
    "mul": (lambda a, b: a * b[:, :1], lambda a, b: a * b[:, :1]),
    "div": (lambda a, b: a / b, lambda a, b: a / b),
    "scale": (lambda a, b: primitives.scale(a, Fraction(2, 7)), lambda a, b: a * 2 / 7),
    "contract": (
        lambda a, b: primitives.contract("nij,kin->kj", a, b.reshape(4, 3, 2)),
        lambda a, b: np.einsum("nij,kin->kj", a, b.reshape(4, 3, 2)),
    ),
    "apply": (lambda a, b: primitives.apply(activation("tanh"), a), lambda a, b: np.tanh(a)),
    "softmax": (lambda a, b: primitives.softmax(a), lambda a, b: softmax(a)),
    "log_sum_exp": (
        lambda a, b: primitives.log_sum_exp(a),
        lambda a, b: np.log(np.exp(a).sum(axis=-1, keepdims=True)),
    ),
    "normalise": (lambda a, b: primitives.normalise(a, 0.5), lambda a, b: norm(a)),
    "inverse_deviation": (
        lambda a, b: primitives.inverse_deviation(a, 0.5, centred=False),
        lambda a, b: 1 / np.sqrt((a * a).mean(axis=-1, keepdims=True) + 0.5),
    ),
    "sum": (lambda a, b: a.sum(axis=(0, -1)), lambda a, b: a.sum(axis=(0, -1))),
    "max": (lambda a, b: a.max(axis=(0, 2)), lambda a, b: a.max(axis=(0, 2))),
    "first_largest": (
        lambda a, b: a * primitives.first_largest(a, (1,)),
        lambda a, b: a * (a == a.max(axis=1, keepdims=True)),
    ),
    "select": (lambda a, b: primitives.select(MASK, a, b), lambda a, b: np.where(MASK, a, b)),
    "gather": (
        lambda a, b: primitives.gather(a, PLACES),
        lambda a, b: np.append(a.ravel(), 0.0)[PLACES],
    ),
    "scatter_add": (lambda a, b: primitives.scatter_add(a, np.arange(24) % 6, (2, 3)), lambda a, b: scattered(a)),
    "reshape": (lambda a, b: a.reshape(4, -1), lambda a, b: a.reshape(4, -1)),
    "transpose": (lambda a, b: primitives.transpose(a, (2, 0, 1)), lambda a, b: a.transpose(2, 0, 1)),
    "broadcast": (lambda a, b: primitives.broadcast(a, (5, *SHAPE)), lambda a, b: np.broadcast_to(a, (5, *SHAPE))),
}
MORE: dict[str, tuple[Build, Callable[[Any, Any], Any]]] = {
    "rms norm": (lambda a, b: primitives.normalise(a, 0.5, centred=False), lambda a, b: norm(a, centred=False)),
    "log": (lambda a, b: primitives.apply(LOGARITHM, a), lambda a, b: np.log(a)),
    "huber": (
        lambda a, b: primitives.apply(huber(1.0), a - b),
        lambda a, b: np.where(abs(a - b) <= 1, (a - b) ** 2 / 2, abs(a - b) - 0.5),
    ),
    "operators": (
        lambda a, b: 1 - (2 / a - a / 4) * -b + (a.reshape(6, 4) @ b.reshape(4, 6).T.T).sum(),
        lambda a, b: 1 - (2 / a - a / 4) * -b + (a.reshape(6, 4) @ b.reshape(4, 6)).sum(),
    ),
}
ALL = EXAMPLES | MORE
names = pytest.mark.parametrize("name", list(ALL))


def test_every_primitive_has_an_example_here_and_stands_in_every_table() -> None:
    assert set(EXAMPLES) == set(PRIMITIVES)
    assert set(VJPS) == set(PRIMITIVES) - {"given", "constant"}
    for algebra in (BallAlgebra, DualAlgebra):
        assert set(PRIMITIVES) <= set(dir(algebra))
    for name, (build, _) in EXAMPLES.items():
        assert name in {node.rule for node in order([build(*leaves())])}


def leaves() -> tuple[Node, Node]:
    return primitives.given("a", SHAPE), primitives.given("b", SHAPE)


def numbers(seed: int) -> dict[str, np.ndarray]:
    """Distinct numbers between ¼ and 3, short enough to print, no two of which are at a kink."""
    rng = np.random.default_rng(seed)
    return {name: 0.25 + rng.permutation(24).reshape(SHAPE) / 9 + offset for name, offset in (("a", 0), ("b", 0.05))}


def balls(ends: list[Node], at: dict[str, np.ndarray]) -> list[Balls]:
    values = read(ends, BallAlgebra({name: arbs(array) for name, array in at.items()}))
    return [Balls.from_arbs(list(values[end].ravel()), end.shape) for end in ends]


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
        forward = read([total], DualAlgebra(algebra, along))[total][1].item()
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
