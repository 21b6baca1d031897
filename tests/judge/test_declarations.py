"""Convolutions by fast algorithms and variances in one pass: within their bounds where they are declared, and where
they are not, a FAIL that says what would have to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from convolutions import FAST, Arrays, as_matrices, by_fft, conv2d, direct, graph, numbers, torch_conv2d
from emulated import BFLOAT16, TF32
from false_alarms import Held, of_program, shares
from listed_programs import Listed
from numpy.lib.stride_tricks import sliding_window_view
from summation import Sum, numpy_sum, pairwise, sequential

from refimpl.judge.bounds import bounds
from refimpl.judge.declarations import undeclared
from refimpl.network.arithmetic import PRESETS, Arithmetic
from refimpl.truth.convolution import TILES, mixed, slid
from refimpl.truth.graph import Node, contract, gather, given, normalise

IN_FLOAT32 = PRESETS["float32"]
SMALL = (2, 2, 20, 20)
Array = np.ndarray[Any, Any]


class Judged:
    """The truth about the results of a graph, and what is said about answers."""

    def __init__(self, ends: dict[str, Node], at: Arrays) -> None:
        self.ends, self.at = ends, at
        self.held: Held = of_program(Listed("", (), ends, at))

    def failed(self, answer: Arrays, arithmetic: Arithmetic = IN_FLOAT32) -> int:
        return shares(answer, self.held, arithmetic).failed

    def named(self, answer: Arrays, arithmetic: Arithmetic = IN_FLOAT32) -> str | None:
        return undeclared(self.ends, self.at, arithmetic, answer, self.held.truth)


def convolution(kind: str, shape: tuple[int, ...] = SMALL, outputs: int = 3) -> Judged:
    at = numbers(kind, shape, outputs)
    return Judged(graph(at), at)


def declaring(**fields: Any) -> Arithmetic:
    return replace(IN_FLOAT32, **fields)


# --------------------------------------------------------------------------------------------------------------
# Convolutions


@pytest.mark.parametrize("name", list(FAST))
@pytest.mark.parametrize("kind", ["normal", "sparse", "bright"])
def test_a_fast_convolution_and_its_gradients_are_within_what_it_declares(name: str, kind: str) -> None:
    run, algorithm = FAST[name]
    judged = convolution(kind)
    answer = run(**judged.at)
    share = shares(answer, judged.held, declaring(convolution=algorithm))
    assert share.failed == 0
    assert 1e-5 < share.statistical < 0.1
    if algorithm != "fft":
        assert judged.failed(answer, declaring(convolution="winograd")) == 0


@pytest.mark.parametrize("name", list(FAST))
def test_a_fast_convolution_that_is_not_declared_is_a_fail_by_its_name(name: str) -> None:
    run, algorithm = FAST[name]
    judged = convolution("sparse")
    answer = run(**judged.at)
    assert f"convolution={algorithm.split()[0]!r}" in (judged.named(answer) or "")
    for part in ("y", "dx", "dw"):
        assert judged.failed({part: answer[part]}) > 0


@pytest.mark.parametrize("name", list(FAST))
def test_windows_may_be_padded_as_they_are_made(name: str) -> None:
    run, algorithm = FAST[name]
    at = numbers("sparse", SMALL, 3)
    edges = [(0, 0), (0, 0), (1, 1), (1, 1)]
    at["x"][:, :, 0, 0], at["g"] = 1, np.pad(at["g"], edges, mode="reflect")
    around = np.pad(np.arange(at["x"].size).reshape(SMALL), edges, constant_values=-1)

    def padded(x: Node, w: Node) -> Node:
        return contract("nchwij,ocij->nohw", gather(x, sliding_window_view(around, (3, 3), (2, 3))), w)

    judged = Judged(graph(at, padded), at)
    answer = run(np.pad(at["x"], edges), at["w"], at["g"])
    answer["dx"] = answer["dx"][:, :, 1:-1, 1:-1]
    assert judged.failed(answer, declaring(convolution=algorithm)) == 0


def test_what_spreads_over_the_image_is_by_fft_and_not_by_winograds_tiles() -> None:
    judged = convolution("sparse", (4, 1, 28, 28), 2)
    assert judged.named(by_fft(**judged.at)) == "within the bounds of a convolution by FFT: declare convolution='fft'"


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="without NNPACK torch convolves directly")
@pytest.mark.parametrize(("size", "algorithm"), [(28, "fft"), (34, "winograd")])
def test_torch_without_onednn_is_named(size: int, algorithm: str) -> None:
    for kind in ("normal", "sparse"):
        at = numbers(kind, (16, 1, size, size))
        at.pop("g")
        judged = Judged({"y": conv2d(*(given(name, at[name].shape) for name in at))}, at)
        answer = {"y": torch_conv2d(**at, onednn=False)}
        assert judged.failed(answer) > 0
        assert judged.failed(answer, declaring(convolution=algorithm)) == 0
        said = judged.named(answer) or ""
        assert f"convolution={algorithm!r}" in said
        if (kind, algorithm) == ("sparse", "fft"):  # which spreads further than Winograd's tiles
            assert "winograd" not in said


@pytest.mark.parametrize("kind", ["normal", "sparse", "bright"])
def test_direct_convolutions_declare_nothing(kind: str) -> None:
    judged = convolution(kind, (16, 1, 28, 28), 8)
    assert judged.failed(direct(**judged.at)) == 0
    assert judged.failed({"y": torch_conv2d(judged.at["x"], judged.at["w"], onednn=True)}) == 0
    assert judged.named(direct(**judged.at)) is None


def test_a_mistake_is_within_no_declaration() -> None:
    judged = convolution("normal")
    answer = direct(**judged.at)
    assert judged.named(answer | {"dx": answer["dx"] * np.float32(1.02)}) is None
    assert judged.named(answer | {"y": np.roll(answer["y"], 1, axis=-1)}) is None


@pytest.mark.parametrize("algorithm", ["direct", "fft", *TILES])
def test_bounds_do_not_depend_on_how_a_convolution_is_written(algorithm: str) -> None:
    at = numbers("sparse", SMALL, 3)
    one, other = (bounds(graph(at, form), at, declaring(convolution=algorithm)) for form in (conv2d, as_matrices))
    for name, bound in one.worst_case.items():
        assert np.allclose(bound, other.worst_case[name], rtol=1e-12)


def test_the_roundings_of_a_fast_convolution_add_up_in_a_sum_of_its_outputs() -> None:
    at = numbers("normal", SMALL, 3)
    y = graph(at)["y"]
    fast, plain = (
        bounds({"y": y, "sum": y.sum()}, at, declaring(convolution=one)).statistical for one in ("winograd", "direct")
    )
    assert fast["sum"] - plain["sum"] > 0.99 * (fast["y"] - plain["y"]).sum()


@pytest.mark.parametrize("shorter", ["winograd F(4, 3)", "winograd F(2, 3)"])
def test_the_norms_of_the_longest_tile_hold_for_shorter_ones(shorter: str) -> None:
    for magnitudes in np.eye(40):
        for of in (0, 1):
            assert (mixed(shorter, magnitudes, (0,), of) <= mixed("winograd", magnitudes, (0,), of) * (1 + 1e-12)).all()


def test_factors_that_are_shortened_in_the_transforms_are_granted_too() -> None:
    at = numbers("normal", SMALL, 3)
    ends = graph(at)
    fast, short, both = (
        bounds(ends, at, declaring(**fields)).worst_case
        for fields in ({"convolution": "winograd"}, {"products": 2.0**-11},
                       {"convolution": "winograd", "products": 2.0**-11})
    )  # fmt: skip
    assert (both["y"] >= fast["y"] + short["y"]).all()


PLACES = np.arange(60).reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("index", "axes"),
    [
        (PLACES[:, 1:3], ()),
        (PLACES.transpose(2, 0, 1)[::-1], ()),
        (np.pad(PLACES, 1, constant_values=-1), ()),
        (PLACES[[1, 1, 2, 0]], ()),
        (PLACES[..., :4].reshape(3, 4, 2, 2), ()),
        (sliding_window_view(PLACES, 3, 2), (2,)),
        (sliding_window_view(PLACES, (2, 3), (1, 2)).reshape(3, 9, 6), (1, 2)),
        (sliding_window_view(np.pad(PLACES, 1, constant_values=-1), 3, 2)[:, :, ::2], (2,)),
        (PLACES[:0], ()),
    ],
    ids=["slice", "transpose", "padding", "rows", "patches", "windows", "as rows", "with steps", "nothing"],
)  # fmt: skip
def test_windows_slide_along_the_axes_that_two_of_an_index_move_along(index: Array, axes: tuple[int, ...]) -> None:
    assert slid("winograd", index, PLACES.shape) == axes
    assert slid("direct", index, PLACES.shape) == ()


# --------------------------------------------------------------------------------------------------------------
# Variance


def layer_norm(x: Array, summed: Sum, one_pass: bool) -> Array:
    n = np.float32(x.shape[1])
    mean = summed(x)[:, None] / n
    square = summed(x * x)[:, None] / n - mean * mean if one_pass else summed((x - mean) ** 2)[:, None] / n
    return (x - mean) / np.sqrt(square + np.float32(1e-5))


def welfords(x: Array) -> Array:
    mean = square = np.zeros(len(x), np.float32)
    for count, column in enumerate(x.T, start=1):
        away = column - mean
        mean = mean + away / np.float32(count)
        square = square + away * (column - mean)
    return (x - mean[:, None]) / np.sqrt(square / np.float32(x.shape[1]) + np.float32(1e-5))[:, None]


def rows_about(mean: float, n: int) -> Judged:
    x = (mean + np.random.default_rng(0).standard_normal((64, n))).astype(np.float32)
    return Judged({"y": normalise(given("x", x.shape), 1e-5)}, {"x": x})


ONE_PASS = declaring(one_pass_variance=True)
SAID = (
    "within the bounds of a one-pass variance (two passes or Welford's need no declaration): "
    "declare one_pass_variance=True"
)


@pytest.mark.parametrize(("mean", "n"), [(20.0, 8), (50.0, 256), (100.0, 8), (100.0, 256)])
def test_a_variance_in_one_pass_is_a_fail_by_name_unless_it_is_declared(mean: float, n: int) -> None:
    judged = rows_about(mean, n)
    answer = {"y": layer_norm(judged.at["x"], sequential, one_pass=True)}
    assert judged.failed(answer) > 0
    assert judged.named(answer) == SAID
    assert judged.failed(answer, ONE_PASS) == 0


@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0])
@pytest.mark.parametrize("n", [8, 256])
def test_a_variance_in_two_passes_or_by_welfords_declares_nothing(mean: float, n: int) -> None:
    judged = rows_about(mean, n)
    runs: list[Callable[[Array], Array]] = [welfords]
    runs += [lambda x, s=summed: layer_norm(x, s, one_pass=False) for summed in (sequential, pairwise, numpy_sum)]
    for run in runs:
        answer = {"y": run(judged.at["x"])}
        assert judged.failed(answer) == 0
        assert judged.named(answer) is None
        assert judged.failed(answer, ONE_PASS) == 0


def test_a_variance_in_one_pass_that_cancels_throughout_is_undetermined_and_explained_by_nothing() -> None:
    judged = rows_about(500.0, 1024)
    answer = {"y": layer_norm(judged.at["x"], sequential, one_pass=True)}
    assert judged.failed(answer) > 0
    assert judged.failed(answer, ONE_PASS) == 0
    assert judged.named(answer) is None


# --------------------------------------------------------------------------------------------------------------
# Products


def test_products_of_fewer_bits_are_named_in_float32_and_not_in_float64(rng: np.random.Generator) -> None:
    at = {name: rng.uniform(1, 2, (8, 8)).astype(np.float32) for name in "ab"}
    judged = Judged({"c": given("a", (8, 8)) @ given("b", (8, 8))}, at)
    a, b = (array.astype(np.float64) for array in at.values())
    for rounding, name in ((TF32, "TF32"), (BFLOAT16, "bfloat16")):
        product = rounding(a) @ rounding(b)
        said = judged.named({"c": product.astype(np.float32)}) or ""
        assert f"products in {name}: declare products=" in said
        assert judged.named({"c": product}, PRESETS["float64"]) is None
