"""Parameters and data: all that can be wrong with an array is one clear line before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import network, problem

from refimpl import DataError, LayerSpec, NetworkSpec, examples
from refimpl.network.batch import validate

SPEC = network((3, 2), ["tanh"])
CLASSES = network((3, 2), ["identity"], "cross_entropy")
LOGITS = network((3, 2), ["identity"], "binary_cross_entropy")


def arrays(spec: NetworkSpec = SPEC, n: int = 4) -> dict[str, Any]:
    p = problem(spec, n=n)
    return {"params": p.params, "x": p.x, "y": p.y}


def changed(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


WRONG = [
    (lambda a: {"params": [1]}, "params must be a dict of arrays by name, got list"),
    (lambda a: {"params": {"W1": a["params"]["W1"]}}, "params lacks b1; the network's parameters are W1, b1"),
    (lambda a: {"params": a["params"] | {"W2": np.ones(1)}}, "params has W2, which the network has not"),
    (lambda a: {"params": a["params"] | {"W1": a["params"]["W1"].T}}, r"W1 has shape \(3, 2\); it must be \(2, 3\)"),
    (lambda a: {"params": a["params"] | {"b1": [0.0, 1.0]}}, "b1 must be a NumPy array, got list; use numpy.asarray"),
    (
        lambda a: {"params": a["params"] | {"b1": np.zeros(2, "float32")}},
        r"b1 has dtype float32 and x has float64; .* b1.astype\('float64'\)",
    ),
    (lambda a: {"params": a["params"] | {"W1": np.ones((2, 3), int)}}, "W1 has dtype int64"),
    (lambda a: {"params": a["params"] | {"W1": np.ones((2, 3), complex)}}, "W1 has dtype complex128"),
    (lambda a: {"params": a["params"] | {"W1": np.ones((2, 3), object)}}, "W1 has dtype object"),
    (
        lambda a: {"params": a["params"] | {"W1": changed(a["params"]["W1"], (1, 2), np.nan)}},
        r"W1\[2,3\] is nan; all numbers must be finite",
    ),
    (lambda a: {"x": np.ma.masked_invalid(changed(a["x"], (0, 0), np.nan))}, "x is a masked array"),
    (lambda a: {"x": a["x"].tolist()}, "x must be a NumPy array, got list"),
    (lambda a: {"x": a["x"].astype("float16")}, "x has dtype float16; use float64 or float32"),
    (lambda a: {"x": a["x"].astype(int)}, "x has dtype int64; use float64 or float32"),
    (
        lambda a: {"x": a["x"][0]},
        r"x has shape \(3,\); it must be \(N, 3\), one row a sample; add a batch axis: x\[None\]",
    ),
    (lambda a: {"x": a["x"][:, :2]}, r"x has shape \(4, 2\); it must be \(N, 3\)"),
    (lambda a: {"x": np.float64(3)[None][0]}, "x must be a NumPy array"),
    (lambda a: {"x": np.array(3.0)}, r"x has shape \(\)"),
    (lambda a: {"x": a["x"][:0], "y": a["y"][:0]}, "x holds no sample"),
    (lambda a: {"x": changed(a["x"], (3, 0), np.inf)}, r"x\[4,1\] is inf"),
    (lambda a: {"y": a["y"][:3]}, r"y has shape \(3, 2\); it must be \(4, 2\)"),
    (lambda a: {"y": a["y"][:, 0]}, r"y has shape \(4,\); it must be \(4, 2\)"),
    (lambda a: {"y": a["y"].astype(int)}, "y has dtype int64; squared_error takes float64"),
    (lambda a: {"y": a["y"].astype("float32")}, "y has dtype float32 and x has float64"),
    (lambda a: {"y": changed(a["y"], (0, 1), -np.inf)}, r"y\[1,2\] is -inf"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_wrong_arrays(spoil: Any, message: str) -> None:
    good = arrays()
    validate(SPEC, **good)
    with pytest.raises(DataError, match=message) as caught:
        validate(SPEC, **(good | spoil(good)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "y", "message"),
    [
        (CLASSES, np.array([0, 1, 2, 0]), r"y\[3\] is the label 2; labels must be from 0 to 1"),
        (CLASSES, np.array([0, -1, 1, 0]), r"y\[2\] is the label -1"),
        (CLASSES, np.array([[0], [1], [1], [0]]), r"y has shape \(4, 1\); labels must have shape \(4,\)"),
        (CLASSES, np.array([0.0, 1.0, 1.0, 0.0]), "labels must be integers"),
        (CLASSES, np.array([True, False, True, True]), "y has dtype bool"),
        (CLASSES, np.full((4, 2), 0.4), r"y\[1\] sums to 0.8; each row of probabilities must sum to 1"),
        (CLASSES, np.array([[1.5, -0.5]] * 4), r"y\[1,1\] is 1.5; cross_entropy takes probabilities"),
        (LOGITS, np.full((4, 2), 1.25), r"y\[1,1\] is 1.25; binary_cross_entropy takes probabilities, from 0 to 1"),
        (LOGITS, np.array([0, 1, 1, 0]), "y has dtype int64"),
    ],
)
def test_wrong_targets(spec: NetworkSpec, y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        validate(spec, **(arrays(spec) | {"y": y}))


def test_right_arrays_come_out_plain() -> None:
    a = arrays(CLASSES)
    batch = validate(CLASSES, a["params"], np.asfortranarray(a["x"]).astype(">f8"), np.array([0, 1, 1, 0], np.uint8))
    assert batch.x.flags.c_contiguous
    assert batch.x.dtype == np.dtype("float64")
    assert (batch.x == a["x"]).all()
    assert batch.y.dtype == np.int64
    assert validate(CLASSES, **(a | {"y": np.full((4, 2), 0.5)})).y.shape == (4, 2)


def test_x_of_any_rank_is_flattened() -> None:
    for shape in ((), (2, 2), (1, 2, 3)):
        spec = NetworkSpec(shape, [LayerSpec(2)], "huber")
        p = problem(spec, n=3)
        assert validate(spec, p.params, p.x, p.y).x.shape == (3, spec.n_in)
    scalar = NetworkSpec((), [LayerSpec(2)], "huber")
    p = problem(scalar, n=3)
    with pytest.raises(DataError, match=r"it must be \(N,\), one row"):
        validate(scalar, p.params, p.x[:, None], p.y)


def test_the_names_of_a_deep_network_are_not_all_listed() -> None:
    spec = network((1,) * 31, ["relu"] * 30)
    with pytest.raises(DataError, match="W1, b1, W2, b2, W3, b3, …, W30, b30"):
        validate(spec, {}, np.ones((1, 1)), np.ones((1, 1)))


def test_the_examples_have_data() -> None:
    x, y = examples.article_batch(3, 1, "float32")
    assert (x.shape, y.shape, x.dtype) == ((3, 4), (3, 1), np.float32)
    x, y = examples.digits_data("float32")
    assert (x.shape, y.shape, x.dtype, x.max()) == ((1797, 64), (1797,), np.float32, 1.0)
    validate(examples.digits(), examples.digits().init(0, "float32"), x, y)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: examples.article_batch(0), "n must be an integer ≥ 1, got 0"),
        (lambda: examples.article_batch(True), "n must be an integer ≥ 1, got True"),
        (lambda: examples.article_batch(2, -1), "seed must be an integer ≥ 0, got -1"),
        (lambda: examples.article_batch(2, 0, "int8"), "dtype must be one of float64, float32; got 'int8'"),
        (lambda: examples.digits_data("float16"), "dtype must be one of float64, float32; got 'float16'"),
    ],
)
def test_examples_refuse_what_cannot_be_checked(build: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()


def test_digits_without_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'refimpl\[data\]'"):
        examples.digits_data()
