"""Tables in narrow terminals, and in those that know no colours and no width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

TERMINALS = ["xterm-256color", "dumb"]
COLUMNS = 60
TESTS = Path(__file__).resolve().parents[1]


def shown(terminal: str, *arguments: str, code: int = 0) -> list[str]:
    """The lines that a command prints in a terminal."""
    end, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": terminal, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, "-m", "refimpl", *arguments],
        stdin=other, stdout=other, stderr=subprocess.DEVNULL, env=environment,
    ) as program:  # fmt: skip
        os.close(other)
        printed = b""
        while part := _read(end):
            printed += part
    os.close(end)
    assert program.returncode == code
    assert (b"\x1b[" in printed) == (terminal != "dumb")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode()).splitlines()


def _read(end: int) -> bytes:
    try:
        return os.read(end, 2**16)
    except OSError:  # how Linux says that nobody writes any more
        return b""


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize(("backend", "verdict", "code"), [("numpy", "PASS", 0), ("planted:TIMES_TWO", "FAIL", 1)])
def test_check_shows_every_verdict(backend: str, verdict: str, code: int, terminal: str) -> None:
    lines = shown(terminal, "check", "--backend", backend, code=code)
    assert max(map(len, lines)) <= COLUMNS
    for quantity in ("loss", "W1", "b1", "W2", "b2", "W3"):
        assert [line for line in lines if {quantity, verdict} <= set(line.split())], quantity
    assert "0 UNDETERMINED of 19 elements" in " ".join(" ".join(lines).split())


@pytest.mark.parametrize("terminal", TERMINALS)
def test_conform_shows_every_flag_and_every_verdict(terminal: str) -> None:
    lines = shown(terminal, "conform", "numpy", "--flag", "Tie", "--processes", "1")
    assert max(map(len, lines)) <= COLUMNS
    assert "PASS" in next(line for line in lines if "flag" in line).split()
    assert [line for line in lines if line.split() == ["Tie", "9"]]
    assert "numpy too little to say: 9 of 9, 9 with hidden layers" in " ".join(" ".join(lines).split())


def test_bench_shows_every_contender_and_every_quantity(tmp_path: Path) -> None:
    options = ("--quick", "--network", "64-32-16-10", "--contender", "numpy", "--seconds", "0.01")
    lines = shown("dumb", "bench", *options, "--out", str(tmp_path))
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= COLUMNS
    text = " ".join(lines)
    assert "…" not in text
    for word in ("numpy", "floor", "forward", "gradients", "step", "run"):
        assert word in text
