"""Arrays and what is to be said of them in one file: safetensors, with a checksum over all of it, and no pickle.

The file's metadata holds one text, `refimpl`: 64 hexadecimal digits of SHA-256 over what follows and over every
array's name, dtype, shape and bytes; a space; and a JSON object. A file in which a bit has changed is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import CheckpointError
from refimpl.files import Files, write_whole
from refimpl.strict_json import parse

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
        length = int.from_bytes(raw[:8], "little")
        if len(raw) < 8 or length > min(MAX_METADATA, len(raw) - 8):
            raise CheckpointError("it is cut short")
        header = parse(raw[8 : 8 + length], CheckpointError, "a header", MAX_METADATA)
        said = header.get("__metadata__", {}) if isinstance(header, dict) else {}
        digest, _, text = said["refimpl"].partition(" ")
        arrays = load(raw)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError("it is no safetensors file, or a damaged one") from None
    if _digest(text, arrays) != digest:
        raise CheckpointError("its checksum does not hold: it is damaged")
    metadata = parse(text, CheckpointError, "its metadata", MAX_METADATA)
    if not isinstance(metadata, dict):
        raise CheckpointError("it was not written by refimpl")
    return arrays, metadata


def write(path: Path, data: bytes, files: Files | None = None) -> None:
    """Write a file, whole or not at all. Raises CheckpointError."""
    try:
        write_whole(path, data, files)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a name"
        raise CheckpointError(f"cannot write {path}: {reason}; make room, or name another folder") from None


def read(path: Path) -> bytes:
    """The bytes of a regular file of at most 8 GiB. Raises CheckpointError."""
    try:
        if not path.is_file():
            raise CheckpointError(f"cannot read {path}: there is no such file")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise CheckpointError(f"{path} is larger than {MAX_BYTES:,} bytes")
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not a name'}") from None
