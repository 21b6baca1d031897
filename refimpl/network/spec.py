"""The abstract network: `NetworkSpec` and `LayerSpec`.

A spec holds no numbers but the parameters of its functions. It is frozen, hashable and compares by value, so that a
backend may cache what it compiles for one. Parameters are named W1, b1, W2, b2 … in the article's numbering by source
layer: W1 leads from the input to the first hidden layer and has the shape (n_out, n_in); a layer without bias has no
b. What a spec may hold, and its JSON form, is stated in :mod:`refimpl.network.documents`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from refimpl.formats import files
from refimpl.formats.errors import SpecError
from refimpl.formats.strict_json import parse
from refimpl.formats.validation import checked
from refimpl.network.documents import FORMAT, MAX_SIZE, Function, LayerDocument, NetworkDocument
from refimpl.network.parameters import SCHEMES, Parameter
from refimpl.network.picture import network_svg

MAX_FILE_BYTES = 2**20
MAX_PARAMETERS = 10**8

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, init=False)
class LayerSpec:
    """One layer: z = a Wᵀ + b and a = activation(z).

    Parameters
    ----------
    size : number of neurons, n_out.
    activation : a name of the catalogue, {"name": …, parameter: value …}, or a `Function`.
    bias : whether the layer has a b.

    Raises SpecError.
    """

    size: int
    activation: Function
    bias: bool

    def __init__(
        self, size: int, activation: Function | str | Mapping[str, Any] = "identity", bias: bool = True
    ) -> None:
        self.__dict__.update(checked(LayerDocument, {"size": size, "activation": activation, "bias": bias}, SpecError))

    def to_dict(self) -> dict[str, Any]:
        """The layer as in the JSON form; `bias` only where it is false."""
        written = {"size": self.size, "activation": self.activation.to_json()}
        return written if self.bias else {**written, "bias": False}


@dataclass(frozen=True, init=False)
class NetworkSpec:
    """An abstract network: input shape, layers, loss and its reduction over the batch.

    Parameters
    ----------
    input_shape : the shape of one sample: () for a number, (4,) for a vector, (8, 8) for an image, which is flattened.
    layers : at least one `LayerSpec`.
    loss : a name of the catalogue, {"name": …, parameter: value …}, or a `Function`.
    reduction : "mean" over the batch, or "sum".
    name : for reports.

    Raises SpecError.
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerSpec, ...]
    loss: Function
    reduction: str
    name: str

    def __init__(
        self,
        input_shape: Iterable[int],
        layers: Iterable[LayerSpec],
        loss: Function | str | Mapping[str, Any],
        reduction: str = "mean",
        name: str = "",
    ) -> None:
        given = _listed(layers)
        if isinstance(given, list):
            given = [layer.to_dict() if isinstance(layer, LayerSpec) else layer for layer in given]
        data = {"format": FORMAT, "input_shape": _listed(input_shape), "layers": given, "loss": loss}
        self._take(checked(NetworkDocument, {**data, "reduction": reduction, "name": name}, SpecError))

    def _take(self, document: NetworkDocument) -> None:
        layers = tuple(_made(LayerSpec, dict(layer)) for layer in document.layers)
        self.__dict__.update({**dict(document), "input_shape": tuple(document.input_shape), "layers": layers})
        del self.__dict__["format"]
        if self.n_in > MAX_SIZE:
            raise SpecError(
                f"input_shape {self.input_shape} has {self.n_in:,} inputs; at most {MAX_SIZE:,} are allowed"
            )
        if self.n_parameters > MAX_PARAMETERS:
            raise SpecError(
                f"layers: the network has {self.n_parameters:,} parameters; at most {MAX_PARAMETERS:,} are allowed; "
                "make the layers smaller"
            )

    @property
    def depth(self) -> int:
        """The number of layers with weights."""
        return len(self.layers)

    @property
    def n_in(self) -> int:
        """The number of inputs of a flattened sample."""
        return math.prod(self.input_shape)

    @property
    def n_out(self) -> int:
        """The number of outputs."""
        return self.layers[-1].size

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of neurons of every layer, the input's first: (4, 2, 2, 1)."""
        return (self.n_in, *(layer.size for layer in self.layers))

    @property
    def labels(self) -> tuple[str, ...]:
        """A word for every layer: how many neurons, and their activation."""
        return (f"{self.n_in} in", *(f"{layer.size} {layer.activation.name}" for layer in self.layers))

    @property
    def title(self) -> str:
        """The name, where there is one, and the sizes: article 4-2-2-1."""
        return f"{self.name} {'-'.join(map(str, self.sizes))}".strip()

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """In the order W1, b1, W2, b2 …"""
        found = []
        for number, (n_in, layer) in enumerate(zip(self.sizes, self.layers, strict=False), start=1):
            found.append(Parameter(f"W{number}", number, "W", (layer.size, n_in)))
            if layer.bias:
                found.append(Parameter(f"b{number}", number, "b", (layer.size,)))
        return tuple(found)

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape, in order W1, b1, W2, b2 …"""
        return {parameter.name: parameter.shape for parameter in self.parameters}

    @property
    def n_parameters(self) -> int:
        """The number of all weights and biases."""
        return sum(layer.size * (n_in + int(layer.bias)) for n_in, layer in zip(self.sizes, self.layers, strict=False))

    def divisor(self, n: int) -> int:
        """What the sum of the losses of n samples is divided by: n where the reduction is a mean."""
        return n if self.reduction == "mean" else 1

    def by_layer(self, arrays: Mapping[str, T]) -> list[dict[str, T]]:
        """What is named after the parameters, layer by layer and by role: [{"W": …, "b": …}, {"W": …} …]."""
        found: list[dict[str, T]] = [{} for _ in self.layers]
        for parameter in self.parameters:
            found[parameter.layer - 1][parameter.role] = arrays[parameter.name]
        return found

    def by_name(self, layers: Sequence[Mapping[str, T]]) -> dict[str, T]:
        """The inverse of `by_layer`."""
        return {p.name: layers[p.layer - 1][p.role] for p in self.parameters}

    def init(self, seed: int = 0, dtype: str = "float64", scheme: str = "glorot_uniform") -> dict[str, Array]:
        """Initial parameters, drawn in float64 from PCG64(seed) and then cast, the same for every backend.

        `scheme` is one of `SCHEMES`; biases are zero but under "normal". Raises SpecError for another scheme, seed or
        dtype.
        """
        for name, value, known in (("scheme", scheme, SCHEMES), ("dtype", dtype, ("float64", "float32"))):
            if value not in known:
                raise SpecError(f"{name} must be one of {', '.join(known)}; got {value!r:.60}")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise SpecError(f"seed must be an integer ≥ 0, got {seed!r:.60}")
        rng = np.random.Generator(np.random.PCG64(seed))
        return {p.name: SCHEMES[scheme](rng, p.shape).astype(dtype) for p in self.parameters}

    def to_dict(self) -> dict[str, Any]:
        """The spec as in the JSON form."""
        return {
            "format": FORMAT,
            "name": self.name,
            "input_shape": list(self.input_shape),
            "layers": [layer.to_dict() for layer in self.layers],
            "loss": self.loss.to_json(),
            "reduction": self.reduction,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_dict`. Raises SpecError."""
        return cls.of(checked(NetworkDocument, data, SpecError, "the network"))

    @classmethod
    def of(cls, document: NetworkDocument) -> NetworkSpec:
        """The spec that a document states. Raises SpecError where it is too large."""
        spec = _made(cls, {})
        spec._take(document)
        return spec

    def dumps(self) -> str:
        """The spec as JSON text, one layer a line. Raises SpecError where it is longer than `loads` reads back."""
        written = self.to_dict()
        layers = ",\n    ".join(json.dumps(layer, ensure_ascii=False) for layer in written.pop("layers"))
        head = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in written.items()]
        head.insert(3, f'  "layers": [\n    {layers}\n  ]')
        text = "{\n" + ",\n".join(head) + "\n}\n"
        length = len(text.encode())
        if length > MAX_FILE_BYTES:
            raise SpecError(
                f"layers: the network takes {length:,} bytes of JSON; at most {MAX_FILE_BYTES:,} can be read "
                "back; use fewer layers"
            )
        return text

    @classmethod
    def loads(cls, text: str | bytes) -> NetworkSpec:
        """A spec from JSON text. Raises SpecError."""
        if not isinstance(text, str | bytes):
            raise SpecError(f"the JSON of a network must be str or bytes, got {type(text).__name__}")
        return cls.from_dict(parse(text, SpecError, "a network", MAX_FILE_BYTES))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the spec as JSON: whole or not at all, through links, with the permissions of the file it replaces.

        Raises SpecError where the file cannot be written.
        """
        files.write(_path(path), self.dumps().encode(), SpecError)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NetworkSpec:
        """Read a spec from a JSON file of at most 1 MiB. Raises SpecError, with the file's name."""
        raw = files.read(_path(path), MAX_FILE_BYTES, SpecError, "a network file")
        try:
            return cls.loads(raw)
        except SpecError as error:
            raise SpecError(f"{files.shown(path)}: {error}") from None

    def _repr_html_(self) -> str:
        """For a notebook: the network as SVG."""
        return network_svg(self.sizes, self.labels, f"{self.title}, {self.loss.name}, {self.reduction}")


def _made(cls: type[T], fields: dict[str, Any]) -> T:
    """A frozen object of fields that have been checked."""
    made = cls.__new__(cls)
    made.__dict__.update(fields)
    return made


def _listed(items: Any) -> Any:
    """As a list, where it is a sequence of things; anything else as it is, to be refused with its name."""
    return list(items) if isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping) else items


def _path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise SpecError(f"path must be a str or a Path, got {type(path).__name__}")
    return os.fspath(path)
