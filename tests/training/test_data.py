"""Data from strangers: read as a person expects, or refused with the place and the remedy."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler

from refimpl.formats.errors import DataError, RefimplError
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.data import BUNDLED, Dataset, Preparation, columns, load, metric, prepare

CSV = "a,b,kind\n1,2.5,x\n-3,4e2,y\n\n5,6,x\n"


def network(n_in: int, n_out: int, loss: str = "cross_entropy") -> NetworkSpec:
    return NetworkSpec((n_in,), (LayerSpec(n_out, "identity"),), loss)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: str | bytes, name: str = "data.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_are_scikit_learns(name: str) -> None:
    dataset = load(name)
    theirs = getattr(datasets, f"load_{name}")()
    scale = 16 if name == "digits" else 1
    np.testing.assert_array_equal(dataset.x * scale, theirs.data)
    assert len(dataset.features) == dataset.x.shape[1]
    if name == "diabetes":
        np.testing.assert_array_equal(dataset.y[:, 0], theirs.target)
    else:
        preparation = prepare(dataset, network(dataset.x.shape[1], len(set(theirs.target)))).preparation
        np.testing.assert_array_equal(np.array(preparation.classes)[preparation.labels(dataset)], dataset.y)
        np.testing.assert_array_equal(np.asarray(theirs.target_names).astype(str)[theirs.target], dataset.y)


def test_a_csv_file(file: Any) -> None:
    path = file("\ufeff" + CSV)
    dataset = load(path)
    assert (dataset.features, dataset.targets) == (("a", "b"), ("kind",))
    np.testing.assert_array_equal(dataset.x, [[1, 2.5], [-3, 400], [5, 6]])
    assert dataset.y.tolist() == ["x", "y", "x"]
    values = load(path, ["b"], ["kind"])
    assert (values.features, values.y.tolist()) == (("a",), [[2.5], [400.0], [6.0]])
    assert load(file("p;q;r\n1;2;3\n", "p.csv"), ["p", "q"], delimiter=";").y.tolist() == [[1.0, 2.0]]
    numbers = file("a,b\n1,0\n2,1\n3,10\n", "n.csv")
    assert not load(numbers).holds_classes
    assert prepare(load(numbers, classes=True), network(1, 3)).preparation.classes == ("0", "1", "10")
    assert columns(path) == ["a", "b", "kind"]
    assert load(path, (), ["kind"], labelled=False).y.shape == (3, 0)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "is empty"),
        ("a,b\n", {}, "holds a header and no row"),
        ("1,2\n3,4\n", {}, "the first row holds numbers; it must name the columns"),
        ("a,b,a\n1,2,3\n", {}, "two columns are called 'a'"),
        ("a,b\n1,2\n3\n", {}, "row 3 has 1 columns, and the header 2"),
        ("a,b\n1,2\n,4\n", {}, "line 3, column 'a' has no value; remove the row or fill it in"),
        ("a,b\n1,2\nNA,4\n", {}, "line 3, column 'a' has no value"),
        ("a,b\n1,2\n3,nan\n", {}, "line 3, column 'b' has no value"),
        ("a,b\n1,2\nred,4\n", {}, "line 3, column 'a' holds 'red', which is no finite number; leave it out with"),
        ("a,b\n1,2\n1e999,4\n", {}, "holds '1e999', which is no finite number"),
        ("a,b\n1,2\n1_0,4\n", {}, "holds '1_0'"),
        ("a,b\n1,2\n", {"targets": ["c"]}, "has no column 'c'; it has: a, b"),
        ("a,b\n1,2\n", {"ignored": ["a"]}, "has no column besides"),
        ("a,b\n1,2\n", {"ignored": ["a", "b"]}, "every column is ignored"),
        ("a;b\n1;2\n", {}, "is ',' its delimiter?"),
        ("a,b\n1,2\n", {"delimiter": "::"}, "--delimiter must be one character"),
        ('a,b\n1,"2\n', {}, "line "),
        ("a,b,c\n0,1,2\n", {"targets": ["b", "c"], "classes": True}, "a class is one column"),
        (b"a,b\n\xff,2\n", {}, "byte 4 is not UTF-8"),
    ],
)
def test_a_wrong_csv_file_is_said_with_its_place(content: Any, options: Any, message: str, file: Any) -> None:
    with pytest.raises(DataError) as caught:
        load(file(content), **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def test_an_npz_file(file: Any) -> None:
    x = np.arange(24.0).reshape(4, 2, 3)
    dataset = load(file(npz(x=x, y=np.array([0, 2, 1, 2])), "data.npz"))
    assert dataset.holds_classes
    np.testing.assert_array_equal(dataset.x, x.reshape(4, 6))
    assert load(file(npz(x=x, y=np.ones(4)), "data.npz")).y.shape == (4, 1)
    assert load(file(npz(x=x, y=np.ones((4, 2))), "data.npz")).y.shape == (4, 2)
    assert load(file(npz(x=x, y=np.array(list("abca"))), "data.npz")).y.tolist() == list("abca")
    assert not load(file(npz(x=x, y=np.arange(4)), "data.npz"), classes=False).holds_classes
    assert load(file(npz(x=x), "data.npz"), labelled=False).y.shape == (4, 0)


def _lying() -> bytes:
    """A header that promises far more than the file holds."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10)})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", array.getvalue() + bytes(64))
        archive.writestr("y.npy", array.getvalue() + bytes(64))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip", "is no NPZ file"),
        (npz(x=np.ones((2, 2))), "holds no array 'y'"),
        (npz(x=np.array([{}, []], dtype=object), y=np.ones(2)), "an array of objects"),
        (npz(x=np.ones((2, 2)), y=np.ones(3)), "for each of the 2 samples"),
        (npz(x=np.ones((2, 2)), y=np.array([1j, 2])), "y must hold"),
        (npz(x=np.array([[1.0, np.nan]]), y=np.ones(1)), "x[1,2] is nan"),
        (npz(x=np.array(["a"]), y=np.ones(1)), "x must hold real numbers"),
        (npz(x=np.ones((0, 2)), y=np.ones(0)), "x must hold real numbers, one row a sample"),
        (_lying(), "an array of objects, or one cut short"),
    ],
)
def test_a_wrong_npz_file_is_refused(content: bytes, message: str, file: Any) -> None:
    with pytest.raises(DataError) as caught:
        load(file(content, "data.npz"))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(st.binary(max_size=300) | st.text("ab1,.;\n\"'-e+", max_size=60).map(str.encode))
@settings(max_examples=300)
def test_any_bytes_are_data_or_our_own_error(raw: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("d.csv", "d.npz"):
            path = Path(folder) / name
            path.write_bytes(raw)
            try:
                dataset = load(str(path))
            except RefimplError as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017
            else:
                assert np.isfinite(dataset.x).all()


@pytest.mark.parametrize("name", ["nothing", "none.csv", "none.npz", "x.parquet", "a\0.csv"])
def test_data_that_is_not_there(name: str) -> None:
    with pytest.raises(DataError):
        load(name)


# --------------------------------------------------------------------------------------------------------------
# Preparing


def test_standardising_is_scikit_learns_over_the_training_data() -> None:
    dataset = load("breast_cancer")
    prepared = prepare(dataset, network(30, 2), validation=0.25, seed=3, standardise=True)
    assert (len(prepared.x), len(prepared.held_out_x)) == (427, 142)
    np.testing.assert_allclose(prepared.x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(prepared.x.std(axis=0), 1, rtol=1e-12)
    preparation = prepared.preparation
    raw = prepared.x * preparation.scale + np.array(preparation.mean)
    scaler = StandardScaler().fit(raw)
    np.testing.assert_allclose(scaler.transform(raw), prepared.x, atol=1e-9)
    together = np.concatenate([raw, prepared.held_out_x * preparation.scale + np.array(preparation.mean)])
    np.testing.assert_allclose(np.sort(together, axis=0), np.sort(dataset.x, axis=0), rtol=1e-9, atol=1e-12)
    assert prepare(dataset, network(30, 2), validation=0.25, seed=3, standardise=True).digest == prepared.digest
    assert prepare(dataset, network(30, 2), validation=0.25, seed=4, standardise=True).digest != prepared.digest


def test_targets_as_the_loss_asks_for_them() -> None:
    cancer, diabetes = load("breast_cancer"), load("diabetes")
    labels = prepare(cancer, network(30, 2)).y
    assert (labels.dtype, labels.shape) == (np.int64, (569,))
    rows = prepare(cancer, network(30, 2, "squared_error"), coded=True).y
    np.testing.assert_array_equal(rows, np.eye(2)[labels])
    column = prepare(cancer, network(30, 1, "binary_cross_entropy"), "float32", coded=True).y
    assert column.dtype == np.float32
    np.testing.assert_array_equal(column[:, 0], labels)
    scaled = prepare(diabetes, network(10, 1, "squared_error"), standardise_target=True)
    assert abs(scaled.y.mean()) < 1e-12
    np.testing.assert_allclose(scaled.preparation.values(scaled.y), diabetes.y)


@pytest.mark.parametrize(
    ("name", "spec", "options", "message"),
    [
        ("iris", network(5, 3), {}, "has 4 features, and the network 5 inputs"),
        ("iris", network(4, 2), {}, "has 3 classes, and the network 2 outputs; the last layer must have 3"),
        ("iris", network(4, 1, "binary_cross_entropy"), {"coded": True}, "the last layer must have 3"),
        ("iris", network(4, 3, "squared_error"), {}, "ask for --one-hot"),
        ("iris", network(4, 3), {"standardise_target": True}, "the target is a class"),
        ("iris", network(4, 3), {"validation": 1.0}, "--validation must be"),
        ("iris", network(4, 3), {"validation": 0.001}, "leaves one side empty"),
        ("diabetes", network(10, 1), {}, "cross_entropy takes classes"),
        ("diabetes", network(10, 2, "squared_error"), {}, "has 1 targets, and the network 2 outputs"),
        ("diabetes", network(10, 1, "squared_error"), {"coded": True}, "the target of diabetes is a number"),
    ],
)
def test_what_does_not_fit_is_said(name: str, spec: NetworkSpec, options: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(load(name), spec, **options)
    assert message in str(caught.value)


def test_new_data_is_treated_like_the_training_data() -> None:
    dataset = load("iris")
    preparation = prepare(dataset, network(4, 3), standardise=True).preparation
    again = Preparation.from_dict(preparation.to_dict())
    assert again == preparation
    other = Dataset("new", dataset.x[:2] + 1, np.array(["setosa", "rose"]), dataset.features, ("class",))
    np.testing.assert_allclose(
        again.inputs(other, network(4, 3), "float64") * preparation.scale + np.array(preparation.mean), other.x
    )
    with pytest.raises(DataError, match="has the class 'rose'; the model knows setosa, versicolor, virginica"):
        again.labels(other)
    renamed = Dataset("new", other.x, other.y, ("a", *dataset.features[1:]), ("class",))
    with pytest.raises(DataError, match="has the feature 'a' where the training data had"):
        again.inputs(renamed, network(4, 3), "float64")
    huge = Dataset("huge", dataset.x * 1e60, dataset.y, dataset.features, ("class",))
    with pytest.raises(DataError, match="too large for float32"):
        prepare(huge, network(4, 3), "float32")


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_metrics_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, s = rng.standard_normal((9, 2)), rng.standard_normal((9, 2))
    values = Preparation(("a",), ("p", "q"))
    assert metric(values, network(1, 2, "squared_error"), s, y) == pytest.approx(r2_score(y, s), abs=1e-12)
    labels = rng.integers(0, 2, 9)
    classes = Preparation(("a",), ("c",), ("x", "y"))
    found = metric(classes, network(1, 2), s, labels)
    assert found == accuracy_score(labels, s.argmax(axis=1))
    assert metric(classes, network(1, 2, "squared_error"), s, np.eye(2)[labels]) == found
    column = metric(classes, network(1, 1, "binary_cross_entropy"), s[:, :1], labels[:, None].astype(float))
    assert column == accuracy_score(labels, s[:, 0] > 0)
    half = metric(classes, network(1, 1, "squared_error"), s[:, :1], labels[:, None].astype(float))
    assert half == accuracy_score(labels, s[:, 0] > 0.5)
