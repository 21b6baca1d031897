"""`refimpl predict`: a line a sample, from files and through pipes, whoever reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from refimpl.cli import app
from refimpl.formats.errors import RefimplError
from refimpl.network.spec import LayerSpec, NetworkSpec
from refimpl.training.datasets import read
from refimpl.training.model import Model
from refimpl.training.preparation import prepare

IRIS = NetworkSpec((4,), (LayerSpec(3),), "cross_entropy")
DIABETES = NetworkSpec((10,), (LayerSpec(1),), "squared_error")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models for iris and diabetes, and iris as a CSV file without its classes."""
    folder = tmp_path_factory.mktemp("models")
    for name, spec in (("iris", IRIS), ("diabetes", DIABETES)):
        Model(spec, spec.init(1), prepare(read(name), spec).preparation).save(folder / name)
    iris = read("iris")
    np.savetxt(folder / "iris.csv", iris.x, delimiter=",", header=",".join(iris.features), comments="")
    return folder


def predict(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_a_line_a_sample_as_text_and_as_json(name: str, models: Path) -> None:
    lines = predict(models / name, "--data", name).stdout.splitlines()
    predicted = Model.load(models / name).predict(read(name)).reshape(-1).tolist()
    target = {"iris": "class", "diabetes": "progression"}[name]
    assert lines == [target, *map(str, predicted)]
    as_json = predict(models / name, "--data", name, "--json", "--backend", "numpy").stdout.splitlines()
    assert [json.loads(line) for line in as_json] == [{target: value} for value in predicted]


def test_a_target_column_is_left_out_if_there_is_one(models: Path, tmp_path: Path) -> None:
    without = predict(models / "iris", "--data", models / "iris.csv")
    header, *rows = (models / "iris.csv").read_text().splitlines()
    (tmp_path / "more.csv").write_text("\n".join([f"{header},class,id", *(f"{row},rose,7" for row in rows)]))
    with_target = predict(models / "iris", "--data", tmp_path / "more.csv", "--ignore", "id")
    assert without.exit_code == with_target.exit_code == 0
    assert with_target.stdout == without.stdout == predict(models / "iris", "--data", "iris").stdout


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("iris", [], ["--data is missing", ".csv"]),
        ("iris", ["--data", ""], ["--data is missing", ".csv"]),
        ("iris", ["--data", "nothing"], ["--data", "'nothing'"]),
        ("iris", ["--data", "none.csv"], ["cannot read none.csv", "No such file"]),
        ("iris", ["--data", "digits"], ["64 features", "4 inputs"]),
        ("iris", ["--data", "iris", "--backend", "nothing"], ["no backend 'nothing'"]),
        ("none", ["--data", "iris"], ["cannot read", "none", "No such file"]),
        ("", ["--data", "iris"], ["cannot read", "directory"]),
        ("iris.csv", ["--data", "iris"], ["iris.csv", "no safetensors file of refimpl's"]),
    ],
)
def test_a_wrong_request_is_one_line(model: str, arguments: list[str], words: list[str], models: Path) -> None:
    outcome = predict(models / model if model else "", *arguments)
    assert isinstance(outcome.exception, RefimplError), outcome.output
    said = str(outcome.exception)
    assert said.isprintable()
    assert [word for word in words if word not in said] == []
    assert outcome.stdout == ""


def test_a_damaged_file_of_data_is_exit_code_2_and_one_line(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=read("iris").x)
    path.write_bytes(path.read_bytes().replace(b"'fortran_order'", b"'fortran odour'"))
    done = subprocess.run(
        [sys.executable, "-m", "refimpl", "predict", str(models / "iris"), "--data", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"refimpl: {path} ")
    assert len(done.stderr.splitlines()) == 1


def test_data_may_come_through_a_named_pipe(models: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=((models / "iris.csv").read_bytes(),))
    writer.start()
    outcome = predict(models / "iris", "--data", pipe)
    writer.join()
    assert outcome.exit_code == 0, outcome.exception
    assert outcome.stdout == predict(models / "iris", "--data", "iris").stdout


def piped(models: Path, data: str, then: str) -> subprocess.CompletedProcess[str]:
    """More lines than a pipe holds, through `refimpl predict`, read by a command."""
    header, *rows = (models / "iris.csv").read_text().splitlines()
    lines = "\n".join([header, *(200 * rows)])
    script = (
        f"'{sys.executable}' -m refimpl predict '{models / 'iris'}' --data '{data}' | {then}; echo ${{PIPESTATUS[0]}}"
    )
    return subprocess.run(["bash", "-c", script], input=lines, capture_output=True, text=True, check=False, timeout=120)


def test_data_may_come_from_standard_input(models: Path) -> None:
    done = piped(models, "/dev/stdin", "cat")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "0"
    assert lines[:-1] == ["class", *(200 * predict(models / "iris", "--data", "iris").stdout.splitlines()[1:])]


def test_a_reader_that_leaves_after_a_line_is_no_error(models: Path, tmp_path: Path) -> None:
    (tmp_path / "stdin.csv").symlink_to("/dev/stdin")
    done = piped(models, str(tmp_path / "stdin.csv"), "head -1")
    assert (done.stdout, done.stderr) == ("class\n141\n", "")
