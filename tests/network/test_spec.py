"""Specs: round trips, initial values, the published schema, and everything that can be wrong with one."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import Function, LayerSpec, NetworkSpec, SpecError, examples
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.parameters import SCHEMES
from refimpl.network.random_problems import random_problem
from refimpl.network.spec import MAX_FILE_BYTES, json_schema

ROOT = Path(__file__).resolve().parent.parent
ARTICLE = {
    "format": "refimpl.network/1",
    "name": "article",
    "input_shape": [4],
    "layers": [
        {"size": 2, "activation": "sigmoid"},
        {"size": 2, "activation": "sigmoid"},
        {"size": 1, "activation": "identity", "bias": False},
    ],
    "loss": "squared_error",
    "reduction": "mean",
}


def test_the_article_is_the_file_of_the_design() -> None:
    spec = NetworkSpec.loads(json.dumps(ARTICLE))
    assert spec == examples.article()
    assert hash(spec) == hash(examples.article())
    assert spec.to_dict() == ARTICLE
    assert spec.parameter_shapes == {"W1": (2, 4), "b1": (2,), "W2": (2, 2), "b2": (2,), "W3": (1, 2)}
    assert (spec.n_parameters, spec.sizes, spec.depth, spec.n_in, spec.n_out) == (18, (4, 2, 2, 1), 3, 4, 1)


@given(index=st.integers(0, 10**6))
def test_every_spec_survives_json(index: int) -> None:
    spec = random_problem(5, index, "float64").spec
    assert NetworkSpec.loads(spec.dumps()) == spec
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    assert spec.n_parameters == sum(math.prod(shape) for shape in spec.parameter_shapes.values())


@given(text=st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_garbage_is_refused_with_a_spec_error_in_one_line(text: str | bytes) -> None:
    with pytest.raises(SpecError) as caught:
        NetworkSpec.loads(text)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(["format", "name", "input_shape", "layers", "loss", "reduction"]), value=JSON)
def test_a_wrong_value_under_any_key_is_refused_or_the_spec_is_whole(key: str, value: Any) -> None:
    problem = ""
    try:
        spec = NetworkSpec.loads(json.dumps({**ARTICLE, key: value}))
        assert NetworkSpec.loads(spec.dumps()) == spec
    except SpecError as error:
        problem = str(error)
    assert "\n" not in problem


def changed(**changes: Any) -> str:
    return json.dumps({**ARTICLE, **changes})


def with_layer(**changes: Any) -> str:
    return changed(layers=[{"size": 2, "activation": "relu"}, {"size": 1, **changes}])


WRONG = [
    ("", "not JSON"),
    ("{", "not JSON: .* at line 1, column"),
    ("[]", "the network must be a JSON object, got list"),
    ("null", "the network must be a JSON object"),
    (changed(colour=1), "unknown key 'colour'; known are format"),
    (json.dumps({k: v for k, v in ARTICLE.items() if k != "loss"}), "lacks the key 'loss'"),
    (changed()[:-1] + ', "loss": "huber"}', "the key 'loss' is given twice"),
    (changed(format="refimpl.network/2"), "format must be one of refimpl.network/1"),
    (changed(format=1), "format must be one of"),
    (changed(name="a\nb"), "name must be one line"),
    (changed(name="x" * 300), "name must be one line of at most 200"),
    (changed(input_shape=4), "input_shape must be a list"),
    (changed(input_shape=[4.0]), r"input_shape\[0\] must be an integer ≥ 1, got float 4.0"),
    (changed(input_shape=[0]), r"input_shape\[0\] must be an integer ≥ 1 .* got 0"),
    (changed(input_shape=[1] * 40), "40 dimensions; at most 32"),
    (changed(input_shape=[10**6, 10**6]), "at most 10,000,000 are allowed"),
    (changed(layers=[]), "layers must hold at least one layer"),
    (changed(layers={}), "layers must be a list"),
    (changed(layers=[3]), r"layers\[0\] must be a JSON object, got int 3"),
    (changed(layers=[{"size": 1}] * 10_001), "at most 10,000 are allowed"),
    (with_layer(size=0), r"layers\[1\].size must be an integer ≥ 1 .* got 0"),
    (with_layer(size=-3), r"layers\[1\].size must be an integer ≥ 1 .* got -3"),
    (with_layer(size=True), r"layers\[1\].size must be an integer ≥ 1, got bool True"),
    (with_layer(size="2"), r"layers\[1\].size must be an integer"),
    (with_layer(size=10**15), r"layers\[1\].size must be an integer"),
    (changed(layers=[{"size": 10**7}, {"size": 10**7}]), "at most 100,000,000 are allowed"),
    (with_layer(bias=1), r"layers\[1\].bias must be true or false, got int 1"),
    (with_layer(activation="swish"), r"layers\[1\].activation must be one of identity, relu.*got str 'swish'"),
    (with_layer(activation=None), r"layers\[1\].activation must be one of"),
    (
        with_layer(activation={"name": "leaky_relu", "slope": 0.1}),
        "leaky_relu has no parameter 'slope'; it has: negative_slope",
    ),
    (with_layer(activation={"name": "relu", "slope": 0.1}), "relu has no parameter 'slope'; it has: none"),
    (
        with_layer(activation={"name": "leaky_relu", "negative_slope": "0.1"}),
        "negative_slope of leaky_relu must be a number ≥ 0",
    ),
    (
        with_layer(activation={"name": "leaky_relu", "negative_slope": -1}),
        "negative_slope of leaky_relu must be a number ≥ 0",
    ),
    (with_layer(activation={"negative_slope": 0.1}), "activation lacks the key 'name'"),
    (with_layer(weights=[1]), r"layers\[1\] has the unknown key 'weights'"),
    (changed(loss="mse"), "loss must be one of squared_error"),
    (changed(loss={"name": "huber", "delta": 0}), "delta of huber must be a number > 0"),
    (changed(reduction="max"), "reduction must be one of mean, sum"),
    ('{"format": NaN}', "NaN is not a JSON number"),
    ('{"format": -Infinity}', "-Infinity is not a JSON number"),
    (changed(loss={"name": "huber", "delta": 1}).replace("1}", "1e400}"), "1e400 is too large for float64"),
    ('{"input_shape": [' + "9" * 5000 + "]}", "is too large"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 50_000, "nested too deeply|not JSON"),
    (b"\xff\xfe{}", "not UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_file_names_the_field_and_the_remedy(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        NetworkSpec.loads(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    file = tmp_path / "net.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError, match=r"net\.json: "):
        NetworkSpec.load(file)


def test_a_hundred_megabytes_are_refused_without_being_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    with open(huge, "wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(SpecError, match="larger than 1,048,576 bytes"):
        NetworkSpec.load(huge)
    with pytest.raises(SpecError, match="longer than 1,048,576 bytes"):
        NetworkSpec.loads(" " * (MAX_FILE_BYTES + 1))


@pytest.mark.parametrize("path", [None, 1, [], b"net.json"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    for call in (lambda: NetworkSpec.load(path), lambda: examples.article().save(path)):
        with pytest.raises(SpecError, match="path must be a str or a Path"):
            call()


def test_special_files_are_left_alone(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for call in (lambda: NetworkSpec.load(fifo), lambda: examples.article().save(fifo)):
        with pytest.raises(SpecError, match="is no regular file"):
            call()
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*none\.json: No such file"):
        NetworkSpec.load(tmp_path / "none.json")
    with pytest.raises(SpecError, match="is no regular file"):
        NetworkSpec.load(tmp_path)
    with pytest.raises(SpecError, match=r"cannot write .*choose a folder that exists"):
        examples.article().save(tmp_path / "none" / "net.json")


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "no\nfile", "x" * 300])
def test_names_that_no_file_has_are_one_clear_line(path: str, tmp_path: Path) -> None:
    name = str(tmp_path / "none" / path)
    for use in (NetworkSpec.load, examples.article().save):
        with pytest.raises(SpecError, match=r"^cannot (read|write) ") as caught:
            use(name)
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_spec_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    slope = {"name": "leaky_relu", "negative_slope": 0.012345678901234567}
    spec = NetworkSpec((4,), [LayerSpec(1, slope, bias=False)] * 10_000, "huber")
    with pytest.raises(SpecError, match=r"takes 1,\d{3},\d{3} bytes of JSON; at most 1,048,576"):
        spec.save(tmp_path / "net.json")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_has_the_permissions_of_any_other_and_links_stay(tmp_path: Path) -> None:
    plain, target, link = (tmp_path / name for name in ("plain", "net.json", "link.json"))
    plain.touch()
    examples.article().save(target)
    assert target.stat().st_mode == plain.stat().st_mode
    target.chmod(0o640)
    link.symlink_to(target)
    examples.digits().save(link)
    assert link.is_symlink()
    assert NetworkSpec.load(target) == examples.digits()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_any_depth_of_nesting_is_a_spec_error() -> None:
    # the parser's limit and that of printing the value differ, so every depth near them is tried
    for depth in range(800, 1100):
        with pytest.raises(SpecError):
            NetworkSpec.loads(changed(loss=0).replace('"loss": 0', '"loss": ' + "[" * depth + "]" * depth))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.json"
    examples.article().save(target)
    before = target.read_bytes()

    def fails(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(SpecError, match="No space left"):
        examples.digits().save(target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_save_and_load(tmp_path: Path) -> None:
    spec = NetworkSpec(
        (2, 3),
        [LayerSpec(2, {"name": "elu", "alpha": 0.5}), LayerSpec(1)],
        {"name": "huber", "delta": 2},
        "sum",
        "größe",
    )
    spec.save(tmp_path / "net.json")
    assert NetworkSpec.load(tmp_path / "net.json") == spec
    assert spec.loss == Function("huber", (("delta", 2.0),))
    assert spec.layers[0].activation.kwargs == {"alpha": 0.5}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LayerSpec(2.5), "size must be an integer"),  # type: ignore[arg-type]
        (lambda: LayerSpec(np.ones((9, 9))), "size must be an integer ≥ 1, got ndarray"),  # type: ignore[arg-type]
        (
            lambda: LayerSpec(2, {"name": "elu", "alpha": 10**5000}),
            "alpha of elu must be a number .* got int too large to show",
        ),
        (lambda: LayerSpec(2, Function("nothing")), "activation must be one of"),
        (lambda: LayerSpec(2, Function("elu", 5)), "activation: the parameters of a Function are pairs"),  # type: ignore[arg-type]
        (lambda: LayerSpec(2, Function("elu", (("alpha", 1.0), ("alpha", 2.0)))), "each name once"),
        (lambda: NetworkSpec.loads(None), "must be str or bytes, got NoneType"),  # type: ignore[arg-type]
        (lambda: NetworkSpec((4,), [], "huber"), "at least one layer"),
        (lambda: NetworkSpec((4,), [3], "huber"), r"layers\[0\] must be a LayerSpec"),  # type: ignore[list-item]
        (lambda: NetworkSpec("4", [LayerSpec(1)], "huber"), "input_shape must be a list"),  # type: ignore[arg-type]
        (lambda: NetworkSpec((4,), [LayerSpec(1)] * 10_001, "huber"), "at most 10,000"),
        (lambda: examples.article().init(-1), "seed must be an integer ≥ 0"),
        (lambda: examples.article().init(0, "float16"), "dtype must be one of float64, float32"),
        (lambda: examples.article().init(0, "float64", "best"), "scheme must be one of glorot_uniform"),
    ],
)
def test_wrong_arguments(build: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_numpy_integers_are_integers() -> None:
    assert LayerSpec(np.int64(3)) == LayerSpec(3)  # type: ignore[arg-type]
    assert type(LayerSpec(np.int64(3)).size) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheme", "deviation"),
    [
        ("glorot_uniform", math.sqrt(2 / 500)),
        ("glorot_normal", math.sqrt(2 / 500)),
        ("he_uniform", math.sqrt(2 / 300)),
        ("he_normal", math.sqrt(2 / 300)),
        ("normal", 1.0),
        ("zeros", 0.0),
    ],
)
def test_initial_values_have_the_deviation_of_their_paper(scheme: str, deviation: float) -> None:
    spec = NetworkSpec((300,), [LayerSpec(200, "relu")], "huber")
    params = spec.init(3, "float32", scheme)
    assert params["W1"].dtype == np.float32
    assert params["W1"].std() == pytest.approx(deviation, rel=0.02)
    assert abs(params["W1"].mean()) <= 0.02 * deviation
    assert (params["b1"] == 0).all() == (scheme != "normal")
    if scheme.endswith("uniform"):
        assert np.abs(params["W1"]).max() == pytest.approx(deviation * math.sqrt(3), rel=0.01)
    assert set(SCHEMES) == {"glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal", "zeros"}


def test_initial_values_are_a_function_of_the_seed_and_the_same_in_both_dtypes() -> None:
    spec = examples.digits()
    first, again, other = spec.init(1), spec.init(1), spec.init(2)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["W1"] != other["W1"]).any()
    assert (spec.init(1, "float32")["W1"] == first["W1"].astype("float32")).all()
    assert list(first) == list(spec.parameter_shapes)


def test_the_published_schema_is_the_generated_one() -> None:
    published = json.loads((ROOT / "refimpl/schemas/network-1.schema.json").read_text())
    assert published == json_schema()
    names = published["properties"]["loss"]["anyOf"][0]["enum"]
    assert names == list(LOSSES)
    assert published["properties"]["layers"]["items"]["properties"]["activation"]["anyOf"][0]["enum"] == list(
        ACTIVATIONS
    )
