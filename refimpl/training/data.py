"""Data to train on: scikit-learn's bundled sets by name, CSV and NPZ files; and `Preparation`, what is done to them
before a network sees them, which is stored with the model so that new data is treated alike.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.batch import one_hot
from refimpl.errors import DataError
from refimpl.functions import LOSSES
from refimpl.spec import NetworkSpec

Array = NDArray[Any]
Floats = NDArray[np.float64]
BUNDLED = ("digits", "iris", "breast_cancer", "diabetes")
MAX_FILE_BYTES = 2**31
MAX_COLUMNS = 100_000
MAX_CLASSES = 10_000
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


@dataclass(frozen=True)
class Dataset:
    """Samples as they were read.

    `x` (N, d) float64; `y` (N, k) float64, or the class of every sample as text (N,); names of the columns.
    """

    name: str
    x: Floats
    y: Array
    features: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def holds_classes(self) -> bool:
        """Whether y holds classes."""
        return self.y.ndim == 1


# --------------------------------------------------------------------------------------------------------------
# Reading


def load(
    name: str, targets: Sequence[str] = (), ignored: Sequence[str] = (), classes: bool | None = None,
    delimiter: str = ",", labelled: bool = True,
) -> Dataset:  # fmt: skip
    """A bundled set by name, or a .csv or .npz file.

    `targets`: the columns of a CSV file that are to be predicted; default: the last. `ignored`: columns left out.
    `classes`: whether the target is a class; default: where it is text, or an array of integers. `labelled`: whether
    there is a target at all. Raises DataError.
    """
    if name in BUNDLED:
        return _bundled(name)
    path = Path(name)
    if path.suffix.lower() == ".csv":
        return _csv(path, targets, ignored, classes, delimiter, labelled)
    if path.suffix.lower() == ".npz":
        return _npz(path, classes, labelled)
    raise DataError(f"--data: {name!r} is neither one of {', '.join(BUNDLED)} nor a .csv or .npz file")


def columns(name: str, delimiter: str = ",") -> list[str]:
    """The columns that a CSV file names; none of any other data. Raises DataError."""
    path = Path(name)
    if path.suffix.lower() != ".csv":
        return []
    return [column.strip() for column in next(_rows(path, _text(path), delimiter), (0, []))[1]]


def _bundled(name: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError:
        raise DataError(
            f"{name} comes with scikit-learn, which is not installed: pip install 'refimpl[data]'"
        ) from None
    found = getattr(datasets, f"load_{name}")()
    x = np.asarray(found.data, np.float64)
    features = tuple(map(str, found.feature_names))
    if name == "digits":
        x = x / 16  # the pixels' range
    if hasattr(found, "target_names"):
        return Dataset(name, x, np.asarray(found.target_names).astype(str)[found.target], features, ("class",))
    return Dataset(name, x, np.asarray(found.target, np.float64)[:, None], features, ("progression",))


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DataError(f"cannot read {path}: there is no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes; split it")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not a name'}") from None


def _csv(
    path: Path, targets: Sequence[str], ignored: Sequence[str], classes: bool | None, delimiter: str, labelled: bool
) -> Dataset:
    rows = _rows(path, _text(path), delimiter)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    _check_header(path, header, [*targets, *ignored])
    wanted = (list(targets) or [_last(header, ignored, path)]) if labelled else []
    left_out = {*wanted, *ignored}
    features = [name for name in header if name not in left_out]
    if not features:
        raise DataError(f"{path} has no column besides {', '.join(left_out)}; is {delimiter!r} its delimiter?")
    columns: dict[str, list[str]] = {name: [] for name in header}
    numbers = []
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} columns, and the header {len(header)}")
        numbers.append(number)
        for name, cell in zip(header, row, strict=True):
            columns[name].append(cell.strip())
    if not numbers:
        raise DataError(f"{path} holds a header and no row")
    x = np.stack([_numbers(path, name, columns[name], numbers, "--ignore") for name in features], axis=1)
    return Dataset(path.name, x, _target(path, wanted, columns, numbers, classes), tuple(features), tuple(wanted))


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, with their line numbers."""
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f"--delimiter must be one character, got {delimiter!r}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from None


def _check_header(path: Path, header: list[str], asked: Sequence[str]) -> None:
    if not header:
        raise DataError(f"{path} is empty; its first row must name the columns")
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path} has {len(header):,} columns; at most {MAX_COLUMNS:,} are read")
    twice = [name for name in header if header.count(name) > 1] if len(set(header)) < len(header) else []
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]!r}; rename one")
    if all(_is_number(name) for name in header):
        raise DataError(f"{path}: the first row holds numbers; it must name the columns")
    for name in asked:
        if name not in header:
            raise DataError(f"{path} has no column {name!r}; it has: {', '.join(header[:20])}")


def _last(header: list[str], ignored: Sequence[str], path: Path) -> str:
    left = [name for name in header if name not in ignored]
    if not left:
        raise DataError(f"{path}: every column is ignored")
    return left[-1]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _numbers(path: Path, name: str, cells: Sequence[str], lines: Sequence[int], remedy: str) -> Floats:
    values = np.empty(len(cells))
    for index, cell in enumerate(cells):
        if not _is_number(cell) or "_" in cell:
            where = f"{path}: line {lines[index]}, column {name!r}"
            if cell.lower() in MISSING:
                raise DataError(f"{where} has no value; remove the row or fill it in")
            raise DataError(
                f"{where} holds {cell[:40]!r}, which is no finite number; leave it out with {remedy} {name}"
            )
        values[index] = float(cell)
    return values


def _target(
    path: Path, wanted: list[str], columns: Mapping[str, list[str]], lines: Sequence[int], classes: bool | None
) -> Array:
    if not wanted:
        return np.zeros((len(lines), 0))
    for name in wanted:
        for line, cell in zip(lines, columns[name], strict=True):
            if cell.lower() in MISSING:
                raise DataError(f"{path}: line {line}, column {name!r} has no value; remove the row or fill it in")
    text = not all(_is_number(cell) for name in wanted for cell in columns[name])
    if classes if classes is not None else text:
        if len(wanted) > 1:
            raise DataError(f"--target: {len(wanted)} columns of classes; a class is one column")
        return np.array(columns[wanted[0]])
    return np.stack([_numbers(path, name, columns[name], lines, "--classes, or --ignore") for name in wanted], axis=1)


def _npz(path: Path, classes: bool | None, labelled: bool) -> Dataset:
    arrays = _arrays(path, _bytes(path))
    missing = [name for name in (("x", "y") if labelled else ("x",)) if name not in arrays]
    if missing:
        raise DataError(f"{path} holds no array {missing[0]!r}; it holds: {', '.join(arrays) or 'nothing'}")
    x = arrays["x"]
    if x.ndim < 1 or x.dtype.kind not in "fiu" or len(x) == 0:
        raise DataError(f"{path}: x must hold real numbers, one row a sample, got {x.dtype} of shape {x.shape}")
    flat = x.reshape(len(x), -1).astype(np.float64)
    features = tuple(f"x{index}" for index in range(1, flat.shape[1] + 1))
    _check_finite(path, "x", flat)
    y = arrays["y"] if labelled else np.zeros((len(x), 0))
    if y.ndim not in (1, 2) or len(y) != len(x) or y.dtype.kind not in "fiuU":
        raise DataError(f"{path}: y must hold a row of numbers or a class for each of the {len(x)} samples")
    discrete = y.ndim == 1 and y.dtype.kind in "iuU"
    if classes if classes is not None else discrete:
        if y.ndim == 2 and y.shape[1] != 1:
            raise DataError(f"{path}: y has shape {y.shape}; a class is one column")
        return Dataset(path.name, flat, y.reshape(-1).astype(str), features, ("class",))
    if y.dtype.kind == "U":
        raise DataError(f"{path}: y holds text, which is no value to be predicted; ask for --classes")
    values = y.reshape(len(y), -1).astype(np.float64)
    _check_finite(path, "y", values)
    return Dataset(path.name, flat, values, features, tuple(f"y{i}" for i in range(1, values.shape[1] + 1)))


def _arrays(path: Path, raw: bytes) -> dict[str, Array]:
    """The arrays of an NPZ file, none larger than its file says, and none with pickled objects."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            if sum(member.file_size for member in packed.infolist()) > MAX_FILE_BYTES:
                raise DataError(f"{path} unpacks to more than {MAX_FILE_BYTES:,} bytes; split it")
            return {
                member.filename.removesuffix(".npy"): _array(path, packed.read(member))
                for member in packed.infolist()
                if member.filename in ("x.npy", "y.npy")
            }
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise DataError(f"{path} is no NPZ file: {error}") from None
    except zipfile.LargeZipFile as error:
        raise DataError(f"{path}: {error}") from None


def _array(path: Path, raw: bytes) -> Array:
    file = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(raw) - file.tell():
            raise DataError(f"{path}: an array of objects, or one cut short; write plain arrays with numpy.savez")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: an array cannot be read: {' '.join(str(error).split())[:120]}") from None


def _check_finite(path: Path, name: str, array: Floats) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ",".join(str(int(index) + 1) for index in bad[0])
        raise DataError(f"{path}: {name}[{place}] is {array[tuple(bad[0])]}; all numbers must be finite")


# --------------------------------------------------------------------------------------------------------------
# Preparing


@dataclass(frozen=True)
class Preparation:
    """What is done to data before the network sees it.

    `mean`, `scale`: of every feature, over the training data, where standardised; `target_mean`, `target_scale`:
    likewise of the target; `classes`: their names, in the order of the labels; `coded`: classes as rows of a one and
    zeros (or one column of 0 and 1) in place of labels.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    classes: tuple[str, ...] = ()
    coded: bool = False
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_scale: tuple[float, ...] = ()

    def inputs(self, dataset: Dataset, spec: NetworkSpec, dtype: str) -> Array:
        """x (N, *input_shape). Raises DataError where its width or columns are not those of the training data."""
        if dataset.x.shape[1] != spec.n_in:
            raise DataError(
                f"{dataset.name} has {dataset.x.shape[1]} features, and the network {spec.n_in} inputs; "
                "give the columns that are no features with --target and --ignore, or another network"
            )
        if dataset.features != self.features:
            other = next(pair for pair in zip(self.features, dataset.features, strict=True) if pair[0] != pair[1])
            raise DataError(f"{dataset.name} has the feature {other[1]!r} where the training data had {other[0]!r}")
        x = (dataset.x - np.array(self.mean)) / np.array(self.scale) if self.mean else dataset.x
        return _cast(x, dtype, dataset.name).reshape(len(x), *spec.input_shape)

    def outputs(self, dataset: Dataset, spec: NetworkSpec, dtype: str) -> Array:
        """y as the loss asks for it. Raises DataError for a class that the training data had not."""
        if not dataset.holds_classes:
            y = (
                (dataset.y - np.array(self.target_mean)) / np.array(self.target_scale)
                if self.target_mean
                else dataset.y
            )
            return _cast(y, dtype, dataset.name)
        labels = self.labels(dataset)
        if not self.coded:
            return labels
        coded = labels[:, None].astype(np.float64) if spec.n_out == 1 else one_hot(labels, spec.n_out)
        return coded.astype(dtype)

    def labels(self, dataset: Dataset) -> Array:
        """The classes as their numbers (N,)."""
        number = {name: index for index, name in enumerate(self.classes)}
        unknown = sorted(set(dataset.y.tolist()) - set(number))
        if unknown:
            raise DataError(
                f"{dataset.name} has the class {unknown[0]!r}; the model knows {', '.join(self.classes[:20])}"
            )
        return np.array([number[name] for name in dataset.y.tolist()], np.int64)

    def values(self, s: Array) -> Floats:
        """The network's outputs in the units of the target."""
        wide = s.astype(np.float64)
        return wide * np.array(self.target_scale) + np.array(self.target_mean) if self.target_mean else wide

    def predicted(self, s: Array, spec: NetworkSpec) -> Array:
        """The number of the most probable class (N,)."""
        if s.shape[1] > 1:
            return np.argmax(s, axis=1)
        middle = 0.0 if LOSSES[spec.loss.name].target == "probabilities" else 0.5  # logits, or 0 and 1
        return (s[:, 0] > middle).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        """The inverse of `to_dict`. Raises DataError."""
        try:
            given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
            return cls(**given)
        except TypeError as error:
            raise DataError(f"the preparation of the data is wrong: {error}") from None


@dataclass(frozen=True)
class Prepared:
    """Training and held-out data as the network takes them, and how they came about."""

    x: Array
    y: Array
    held_out_x: Array
    held_out_y: Array
    preparation: Preparation
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        found = hashlib.sha256()
        for array in (self.x, self.y, self.held_out_x, self.held_out_y):
            found.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def prepare(
    dataset: Dataset, spec: NetworkSpec, dtype: str = "float64", *, validation: float = 0.0, seed: int = 0,
    standardise: bool = False, standardise_target: bool = False, coded: bool = False,
) -> Prepared:  # fmt: skip
    """Split, standardise and code.

    `validation`: the part of the samples, drawn by `seed`, that is held out; `standardise`: every feature to mean 0
    and variance 1 over the training data; `standardise_target`: likewise the target; `coded`: classes as rows of a one
    and zeros. Raises DataError.
    """
    if not 0 <= validation < 1:
        raise DataError(f"--validation must be at least 0 and below 1, got {validation}")
    n = len(dataset.x)
    held_out = round(n * validation)
    if validation and not 0 < held_out < n:
        raise DataError(f"--validation {validation} of {n} samples leaves one side empty")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n)
    train, rest = (np.sort(part) for part in (order[: n - held_out], order[n - held_out :]))
    preparation = _preparation(dataset, spec, train, standardise, standardise_target, coded)
    x, y = preparation.inputs(dataset, spec, dtype), preparation.outputs(dataset, spec, dtype)
    source = {
        "data": dataset.name, "samples": n, "validation": validation, "seed": seed, "standardise": standardise,
        "standardise_target": standardise_target, "coded": coded,
    }  # fmt: skip
    return Prepared(x[train], y[train], x[rest], y[rest], preparation, source)


def _preparation(
    dataset: Dataset, spec: NetworkSpec, train: Array, standardise: bool, standardise_target: bool, coded: bool
) -> Preparation:
    target = LOSSES[spec.loss.name].target
    classes = tuple(sorted(set(dataset.y.tolist()), key=_in_order)) if dataset.holds_classes else ()
    if classes:
        _check_classes(dataset, spec, classes, coded, target)
        if standardise_target:
            raise DataError("--standardise-target: the target is a class, which has no mean")
    else:
        _check_values(dataset, spec, coded, target)
    mean, scale = _moments(dataset.x[train]) if standardise else ((), ())
    target_mean, target_scale = _moments(dataset.y[train]) if standardise_target else ((), ())
    return Preparation(dataset.features, dataset.targets, classes, coded, mean, scale, target_mean, target_scale)


def _in_order(name: str) -> tuple[int, float, str]:
    """Numbers by their value, then text."""
    return (0, float(name), name) if _is_number(name) else (1, 0.0, name)


def _check_classes(dataset: Dataset, spec: NetworkSpec, classes: Sequence[str], coded: bool, target: str) -> None:
    wanted = 2 if spec.n_out == 1 and coded else spec.n_out
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{dataset.name}: {len(classes):,} classes; is {dataset.targets[0]!r} the column of the class?")
    if len(classes) < 2:
        raise DataError(f"{dataset.name}: all samples are of the class {classes[0]!r}")
    if not coded and target != "classes":
        raise DataError(f"{spec.loss.name} takes numbers, and {dataset.name} has classes; ask for --one-hot")
    if len(classes) != wanted:
        raise DataError(
            f"{dataset.name} has {len(classes)} classes, and the network {spec.n_out} "
            f"output{'s' if spec.n_out > 1 else ''}; the last layer must have {len(classes)}"
            + (", or 1 with --one-hot" if len(classes) == 2 else "")
        )


def _check_values(dataset: Dataset, spec: NetworkSpec, coded: bool, target: str) -> None:
    if coded:
        raise DataError(f"--one-hot: the target of {dataset.name} is a number; ask for --classes")
    if target == "classes":
        raise DataError(f"{spec.loss.name} takes classes, and {dataset.name} has numbers; ask for --classes")
    if dataset.y.shape[1] != spec.n_out:
        raise DataError(
            f"{dataset.name} has {dataset.y.shape[1]} targets, and the network {spec.n_out} outputs; "
            "they must be as many"
        )


def _moments(array: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    deviation = array.std(axis=0)
    # what does not vary is centred and left as it is
    return tuple(array.mean(axis=0).tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _cast(array: Array, dtype: str, name: str) -> Array:
    with np.errstate(over="ignore"):
        cast_to = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(cast_to).all():
        raise DataError(f"{name}: a number is too large for {dtype}; ask for --dtype float64 or --standardise")
    return cast_to


def metric(preparation: Preparation, spec: NetworkSpec, s: Array, y: Array) -> float:
    """Accuracy where there are classes, else R² averaged over the outputs, of outputs s for prepared targets y."""
    if preparation.classes:
        if y.ndim == 1:
            labels: Iterable[Any] = y
        else:
            labels = np.argmax(y, axis=1) if y.shape[1] > 1 else y[:, 0]
        return float(np.mean(preparation.predicted(s, spec) == np.asarray(labels)))
    wide = y.astype(np.float64)
    with np.errstate(all="ignore"):  # of a run that diverges
        total = np.square(wide - wide.mean(axis=0)).sum(axis=0)
        rest = np.square(wide - s.astype(np.float64)).sum(axis=0)
        # scikit-learn's r2_score: a constant target is predicted perfectly or not at all
        each = np.where(total > 0, 1 - rest / np.where(total > 0, total, 1.0), (rest == 0).astype(float))
    return float(each.mean())


def metric_name(preparation: Preparation) -> str:
    """What `metric` is called."""
    return "accuracy" if preparation.classes else "R²"
