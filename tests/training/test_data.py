"""Data from strangers: read as a person expects, or refused with the place and the remedy."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler

from refimpl.formats.errors import DataError, RefimplError
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training import datasets as datasets_module
from refimpl.training.datasets import BUNDLED, Dataset, read
from refimpl.training.preparation import Preparation, metric, prepare

HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (4, 2), }\n"
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
    dataset = read(name)
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
    dataset = read(path)
    assert (dataset.features, dataset.targets) == (("a", "b"), ("kind",))
    np.testing.assert_array_equal(dataset.x, [[1, 2.5], [-3, 400], [5, 6]])
    assert dataset.y.tolist() == ["x", "y", "x"]
    values = read(path, ["b"], ["kind"])
    assert (values.features, values.y.tolist()) == (("a",), [[2.5], [400.0], [6.0]])
    assert read(file("p;q;r\n1;2;3\n", "p.csv"), ["p", "q"], delimiter=";").y.tolist() == [[1.0, 2.0]]
    numbers = file("a,b\n1,0\n2,1\n3,10\n", "n.csv")
    assert not read(numbers).holds_classes
    assert prepare(read(numbers, classes=True), network(1, 3)).preparation.classes == ("0", "1", "10")
    assert read(path, (), ["kind"], labelled=False).y.shape == (3, 0)


def refused(name: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(name, **options)
    assert clear(str(caught.value))
    return str(caught.value)


def clear(said: str) -> bool:
    """Whether it is one line that says what is wrong."""
    return said.isprintable() and not said.rstrip().endswith(":")


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", {}, "is empty; its first row must name"),
        ("a,b\n", {}, "holds a header and no row"),
        ("1,2\n3,4\n", {}, "the first row holds numbers; it must name the columns"),
        ("a,b,a\n1,2,3\n", {}, "two columns are called 'a'; rename one"),
        ("a,b\n1,2\n3\n", {}, "3, column 'b' has no value"),
        ("a,b\n1,2\n3,4,5\n", {}, "line 3"),
        ("a,b\n1,2\n,4\n", {}, "3, column 'a' has no value; remove the row or fill it in"),
        ("a,b\n1,2\nNA,4\n", {}, "3, column 'a' has no value"),
        ("a,b\n1,2\n3,nan\n", {}, "3, column 'b' has no value"),
        ("a,b\n1,2\nred,4\n", {}, "3, column 'a' holds 'red', which is no finite number; leave it out with --ignore"),
        ("a,b\n1,2\n\n\nred,4\n", {}, "5, column 'a' holds 'red'"),
        ("a,b\n1,2\n1e999,4\n", {}, "holds '1e999', which is no finite number"),
        ("a,b\n1,2\n1_0,4\n", {}, "holds '1_0'"),
        ("a,b\n1,2\n١,4\n", {}, "holds '١'"),
        ("a,b\n1,2\n", {"targets": ["c"]}, "has no column 'c'; it has: a, b"),
        ("a,b\n1,2\n", {"ignored": ["c"]}, "has no column 'c'; it has: a, b"),
        ("a,b\n1,2\n", {"ignored": ["a"]}, "has no column besides b"),
        ("a,b\n1,2\n", {"ignored": ["a", "b"]}, "every column is ignored"),
        ("a;b\n1;2\n", {}, "is ',' its delimiter?"),
        ("a,b\n1,2\n", {"delimiter": "::"}, "--delimiter must be one character, got '::'"),
        ("a,b\n1,2\n", {"delimiter": ""}, "--delimiter must be one character, got ''"),
        ("a,b\n1,2\n", {"delimiter": "é"}, "separator"),
        ('a,b\n1,"2\n', {}, "EOF inside string"),
        ("a,b,c\n0,1,2\n", {"targets": ["b", "c"], "classes": True}, "a class is one column"),
        ("a,b\n1,red\n", {"classes": False}, "holds 'red', which is no finite number; ask for --classes"),
        (b"a,b\n\xff,2\n", {}, "position 4"),
        ("a,b\n1,2\n".encode("utf-16"), {}, "utf-8"),
        ("a\x1b[2J\n1\n", {}, "has no column besides"),
    ],
)
def test_a_wrong_csv_file_is_named_with_the_place_and_the_remedy(
    content: Any, options: Any, words: str, file: Any
) -> None:
    said = refused(file(content), **options)
    assert "data.csv" in said or "--" in said
    assert words in said


@pytest.mark.parametrize("error", [RuntimeError("a\n  b\tc " * 100), MemoryError(), KeyError("x")])
def test_whatever_pandas_raises_is_one_line_that_names_the_file(
    error: Exception, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas

    def fails(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(pandas, "read_csv", fails)
    said = refused(file(CSV))
    assert "data.csv" in said
    assert len(said) < 400


def test_numbers_are_read_as_python_reads_them(file: Any, rng: np.random.Generator) -> None:
    numbers = rng.standard_normal(300) * 10.0 ** rng.integers(-300, 300, 300)
    exact = ["5e-324", "9007199254740993", "18446744073709551615", "-1", ".5", "+5.", "0.1", "1.7976931348623157e308"]
    text = [*map(repr, numbers.tolist()), *exact]
    dataset = read(file("a,b\n" + "".join(f"{number}, {number} \n" for number in text)))
    for column in (dataset.x, dataset.y):
        assert column[:, 0].tolist() == [float(number) for number in text]


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def test_an_npz_file(file: Any) -> None:
    x = np.arange(24.0).reshape(4, 2, 3)
    dataset = read(file(npz(x=x, y=np.array([0, 2, 1, 2])), "data.npz"))
    assert dataset.holds_classes
    np.testing.assert_array_equal(dataset.x, x.reshape(4, 6))
    assert read(file(npz(x=x, y=np.ones(4)), "data.npz")).y.shape == (4, 1)
    assert read(file(npz(x=x, y=np.ones((4, 2))), "data.npz")).y.shape == (4, 2)
    assert read(file(npz(x=x, y=np.array(list("abca"))), "data.npz")).y.tolist() == list("abca")
    assert not read(file(npz(x=x, y=np.arange(4)), "data.npz"), classes=False).holds_classes
    assert read(file(npz(x=x), "data.npz"), labelled=False).y.shape == (4, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npz(x=np.ones((2, 2))), "holds no array 'y'; it holds: x"),
        (npz(data=np.ones((2, 2)), labels=np.ones(2)), "holds no array 'x'; it holds: data, labels"),
        (npz(x=np.array([{}, []], dtype=object), y=np.ones(2)), "Object arrays"),
        (npz(x=np.ones((2, 2)), y=np.ones(3)), "for each of the 2 samples"),
        (npz(x=np.ones((2, 2)), y=np.array([1j, 2])), "y must hold"),
        (npz(x=np.array([[1.0, np.nan]]), y=np.ones(1)), "x[1,2] is nan; all numbers must be finite"),
        (npz(x=np.array([[1.0, 2.0]]), y=np.array([-np.inf])), "y[1,1] is -inf; all numbers must be finite"),
        (npz(x=np.array(["a"]), y=np.ones(1)), "x must hold real numbers"),
        (npz(x=np.array(1.0), y=np.ones(1)), "x must hold real numbers, one row a sample"),
        (npz(x=np.ones((0, 2)), y=np.ones(0)), "x must hold real numbers, one row a sample"),
        (npz(x=np.ones((1, 2)), y=np.array([["a"]])), "ask for --classes"),
    ],
)
def test_a_wrong_npz_file_is_named_with_the_array_and_the_remedy(content: bytes, words: str, file: Any) -> None:
    said = refused(file(content, "data.npz"))
    assert "data.npz" in said
    assert words in said


def member(header: str = HEADER, data: bytes = bytes(64), magic: bytes = b"\x93NUMPY\1\0", length: int = -1) -> bytes:
    text = header.encode("latin1")
    return magic + struct.pack("<H", len(text) if length < 0 else length) + text + data


def packed(x: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An NPZ file in which all is well but x."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", compression) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", member())
    return found.getvalue()


DAMAGED = {
    "no zip": b"no zip",
    "empty": b"",
    "a zip's first bytes": b"PK\3\4",
    "an array that is in no archive": member(),
    "a pickle": b"\x80\4]q\0.",
    "a pickle within": packed(b"\x80\4]q\0."),
    "nothing within": packed(b""),
    "another magic": packed(member(magic=b"\x93NUMPX\1\0")),
    "another version": packed(member(magic=b"\x93NUMPY\x09\0")),
    "cut within the magic": packed(member()[:4]),
    "cut within the header": packed(member()[:20]),
    "cut within the data": packed(member()[:-1]),
    "a longer header": packed(member(length=60_000)),
    "a shorter header": packed(member(length=10)),
    "an endless header": packed(member(" " * 60_000)),
    "no dictionary": packed(member("[1]")),
    "no literal": packed(member("__import__('os').abort()")),
    "no text": packed(member("\0\xff")),
    "brackets": packed(member("(" * 9000)),
    "signs": packed(member("-" * 9000 + "1")),
    "digits": packed(member(HEADER.replace("(4, 2)", "(" + "9" * 5000 + ",)"))),
    "a key is missing": packed(member(HEADER.replace("'descr': '<f8', ", ""))),
    "a key too many": packed(member(HEADER.replace("}", "'more': 1}"))),
    "no dtype": packed(member(HEADER.replace("<f8", "zzz"))),
    "objects": packed(member(HEADER.replace("<f8", "|O"))),
    "records": packed(member(HEADER.replace("'<f8'", "[('a', '<f8')]"))),
    "long text": packed(member(HEADER.replace("<f8", "<U2000000000"))),
    "no order": packed(member(HEADER.replace("False", "3"))),
    "a negative size": packed(member(HEADER.replace("4", "-4"))),
    "no whole size": packed(member(HEADER.replace("4", "4.0"))),
    "more than there is": packed(member(HEADER.replace("4", str(10**9)))),
    "more than any memory": packed(member(HEADER.replace("4", str(10**15)))),
    "more than any number": packed(member(HEADER.replace("4", str(10**30)))),
    "a hundred dimensions": packed(member(HEADER.replace("(4, 2)", str((1,) * 100)))),
    "no dimension": packed(member(HEADER.replace("(4, 2)", "()"))),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_npz_header_is_one_line_that_names_the_file(content: bytes, file: Any) -> None:
    assert "data.npz" in refused(file(content, "data.npz"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_flipped_bit_of_an_npz_file_is_said_or_changes_nothing(
    compression: int, file: Any, rng: np.random.Generator
) -> None:
    raw = packed(member(), compression)
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << int(rng.integers(8))
        name = file(bytes(damaged), "data.npz")
        try:
            np.testing.assert_array_equal(read(name).x, np.zeros((4, 2)), strict=True)
        except DataError as error:
            assert clear(str(error)), at  # noqa: PT017
            assert "data.npz" in str(error)  # noqa: PT017


def test_no_npz_file_that_is_cut_short_is_read(file: Any) -> None:
    raw = packed(member())
    for length in range(0, len(raw), 7):
        assert "data.npz" in refused(file(raw[:length], "data.npz"))


def test_an_archive_that_unpacks_to_more_than_may_be_read_is_not_unpacked(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets_module, "MAX_FILE_BYTES", 10_000)
    content = packed(member(HEADER.replace("4", "1000"), bytes(16_000)), zipfile.ZIP_DEFLATED)
    assert len(content) < 10_000
    assert "more than 10,000 bytes" in refused(file(content, "data.npz"))


@given(st.binary(max_size=300) | st.text("ab1,.;\n\"'-e+", max_size=60).map(str.encode))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_data_or_refused_in_one_line(file: Any, raw: bytes) -> None:
    for name in ("data.csv", "data.npz"):
        try:
            dataset = read(file(raw, name))
        except RefimplError as error:
            assert name in str(error)  # noqa: PT017
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert np.isfinite(dataset.x).all()


@pytest.mark.parametrize("name", ["nothing", "none.csv", "none.npz", "x.parquet", "a\0.csv", ".", "/"])
def test_data_that_is_not_there_is_named(name: str) -> None:
    assert name.replace("\0", "\\x00") in refused(name)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "data.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(CSV,))
    writer.start()
    assert read(str(pipe)).x.shape == (3, 2)
    writer.join()


def test_what_is_not_installed_is_said_with_what_to_install(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    for data in (file(CSV), "iris"):
        assert "pip install 'refimpl[data]'" in refused(data)


# Preparing


def test_standardising_is_scikit_learns_over_the_training_data() -> None:
    dataset = read("breast_cancer")
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
    cancer, diabetes = read("breast_cancer"), read("diabetes")
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
        prepare(read(name), spec, **options)
    assert message in str(caught.value)


def test_new_data_is_treated_like_the_training_data() -> None:
    dataset = read("iris")
    preparation = prepare(dataset, network(4, 3), standardise=True).preparation
    again = Preparation(**json.loads(json.dumps(preparation.to_dict())))
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
