"""Arrays in a safetensors file: every bit comes back, and a file in which one has changed is refused."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from refimpl.formats import archive
from refimpl.formats.errors import CheckpointError

ARRAYS = {"W1": np.array([[1.5, -0.0], [np.nan, np.inf]]), "n": np.array(7), "b1": np.array([5e-324, 1], np.float32)}
METADATA = {"format": "refimpl.checkpoint/1", "text": "größe\n\ud800", "numbers": [1, 0.1, None, True]}


def refused(raw: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        archive.loads(raw)
    assert str(caught.value).isprintable()
    return str(caught.value)


@given(
    st.dictionaries(st.text("abcW123.", min_size=1, max_size=8), st.sampled_from(["float64", "float32", "int64"])),
    st.dictionaries(
        st.text(max_size=5), st.integers(-(10**18), 10**18) | st.text() | st.booleans() | st.none() | st.floats(0, 1)
    ),
)
def test_what_is_written_reads_back(names: dict[str, str], metadata: dict[str, Any]) -> None:
    order = {0: np.asfortranarray, 1: lambda array: array[::2, ::-1]}  # that safetensors alone does not keep
    arrays = {name: order[len(name) % 2](np.arange(12.0).reshape(3, 4).astype(dtype)) for name, dtype in names.items()}
    raw = archive.dumps(arrays, metadata)
    assert raw == archive.dumps(arrays, metadata)
    found, said = archive.loads(raw)
    assert said == metadata
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_every_bit_and_shape_reads_back_from_a_file(tmp_path: Path) -> None:
    archive.save(tmp_path / "file", ARRAYS, METADATA)
    found, said = archive.read(tmp_path / "file")
    assert said == METADATA
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_no_flipped_bit_goes_unnoticed() -> None:
    raw = archive.dumps(ARRAYS, METADATA)
    unnoticed = 0
    for at in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[at // 8] ^= 1 << (at % 8)
        try:
            others, other = archive.loads(bytes(damaged))
        except CheckpointError:
            continue
        # what is no part of the content, such as a space in the header
        unnoticed += 1
        assert other == METADATA
        assert set(others) == set(ARRAYS)
        assert all(others[name].tobytes() == array.tobytes() for name, array in ARRAYS.items())
    assert unnoticed < 0.01 * 8 * len(raw)


def test_no_file_that_is_cut_short_or_goes_on_is_read() -> None:
    raw = archive.dumps(ARRAYS, METADATA)
    for length in range(len(raw)):
        refused(raw[:length])
    refused(raw + b"\0")


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_refused_in_one_line(raw: bytes) -> None:
    refused(raw)


def with_header(header: Any, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "__metadata__": {"refimpl": "0 {}"},
        "W": {"dtype": "F64", "shape": [8], "data_offsets": [0, 64], **changes},
    }


@pytest.mark.parametrize(
    "raw",
    [
        with_header(entry(shape=[10**10], data_offsets=[0, 8 * 10**10])),
        with_header(entry(shape=[10**10])),
        with_header(entry(shape=[2**40, 2**40])),
        with_header(entry(shape=[-8])),
        with_header(entry(data_offsets=[64, 0])),
        with_header(entry(data_offsets=[0, 2**63])),
        with_header(entry(dtype="BF16", shape=[32])),
        with_header(entry(dtype="F8_E4M3", shape=[64])),
        with_header(entry(dtype="O")),
        with_header({"__metadata__": {}}, b""),
        with_header({"__metadata__": {"refimpl": 3}}, b""),
        with_header({}, b""),
        with_header([], b""),
        with_header(b"[" * 10**5, b""),
        with_header(b'{"__metadata__": {"refimpl": "0 {}", "refimpl": "1 {}"}}', b""),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**8) + b"{}",
        b"",
    ],
    ids=lambda raw: repr(raw[8:90]),
)
def test_a_file_that_promises_more_than_it_holds_or_nothing_that_is_known_costs_no_memory(raw: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(raw)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 10**5, "3"])
def test_metadata_must_be_an_object_though_its_checksum_holds(text: str) -> None:
    refused(save({}, {"refimpl": f"{archive._digest(text, {})} {text}"}))


def test_a_file_that_somebody_else_wrote_is_refused() -> None:
    assert "no safetensors file of refimpl's" in refused(save({"W": np.ones(3)}))
    assert "no safetensors file of refimpl's" in refused(b"PK\x03\x04 something else")
    assert "checksum" in refused(save({"W": np.ones(3)}, {"refimpl": "0 {}"}))


def test_what_is_no_number_is_never_written_into_the_metadata() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        archive.dumps({}, {"loss": float("nan")})


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.save(tmp_path / "file", ARRAYS, METADATA)
    monkeypatch.setattr(archive, "MAX_BYTES", (tmp_path / "file").stat().st_size - 1)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/file is larger than"):
        archive.read(tmp_path / "file")
