"""Ctrl-C, SIGTERM and SIGHUP while something runs: it is ended with all it started, and what was found is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from killing import HEARING

from refimpl.cli.interruption import SIGNALS, Interruption

HOSTILE = str(Path(__file__).resolve().parent.parent / "hostile_program.py")
WAITING = """
import multiprocessing, os, pathlib, signal, sys, time
from refimpl_numpy import NumpyBackend

def say(words):
    print(words, file=sys.stderr, flush=True)

class Backend(NumpyBackend):
    name = "waiting"

    def gradient_function(self, spec, **keywords):
        {}
        return super().gradient_function(spec, **keywords)
"""


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield Interruption()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_ctrl_c_and_is_remembered(number: int, interruption: Interruption) -> None:
    interruption.install()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert interruption.number == number


def test_a_signal_that_is_ignored_stays_so(interruption: Interruption) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert interruption.number == 0


def test_as_many_signals_are_borne_as_was_said(interruption: Interruption, capsys: pytest.CaptureFixture[str]) -> None:
    interruption.install()
    with interruption.bearing(2, "once more and all is lost"):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.number == signal.SIGTERM
        assert capsys.readouterr().err == 2 * "once more and all is lost\n"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


class Running:
    """refimpl as a process of its own."""

    def __init__(self, folder: Path, *arguments: str, start: str = HEARING) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, cwd=folder,
        )  # fmt: skip
        self.said = ""

    def until(self, words: str) -> None:
        """Wait until it says something on stderr."""
        assert self.process.stderr is not None
        while words not in self.said:
            line = self.process.stderr.readline()
            assert line, f"ended without saying {words!r}: {self.said}"
            self.said += line.decode()

    def end(self) -> tuple[str, str, int]:
        """Its stdout, stderr and exit code."""
        out, err = self.process.communicate()
        return out.decode(), self.said + err.decode(), self.process.returncode


@contextmanager
def running(folder: Path, *arguments: str, **options: Any) -> Iterator[Running]:
    """In the end, neither it nor anything that it has started lives."""
    here = Running(folder, *arguments, **options)
    watch = threading.Timer(120, here.process.kill)
    watch.start()
    try:
        yield here
    finally:
        watch.cancel()
        here.process.kill()
        here.process.wait()


def children(running: Running) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(running.process.pid).children(recursive=True)
    assert found
    return found


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def cases(out: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out)["reports"][0]["cases"]
    return found


@pytest.mark.kills
@pytest.mark.parametrize("number", SIGNALS)
def test_the_tested_program_is_ended_and_the_report_is_finished(number: int, tmp_path: Path) -> None:
    junit = tmp_path / "out.xml"
    with running(tmp_path, "conform", "--junit", str(junit), "--json", "--", sys.executable, HOSTILE, "hang") as here:
        here.until("hangs")
        started = children(here)
        here.process.send_signal(number)
        out, err, code = here.end()
    assert code == 128 + number
    assert_gone(started)
    assert [case["verdict"] for case in cases(out)] == 3 * ["PASS"]
    assert "interrupted after 3 cases" in err
    assert ElementTree.parse(junit).getroot()[0].get("tests") == "3"


@pytest.mark.kills
def test_a_second_signal_while_the_program_is_ended_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "conform", "--json", "--", sys.executable, HOSTILE, "hang") as here:
        here.until("hangs")
        started = children(here)
        here.process.send_signal(signal.SIGINT)
        here.until("stays after bye")
        here.process.send_signal(signal.SIGINT)
        out, _, code = here.end()
    assert code == 128 + signal.SIGINT
    assert_gone(started)
    assert [case["verdict"] for case in cases(out)] == 3 * ["PASS"]


@pytest.mark.kills
def test_a_signal_is_no_failure_of_the_backend_that_runs(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING.format("say('waits'); time.sleep(600)"))
    with running(tmp_path, "conform", "waiting:Backend", "--json", "--processes", "1") as here:
        here.until("waits")
        here.process.terminate()
        out, err, code = here.end()
    assert (code, cases(out)) == (128 + signal.SIGTERM, [])
    assert "interrupted after 0 cases" in err


@pytest.mark.kills
def test_check_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING.format("say('waits'); time.sleep(600)"))
    with running(tmp_path, "check", "--backend", "waiting:Backend") as here:
        here.until("waits")
        here.process.send_signal(signal.SIGINT)
        out, err, code = here.end()
    assert (code, out) == (128 + signal.SIGINT, "")
    assert "Traceback" not in err


@pytest.mark.kills
def test_under_nohup_a_hangup_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(
        WAITING.format("say('waits')\n        while not pathlib.Path('go').exists(): time.sleep(0.01)")
    )
    start = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from refimpl.cli import command; command()"
    arguments = ["conform", "waiting:Backend", "--flag", "Tie", "--processes", "1"]
    with running(tmp_path, *arguments, start=start) as here:
        here.until("waits")
        here.process.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        out, err, code = here.end()
    assert code == 0, err
    assert "waiting too little to say: 9 of 9" in out


@pytest.mark.kills
def test_processes_that_ignore_signals_are_ended(tmp_path: Path) -> None:
    """Eight cases are asked in the process itself, and the others in further ones."""
    stubborn = (
        "if multiprocessing.parent_process() is None:\n            time.sleep(0.05)\n        else:\n"
        "            signal.signal(signal.SIGTERM, signal.SIG_IGN); say('waits'); time.sleep(600)"
    )
    (tmp_path / "waiting.py").write_text(WAITING.format(stubborn))
    with running(tmp_path, "conform", "waiting:Backend", "--json", "--processes", "2") as here:
        here.until("waits")
        started = children(here)
        here.process.send_signal(signal.SIGINT)
        out, _, code = here.end()
    assert code == 128 + signal.SIGINT
    assert_gone(started)
    assert len(cases(out)) == 8


@pytest.mark.kills
def test_a_backend_that_takes_a_signal_for_an_error_of_its_own_is_not_asked_again(tmp_path: Path) -> None:
    swallowing = (
        "try:\n            say('waits'); time.sleep(600)\n"
        "        except KeyboardInterrupt:\n            say('swallowed')"
    )
    (tmp_path / "waiting.py").write_text(WAITING.format(swallowing))
    with running(tmp_path, "conform", "waiting:Backend", "--json", "--processes", "1") as here:
        here.until("waits")
        here.process.send_signal(signal.SIGINT)
        out, err, code = here.end()
    assert code == 128 + signal.SIGINT
    assert [case["verdict"] for case in cases(out)] == ["PASS"]
    assert "interrupted after 1 case" in err
