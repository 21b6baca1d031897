"""What other people's backends do to the one who asks them: nothing that outlasts the call, and no exit code 0."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import Wrong, report

from refimpl import backend as backends
from refimpl import check, examples
from refimpl.backend.registry import MAX_REASON
from refimpl.backend.untrusted import contained, described, first_line
from refimpl.cli import main
from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.run import SKIP, judge_case
from refimpl.conformance.vectors import Suite, load
from refimpl.formats.errors import BackendError
from refimpl.judge.report import FAIL, PASS
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl_numpy import NumpyBackend

TIES = Suite.of([case for case in load().cases if "Tie" in case.flags])
CASE = TIES.cases[0]


class Stranger(NumpyBackend):
    """The NumPy backend, doing something before it answers."""

    name = "stranger"

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.act = act

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self.act()
        return super().gradient_function(spec, dtype=dtype, device=device)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("error", [SystemExit(0), RecursionError(), ValueError("a\x1b[2J\nb")], ids=repr)
def test_whatever_a_backend_raises_is_a_failure_with_the_reason(error: BaseException) -> None:
    stranger, reason = Stranger(raising(error)), f"raised {described(error)}"
    result = judge_case(BackendDoor(stranger), CASE, "float64")
    own = r" \(at test_untrusted\.py:\d+ in act, test_untrusted\.py:\d+ in gradient_function(, .*)?\)"
    assert result.verdict == FAIL
    assert re.fullmatch(re.escape(reason) + own, result.reason), result.reason
    spec, (x, y) = examples.article(), examples.article_batch()
    checked = check(spec, spec.init(), x, y, [stranger])
    (row,) = checked.rows
    assert row.verdict == FAIL
    assert re.fullmatch(re.escape(reason) + own, row.reason), row.reason


def test_ctrl_c_is_no_failure_of_a_backend() -> None:
    stranger = Stranger(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        judge_case(BackendDoor(stranger), CASE, "float64")
    spec, (x, y) = examples.article(), examples.article_batch()
    with pytest.raises(KeyboardInterrupt):
        check(spec, spec.init(), x, y, [stranger])


LEAVING = """
import os, sys
from refimpl_numpy import NumpyBackend

PLACE = {place!r}

def leave(place):
    if place == PLACE:
        sys.exit(0)

leave("import")

class Leaves(NumpyBackend):
    def __init__(self):
        super().__init__()
        leave("constructor")

    @property
    def name(self):
        leave("name")
        return "leaves"

    def supports(self, spec, **keywords):
        leave("supports")
        return True

    def arithmetic(self, **keywords):
        from refimpl.network.arithmetic import ARITHMETICS
        leave("arithmetic")
        return ARITHMETICS["float64"]

    def gradient_function(self, spec, **keywords):
        leave("gradient_function")
        right = super().gradient_function(spec, **keywords)

        def run(*data):
            leave("its function")
            return right(*data)

        return run
"""
PLACES = ["import", "constructor", "name", "supports", "arithmetic", "gradient_function", "its function"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "command", [("conform", "leaves:Leaves", "--flag", "Tie"), ("check", "--backend", "leaves:Leaves")]
)
def test_a_backend_that_exits_with_0_does_not_end_the_command_with_0(
    place: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves.py").write_text(LEAVING.format(place=place))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("leaves", None)
    monkeypatch.setattr(sys, "argv", ["refimpl", *command])
    monkeypatch.setattr("refimpl.cli.interruption.install", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("a\x1b[2J\nb"), "a?[2J"), (ValueError(), "(no message)"), (ValueError("x" * 1000), "x" * 200)],
)
def test_an_error_is_told_in_one_printable_line_of_some_length(error: Exception, line: str) -> None:
    assert first_line(error) == line
    assert described(error) == f"ValueError: {line}"


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_set_within_is_set_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: bool) -> None:
    before, here, stdout = np.geterr(), os.getcwd(), sys.stdout
    with contextlib.suppress(RuntimeError), contained():
        np.seterr(all="raise")
        os.chdir(tmp_path)
        print("from within")
        if fails:
            raise RuntimeError
    assert (np.geterr(), os.getcwd(), sys.stdout) == (before, here, stdout)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "from within\n")


def test_a_backend_changes_neither_numpy_nor_the_folder(tmp_path: Path) -> None:
    def act() -> None:
        np.seterr(all="raise")
        os.chdir(tmp_path)

    before, here = np.geterr(), os.getcwd()
    assert report(Stranger(act), TIES).counts() == {PASS: len(TIES.cases)}
    assert (np.geterr(), os.getcwd()) == (before, here)


def test_the_judge_works_where_numpy_raises_and_warnings_are_errors() -> None:
    huge = Wrong(lambda loss, grads: (loss, {name: 1e300 * grad for name, grad in grads.items()}))
    few = Suite.of(TIES.cases[:3])
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = report(huge, few)
    assert found.counts() == {FAIL: len(few.cases)}
    assert all(result.findings for result in found.results)


def test_what_a_backend_prints_is_not_the_report(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "import os\nfrom refimpl_numpy import NumpyBackend\nprint('loaded')\n"
        "class Chatty(NumpyBackend):\n    name = '[red]chatty[/]'\n"
        "    def supports(self, spec, **keywords):\n        print('asked')\n        return True\n"
        "    def gradient_function(self, spec, **keywords):\n        os.write(1, b'run, below Python')\n"
        "        return super().gradient_function(spec, **keywords)\n"
    )
    arguments = ["conform", "chatty:Chatty", "--flag", "Tie", "--json"]
    done = subprocess.run([sys.executable, "-m", "refimpl", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reports"][0]["implementation"] == "[red]chatty[/]"
    for said in ("loaded", "asked", "run, below Python"):
        assert said in done.stderr


LINGERING = """
import atexit, threading, time
from refimpl_numpy import NumpyBackend

class Backend(NumpyBackend):
    name = "lingering"

    def gradient_function(self, spec, **keywords):
        {}
        return super().gradient_function(spec, **keywords)
"""


@pytest.mark.parametrize(
    "waits", ["threading.Thread(target=time.sleep, args=[600]).start()", "atexit.register(time.sleep, 600)"]
)
def test_what_a_backend_leaves_running_does_not_keep_the_command_from_ending(waits: str, tmp_path: Path) -> None:
    (tmp_path / "lingering.py").write_text(LINGERING.format(waits))
    impatient = "from refimpl import cli; cli.LINGERING = 0.1; cli.command()"
    arguments = ["conform", "lingering:Backend", "--flag", "Tie", "--processes", "1"]
    done = subprocess.run(
        [sys.executable, "-c", impatient, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "lingering too little to say: 9 of 9" in done.stdout


def test_numpys_true_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stranger, "supports", lambda self, spec, **keywords: np.True_)
    assert judge_case(BackendDoor(Stranger(lambda: None)), CASE, "float64").verdict == PASS


def test_why_a_backend_lacks_something_is_one_printable_line_of_some_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stranger, "supports", lambda self, spec, **keywords: "\x1b[2J\n" + 1000 * "no ")
    result = judge_case(BackendDoor(Stranger(lambda: None)), CASE, "float64")
    assert (result.verdict, result.reason[:10], len(result.reason)) == (SKIP, "?[2J no no", MAX_REASON)


@pytest.mark.parametrize(
    ("arithmetic", "words"),
    [
        (lambda **keywords: "float64", "returned a str; return a refimpl.backend.Arithmetic"),
        (lambda **keywords: 1 / 0, "raised ZeroDivisionError"),
        (lambda **keywords: Arithmetic(**{**vars(ARITHMETICS["float64"]), "unit_roundoff": -1e-16}), "unit_roundoff"),
    ],
)
def test_an_arithmetic_that_is_none_is_a_wrong_request(arithmetic: Any, words: str) -> None:
    stranger = Stranger(lambda: None)
    stranger.arithmetic = arithmetic  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match=f"'stranger' cannot be judged: .*{words}"):
        BackendDoor(stranger).arithmetic("float64")


@pytest.mark.parametrize("name", ["two\nlines", "", 5, "x" * 300, None])
def test_a_name_that_cannot_be_shown_is_a_wrong_request(name: Any) -> None:
    stranger = Stranger(lambda: None)
    stranger.name = name
    with pytest.raises(BackendError, match="name must be one line of 1 to 200 printable characters"):
        backends.usable(stranger)
