"""The command line as a person meets it: exit codes, one-line errors, JSON, and how little is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl import examples
from refimpl.cli import main


def refimpl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """Run the command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["refimpl", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: refimpl(capsys, monkeypatch, *arguments)


def test_check_prints_every_parameter_of_every_backend(run: Any) -> None:
    code, out, err = run("check")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if " PASS " in f"{line} " and "elements" not in line]
    quantities = [row[1] if row[0] in ("numpy", "torch", "jax") else row[0] for row in rows]
    assert quantities == ["loss", "W1", "b1", "W2", "b2", "W3"] * 3
    assert "numpy, jax, torch: 57 PASS, 0 FAIL, 0 UNDETERMINED of 57 elements" in out


def test_check_json_is_the_report(run: Any) -> None:
    code, out, _ = run("check", "--json", "--backend", "numpy", "--dtype", "float32", "--inputs", "--intermediates")
    report = json.loads(out)
    assert code == 0
    assert (report["ok"], report["dtype"], report["batch"]) == (True, "float32", 8)
    assert [row["quantity"] for row in report["rows"]][:7] == ["loss", "W1", "b1", "W2", "b2", "W3", "x"]


def test_check_reads_a_spec(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    examples.article().save(file)
    code, out, _ = run("check", str(file), "--backend", "numpy", "--batch", "3", "--seed", "5")
    assert code == 0
    assert "article 4-2-2-1 · squared_error, mean · batch 3" in out


def test_check_of_the_digits(run: Any) -> None:
    code, out, _ = run("check", "--example", "digits", "--batch", "50", "--backend", "numpy")
    assert code == 0
    assert "digits 64-32-16-10 · cross_entropy, mean · batch 50" in out


def test_a_wrong_gradient_is_exit_code_1(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from refimpl_numpy import NumpyBackend

    right = NumpyBackend.gradient_function

    def wrong(self: Any, spec: Any, *, dtype: str, device: str) -> Any:
        function = right(self, spec, dtype=dtype, device=device)

        def gradients(params: Any, x: Any, y: Any) -> Any:
            loss, grads = function(params, x, y)
            grads["W2"][0, 1] *= np.float64(1 + 1e-9)
            return loss, grads

        return gradients

    monkeypatch.setattr(NumpyBackend, "gradient_function", wrong)
    code, out, _ = run("check", "--backend", "numpy")
    assert code == 1
    assert "W2[1,2]" in out
    assert "1 of 4 wrong" in out


def test_undetermined_is_exit_code_3_as_where_the_theorem_alone_is_asked_for(run: Any, tmp_path: Path) -> None:
    from networks import network

    file = tmp_path / "deep.json"
    network((64,) * 9, ["tanh"] * 8).save(file)
    asked = ("check", str(file), "--backend", "numpy", "--dtype", "float32")
    assert run(*asked)[0] == 0
    code, out, _ = run(*asked, "--bound", "worst-case")
    assert code == 3
    assert "UNDETERMINED" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "none.json"], "cannot read none.json: No such file"),
        (["check", "--backend", "tensorflow"], "'tensorflow'; known are numpy"),
        (["check", "--backend", "numpy", "--device", "cuda"], "pip install cupy"),
        (["check", "--device", "tpu"], "no backend can run this"),
        (["check", "--batch", "0"], "--batch"),
        (["check", "--batch", "many"], "--batch"),
        (["check", "--backend", "numpy", "--batch", str(10**18)], "1000000"),
        (["check", "--seed", "-1"], "--seed"),
        (["check", "--dtype", "float16"], "--dtype"),
        (["check", "--example", "mnist"], "--example"),
        (["check", "--example", "digits", "net.json"], "a network file or an example, not both"),
        (["check", "--example", "digits", "--batch", "5000"], "1797 digits"),
        (["check", "--colour"], "No such option"),
        (["soak", "--backend", "nothing"], "'nothing'"),
        (["soak", "--count", "2", "--device", "cuda", "--backend", "numpy"], "does not support this: device cuda"),
        (["soak", "--count", "2", "--device", "", "--backend", "numpy"], "does not support this"),
        (["bench", "--quick", "--network", "nothing"], "'nothing'; there are article, N = 1"),
        (["bench", "--contender", "nobody"], "'nobody'; known are "),
        (["bench", "--device", "tpu"], "cpu or cuda"),
        (["bench", "--compare", "missing.json"], "cannot read missing.json"),
        (["bench", "--seconds", "0"], "--seconds"),
        (["bench", "--quick", "--out", "/proc/nowhere"], "cannot write to /proc/nowhere"),
        (["sing"], "No such command"),
    ],
)
def test_a_wrong_request_is_exit_code_2_and_no_traceback(run: Any, arguments: list[str], words: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_a_folder_without_a_name_is_a_wrong_request(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--quick", "--network", "64-32-16-10", "--contender", "numpy", "--seconds", "0.01")
    code, _, err = run("bench", *options, "--out", "")
    assert code == 2
    assert "--out" in err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_one_line(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    file.write_text('{"format": NaN}')
    code, out, err = run("check", str(file))
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_soak_sums_up_and_replays(run: Any) -> None:
    code, out, _ = run("soak", "--count", "4", "--backend", "numpy", "--processes", "1")
    assert code == 0
    assert "4 random networks, float64, seed 0" in out
    code, out, _ = run("soak", "--count", "1", "--first", "3", "--backend", "numpy", "--json", "--dtype", "float32")
    found = json.loads(out)
    assert code == 0
    assert found["failures"] == []
    assert found["backends"]["numpy"]["elements"] > 0


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--help"], []),
        (["check", "-h"], []),
        (["check", "--backend", "numpy"], ["numpy", "flint"]),
        (["soak", "--backend", "numpy", "--count", "1"], ["numpy", "flint"]),
    ],
)
def test_no_more_is_imported_than_is_needed(arguments: list[str], imported: list[str]) -> None:
    program = (
        "import atexit, sys; from refimpl.cli import command; atexit.register(lambda: print(*("
        "name for name in ('torch', 'jax', 'numpy', 'flint') if name in sys.modules), file=sys.stderr)); command()"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.split() == imported


def test_an_output_that_cannot_be_written_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "refimpl", "check", "--backend", "numpy"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "refimpl: cannot write: No space left on device\n"
