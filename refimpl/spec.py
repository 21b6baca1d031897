"""The abstract network: `NetworkSpec` and `LayerSpec`, their JSON form, parameter names and shapes, and initial
values.

A spec holds no numbers but the parameters of its functions. It is frozen, hashable and compares by value, so that a
backend may cache what it compiles for one. Parameters are named W1, b1, W2, b2 … in the article's numbering by source
layer: W1 leads from the input to the first hidden layer and has the shape (n_out, n_in); a layer without bias has no
b.

The JSON form is `refimpl.network/1`, published in ``refimpl/schemas/network-1.schema.json``. Files from strangers are
read with limits on size, depth and numbers, and every error names the field.
"""

from __future__ import annotations

import json
import math
import operator
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import SpecError
from refimpl.files import why, write_whole
from refimpl.functions import ACTIVATIONS, LOSSES, REDUCTIONS, Activation, Loss
from refimpl.picture import network_svg
from refimpl.strict_json import parse

FORMAT = "refimpl.network/1"
MAX_FILE_BYTES = 2**20
MAX_PARAMETERS = 10**8
MAX_LAYERS = 10_000
MAX_SIZE = 10**7
MAX_RANK = 32
MAX_NAME = 200

Array = NDArray[Any]


@dataclass(frozen=True)
class Function:
    """An activation or loss by name, with its parameters. Inside a spec every parameter of the catalogue is present."""

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def kwargs(self) -> dict[str, float]:
        """The parameters as keyword arguments."""
        return dict(self.parameters)


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
        object.__setattr__(self, "size", _integer(size, "size", 1, MAX_SIZE, "the number of neurons of the layer"))
        object.__setattr__(self, "activation", _function(activation, "activation", ACTIVATIONS))
        object.__setattr__(self, "bias", _boolean(bias, "bias"))

    def to_dict(self) -> dict[str, Any]:
        """The layer as in the JSON form; `bias` only where it is false."""
        written = {"size": self.size, "activation": _function_to_json(self.activation)}
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
        object.__setattr__(self, "input_shape", _input_shape(input_shape))
        object.__setattr__(self, "layers", _layers(layers))
        object.__setattr__(self, "loss", _function(loss, "loss", LOSSES))
        object.__setattr__(self, "reduction", _choice(reduction, "reduction", REDUCTIONS))
        object.__setattr__(self, "name", _text(name, "name"))
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

    def _repr_html_(self) -> str:
        """For a notebook: the network as SVG."""
        title = f"{self.name} {'-'.join(map(str, self.sizes))}, {self.loss.name}, {self.reduction}".strip()
        return network_svg(self.sizes, self.labels, title)

    @property
    def labels(self) -> tuple[str, ...]:
        """A word for every layer: how many neurons, and their activation."""
        return (f"{self.n_in} in", *(f"{layer.size} {layer.activation.name}" for layer in self.layers))

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape, in order W1, b1, W2, b2 …"""
        shapes: dict[str, tuple[int, ...]] = {}
        for number, (n_in, layer) in enumerate(zip(self.sizes, self.layers, strict=False), start=1):
            shapes[f"W{number}"] = (layer.size, n_in)
            if layer.bias:
                shapes[f"b{number}"] = (layer.size,)
        return shapes

    @property
    def n_parameters(self) -> int:
        """The number of all weights and biases."""
        return sum(layer.size * (n_in + int(layer.bias)) for n_in, layer in zip(self.sizes, self.layers, strict=False))

    def init(self, seed: int = 0, dtype: str = "float64", scheme: str = "glorot_uniform") -> dict[str, Array]:
        """Initial parameters, drawn in float64 from PCG64(seed) and then cast, the same for every backend.

        `scheme` is one of `SCHEMES`; biases are zero but under "normal". Raises SpecError for another scheme, seed or
        dtype.
        """
        draw = SCHEMES[_choice(scheme, "scheme", SCHEMES)]
        rng = np.random.Generator(np.random.PCG64(_integer(seed, "seed", 0, 2**128, "a non-negative integer")))
        kind = np.dtype(_choice(dtype, "dtype", ("float64", "float32")))
        return {name: draw(rng, shape).astype(kind) for name, shape in self.parameter_shapes.items()}

    def to_dict(self) -> dict[str, Any]:
        """The spec as in the JSON form."""
        return {
            "format": FORMAT,
            "name": self.name,
            "input_shape": list(self.input_shape),
            "layers": [layer.to_dict() for layer in self.layers],
            "loss": _function_to_json(self.loss),
            "reduction": self.reduction,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_dict`. Raises SpecError."""
        _keys(
            data,
            "the network",
            {"format", "name", "input_shape", "layers", "loss", "reduction"},
            {"format", "input_shape", "layers", "loss"},
        )
        _choice(data["format"], "format", (FORMAT,))
        layers = data["layers"]
        if not isinstance(layers, list):
            raise SpecError(f"layers must be a list of layers, got {_got(layers)}")
        if len(layers) > MAX_LAYERS:
            raise SpecError(f"layers: {len(layers):,} layers; at most {MAX_LAYERS:,} are allowed")
        shape = data["input_shape"]
        if not isinstance(shape, list):
            raise SpecError(f"input_shape must be a list of integers such as [4] or [8, 8], got {_got(shape)}")
        parsed = [_layer_from_dict(layer, f"layers[{index}]") for index, layer in enumerate(layers)]
        return cls(shape, parsed, data["loss"], data.get("reduction", "mean"), data.get("name", ""))

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
        return cls.from_dict(_parse(text))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the spec as JSON: whole or not at all, through links, with the permissions of the file it replaces.

        Raises SpecError where the file cannot be written.
        """
        text = self.dumps()
        try:
            target = Path(_path(path))
            if target.exists() and not target.is_file():
                raise SpecError(f"{_shown(path)} is no regular file; choose another name")
            write_whole(target, text.encode())
        except SpecError:
            raise
        except (OSError, ValueError) as error:
            raise SpecError(
                f"cannot write {_shown(path)}: {why(error)}; choose a folder that exists and may be written to"
            ) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NetworkSpec:
        """Read a spec from a JSON file of at most 1 MiB. Raises SpecError, with the file's name."""
        try:
            if not stat.S_ISREG(os.stat(_path(path)).st_mode):
                raise SpecError(f"{_shown(path)} is no regular file; name a network file")
            with open(_path(path), "rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except SpecError:
            raise
        except (OSError, ValueError) as error:
            raise SpecError(f"cannot read {_shown(path)}: {why(error)}") from None
        if len(raw) > MAX_FILE_BYTES:
            raise SpecError(f"{_shown(path)} is larger than {MAX_FILE_BYTES:,} bytes, the most a network file may hold")
        try:
            return cls.loads(raw)
        except SpecError as error:
            raise SpecError(f"{_shown(path)}: {error}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the form `refimpl.network/1`."""
    size = {"type": "integer", "minimum": 1, "maximum": MAX_SIZE}
    layer = {
        "type": "object",
        "properties": {
            "size": size,
            "activation": _function_schema(ACTIVATIONS),
            "bias": {"type": "boolean", "default": True},
        },
        "required": ["size"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A network of refimpl",
        "type": "object",
        "properties": {
            "format": {"const": FORMAT},
            "name": {"type": "string", "maxLength": MAX_NAME, "default": ""},
            "input_shape": {"type": "array", "items": size, "maxItems": MAX_RANK},
            "layers": {"type": "array", "items": layer, "minItems": 1, "maxItems": MAX_LAYERS},
            "loss": _function_schema(LOSSES),
            "reduction": {"enum": list(REDUCTIONS), "default": "mean"},
        },
        "required": ["format", "input_shape", "layers", "loss"],
        "additionalProperties": False,
    }


# --------------------------------------------------------------------------------------------------------------
# Initial values

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _variance_scaling(numerator: float, fans: Callable[[int, int], int], uniform: bool) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return np.zeros(shape)
        variance = numerator / fans(*shape)
        if uniform:
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        return math.sqrt(variance) * rng.standard_normal(shape)

    return draw


def _fan_in(n_out: int, n_in: int) -> int:
    return n_in


SCHEMES: Mapping[str, Draw] = {
    # Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010
    "glorot_uniform": _variance_scaling(2.0, operator.add, uniform=True),
    "glorot_normal": _variance_scaling(2.0, operator.add, uniform=False),
    # He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015
    "he_uniform": _variance_scaling(2.0, _fan_in, uniform=True),
    "he_normal": _variance_scaling(2.0, _fan_in, uniform=False),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "zeros": lambda rng, shape: np.zeros(shape),
}


# --------------------------------------------------------------------------------------------------------------
# Validation: each raises SpecError with the field's name and the remedy


def _got(value: Any) -> str:
    try:
        text = " ".join(repr(value).splitlines())
    except (ValueError, RecursionError):  # an integer of more digits than Python prints; deep nesting
        text = "too large to show"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"


def _integer(value: Any, field: str, low: int, high: int, meaning: str) -> int:
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise SpecError(f"{field} must be an integer ≥ {low}, got {_got(value)}; write {meaning}") from None
    if not low <= number <= high:
        shown = str(number) if abs(number) < 10**20 else "a far larger number"
        raise SpecError(f"{field} must be an integer ≥ {low} and ≤ {high}, got {shown}; write {meaning}")
    return number


def _path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise SpecError(f"path must be a str or a Path, got {_got(path)}")
    return os.fspath(path)


def _shown(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if text.isprintable() and text else ascii(text)


def _boolean(value: Any, field: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise SpecError(f"{field} must be true or false, got {_got(value)}")
    return bool(value)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable():
        raise SpecError(f"{field} must be one line of at most {MAX_NAME} printable characters, got {_got(value)}")
    return value


def _choice(value: Any, field: str, known: Iterable[str]) -> str:
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise SpecError(f"{field} must be one of {', '.join(names)}; got {_got(value)}")
    return value


def _input_shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, str | bytes | Mapping) or not isinstance(shape, Iterable):
        raise SpecError(f"input_shape must be a list of integers such as (4,) or (8, 8), got {_got(shape)}")
    sizes = tuple(shape)
    if len(sizes) > MAX_RANK:
        raise SpecError(f"input_shape has {len(sizes)} dimensions; at most {MAX_RANK} are allowed")
    checked = tuple(
        _integer(size, f"input_shape[{index}]", 1, MAX_SIZE, "the extent of that dimension")
        for index, size in enumerate(sizes)
    )
    if math.prod(checked) > MAX_SIZE:
        raise SpecError(f"input_shape {checked} has {math.prod(checked):,} inputs; at most {MAX_SIZE:,} are allowed")
    return checked


def _layers(layers: Any) -> tuple[LayerSpec, ...]:
    checked = tuple(layers) if isinstance(layers, Iterable) else ()
    if not checked:
        raise SpecError("layers must hold at least one layer; write a list of LayerSpec")
    if len(checked) > MAX_LAYERS:
        raise SpecError(f"layers: {len(checked):,} layers; at most {MAX_LAYERS:,} are allowed")
    for index, layer in enumerate(checked):
        if not isinstance(layer, LayerSpec):
            raise SpecError(f"layers[{index}] must be a LayerSpec, got {_got(layer)}")
    return checked


def _function(value: Any, field: str, catalogue: Mapping[str, Activation] | Mapping[str, Loss]) -> Function:
    name, given = _name_and_parameters(value, field)
    entry = catalogue[_choice(name, field, catalogue)]
    unknown = [str(key)[:60] for key in given if key not in entry.parameters]
    if unknown:
        known = ", ".join(entry.parameters) or "none"
        raise SpecError(f"{field}: {name} has no parameter {', '.join(map(repr, unknown))}; it has: {known}")
    return Function(
        entry.name,
        tuple(
            (key, _parameter(given.get(key, parameter.default), f"{field}: {key} of {name}", parameter))
            for key, parameter in entry.parameters.items()
        ),
    )


def _name_and_parameters(value: Any, field: str) -> tuple[Any, dict[str, Any]]:
    if isinstance(value, Function):
        try:
            if len(value.kwargs) == len(value.parameters):
                return value.name, value.kwargs
        except (TypeError, ValueError):
            pass
        raise SpecError(
            f"{field}: the parameters of a Function are pairs of name and number, each name once; "
            f"got {_got(value.parameters)}"
        )
    if isinstance(value, Mapping):
        if "name" not in value:
            raise SpecError(f"{field} lacks the key 'name'; write {{'name': …}} or the name alone")
        return value["name"], {key: number for key, number in value.items() if key != "name"}
    return value, {}


def _parameter(value: Any, field: str, parameter: Any) -> float:
    number = value
    if (
        isinstance(number, int | float | np.integer | np.floating)
        and not isinstance(number, bool)
        and abs(number) <= parameter.high
    ):
        number = float(number)
        if parameter.admits(number):
            return number
    raise SpecError(f"{field} must be a number {parameter.range_text} ({parameter.meaning}), got {_got(value)}")


def _keys(data: Any, what: str, known: set[str], required: set[str]) -> None:
    if not isinstance(data, Mapping):
        raise SpecError(f"{what} must be a JSON object, got {_got(data)}")
    unknown = [str(key) for key in data if key not in known]
    if unknown:
        raise SpecError(f"{what} has the unknown key {unknown[0][:60]!r}; known are {', '.join(sorted(known))}")
    missing = sorted(required - set(data))
    if missing:
        raise SpecError(f"{what} lacks the key {missing[0]!r}; add it")


def _layer_from_dict(data: Any, field: str) -> LayerSpec:
    _keys(data, field, {"size", "activation", "bias"}, {"size"})
    try:
        return LayerSpec(data["size"], data.get("activation", "identity"), data.get("bias", True))
    except SpecError as error:
        raise SpecError(f"{field}.{error}") from None


def _function_to_json(function: Function) -> Any:
    return {"name": function.name, **function.kwargs} if function.parameters else function.name


def _function_schema(catalogue: Mapping[str, Activation] | Mapping[str, Loss]) -> dict[str, Any]:
    forms: list[dict[str, Any]] = [{"enum": list(catalogue)}]
    for name, entry in catalogue.items():
        properties: dict[str, Any] = {"name": {"const": name}}
        for key, parameter in entry.parameters.items():
            low = "exclusiveMinimum" if parameter.open_low else "minimum"
            properties[key] = {
                "type": "number",
                low: parameter.low,
                "maximum": parameter.high,
                "default": parameter.default,
                "description": parameter.meaning,
            }
        forms.append({"type": "object", "properties": properties, "required": ["name"], "additionalProperties": False})
    return {"anyOf": forms}


# --------------------------------------------------------------------------------------------------------------
# JSON from strangers


def _parse(text: str | bytes) -> Any:
    if not isinstance(text, str | bytes):
        raise SpecError(f"the JSON of a network must be str or bytes, got {_got(text)}")
    return parse(text, SpecError, "a network", MAX_FILE_BYTES)
