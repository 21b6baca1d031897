"""Programs on the other side of the pipe: honest ones pass, and each misbehaviour has its own verdict, with nothing
left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import psutil
import pytest

from refimpl.conformance.doors import program as doors
from refimpl.conformance.doors.program import MAX_STARTS, Program, ProgramDoor, ProgramError
from refimpl.conformance.report import ConformanceReport
from refimpl.conformance.run import SKIP, conform
from refimpl.conformance.vectors import Suite, load
from refimpl.formats.errors import ConformanceError
from refimpl.judge.report import FAIL, PASS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, str(ROOT / "tests" / "hostile_program.py")]
SUITE = load()
PATIENCE = 60.0
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def run(command: list[str], count: int, seconds: float = PATIENCE) -> ConformanceReport:
    """The first cases asked of a program, which has `seconds` for each, and as long as it likes to begin."""
    door = ProgramDoor(command, "float64", PATIENCE)
    door.seconds = seconds
    report = ConformanceReport(door.name, door.description, "float64", "float64")
    try:
        report.results = list(conform(door, Suite.of(SUITE.cases[:count]), "float64"))[
            :count
        ]  # but what is asked again
    finally:
        door.close()
    return report


VERDICTS = {
    "segfault": "was ended by SIGSEGV",
    "exit 0": "ended with exit code 0 without answering",
    "exit 3": "ended with exit code 3 without answering",
    "closes early": "closed its output without answering",
    "garbage": "not JSON",
    "1 GB": "bytes without ending the line",
    "deep": "nested too deeply",
    "wrong id": "answered id 5 when 4 was asked",
    "wrong type": "a message of type 'reply' where an answer was due",
    "error": "said: 'I give\\nup'",
    "no loss": "lacks the key 'loss'",
    "no array": "W1 must be a JSON object",
    "wrong shape": "W1 has shape (1, 12); it must be (4, 3)",
    "wrong number": "W1[1,1] is 123, should be",
}


@pytest.mark.parametrize("how", VERDICTS)
def test_a_misbehaviour_is_a_failure_with_its_reason(how: str) -> None:
    report = run([*PROGRAM, how], 4)
    assert [result.verdict for result in report.results] == [PASS, PASS, PASS, FAIL]
    assert VERDICTS[how] in report.results[3].text


@pytest.mark.parametrize("how", ["hang", "child", "child in a session of its own"])
def test_a_program_that_does_not_answer_is_ended_with_all_it_started(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = f"started by {tmp_path}"
    monkeypatch.setenv("REFIMPL_TEST_CHILD", started)
    report = run([*PROGRAM, how], 4, seconds=1.0)
    assert [result.verdict for result in report.results] == [PASS, PASS, PASS, FAIL]
    assert "no answer in time" in report.results[3].text
    assert not [process for process in psutil.process_iter(["cmdline"]) if started in (process.info["cmdline"] or [])]


@pytest.mark.parametrize("how", ["unasked", "1 GB of lines"])
def test_what_was_not_asked_for_fails_the_next_case(how: str) -> None:
    report = run([*PROGRAM, how], 5)
    assert [result.verdict for result in report.results] == [PASS, PASS, PASS, PASS, FAIL]
    assert "wrote without being asked" in report.results[4].text


@pytest.mark.parametrize("how", ["byte by byte", "carriage returns", "pauses", "stays after bye"])
def test_right_answers_pass_however_they_are_cut(how: str) -> None:
    assert run([*PROGRAM, how], 3 if how == "stays after bye" else 6).ok


def test_what_a_program_says_it_cannot_do_is_skipped() -> None:
    report = run([*PROGRAM, "unsupported"], 4)
    assert [result.verdict for result in report.results] == [PASS, PASS, PASS, SKIP]
    assert report.results[3].reason == "not today\\x1b"


def test_a_program_is_started_anew_and_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Counted(Program):
        def __init__(self, command: Any) -> None:
            super().__init__(command)
            started.append(self.process)

    monkeypatch.setattr(doors, "Program", Counted)
    report = run([*PROGRAM, "every exit 3"], MAX_STARTS + 2)
    assert {result.verdict for result in report.results} == {FAIL}
    assert "exit code 3" in report.results[MAX_STARTS - 1].text
    assert f"failed {MAX_STARTS} times in a row" in report.results[MAX_STARTS].text
    assert len(started) == MAX_STARTS


def test_starting_anew_and_answering_have_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, deadlines = Program.ask, []

    def noting(self: Program, line: bytes, deadline: float) -> bytes:
        deadlines.append(deadline)
        return ask(self, line, deadline)

    monkeypatch.setattr(Program, "ask", noting)
    run([*PROGRAM, "every exit 3"], 2)
    hello, first, again, second = deadlines
    assert hello < first < second
    assert again == second


@pytest.mark.parametrize(("how", "count"), [("1 GB", 4), ("1 GB of lines", 5)])
def test_memory_stays_bounded(how: str, count: int) -> None:
    tracemalloc.start()
    try:
        assert run([*PROGRAM, how], count).counts()[FAIL] == 1
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nonexistent/program"], "cannot run '/nonexistent/program': No such file"),
        ([str(Path(__file__))], "Permission denied"),
        (["/"], "cannot run '/': it is a folder"),
        (["a\0b"], "not a name that a file can have"),
        ([*PROGRAM, "no hello"], "not JSON"),
        (["true"], "ended with exit code 0 without answering"),
        (["cat"], "lacks the key 'name'"),
        (["yes"], "its first line must be its hello"),
    ],
)
def test_a_program_that_does_not_say_hello_is_a_wrong_request(command: list[str], words: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        ProgramDoor(command, "float64", 10.0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_program_that_ended_before_it_was_asked_is_not_waited_for() -> None:
    program = Program(["true"])
    program.process.wait()
    while program.lines.empty():
        time.sleep(0.01)
    with pytest.raises(ProgramError, match="ended with exit code 0"):
        program.ask(b"\n", time.monotonic() + 2)
    program.kill()


def test_a_program_is_killed_where_ctrl_c_comes_while_it_may_end_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(SLEEP)
    wait, waits = program.process.wait, []

    def interrupted(timeout: float | None = None) -> int:
        waits.append(timeout)
        if len(waits) == 1:
            raise KeyboardInterrupt
        return wait(timeout)

    monkeypatch.setattr(program.process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program.close()
    assert program.process.poll() == -signal.SIGKILL


def test_a_program_that_cannot_be_ended_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that runs as another user; killing is refused here in its place."""

    def refuse(*arguments: Any) -> None:
        raise PermissionError

    program = Program(SLEEP)
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", refuse)
        patched.setattr(doors, "ENDING", 0.05)
        with pytest.warns(RuntimeWarning, match=f"process {program.process.pid} cannot be ended"):
            program.kill()
    program.kill()
    assert program.process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("adapter", ["backprop.c", "backprop.js", "backprop.py"])
def test_an_adapter_is_short_and_passes_the_suite(adapter: str, tmp_path: Path) -> None:
    source = ROOT / "docs" / "adapters" / adapter
    assert len(source.read_text().splitlines()) <= 60
    if adapter.endswith(".c"):
        command = [str(tmp_path / "backprop")]
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", *command, source, "-lm"], check=True)
    elif adapter.endswith(".js"):
        node = shutil.which("node") or shutil.which("nodejs")
        if node is None and not os.environ.get("CI"):
            pytest.skip("node is not installed")
        command = [node or "node", str(source)]
    else:
        command = [sys.executable, "-I", "-S", str(source)]  # neither refimpl nor NumPy can be imported
    report = run(command, len(SUITE.cases))
    assert report.ok, report.wrong[0].text
    assert report.counts()[PASS] > 100
