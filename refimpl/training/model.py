"""A trained network that can be used: `Model`, its file, and its predictions.

A model file is safetensors (:mod:`refimpl.training.archive`): the parameters by their names, and as metadata the
network, what is done to data before it sees them, and how it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl import backend as backends
from refimpl.backend import Backend
from refimpl.batch import validate_parameters
from refimpl.errors import CheckpointError, RefimplError
from refimpl.spec import NetworkSpec
from refimpl.training import archive
from refimpl.training.data import Dataset, Preparation
from refimpl.training.stepping import forward_function

Array = NDArray[Any]
FORMAT = "refimpl.model/1"


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

    def outputs(self, dataset: Dataset, backend: str | Backend = "numpy", device: str = "cpu") -> Array:
        """The network's outputs s (N, n_out), before they are read as classes or values. Raises DataError."""
        chosen = backends.load(backend) if isinstance(backend, str) else backend
        x = self.preparation.inputs(dataset, self.spec, self.dtype)
        return forward_function(chosen, self.spec, self.dtype, device)(self.params, x)

    def predict(self, dataset: Dataset, backend: str | Backend = "numpy", device: str = "cpu") -> Array:
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
        archive.write(Path(path), archive.dumps(self.params, metadata))

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model. Raises CheckpointError, with the file's name."""
        try:
            arrays, metadata = archive.loads(archive.read(Path(path)))
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"it is no model: its format is {str(metadata.get('format'))[:40]!r}")
            spec = NetworkSpec.from_dict(metadata["spec"])
            validate_parameters(spec, arrays)
            return cls(spec, arrays, Preparation.from_dict(metadata["preparation"]), metadata.get("trained", {}))
        except (RefimplError, KeyError, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, RefimplError) else "it was not written by refimpl"
            raise CheckpointError(reason if str(path) in reason else f"{path}: {reason}") from None
