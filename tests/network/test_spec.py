"""Specs: round trips, parameters, initial values, the schema, and everything that can be wrong with one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import Function, LayerSpec, NetworkSpec, SpecError, examples
from refimpl.cli.schema import Name, made
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.parameters import SCHEMES, Parameter
from refimpl.network.random_problems import random_problem
from refimpl.network.spec import MAX_FILE_BYTES

SCHEMA = jsonschema.Draft202012Validator(made(Name.network))
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


# what the schema says too
STATED = [
    ("[]", "the network must be a JSON object.*got list"),
    ("null", "the network must be a JSON object.*got NoneType"),
    (changed(colour=1), "unknown key 'colour'; known are format"),
    (json.dumps({key: value for key, value in ARTICLE.items() if key != "loss"}), "lacks the key 'loss'; add it"),
    (changed(format="refimpl.network/2"), "format must be 'refimpl.network/1'.*'refimpl.network/2'"),
    (changed(name="x" * 300), "name .*at most 200"),
    (changed(input_shape=4), "input_shape must be a list.*int 4"),
    (changed(input_shape=[4.5]), r"input_shape\[0\] must be .*integer.*float 4\.5"),
    (changed(input_shape=[2, 0]), r"input_shape\[1\] must be ≥ 1.*int 0"),
    (changed(input_shape=[1] * 40), "input_shape .*at most 32.*40"),
    (changed(layers=[]), "layers .*at least 1"),
    (changed(layers={}), "layers must be a list.*dict"),
    (changed(layers=[3]), r"layers\[0\] must be a JSON object.*int 3"),
    (changed(layers=[{"size": 1}] * 10_001), "layers .*at most 10000.*10001"),
    (with_layer(size=-3), r"layers\[1\]\.size must be ≥ 1.*int -3"),
    (with_layer(size=True), r"layers\[1\]\.size must be .*integer.*bool True"),
    (with_layer(size="2"), r"layers\[1\]\.size must be .*integer.*str '2'"),
    (with_layer(size=10**15), r"layers\[1\]\.size must be ≤ 10000000.*int 1000000000000000"),
    (with_layer(bias=1), r"layers\[1\]\.bias must be true or false.*int 1"),
    (with_layer(activation="swish"), r"layers\[1\]\.activation must be one of identity, relu.*'swish'"),
    (with_layer(activation=None), r"layers\[1\]\.activation must be one of"),
    (
        with_layer(activation={"name": "leaky_relu", "slope": 0.1}),
        r"layers\[1\]\.activation leaky_relu has no parameter 'slope'; it has: negative_slope",
    ),
    (with_layer(activation={"name": "relu", "slope": 0.1}), "relu has no parameter 'slope'; it has: none"),
    (
        with_layer(activation={"name": "leaky_relu", "negative_slope": "0.1"}),
        "negative_slope of leaky_relu must be a number ≥ 0.*got str",
    ),
    (
        with_layer(activation={"name": "leaky_relu", "negative_slope": -1}),
        "negative_slope of leaky_relu must be a number ≥ 0.*got -1",
    ),
    (with_layer(activation={"negative_slope": 0.1}), "activation lacks the key 'name'"),
    (with_layer(weights=[1]), r"layers\[1\] has the unknown key 'weights'"),
    (changed(loss="mse"), "loss must be one of squared_error.*'mse'"),
    (changed(loss={"name": "huber", "delta": 0}), "delta of huber must be a number > 0.*got 0"),
    (changed(reduction="max"), "reduction must be 'mean' or 'sum'.*'max'"),
]
UNSTATED: list[tuple[str | bytes, str]] = [
    ("", "not JSON"),
    (changed()[:-1] + ', "loss": "huber"}', "the key 'loss' is given twice"),
    (changed(name="a\nb"), "name must be one line"),
    (changed(input_shape=[10**6, 10**6]), "input_shape.*at most 10,000,000 are allowed"),
    (changed(layers=[{"size": 10**7}, {"size": 10**7}]), "parameters; at most 100,000,000 .*make the layers smaller"),
    ('{"format": NaN}', "NaN is not a JSON number"),
    (changed(loss={"name": "huber", "delta": 1}).replace("1}", "1e400}"), "1e400 is too large for float64"),
    ("[" * 100_000, "nested too deeply"),
    (b"\xff\xfe{}", "not UTF-8"),
    (" " * (MAX_FILE_BYTES + 1), "1,048,576 bytes"),
]


@pytest.mark.parametrize(("text", "message"), [*STATED, *UNSTATED])
def test_a_wrong_file_names_itself_the_field_and_the_remedy(text: str | bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (lambda: NetworkSpec.loads(text), lambda: NetworkSpec.load(file)):
        with pytest.raises(SpecError, match=message) as caught:
            read()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("path", [None, 1, [], b"net.json"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    for call in (lambda: NetworkSpec.load(path), lambda: examples.article().save(path)):
        with pytest.raises(SpecError, match="path must be a str or a Path"):
            call()


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*none\.json: No such file"):
        NetworkSpec.load(tmp_path / "none.json")
    with pytest.raises(SpecError, match=r"cannot write .*none/net\.json: No such file.*name a file in a folder"):
        examples.article().save(tmp_path / "none" / "net.json")


def test_a_spec_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    slope = {"name": "leaky_relu", "negative_slope": 0.012345678901234567}
    spec = NetworkSpec((4,), [LayerSpec(1, slope, bias=False)] * 10_000, "huber")
    with pytest.raises(SpecError, match=r"takes 1,\d{3},\d{3} bytes of JSON; at most 1,048,576"):
        spec.save(tmp_path / "net.json")
    assert list(tmp_path.iterdir()) == []


def test_any_depth_of_nesting_is_a_spec_error() -> None:
    # the parser's limit and that of printing the value differ, so every depth near them is tried
    for depth in range(800, 1100):
        with pytest.raises(SpecError):
            NetworkSpec.loads(changed(loss=0).replace('"loss": 0', '"loss": ' + "[" * depth + "]" * depth))


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
        (lambda: LayerSpec(2.5), "size must be .*integer.*float 2.5"),  # type: ignore[arg-type]
        (lambda: LayerSpec(np.ones((9, 9))), "size must be .*integer.*ndarray"),  # type: ignore[arg-type]
        (lambda: LayerSpec(2, {"name": "elu", "alpha": 10**5000}), "alpha of elu must be a number .* got int"),
        (lambda: LayerSpec(2, Function("nothing")), "activation must be one of"),
        (lambda: LayerSpec(2, Function("elu", 5)), "activation.*elu"),  # type: ignore[arg-type]
        (lambda: LayerSpec(2, Function("elu", (("alpha", 1.0), ("alpha", 2.0)))), "activation.*alpha"),
        (lambda: NetworkSpec.loads(None), "must be str or bytes, got NoneType"),  # type: ignore[arg-type]
        (lambda: NetworkSpec((4,), [], "huber"), "layers .*at least 1"),
        (lambda: NetworkSpec((4,), [3], "huber"), r"layers\[0\] must be .*int 3"),  # type: ignore[list-item]
        (lambda: NetworkSpec("4", [LayerSpec(1)], "huber"), "input_shape must be a list"),  # type: ignore[arg-type]
        (lambda: NetworkSpec((4,), [LayerSpec(1)] * 10_001, "huber"), "layers .*at most 10000"),
        (lambda: examples.article().init(-1), "seed must be an integer ≥ 0"),
        (lambda: examples.article().init(0, "float16"), "dtype must be one of float64, float32"),
        (lambda: examples.article().init(0, "float64", "best"), "scheme must be one of glorot_uniform"),
    ],
)
def test_wrong_arguments_are_refused_with_their_name(build: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        build()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


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


def test_parameters_know_their_layer_and_role() -> None:
    spec = examples.article()
    assert spec.parameters == (
        Parameter("W1", 1, "W", (2, 4)), Parameter("b1", 1, "b", (2,)),
        Parameter("W2", 2, "W", (2, 2)), Parameter("b2", 2, "b", (2,)),
        Parameter("W3", 3, "W", (1, 2)),
    )  # fmt: skip
    arrays = {name: name.lower() for name in ("b2", "W3", "W1", "b1", "W2")}
    layers = spec.by_layer(arrays)
    assert layers == [{"W": "w1", "b": "b1"}, {"W": "w2", "b": "b2"}, {"W": "w3"}]
    assert list(spec.by_name(layers).items()) == [(name, name.lower()) for name in spec.parameter_shapes]


@pytest.mark.parametrize("index", range(0, 600, 30))
def test_the_schema_accepts_every_spec_that_is_written(index: int) -> None:
    SCHEMA.validate(random_problem(7, index, "float64").spec.to_dict())


@pytest.mark.parametrize("text", [text for text, _ in STATED])
def test_the_schema_refuses_what_is_refused_when_it_is_read(text: str) -> None:
    assert not SCHEMA.is_valid(json.loads(text))


def test_the_schema_names_every_activation_and_loss() -> None:
    published = json.dumps(made(Name.network))
    assert [name for name in (*ACTIVATIONS, *LOSSES) if f'"const": "{name}"' not in published] == []
