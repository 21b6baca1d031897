"""Files are read with a limit and written whole or not at all, whatever fails; and what failed is said with the
file's name.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from small_runs import watched

from refimpl.formats import files
from refimpl.formats.errors import CheckpointError, RefimplError, SpecError

WHOLE = ["open", "write", "fsync", "close", "replace", "open", "fsync", "close"]
# that no file has
NAMES = ["a\0b", "\ud800", "no\nfile", "\x1b[2J", "x" * 300]


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_may_be_as_long_as_the_limit_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read(path, 5, SpecError, "a network") == files.read(str(path), 5, SpecError, "a network") == b"12345"
    with pytest.raises(SpecError, match=r"file is larger than 4 bytes, the most a network may take"):
        files.read(path, 4, SpecError, "a network")


@pytest.mark.parametrize(("size", "limit"), [(100 * 2**20, 2**20), (10, 2**33)])
def test_reading_takes_the_memory_of_what_is_read(size: int, limit: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        assert len(files.read(path, limit, SpecError, "a network")) == size
    except SpecError:
        assert size > limit
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= 4 * 2**20


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through a pipe",))
    writer.start()
    assert files.read(pipe, 100, SpecError, "a network") == b"through a pipe"
    writer.join()


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(CheckpointError, match=rf"cannot read {path}: {reason}"):
            files.read(path, 10, CheckpointError, "a model")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_file_has_is_one_printable_line(name: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/none/{name}"
    for use in (
        lambda: files.read(path, 10, SpecError, "a network"),
        lambda: files.write(path, b"", SpecError),
    ):
        with pytest.raises(SpecError, match=r"^cannot (read|write) ") as caught:
            use()
        assert str(caught.value).isprintable()
        assert "none" in str(caught.value)
    assert held(tmp_path) == {}


def test_a_file_is_safe_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    operations: list[str] = []
    with watched(lambda operation, *arguments: operations.append(operation)):
        files.write(tmp_path / "file", b"new", SpecError)
    assert operations == WHOLE
    assert held(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("at", range(len(WHOLE)), ids=lambda at: f"{at} {WHOLE[at]}")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_whatever_fails_the_file_is_the_old_or_the_new_one(
    at: int, error: int, old: bytes | None, tmp_path: Path
) -> None:
    path, count = tmp_path / "file", -1
    if old is not None:
        path.write_bytes(old)

    def before(operation: str, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            if operation == "close":
                os.close(*arguments)
            raise OSError(error, os.strerror(error))

    with watched(before), pytest.raises(CheckpointError) as caught:
        files.write(path, b"new", CheckpointError)
    said = str(caught.value)
    assert all(words in said for words in (f"cannot write {path}", os.strerror(error), "name a file in a folder"))
    there = b"new" if at > WHOLE.index("replace") else old
    assert held(tmp_path) == ({} if there is None else {"file": there})


def test_ctrl_c_while_a_file_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def before(operation: str, *arguments: Any) -> None:
        if operation == "fsync":
            raise KeyboardInterrupt

    with watched(before), pytest.raises(KeyboardInterrupt):
        files.write(path, b"new", SpecError)
    assert held(tmp_path) == {"file": b"old"}


def test_a_system_that_writes_little_by_little_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    files.write(tmp_path / "file", b"0123456789", SpecError)
    assert held(tmp_path) == {"file": b"0123456789"}


def test_a_written_file_has_the_permissions_of_any_other_or_of_the_one_it_replaces(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", tmp_path / "file"
    plain.touch()
    files.write(path, b"", SpecError)
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    files.write(path, b"new", SpecError)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    link.symlink_to(real)
    for data in (b"made", b"replaced"):
        files.write(link, data, SpecError)
        assert link.is_symlink()
        assert held(real.parent) == {"real": data}


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_the_longest_name_that_a_file_can_have(name: str, tmp_path: Path) -> None:
    files.write(tmp_path / name, b"new", SpecError)
    assert held(tmp_path) == {name: b"new"}


def test_a_pipe_and_a_device_are_written_to_and_stay_what_they_are(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    files.write(pipe, b"through a pipe", SpecError)
    reader.join()
    assert found == [b"through a pipe"]
    assert pipe.is_fifo()
    files.write("/dev/null", b"gone", SpecError)
    assert Path("/dev/null").is_char_device()
    with pytest.raises(SpecError, match=r"cannot write /dev/full: No space left"):
        files.write("/dev/full", b"too much", SpecError)


def test_where_nothing_can_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    places = {
        tmp_path / "none" / "file": "No such file or directory",
        tmp_path / "file" / "below": "Not a directory",
        tmp_path: "Is a directory",
    }
    for path, reason in places.items():
        with pytest.raises(SpecError, match=rf"cannot write {path}: {reason}"):
            files.write(path, b"", SpecError)
    assert held(tmp_path) == {"file": b"old"}


def test_a_folder_is_made_with_those_above_it_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_folder(tmp_path / "a" / "b", SpecError)
        assert held(tmp_path / "a" / "b") == {}


@pytest.mark.parametrize("name", ["file", "file/below", "a\0b", "/proc/none", "x" * 300])
def test_a_folder_that_cannot_be_written_to_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpecError, match=r"^cannot write to .*; name another folder$") as caught:
        files.make_folder(tmp_path / name, SpecError)
    assert str(caught.value).isprintable()


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "none" / "file", Path("/dev/full")):
        for use in (
            lambda path=path: files.read(path, 10, SpecError, "a network"),
            lambda path=path: files.write(path, b"new", SpecError),
        ):
            with pytest.raises(RefimplError):
                use()
    files.write(tmp_path / "file", b"new", SpecError)
    assert files.read(tmp_path / "file", 10, SpecError, "a network") == b"new"
    assert len(os.listdir("/proc/self/fd")) == before
