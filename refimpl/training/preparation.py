"""`Preparation`: what is done to data before a network sees them, which is stored with the model so that new data is
treated alike; and how well the outputs do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass as validated

from refimpl.formats.errors import DataError
from refimpl.formats.validation import Flag, refusing
from refimpl.network.batch import one_hot
from refimpl.network.functions import LOSSES
from refimpl.network.spec import NetworkSpec
from refimpl.training.datasets import Dataset, Floats

Array = NDArray[Any]
MAX_CLASSES = 10_000


@refusing(DataError)
@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Preparation:
    """What is done to data before the network sees it.

    `mean`, `scale`: of every feature, over the training data, where standardised; `target_mean`, `target_scale`:
    likewise of the target; `classes`: their names, in the order of the labels; `coded`: classes as rows of a one and
    zeros (or one column of 0 and 1) in place of labels.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    classes: tuple[str, ...] = ()
    coded: Flag = False
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_scale: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Preparation:
        of_features, of_targets = (self.mean, self.scale), (self.target_mean, self.target_scale)
        for names, moments in ((self.features, of_features), (self.targets, of_targets)):
            if {*map(len, moments)} not in ({0}, {len(names)}):
                raise ValueError(f"mean and scale must hold {len(names)} numbers each, or none")
        return self

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
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


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
