"""What strangers' backends, programs and files may do to the one who asks them: nothing that outlasts the call."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from refimpl import backend as backends
from refimpl import check, examples
from refimpl.backend.untrusted import first_line, told
from refimpl.cli import app
from refimpl.conformance import messages
from refimpl.conformance import vectors as vector_files
from refimpl.conformance.doors import AnswersDoor, BackendDoor, ProgramDoor
from refimpl.conformance.doors.program import Program
from refimpl.conformance.run import SKIP, ConformanceReport, conform, judge_case
from refimpl.conformance.vectors import FOLDER, Suite, load, loads
from refimpl.formats.errors import BackendError, ConformanceError
from refimpl.formats.files import opened, read_whole, write_whole
from refimpl.judge.report import FAIL, PASS, apart
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl_numpy import NumpyBackend

SUITE = load()
CASE = SUITE.cases[0]
TIES = Suite.of([case for case in SUITE.cases if "Tie" in case.flags])
HOSTILE = str(Path(__file__).parent / "hostile_program.py")


def refimpl(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "refimpl", *arguments]
    return subprocess.run(program, capture_output="stdout" not in options, text=True, timeout=60, **options)


class Stranger(NumpyBackend):
    """The NumPy backend, doing something before it answers."""

    name = "stranger"

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.act = act

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        self.act()
        return super().gradient_function(spec, dtype=dtype, device=device)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("error", [Mute(), SystemExit(3), GeneratorExit(), BaseException("base"), RecursionError()])
def test_whatever_a_backend_raises_is_a_failure(error: BaseException) -> None:
    stranger = Stranger(raising(error))
    result = judge_case(BackendDoor(stranger), CASE, "float64")
    assert (result.verdict, result.reason) == (FAIL, f"raised {told(error)}")
    spec, (x, y) = examples.article(), examples.article_batch()
    report = check(spec, spec.init(), x, y, [stranger])
    assert [row.reason for row in report.rows] == [f"raised {told(error)}"]


class Leaving:
    """Something whose every method ends the process, and says that all is well."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise SystemExit(0)

    def keys(self) -> Any:
        raise SystemExit(0)

    def __iter__(self) -> Any:
        raise SystemExit(0)

    def __str__(self) -> str:
        raise SystemExit(0)


class Leaver(NumpyBackend):
    """Returns what leaves."""

    name = "leaver"

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.leaving = answer

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        return lambda params, x, y: self.leaving


@pytest.mark.parametrize(
    "answer",
    [(0.0, {"W1": Leaving()}), (Leaving(), {}), (0.0, Leaving()), Leaving(), (0.0, {Leaving(): 1.0})],
    ids=["array", "loss", "gradients", "answer", "key"],
)
def test_an_answer_that_ends_the_process_is_a_failure(answer: Any) -> None:
    result = judge_case(BackendDoor(Leaver(answer)), CASE, "float64")
    assert result.verdict == FAIL
    p = examples.article()
    report = check(p, p.init(0), *examples.article_batch(), [Leaver(answer)])
    assert not report.ok


def test_a_name_that_ends_the_process_is_said() -> None:
    class Nameless:
        @property
        def name(self) -> str:
            raise SystemExit(0)

        def supports(self, spec: Any, *, dtype: str, device: str) -> bool:
            return True

        def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
            raise NotImplementedError

    with pytest.raises(BackendError, match="SystemExit"):
        backends.usable(Nameless())  # type: ignore[arg-type]


class Lazy:
    """An array once it is asked for one, which sets things and says so."""

    def __init__(self, array: Any, act: Callable[[], Any]) -> None:
        self.array, self.act = array, act

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self.act()
        return self.array


def test_what_an_answer_does_when_it_is_read_does_not_outlast_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, grads = NumpyBackend().gradient_function(CASE.spec, dtype="float64", device="cpu")(*CASE.data("float64"))
    here, before, read = os.getcwd(), np.geterr(), []

    def act() -> None:
        read.append(1)
        os.chdir(tmp_path)
        np.seterr(all="raise")
        print("read")

    answer = (Lazy(np.asarray(loss), act), {name: Lazy(grad, act) for name, grad in grads.items()})
    result = judge_case(BackendDoor(Leaver(answer)), CASE, "float64")
    assert result.verdict == PASS, result.text
    assert len(read) == 1 + len(grads)  # once each
    assert (os.getcwd(), np.geterr()) == (here, before)
    assert capsys.readouterr().out == ""
    assert check(CASE.spec, *CASE.data("float64"), [Leaver(answer)]).ok
    assert (os.getcwd(), np.geterr()) == (here, before)
    assert capsys.readouterr().out == ""


class Endless:
    """A sequence, and a mapping, without an end."""

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, key: Any) -> float:
        return 1.0

    def __iter__(self) -> Any:
        return iter(int, 1)

    def keys(self) -> Any:
        return (f"W{number}" for number in itertools.count(1))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((0.0, {"W1": Endless()}), "is a Endless, not an array of numbers"),
        ((0.0, Endless()), "returned gradients of more than 10,000 names"),
        ((Endless(), {}), "is a Endless, not an array of numbers"),
        ((0.0, {"W1": np.broadcast_to(1.0, (10**5, 10**5))}), "has shape (100000, 100000), of more than 134,217,728"),
        ((0.0, {"W1": [[1.0, None]]}), "is a list, not an array of numbers"),
        ((0.0, {"W1": (value for value in [1.0])}), "is a generator, not an array of numbers"),
    ],
    ids=["sequence", "mapping", "loss", "broadcast", "objects", "generator"],
)
def test_an_answer_without_an_end_is_refused_at_once(answer: Any, reason: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = judge_case(BackendDoor(Leaver(answer)), CASE, "float64")
    assert result.verdict == FAIL
    assert any(reason in row.reason for row in result.rows), [row.reason for row in result.rows]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_a_loss_of_a_longer_dtype_is_taken_without_a_warning() -> None:
    loss, grads = NumpyBackend().gradient_function(CASE.spec, dtype="float64", device="cpu")(*CASE.data("float64"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert judge_case(BackendDoor(Leaver((np.longdouble(loss), grads))), CASE, "float64").verdict == PASS
        huge = judge_case(BackendDoor(Leaver((np.longdouble("1e4000"), grads))), CASE, "float64")
    assert huge.verdict == FAIL


def test_keys_are_text_whatever_their_methods_do() -> None:
    class Key(str):
        def __eq__(self, other: object) -> bool:
            raise ValueError("eq")

        def __hash__(self) -> int:
            return hash("W1")

    loss, grads = NumpyBackend().gradient_function(CASE.spec, dtype="float64", device="cpu")(*CASE.data("float64"))
    answer = (loss, {Key(name) if name == "W1" else name: grad for name, grad in grads.items()})
    assert {row.verdict for row in CASE.judge("float64").judge_answer("", answer)} == {PASS}
    wrong = {name: -grad for name, grad in answer[1].items()}
    assert "wrong_sign" in judge_case(BackendDoor(Leaver((loss, wrong))), CASE, "float64").text
    (row,) = [row for row in CASE.judge("float64").judge_answer("", (loss, {**grads, 7: 0})) if row.verdict == FAIL]
    assert row.quantity == "a key of type int"


def test_vectors_are_read_from_the_folder_named_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.json").write_text('{"format": "password"}')
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "z.json").symlink_to(tmp_path / "secret" / "a.json")
    with pytest.raises(ConformanceError, match="is a link out of the folder") as caught:
        load(tmp_path / "vectors")
    assert "password" not in str(caught.value)
    (tmp_path / "vectors" / "y.json").write_bytes(next(path for path in FOLDER.glob("tie-1.json")).read_bytes())
    (tmp_path / "vectors" / "z.json").unlink()
    (tmp_path / "vectors" / "z.json").symlink_to(tmp_path / "vectors" / "nothing")
    (tmp_path / "linked").symlink_to(tmp_path / "vectors")
    assert load(tmp_path / "linked").cases  # a link to the folder itself is the folder


def test_the_size_of_a_case_has_limits() -> None:
    def file(sizes: list[int], n: int) -> str:
        network = {
            "format": "refimpl.network/1", "input_shape": [sizes[0]], "loss": "squared_error", "reduction": "mean",
            "layers": [{"size": size, "activation": "identity", "bias": False} for size in sizes[1:]],
        }  # fmt: skip
        nothing: dict[str, Any] = {"shape": [], "hex": [], "decimal": []}
        case = {
            "id": "large", "flags": [], "network": network, "parameters": {}, "x": {**nothing, "shape": [n, sizes[0]]},
            "y": nothing, "loss": {}, "gradients": {},
        }  # fmt: skip
        return json.dumps({"format": "refimpl.vectors/1", "flags": {}, "cases": [case]})

    for sizes, n in ((66 * [1], 1), ([1, 10**4, 1], 10), ([1, 1], 10**7)):
        with pytest.raises(ConformanceError, match="case 'large' is too large: at most 64 layers, and 100,000 units"):
            loads(file(sizes, n))
    with pytest.raises(ConformanceError, match="lacks the key 'W1'"):
        loads(file([1, 9998, 1], 10))


def test_wrong_answers_and_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "MAX_CASES", 5)
    for name in ("tie-1.json", "wrong-1.json"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    with pytest.raises(ConformanceError, match="more than 5 cases or wrong answers"):
        load(tmp_path)
    monkeypatch.setattr(vector_files, "MAX_FILES", 1)
    with pytest.raises(ConformanceError, match="more than 1 files"):
        load(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    commands = (
        ["conform", "--answers", str(pipe)],
        ["conform", "numpy", "--xfail", str(pipe)],
        ["diagnose", CASE.id, str(pipe)],
        ["diagnose", str(pipe), str(FOLDER / "tie-1.json")],
    )
    for arguments in commands:
        outcome = command(*arguments)
        assert outcome.returncode == 2, outcome.stderr
        assert f"cannot read {pipe}: it is no regular file; write what it holds to one" in outcome.stderr


def test_files_that_cannot_be_read_leave_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "nowhere", Path("a\0b")):
        with pytest.raises(ConformanceError, match="cannot read"):
            read_whole(path, 10, ConformanceError, "a file")
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ZeroDivisionError), opened(FOLDER / "tie-1.json", ConformanceError):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="mine"), opened(FOLDER / "tie-1.json", ConformanceError):
        raise ValueError("mine")


def test_diagnose_names_the_file_and_takes_no_case_for_none(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    path.write_text("{")
    assert str(refimpl("diagnose", CASE.id, str(path)).exception).startswith(f"{path}: not JSON")
    assert "there is no case ''" in str(refimpl("diagnose", "", str(path)).exception)


def test_diagnose_tells_a_malformed_array_as_it_is_and_once(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    malformed = {"shape": [4, 3], "data": ["0.5"] * 12}
    gradients = {**json.loads(answered(CASE))["gradients"], "W1": malformed}
    path.write_text(json.dumps({"gradients": gradients}))
    outcome = refimpl("diagnose", CASE.id, str(path))
    assert (outcome.exit_code, outcome.output) == (1, "W1 is no array: number 1 is the text '0.5'\n")


def test_a_hexadecimal_number_has_european_digits() -> None:
    text = (FOLDER / "tie-1.json").read_text().replace("p+", "p+\u0663", 1)
    with pytest.raises(ConformanceError, match="no C99 hexadecimal float"):
        loads(text)


def test_a_program_is_killed_whatever_comes_while_it_may_end_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program([sys.executable, "-c", "import time; time.sleep(60)"])
    wait, calls = program.process.wait, []

    def interrupted(timeout: float | None = None) -> int:
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return wait(timeout)

    monkeypatch.setattr(program.process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program.close()
    assert program.process.poll() == -signal.SIGKILL


def test_a_program_that_cannot_be_killed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that runs as another user; killing is refused here in its place."""
    program = Program([sys.executable, "-c", "import time; time.sleep(60)"])
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda *a: (_ for _ in ()).throw(PermissionError()))
        started = time.monotonic()
        with pytest.raises(ConformanceError, match="cannot be ended"):
            program.kill()
        assert time.monotonic() - started < 10
    program.kill()
    assert program.process.poll() == -signal.SIGKILL


def test_ctrl_c_is_no_answer() -> None:
    with pytest.raises(KeyboardInterrupt):
        judge_case(BackendDoor(Stranger(raising(KeyboardInterrupt()))), CASE, "float64")


@pytest.mark.parametrize(("error", "line"), [(Mute(), "(no message)"), (ValueError("a\x1b[2J\nb"), "a?[2J")])
def test_an_error_in_one_printable_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_backend_changes_neither_numpy_nor_the_folder(tmp_path: Path) -> None:
    def act() -> None:
        np.seterr(all="raise")
        os.chdir(tmp_path)

    before, here = np.geterr(), os.getcwd()
    door = BackendDoor(Stranger(act))
    assert {result.verdict for result in conform(door, TIES, "float64")} == {PASS}
    assert (np.geterr(), os.getcwd()) == (before, here)


def test_the_judge_works_where_numpy_raises() -> None:
    def wrong(spec: Any, *, dtype: str, device: str) -> Any:
        right = NumpyBackend().gradient_function(spec, dtype=dtype, device=device)

        def run(*data: Any) -> Any:
            loss, grads = right(*data)
            return loss, {name: 1e300 * grad for name, grad in grads.items()}

        return run

    stranger = Stranger(lambda: None)
    stranger.gradient_function = wrong  # type: ignore[method-assign]
    with np.errstate(all="raise"):
        results = list(conform(BackendDoor(stranger), TIES, "float64"))
    assert {result.verdict for result in results} == {FAIL}
    assert all(result.findings for result in results)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(conform(BackendDoor(stranger), TIES, "float64"))


def test_what_a_backend_prints_is_not_the_report(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "from refimpl_numpy import NumpyBackend\nprint('loaded')\n"
        "class Chatty(NumpyBackend):\n    name = '[red]chatty[/]'\n"
        "    def supports(self, spec, **keywords):\n        print('asked')\n        return True\n"
        "    def gradient_function(self, spec, **keywords):\n        print('run')\n"
        "        return super().gradient_function(spec, **keywords)\n"
    )
    outcome = command("conform", "chatty:Chatty", "--flag", "Tie", "--json", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["reports"][0]["implementation"] == "[red]chatty[/]"
    assert "asked" in outcome.stderr
    outcome = command("conform", "chatty:Chatty", "--flag", "Tie", "--require-backend", "chatty:Chatty", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "[red]chatty[/] conforms" in outcome.stdout
    outcome = command("check", "--backend", "chatty:Chatty", "--require-backend", "chatty:Chatty", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    outcome = command("conform", "numpy", "--flag", "Tie", "--require-backend", "[/]", cwd=tmp_path)
    assert "required backend [/] did not run" in outcome.stdout


def test_numpys_true_is_true() -> None:
    stranger = Stranger(lambda: None)
    stranger.supports = lambda spec, **keywords: np.True_  # type: ignore[method-assign,assignment,misc]
    assert backends.supported(stranger, CASE.spec, "float64", "cpu") is True
    assert judge_case(BackendDoor(stranger), CASE, "float64").verdict == PASS


@pytest.mark.parametrize("arithmetic", [lambda **keywords: "float64", lambda **keywords: 1 / 0])
def test_an_arithmetic_that_is_none_is_said(arithmetic: Any) -> None:
    stranger = Stranger(lambda: None)
    stranger.arithmetic = arithmetic  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="cannot be judged: arithmetic"):
        BackendDoor(stranger).arithmetic("float64")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "two\nlines"),
        ("name", 5),
        ("unit_roundoff", "0.5"),
        ("unit_roundoff", -1e-16),
        ("largest", 65504),
        ("smallest_normal", float("nan")),
        ("flushes_subnormals", "no"),
    ],
)
def test_the_fields_of_an_arithmetic_are_what_they_must_be(field: str, value: Any) -> None:
    fields = {**vars(ARITHMETICS["float64"]), field: value}
    with pytest.raises(ValueError, match=f"Arithmetic: {field} must be"):
        Arithmetic(**fields)
    stranger = Stranger(lambda: None)
    stranger.arithmetic = lambda **keywords: Arithmetic(**fields)  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match=f"cannot be judged: arithmetic raised ValueError: Arithmetic: {field}"):
        BackendDoor(stranger).arithmetic("float64")


def test_a_reason_is_one_printable_line_of_some_length() -> None:
    stranger = Stranger(lambda: None)
    stranger.supports = lambda spec, **keywords: "\x1b[2J" + 1000 * "no "  # type: ignore[method-assign,assignment,misc]
    result = judge_case(BackendDoor(stranger), CASE, "float64")
    assert (result.verdict, result.reason[:10], len(result.reason)) == (SKIP, "?[2Jno no ", backends.MAX_REASON)


def test_a_module_without_a_name_is_no_reason_to_stop() -> None:
    class Placeless(NumpyBackend):
        __module__ = 7  # type: ignore[assignment]

    assert "(7) on cpu" in BackendDoor(Placeless()).description


def test_why_nothing_ran_is_said() -> None:
    stranger = Stranger(lambda: None)
    stranger.supports = lambda spec, **keywords: "only on Mondays"  # type: ignore[method-assign,assignment,misc]
    report = ConformanceReport("stranger", "stranger", "float64", "float64")
    report.results = list(conform(BackendDoor(stranger), TIES, "float64"))
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as shown:
        console.print(report)
    assert "SKIP 9 cases: only on Mondays" in shown.get()


def test_a_case_too_large_for_float32_is_skipped() -> None:
    case = next(case for case in SUITE.cases if case.x.dtype == np.float64)
    from dataclasses import replace

    huge = replace(case, x=case.x + 1e200)
    assert judge_case(BackendDoor(NumpyBackend()), huge, "float32").verdict == SKIP
    assert judge_case(BackendDoor(NumpyBackend()), case, "float32").verdict == PASS


# --------------------------------------------------------------------------------------------------------------
# Where exact arithmetic is asked for


def test_an_exact_case_is_decided_and_diagnosed_by_one_judge(tmp_path: Path) -> None:
    case = next(case for case in SUITE.cases if "Exact" in case.flags)
    loss, grads = NumpyBackend().gradient_function(case.spec, dtype="float64", device="cpu")(*case.data("float64"))
    name, grad = next((name, grad) for name, grad in grads.items() if grad.any())
    at = np.unravel_index(np.argmax(np.abs(grad)), grad.shape)
    grad[at] = np.nextafter(grad[at], np.inf)
    answer = {"loss": loss, "gradients": {key: messages.tensor(value) for key, value in grads.items()}}
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(answer))
    outcome = refimpl("diagnose", case.id, str(path), "--json")
    assert outcome.exit_code == 1, outcome.output
    (finding,) = json.loads(outcome.stdout)["findings"]
    assert finding["explanations"] == []
    assert finding["quantity"] == name
    assert "1 of" in finding["symptom"]
    assert "the right ones need no rounding" in finding["symptom"]

    class Given:
        name = description = "given"

        def arithmetic(self, dtype: str) -> Any:
            return ARITHMETICS[dtype]

        def answer(self, case: Any, dtype: str) -> Any:
            from refimpl.conformance.doors import Answered

            return Answered((loss, grads))

        def close(self) -> None: ...

    result = judge_case(Given(), case, "float64")
    assert (result.verdict, len(result.findings)) == (FAIL, 1)
    shown, wanted = result.reason.split(" is ")[1].split(", should be ")
    assert shown != wanted.split(" ")[0]
    report = ConformanceReport("given", "given", "float64", "float64", [result])
    assert report.to_dict()["cases"][0]["largest_ratio"] is None  # infinite


@pytest.mark.parametrize(
    ("value", "truth"), [(1.0, 2.0), (0.1, 0.1 + 1e-11), (0.1, np.nextafter(0.1, 1)), (1e-300, 1.000000000001e-300)]
)
def test_numbers_are_shown_apart(value: float, truth: float) -> None:
    shown = apart(value, truth)
    assert shown[0] != shown[1]
    assert [float(text) for text in shown] == pytest.approx([value, truth], rel=1e-8)


# --------------------------------------------------------------------------------------------------------------
# Files


def hello(**more: Any) -> str:
    return json.dumps({"format": messages.ANSWERS_FORMAT, "name": "mine", **more})


def answered(case: Any, **changes: Any) -> str:
    loss, grads = NumpyBackend().gradient_function(case.spec, dtype="float64", device="cpu")(*case.data("float64"))
    gradients = {name: messages.tensor(grad) for name, grad in grads.items()}
    return json.dumps({"case": case.id, "loss": float(loss), "gradients": {**gradients, **changes}})


def test_a_zero_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_text(hello() + "\n" + answered(CASE, W1={"shape": [0] + [2**31 - 1] * 9, "data": []}))
    result = judge_case(AnswersDoor(path, "float64", SUITE.by_id.__contains__), CASE, "float64")
    assert result.verdict == FAIL
    assert "positive sizes" in result.text


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_bytes(b"\xef\xbb\xbf" + f"{hello()}\r\n\n{answered(CASE)}\n\n  \n".encode())
    door = AnswersDoor(path, "float64", SUITE.by_id.__contains__)
    assert judge_case(door, CASE, "float64").verdict == PASS
    expected = tmp_path / "xfail"
    expected.write_bytes(b"\xef\xbb\xbf" + CASE.id.encode())
    outcome = refimpl("conform", "numpy", "--flag", CASE.flags[0], "--xfail", str(expected))
    assert "1 XPASS" in outcome.output


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", 7, "x" * 300])
def test_the_name_in_an_answers_file_can_be_shown(tmp_path: Path, name: Any) -> None:
    path = tmp_path / "answers"
    path.write_text(hello(name=name))
    with pytest.raises(ConformanceError, match="line 1: name must be one line"):
        AnswersDoor(path, "float64", SUITE.by_id.__contains__)


def test_answers_to_the_whole_suite_may_be_judged_in_part(tmp_path: Path) -> None:
    answers, expected = tmp_path / "answers", tmp_path / "xfail"
    answers.write_text("\n".join([hello(), answered(CASE), *map(answered, TIES.cases)]))
    expected.write_text(f"{CASE.id}  # of another flag\n")
    outcome = refimpl("conform", "--answers", str(answers), "--flag", "Tie", "--xfail", str(expected))
    assert outcome.exit_code == 0, outcome.output


def test_vectors_name_faults_that_exist() -> None:
    text = next(path for path in Path(backends.__file__).parent.glob("conformance/vectors/basic-1.json")).read_text()
    with pytest.raises(ConformanceError, match="there is no fault 'wrong_sing'"):
        loads(text.replace('["wrong_sign",', '["wrong_sing",', 1))


def test_a_folder_without_cases_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text('{"format": "refimpl.vectors/1", "flags": {}, "cases": []}')
    outcome = refimpl("conform", "numpy", "--vectors", str(tmp_path))
    assert "holds no case" in str(outcome.exception)


def test_diagnose_takes_no_key_that_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_text('{"gradient": {}, "gradients": {}}')
    assert "unknown key 'gradient'" in str(refimpl("diagnose", CASE.id, str(path)).exception)
    path.write_text('{"case": "another", "gradients": {}}')
    assert "answers the case 'another'" in str(refimpl("diagnose", CASE.id, str(path)).exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--answers", "x", "--device", "cpu"], "--device has no effect with --answers"),
        (["--answers", "x", "--timeout", "3"], "--timeout has no effect with --answers"),
        (["--device", "cpu", "--", "true"], "--device has no effect with a program"),
        (["numpy", "--timeout", "3"], "--timeout has no effect with backends"),
        (["--timeout", "inf", "--", "true"], "--timeout must be from"),
        (["--", "/"], "cannot run '/': it is a folder"),
        (["numpy", "--junit", "."], "is a folder"),
        (["numpy", "--junit", "x" * 300], "--junit: File name too long"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line(arguments: list[str], message: str) -> None:
    outcome = refimpl("conform", *arguments)
    assert isinstance(outcome.exception, ConformanceError), outcome.output
    assert message in str(outcome.exception)


def test_junit_goes_through_links_and_into_devices(tmp_path: Path) -> None:
    real, link = tmp_path / "real.xml", tmp_path / "link.xml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    assert refimpl("conform", "numpy", "--flag", "Tie", "--junit", str(link)).exit_code == 0
    assert link.is_symlink()
    assert "testsuites" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.xml", "real.xml"]
    assert refimpl("conform", "numpy", "--flag", "Tie", "--junit", "/dev/null").exit_code == 0
    assert not Path("/dev/null").is_file()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------------------------------------
# Ends


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        outcome = command("conform", "numpy", "--flag", "Tie", stdout=full, stderr=subprocess.PIPE)
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines()[-1] == "refimpl: cannot write: No space left on device"
    with open("/dev/full", "w") as full:
        outcome = command("conform", "nobody", stdout=subprocess.DEVNULL, stderr=full)
    assert outcome.returncode == 2


def test_a_reader_that_leaves_is_no_error() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "refimpl", "vectors", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    assert program.wait(30) == 141
    assert program.stderr.read() == ""
    program.stderr.close()


def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    script = f"cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m refimpl vectors path"
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).returncode == 0


# where the tests run in the background or under nohup, Ctrl-C or a hangup is ignored, and that is inherited
HEARD = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); sys.argv[0] = 'refimpl'; "
    "runpy.run_module('refimpl', run_name='__main__')"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_tested_program_too(number: int, tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    arguments = ["conform", "--junit", str(path), "--json", "--", sys.executable, HOSTILE, "hang"]
    start = [sys.executable, "-c", HEARD]
    program = subprocess.Popen([*start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (started := _children(program.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)  # it answers three cases and hangs
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert program.returncode == 128 + number
    assert started
    assert all(not Path(f"/proc/{pid}").exists() for pid in started)
    assert len(json.loads(out)["reports"][0]["cases"]) >= 1  # what was found is told
    assert "interrupted after" in err
    assert path.exists()


@pytest.mark.parametrize("pause", [0.0, 0.1, 0.3])
def test_a_second_signal_while_the_program_is_ended_loses_nothing(pause: float, tmp_path: Path) -> None:
    start = [sys.executable, "-c", HEARD]
    slow = [*start, "conform", "--json", "--", sys.executable, HOSTILE, "hang"]
    program = subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not (started := _children(program.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    program.send_signal(signal.SIGINT)
    time.sleep(pause)
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate(timeout=30)
    assert program.returncode in (130, -signal.SIGINT)  # the second may come when all has been said
    assert all(case["verdict"] == "PASS" for report in json.loads(out)["reports"] for case in report["cases"])
    assert all(not Path(f"/proc/{pid}").exists() for pid in started)


WAITING = """
import signal, threading, time
from refimpl_numpy import NumpyBackend

class Backend(NumpyBackend):
    name = "waiting"

    def gradient_function(self, spec, **keywords):
        {}
        return super().gradient_function(spec, **keywords)
"""


def terminated(waits: str, folder: Path) -> tuple[list[Any], str]:
    """The cases and what is said when SIGTERM comes while a backend waits."""
    (folder / "waiting.py").write_text(WAITING.format(waits))
    arguments = [sys.executable, "-m", "refimpl", "conform", "waiting:Backend", "--json", "--processes", "1"]
    program = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    time.sleep(4)
    program.terminate()
    out, err = program.communicate(timeout=30)
    assert program.returncode == 128 + signal.SIGTERM
    return json.loads(out)["reports"][0]["cases"], err


def test_a_signal_is_no_error_of_the_backend_that_runs(tmp_path: Path) -> None:
    cases, err = terminated("time.sleep(60)", tmp_path)
    assert "interrupted after 0 cases" in err
    assert cases == []


def test_a_thread_that_stays_does_not_keep_the_command_from_ending(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING.format("threading.Thread(target=lambda: time.sleep(600)).start()"))
    outcome = command("conform", "waiting:Backend", "--flag", "Tie", "--processes", "1", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "waiting conforms" in outcome.stdout


def test_what_waits_at_exit_does_not_keep_the_command_from_ending(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING.format("import atexit; atexit.register(time.sleep, 600)"))
    outcome = command("conform", "waiting:Backend", "--flag", "Tie", "--processes", "1", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "waiting conforms" in outcome.stdout


def test_a_signal_that_the_backend_takes_for_an_error_is_heard_nevertheless(tmp_path: Path) -> None:
    swallowed = "try:\n            time.sleep(60)\n        except BaseException:\n            pass"
    cases, err = terminated(swallowed, tmp_path)
    assert "interrupted after" in err
    assert len(cases) <= 1


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    (tmp_path / "waiting.py").write_text(WAITING.format("time.sleep(0.5)"))
    ignored = "import runpy, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    start = f"{ignored}runpy.run_module('refimpl', run_name='__main__')"
    arguments = ["conform", "waiting:Backend", "--flag", "Tie", "--processes", "1"]
    program = subprocess.Popen([sys.executable, "-c", start, *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL)
    time.sleep(3)
    program.send_signal(signal.SIGHUP)
    assert program.wait(30) == 0


def test_processes_that_ignore_sigterm_are_ended(tmp_path: Path) -> None:
    ignores = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1)"
    (tmp_path / "waiting.py").write_text(WAITING.format(ignores))
    arguments = [sys.executable, "-c", HEARD, "conform", "waiting:Backend", "--json", "--processes", "2"]
    program = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(16)  # eight cases, and the workers' start
    started = _children(program.pid)
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate(timeout=30)
    assert program.returncode == 130
    assert len(json.loads(out)["reports"][0]["cases"]) >= 8
    assert started
    time.sleep(0.5)
    assert not any(_lives(pid) for pid in started)


def _lives(pid: int) -> bool:
    """Whether a process does anything yet; one that has ended stays until somebody asks how."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_vectors_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = importlib.import_module("refimpl.cli.vectors")
    (tmp_path / "old-1.json").write_text('{"format": "refimpl.vectors/1",\n"cases": []}')
    (tmp_path / "mine.json").write_text('{"mine": 1}')
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.write_text("not to be touched")
    (tmp_path / "new-1.json").symlink_to(elsewhere)
    vectors._write(tmp_path, [("new-1.json", "new")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "new-1.json"]
    assert (tmp_path / "new-1.json").read_text() == "new"
    assert elsewhere.read_text() == "not to be touched"
    with pytest.raises(ConformanceError, match="cannot write to"):
        vectors._check_target(tmp_path / "mine.json")


def test_a_program_that_babbles_is_refused_at_once() -> None:
    with pytest.raises(ConformanceError, match="must be its hello"):
        ProgramDoor(["yes"], "float64", 5.0)
