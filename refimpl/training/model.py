"""A trained network that can be used: `Model`, its file, and its predictions.

A model file is safetensors (:mod:`refimpl.formats.archive`): the parameters by their names, and as metadata the
network, what is done to data before it sees them, and how it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from refimpl.backend import Backend, resolve
from refimpl.formats import archive
from refimpl.formats.errors import CheckpointError, RefimplError
from refimpl.formats.files import shown
from refimpl.formats.validation import Document, checked
from refimpl.network.batch import validate_parameters
from refimpl.network.documents import NetworkDocument
from refimpl.network.spec import NetworkSpec
from refimpl.training.datasets import Dataset
from refimpl.training.gradient_trainer import forward_function
from refimpl.training.preparation import Preparation

Array = NDArray[Any]
FORMAT = "refimpl.model/1"


class ModelDocument(Document):
    """The metadata of a model file."""

    format: Literal["refimpl.model/1"]
    spec: NetworkDocument
    preparation: dict[str, Any]
    trained: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A network with parameters, and what is done to data before it sees them. `trained`: how it came about."""

    spec: NetworkSpec
    params: Mapping[str, Array]
    preparation: Preparation
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The parameters' dtype."""
        return next(iter(self.params.values())).dtype.name

    def outputs(self, dataset: Dataset, backend: str | Backend | None = None, device: str = "cpu") -> Array:
        """The network's outputs s (N, n_out), before they are read as classes or values, by a backend, by default the
        first that is registered. Raises DataError, BackendError.
        """
        x = self.preparation.inputs(dataset, self.spec, self.dtype)
        return forward_function(resolve(backend), self.spec, self.dtype, device)(self.params, x)

    def predict(self, dataset: Dataset, backend: str | Backend | None = None, device: str = "cpu") -> Array:
        """The class of every sample as text (N,), or the values (N, n_out) in the units of the target."""
        s = self.outputs(dataset, backend, device)
        if self.preparation.classes:
            return np.array(self.preparation.classes)[self.preparation.predicted(s, self.spec)]
        return self.preparation.values(s)

    def save(self, path: Path) -> None:
        """Write the model, whole or not at all. Raises CheckpointError."""
        metadata = {
            "format": FORMAT,
            "spec": self.spec.to_dict(),
            "preparation": self.preparation.to_dict(),
            "trained": dict(self.trained),
        }
        archive.save(Path(path), self.params, metadata)

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model. Raises CheckpointError, with the file's name."""
        try:
            arrays, metadata = archive.read(Path(path))
            found = checked(ModelDocument, metadata, CheckpointError, "the model")
            spec = NetworkSpec.of(found.spec)
            validate_parameters(spec, arrays)
            return cls(spec, arrays, Preparation(**found.preparation), found.trained)
        except RefimplError as error:
            said = str(error)
            raise CheckpointError(said if shown(path) in said else f"{shown(path)}: {said}") from None
