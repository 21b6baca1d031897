"""Arrays and what is to be said of them in one file: safetensors, with a checksum over all of it, and no pickle.

The file's metadata holds one text, `refimpl`: 64 hexadecimal digits of SHA-256 over what follows and over every
array's name, dtype, shape and bytes; a space; and a JSON object. A file in which a bit has changed is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.formats import files
from refimpl.formats.errors import CheckpointError
from refimpl.formats.strict_json import parse

Array = NDArray[Any]
MAX_BYTES = 2**33
MAX_METADATA = 2**27


def _digest(text: str, arrays: Mapping[str, Array]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def dumps(arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    """The file's bytes, the same for the same content."""
    from safetensors.numpy import save

    # safetensors 0.8.0 writes arrays that are not C-contiguous wrongly
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    text = json.dumps(metadata, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return save(contiguous, {"refimpl": f"{_digest(text, contiguous)} {text}"})


def loads(raw: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the JSON object. Raises CheckpointError where the bytes are not those that were written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        length = int.from_bytes(raw[:8], "little")
        header = parse(raw[8 : 8 + length], CheckpointError, "a header", MAX_METADATA)
        digest, _, text = header["__metadata__"]["refimpl"].partition(" ")
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError("it is no safetensors file of refimpl's, or a damaged one") from None
    if _digest(text, arrays) != digest:
        raise CheckpointError("its checksum does not hold: it is damaged")
    metadata = parse(text, CheckpointError, "its metadata", MAX_METADATA)
    if not isinstance(metadata, dict):
        raise CheckpointError("it was not written by refimpl")
    return arrays, metadata


def save(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all. Raises CheckpointError."""
    files.write(path, dumps(arrays, metadata), CheckpointError)


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the JSON object of a file of at most 8 GiB. Raises CheckpointError."""
    return loads(files.read(path, MAX_BYTES, CheckpointError, "a checkpoint or a model"))
