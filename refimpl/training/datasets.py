"""Data to train on: scikit-learn's bundled sets by name, CSV files (read by pandas) and NPZ files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl.formats import files
from refimpl.formats.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Array = NDArray[Any]
Floats = NDArray[np.float64]
BUNDLED = ("digits", "iris", "breast_cancer", "diabetes")
MAX_FILE_BYTES = 2**31
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


def read(
    name: str, targets: Sequence[str] = (), ignored: Sequence[str] = (), classes: bool | None = None,
    delimiter: str = ",", labelled: bool = True,
) -> Dataset:  # fmt: skip
    """A bundled set by name, or a .csv or .npz file.

    `targets`: the columns of a CSV file that are to be predicted; default: the last. `ignored`: columns left out.
    `classes`: whether the target is a class; default: where it is text, or an array of integers. `labelled`: whether
    there is a target at all; without, columns of `targets` are left out too. Raises DataError.
    """
    if name in BUNDLED:
        return _bundled(name)
    path = Path(name)
    if not path.exists() and path.suffix.lower() not in (".csv", ".npz"):
        raise DataError(f"--data: {name!r} is neither one of {', '.join(BUNDLED)} nor a .csv or .npz file")
    raw = files.read(path, MAX_FILE_BYTES, DataError, "a data file")
    if path.suffix.lower() == ".npz" or raw.startswith(b"PK"):
        return _npz(path, raw, classes, labelled)
    return _csv(path, raw, targets, ignored, classes, delimiter, labelled)


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


# CSV


def _csv(
    path: Path, raw: bytes, targets: Sequence[str], ignored: Sequence[str], classes: bool | None, delimiter: str,
    labelled: bool,
) -> Dataset:  # fmt: skip
    table = _table(path, raw, delimiter)
    names = list(table.columns)
    unknown = [name for name in (*(targets if labelled else ()), *ignored) if name not in names]
    if unknown:
        raise DataError(f"{path} has no column {unknown[0]!r}; it has: {', '.join(names[:20])}")
    left = [name for name in names if name not in ignored]
    if not left:
        raise DataError(f"{path}: every column is ignored")
    wanted = (list(targets) or left[-1:]) if labelled else []
    features = [name for name in left if name not in {*wanted, *targets}]
    if not features:
        there = ", ".join(map(files.shown, left))
        raise DataError(f"{path} has no column besides {there}; is {delimiter!r} its delimiter?")
    x = np.stack([_numbers(path, table[name], f"leave it out with --ignore {name}") for name in features], axis=1)
    return Dataset(path.name, x, _target(path, table, wanted, classes), tuple(features), tuple(wanted))


def _table(path: Path, raw: bytes, delimiter: str) -> DataFrame:
    """The cells as text, by column; the index is the number of the line, from 0."""
    try:
        import pandas
    except ImportError:
        raise DataError("CSV files are read by pandas, which is not installed: pip install 'refimpl[data]'") from None
    empty = DataError(f"{path} is empty; its first row must name the columns")
    if not raw.strip():
        raise empty
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f"--delimiter must be one character, got {delimiter!r}")
    try:
        cells = pandas.read_csv(
            io.BytesIO(raw), sep=delimiter, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            engine="c", skip_blank_lines=False,
        )  # fmt: skip
    except Exception as error:  # of pandas, which has many
        raise DataError(f"{path}: {_reason(error)}") from None
    cells = cells[(cells.fillna("") != "").any(axis=1)]
    if cells.empty:
        raise empty
    header = cells.iloc[0].fillna("").str.strip()
    table = cells.iloc[1:].set_axis(header, axis=1)
    if header.duplicated().any():
        raise DataError(f"{path}: two columns are called {header[header.duplicated()].iloc[0]!r}; rename one")
    if np.isfinite(pandas.to_numeric(header, errors="coerce")).all():
        raise DataError(f"{path}: the first row holds numbers; it must name the columns")
    if table.empty:
        raise DataError(f"{path} holds a header and no row")
    return table


def _text(path: Path, column: Series[Any]) -> Series[Any]:
    """The cells of a column, none of which may be missing."""
    text = column.fillna("").str.strip()
    _check_rows(path, text, text.str.lower().isin(MISSING), "has no value; remove the row or fill it in")
    return text


def _numbers(path: Path, column: Series[Any], remedy: str) -> Floats:
    import pandas

    text = _text(path, column)
    values = pandas.to_numeric(text, errors="coerce").to_numpy(np.float64)
    _check_rows(path, text, ~np.isfinite(values), f"which is no finite number; {remedy}")
    return values


def _check_rows(path: Path, text: Series[Any], wrong: Any, said: str) -> None:
    """Raises DataError, with the first row that is wrong."""
    if wrong.any():
        row = int(np.argmax(wrong))
        held = f"holds {text.iloc[row][:40]!r}, " if text.iloc[row] and said.startswith("which") else ""
        raise DataError(f"{path}: line {text.index[row] + 1}, column {text.name!r} {held}{said}")


def _target(path: Path, table: DataFrame, wanted: list[str], classes: bool | None) -> Array:
    import pandas

    if not wanted:
        return np.zeros((len(table), 0))
    columns = [_text(path, table[name]) for name in wanted]
    text = any(not np.isfinite(pandas.to_numeric(column, errors="coerce")).all() for column in columns)
    if classes if classes is not None else text:
        if len(wanted) > 1:
            raise DataError(f"--target: {len(wanted)} columns of classes; a class is one column")
        return columns[0].to_numpy(str)
    return np.stack([_numbers(path, column, "ask for --classes, or --ignore it") for column in columns], axis=1)


# NPZ


def _npz(path: Path, raw: bytes, classes: bool | None, labelled: bool) -> Dataset:
    arrays = _arrays(path, raw, ("x", "y") if labelled else ("x",))
    x = arrays["x"]
    if x.ndim < 1 or x.dtype.kind not in "fiu" or len(x) == 0:
        raise DataError(f"{path}: x must hold real numbers, one row a sample, got {x.dtype} of shape {x.shape}")
    flat = _finite(path, "x", x.reshape(len(x), -1))
    features = tuple(f"x{index}" for index in range(1, flat.shape[1] + 1))
    y = arrays["y"] if labelled else np.zeros((len(x), 0))
    if y.ndim not in (1, 2) or len(y) != len(x) or y.dtype.kind not in "fiuU":
        raise DataError(f"{path}: y must hold a row of numbers or a class for each of the {len(x)} samples")
    if classes if classes is not None else y.ndim == 1 and y.dtype.kind in "iuU":
        if y.ndim == 2 and y.shape[1] != 1:
            raise DataError(f"{path}: y has shape {y.shape}; a class is one column")
        return Dataset(path.name, flat, y.reshape(-1).astype(str), features, ("class",))
    if y.dtype.kind == "U":
        raise DataError(f"{path}: y holds text, which is no value to be predicted; ask for --classes")
    values = _finite(path, "y", y.reshape(len(y), -1))
    return Dataset(path.name, flat, values, features, tuple(f"y{i}" for i in range(1, values.shape[1] + 1)))


def _arrays(path: Path, raw: bytes, names: Sequence[str]) -> dict[str, Array]:
    """The arrays of an NPZ file by these names, without pickled objects."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as packed:
            if sum(member.file_size for member in packed.zip.infolist()) > MAX_FILE_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_FILE_BYTES:,} bytes; split it")
            there = packed.files
            arrays = {name: packed[name] for name in names if name in there}
    except Exception as error:  # of NumPy and of zipfile, which have many
        raise DataError(
            f"{path} is no NPZ file of plain arrays: {_reason(error)}; write one with numpy.savez"
        ) from None
    for name in names:
        if name not in arrays:
            raise DataError(
                f"{path} holds no array {name!r}; it holds: {', '.join(map(files.shown, there)) or 'nothing'}"
            )
        if not isinstance(arrays[name], np.ndarray):  # NumPy gives the bytes of what is no array
            raise DataError(f"{path}: what it holds as {name!r} is no array; write it with numpy.savez")
    return arrays


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _finite(path: Path, name: str, array: Array) -> Floats:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ",".join(str(int(index) + 1) for index in bad[0])
        raise DataError(f"{path}: {name}[{place}] is {array[tuple(bad[0])]}; all numbers must be finite")
    return array.astype(np.float64)
