"""Programs on the other side of the pipe: honest ones pass, and each misbehaviour has its own verdict, in time, with
nothing left behind.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from refimpl.cli import app
from refimpl.conformance import descendants, process
from refimpl.conformance.doors import MAX_STARTS, ProgramDoor
from refimpl.conformance.doors.program import Program
from refimpl.conformance.run import ConformanceReport, conform, judge_case
from refimpl.conformance.vectors import Suite, load
from refimpl.formats.errors import ConformanceError
from refimpl.judge.report import FAIL, PASS

PROGRAM = [sys.executable, str(Path(__file__).parent / "hostile_program.py")]
ADAPTERS = Path(__file__).resolve().parent.parent / "docs" / "adapters"
DEADLINE = 1.5


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load()


@pytest.fixture
def started() -> Iterator[list[int]]:
    """The programs that a test starts; afterwards neither they nor anything in another session than ours lives."""
    given: list[int] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            given.append(self.pid)

    descendants.adopt_orphans()
    before = descendants.strays()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.subprocess, "Popen", Noted)
        yield given
    assert given
    assert not Program.running
    assert descendants.strays() <= before


def run(command: list[str], suite: Suite, count: int, seconds: float = DEADLINE) -> ConformanceReport:
    door = ProgramDoor(command, "float64", seconds)
    report = ConformanceReport(door.name, door.description, "float64", "float64")
    try:
        report.results = list(conform(door, Suite.of(suite.cases[:count]), "float64"))
    finally:
        door.close()
    return report


VERDICTS = {
    "segfault": "was ended by SIGSEGV",
    "exit 3": "ended with exit code 3 without answering",
    "hang": "no answer within 1.5 s",
    "ignores SIGTERM": "no answer within 1.5 s",
    "grandchild": "no answer within 1.5 s",
    "daemon": "no answer within 1.5 s",
    "stranger": "no answer within 1.5 s",
    "orphans": "no answer within 1.5 s",
    "closes early": "closed its output without answering",
    "garbage": "not JSON",
    "not an object": "wrote a list where the answer must be a JSON object",
    "1 GB": "wrote more than 1,048,576 bytes without ending the line",
    "deep": "nested too deeply",
    "wrong id": "answered id 5 when 4 was asked",
    "out of order": "answered id 3 when 4 was asked",
    "wrong type": "wrote a message of type 'reply'",
    "error": "said: 'I give\\nup'",
    "no loss": "answered without loss",
    "gradients a list": "gradients is a list",
    "wrong shape": "W1 has shape (1, 12); it must be (4, 3)",
    "data too short": "data has 11 numbers; the shape [4, 3] asks for 12",
    "no tensor": 'write {"shape":[…],"data":[…]}',
    "missing key": "W1 is missing",
    "extra key": "W99 is not a quantity of this network",
    "NaN": "W1[1,1] is nan",
    "named NaN": "W1[1,1] is nan",
    "strings": "number 1 is the text '0.5'",
    "booleans": "number 1 is a bool",
    "loss a string": "is the text 'much'",
    "wrong number": "W1[1,1] is 123, should be",
}


@pytest.mark.parametrize("how", VERDICTS)
def test_a_misbehaviour_has_its_own_verdict_in_time(how: str, suite: Suite, started: list[int]) -> None:
    begun = time.monotonic()
    report = run([*PROGRAM, how], suite, 4)
    elapsed = time.monotonic() - begun
    assert [result.verdict for result in report.results] == [PASS, PASS, PASS, FAIL]
    assert VERDICTS[how] in report.results[3].text
    assert report.results[3].seconds < DEADLINE + 2
    assert elapsed < DEADLINE + 8  # the program's own start included


@pytest.mark.parametrize("how", ["unasked", "1 GB of lines"])
def test_what_was_not_asked_for_fails_the_next_case(how: str, suite: Suite, started: list[int]) -> None:
    report = run([*PROGRAM, how], suite, 5)
    assert [result.verdict for result in report.results] == [PASS, PASS, PASS, PASS, FAIL]
    assert "wrote without being asked" in report.results[4].text


@pytest.mark.parametrize("how", ["none", "byte by byte", "carriage returns", "pauses", "stays after bye"])
def test_right_answers_pass_however_they_are_cut(how: str, suite: Suite, started: list[int]) -> None:
    assert {
        result.verdict for result in run([*PROGRAM, "none" if how == "stays after bye" else how], suite, 6).results
    } == {PASS}


def test_a_program_that_stays_after_bye_is_ended(suite: Suite, started: list[int]) -> None:
    begun = time.monotonic()
    assert run([*PROGRAM, "stays after bye"], suite, 2).ok
    assert time.monotonic() - begun < 10


def test_starting_anew_and_answering_have_one_deadline(suite: Suite, started: list[int], tmp_path: Path) -> None:
    """A program that is slow to greet from its second start on, and then hangs."""
    slow = (
        "import sys, time, pathlib; again = pathlib.Path(sys.argv[1]); again.exists() and time.sleep(1); again.touch();"
        """print('{"type":"hello","format":"refimpl.process/1","name":"slow"}', flush=True);"""
        "sys.stdin.readline(); sys.stdin.readline(); time.sleep(0 if not again.stat().st_size else 60);"
        "again.write_text('second')"
    )
    report = run([sys.executable, "-c", slow, str(tmp_path / "again")], suite, 2)
    assert "ended with exit code 0" in report.results[0].text
    assert "no answer within 1.5 s" in report.results[1].text
    assert report.results[1].seconds < DEADLINE + 0.7


def test_a_program_is_started_anew_and_given_up_in_the_end(suite: Suite, started: list[int]) -> None:
    report = run([*PROGRAM, "every exit 3"], suite, MAX_STARTS + 2)
    assert {result.verdict for result in report.results} == {FAIL}
    assert "exit code 3" in report.results[MAX_STARTS - 1].text
    assert f"failed {MAX_STARTS} times in a row" in report.results[MAX_STARTS].text
    assert len(started) == MAX_STARTS


def test_memory_stays_bounded(suite: Suite) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run([*PROGRAM, "1 GB"], suite, 4)
    run([*PROGRAM, "1 GB of lines"], suite, 5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/nonexistent/program"], "cannot run '/nonexistent/program': No such file or directory"),
        ([str(Path(__file__))], "Permission denied"),
        (["a\0b"], "not a name that a file can have"),
        ([*PROGRAM, "no hello"], "not JSON"),
        (["true"], "ended with exit code 0 without answering"),
        (["cat"], "the name of the program is missing"),
    ],
)
def test_a_program_that_does_not_say_hello_is_a_wrong_request(command: list[str], message: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        ProgramDoor(command, "float64", DEADLINE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cost_of_a_process_is_small(suite: Suite) -> None:
    door = ProgramDoor([*PROGRAM, "none"], "float64", 10.0)
    try:
        for case in suite.cases[:20]:
            assert judge_case(door, case, "float64").verdict == PASS
    finally:
        door.close()


@pytest.mark.parametrize("adapter", ["backprop.c", "backprop.js", "backprop.py"])
def test_an_adapter_is_short_and_passes_the_suite(adapter: str, suite: Suite, tmp_path: Path) -> None:
    source = ADAPTERS / adapter
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
    report = run(command, suite, len(suite.cases), 10.0)
    assert report.ok, report.wrong[0].text
    assert report.counts()[PASS] > 100


def test_without_adopting_orphans_only_what_descends_from_the_program_is_ended(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a library: the caller's own processes are its own, in whatever session, and started whenever."""
    monkeypatch.setattr(descendants, "_adopting", False)
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    before = subprocess.Popen(sleep, start_new_session=True)
    door = ProgramDoor([*PROGRAM, "grandchild"], "float64", DEADLINE)
    after = subprocess.Popen(sleep, start_new_session=True)
    try:
        results = list(conform(door, Suite.of(suite.cases[:3]), "float64"))
        started = descendants.descendants(door.program.process.pid) if door.program else set()
        assert {result.verdict for result in results} == {PASS}
        assert judge_case(door, suite.cases[3], "float64").verdict == FAIL
        assert (before.poll(), after.poll()) == (None, None)
        assert all(descendants._ended(pid) for pid in started)
    finally:
        door.close()
        for own in (before, after):
            own.kill()
            assert own.wait() == -signal.SIGKILL  # nobody else has asked how it ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_signal_while_the_program_is_started_leaves_nothing_behind(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(process.subprocess.Popen):  # type: ignore[misc,name-defined]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.stdin.close()
            self.stdout.close()
            raise KeyboardInterrupt

    monkeypatch.setattr(process.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Program([sys.executable, "-c", "import time; time.sleep(600)"])


def test_what_cannot_be_ended_does_not_hide_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    ended = process.end_all
    monkeypatch.setattr(process, "end_all", lambda *arguments: [*ended(*arguments), 4242])
    junit = tmp_path / "out.xml"
    outcome = CliRunner().invoke(app, ["conform", "--flag", "Tie", "--junit", str(junit), "--", *PROGRAM, "none"])
    assert "process 4242 cannot be ended" in str(outcome.exception)
    assert "conforms: 9 PASS" in outcome.output
    assert junit.exists()


def test_without_a_proc_of_its_own_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that shows the processes of its host."""
    monkeypatch.setattr(descendants.os, "readlink", lambda path: "1234567")
    assert descendants.strays() == set()
    assert descendants.descendants(1) == set()
