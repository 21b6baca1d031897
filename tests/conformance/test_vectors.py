"""The vector files: as their schema says, complete, the judge's equal, and safe to read."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import jsonschema
import numpy as np
import pytest
from fuzz import outcome, small_file
from networks import DTYPES

from refimpl import backend as backends
from refimpl.cli.schema import Name, made
from refimpl.conformance import vectors
from refimpl.conformance.drafts import FLAGS
from refimpl.conformance.vectors import FOLDER, MAX_FILE_BYTES, MAX_VALUES, Suite, load, load_file, loads
from refimpl.faults.catalogue import FAULTS
from refimpl.faults.diagnosis import diagnose_answer
from refimpl.formats.errors import ConformanceError
from refimpl.judge.judge import Judge
from refimpl.judge.report import FAIL, PASS, UNDETERMINED
from refimpl.judge.submission import Submission
from refimpl.network.arithmetic import ARITHMETICS

PATHS = sorted(FOLDER.glob("*.json"))
SUITE = load()
SCHEMA = jsonschema.Draft202012Validator(made(Name.vectors))


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_file_is_as_its_schema_says_and_small(path: Path, every: int) -> None:
    document = json.loads(path.read_text())
    SCHEMA.validate({key: one[::every] if isinstance(one, list) else one for key, one in document.items()})
    assert path.stat().st_size <= 200_000


def test_the_suite_is_whole() -> None:
    assert 600 <= len(SUITE.cases) <= 900
    assert sum(path.stat().st_size for path in PATHS) <= 10_000_000
    assert {flag for case in SUITE.cases for flag in case.flags} == set(FLAGS)


def test_every_fault_is_killed_and_has_a_wrong_answer() -> None:
    killed = {name for case in SUITE.cases for name, _ in case.kills}
    assert killed == set(FAULTS)
    answered = {cause[0] for wrong in SUITE.wrong for explanation in wrong.diagnosis for cause in explanation}
    traced = {fault.name for fault in FAULTS.values() if fault.evidence}
    assert answered >= set(FAULTS) - traced


def test_no_case_is_undecided_in_float64() -> None:
    for case in SUITE.cases:
        for expected in (case.loss, *case.grads.values()):
            for name in ("float64", "float64_flushing"):
                assert np.isfinite(expected.tolerance.get(name, expected.tolerance["float64"])).all(), case.id


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_written_judge_and_the_live_one_agree(dtype: str) -> None:
    numpy = backends.load("numpy")
    for case in SUITE.cases[::9]:
        written = case.judge(dtype).rows(numpy)
        judge = Judge(case.spec, case.batch(dtype))
        bounds, truth = judge.tolerance(ARITHMETICS[dtype]), {"loss": judge.truth.loss, **judge.truth.grads}
        for row, live in zip(written, judge.rows(numpy), strict=True):
            largest = np.abs(truth[row.quantity].mid).max()
            # a tolerance above a hundredth is not written
            wide = np.minimum(bounds.worst_case[row.quantity], bounds.statistical[row.quantity]).max() > 0.01 * largest
            if "Exact" not in case.flags and not (wide and row.verdict == UNDETERMINED):
                assert row.verdict == live.verdict, case.id


def test_the_data_are_exact_in_float32() -> None:
    for case in SUITE.cases:
        for array in (*case.params.values(), case.x, case.y):
            assert (array.astype(np.float32) == array).all(), case.id


@pytest.mark.parametrize("wrong", SUITE.wrong[::3], ids=lambda wrong: wrong.id)
def test_a_wrong_answer_is_fail_and_diagnosed_as_written(wrong: vectors.WrongAnswer) -> None:
    case = SUITE.by_id[wrong.case]
    answer = Submission.of((wrong.loss, wrong.grads))
    rows = case.judge("float64").judge_answer("wrong", answer)
    assert FAIL in {row.verdict for row in rows}
    assert isinstance(answer, Submission)
    findings = diagnose_answer(Judge(case.spec, case.batch("float64")), answer, rows)
    found = {tuple((c.fault.name, c.layer) for c in explanation) for explanation in findings[0].explanations}
    assert {names for names in found if all(name in FAULTS for name, _ in names)} == set(wrong.diagnosis)


def test_arithmetics_are_told_apart() -> None:
    subnormal = next(case for case in SUITE.cases if "Subnormal" in case.flags)
    assert {row.verdict for row in subnormal.judge("float64").rows(backends.load("numpy"))} == {PASS}
    assert "float32_flushing" in subnormal.grads["W1"].tolerance
    assert set(ARITHMETICS) <= set(subnormal.grads["W1"].tolerance)


# --------------------------------------------------------------------------------------------------------------
# Files of others

SMALL = json.loads(small_file())


def edited(change: Callable[[dict[str, Any]], Any]) -> str:
    data = copy.deepcopy(SMALL)
    change(data["cases"][0])
    return json.dumps(data)


def wide(case: dict[str, Any], sizes: tuple[int, ...]) -> None:
    """A network of other sizes, with an array of zeros for x and y and none else."""
    zeros = {"shape": [1, sizes[0]], "hex": ["0x0p+0"] * sizes[0], "decimal": [0.0] * sizes[0]}
    layers = [{"size": size, "activation": "identity", "bias": False} for size in sizes[1:]]
    case["network"] = {**case["network"], "input_shape": [sizes[0]], "loss": "squared_error", "layers": layers}
    case |= {"parameters": {}, "x": zeros, "gradients": {}}


WRONG_FILES = {
    "too large": ("[" + " " * MAX_FILE_BYTES, f"larger than {MAX_FILE_BYTES:,} bytes"),
    "no JSON": ("{", "not JSON"),
    "deep": ("[" * 10**5, "nested too deeply"),
    "a key twice": ('{"format": 1, "format": 2}', "'format' is given twice"),
    "a number too large": ('{"format": 1e400}', "1e400 is too large"),
    "NaN": ('{"format": NaN}', "NaN is not a JSON number"),
    "a list": ("[]", "JSON object"),
    "empty": ("{}", "lacks the key 'format'"),
    "another format": ('{"format": "refimpl.vectors/3", "flags": {}}', "format .*refimpl.vectors/2"),
    "no flags": ('{"format": "refimpl.vectors/1"}', "lacks the key 'flags'"),
    "one key more": ('{"format": "refimpl.vectors/1", "flags": {}, "more": 1}', "unknown key 'more'"),
    "cases": ('{"format": "refimpl.vectors/1", "flags": {}, "cases": {}}', "cases"),
    "no loss": (edited(lambda c: c.pop("loss")), r"cases\[0\] lacks the key 'loss'"),
    "an id of two lines": (edited(lambda c: c.update(id="a\nb")), r"cases\[0\].id .*one line"),
    "an unexplained flag": (edited(lambda c: c.update(flags=["Nonsense"])), "flag 'Nonsense'.*add it"),
    "a network": (edited(lambda c: c["network"].update(loss="guess")), r"network.*loss.*guess"),
    "a parameter less": (edited(lambda c: c["parameters"].pop("W2")), "W2"),
    "a parameter's shape": (edited(lambda c: c["parameters"]["W1"].update(shape=[1, 9])), "W1"),
    "a gradient less": (edited(lambda c: c["gradients"].pop("W2")), "the loss and the gradients must have the shapes"),
    "an array of 10¹² elements": (edited(lambda c: c["x"].update(shape=[10**12, 3])), r"x.*shape\[0\]"),
    "a number less": (edited(lambda c: c["x"]["hex"].pop()), "hex and decimal must hold"),
    "no hexadecimal": (edited(lambda c: c["x"]["hex"].__setitem__(0, "0x1.8")), r"hex\[0\]"),
    "other digits": (edited(lambda c: c["x"]["hex"].__setitem__(0, "0x1p+\u0663")), r"hex\[0\]"),
    "a hexadecimal too large": (edited(lambda c: c["x"]["hex"].__setitem__(0, "0x1p+9999")), "too large for float64"),
    "another decimal": (edited(lambda c: c["x"]["decimal"].__setitem__(0, 7)), "as decimal says"),
    "a negative radius": (edited(lambda c: c["loss"].update(radius=[-1])), r"loss.*radius\[0\]"),
    "a radius more": (edited(lambda c: c["loss"].update(radius=[0, 0])), "radius and tolerances must hold 1 numbers"),
    "a tolerance in words": (edited(lambda c: c["loss"]["tolerance"].update(float64=["much"])), r"tolerance.*float64"),
    "a tolerance less": (edited(lambda c: c["loss"]["tolerance"].pop("float32")), "tolerance must have the keys"),
    "an unknown arithmetic": (edited(lambda c: c["loss"]["tolerance"].update(bfloat16=[1])), "bfloat16"),
    "a kill without a layer": (edited(lambda c: c.update(kills=[["wrong_sign"]])), r"kills\[0\]"),
    "an unknown fault": (edited(lambda c: c.update(kills=[["wrong_sing", 1]])), r"kills\[0\].*wrong_sing"),
    "too many units": (edited(lambda c: wide(c, (2, MAX_VALUES, 1))), f"too large: at most {MAX_VALUES:,} units"),
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_a_wrong_file_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    text, words = WRONG_FILES[what]
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ConformanceError, match=words) as caught:
        load_file(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_file_that_was_edited_is_right() -> None:
    assert len(loads(json.dumps(SMALL)).cases) == 1


def test_a_wrong_answer_is_to_a_case_that_there_is() -> None:
    with pytest.raises(ConformanceError, match=f"{SUITE.wrong[0].case!r}"):
        Suite.of([], SUITE.wrong[:1])


def test_a_folder_without_cases_with_one_twice_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConformanceError, match=r"cannot read .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no vectors")
    with pytest.raises(ConformanceError, match="holds no case"):
        load(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(SMALL))
    assert len(load(tmp_path).cases) == 1
    (tmp_path / "b.json").write_text(json.dumps(SMALL))
    with pytest.raises(ConformanceError, match="two cases have the same id"):
        load(tmp_path)
    monkeypatch.setattr(vectors, "MAX_FOLDER_BYTES", 1000)
    with pytest.raises(ConformanceError, match="holds more than 1,000 bytes"):
        load(tmp_path)


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.soak) for part in (1, 2, 3))])
def test_mutated_texts_are_refused_or_read(part: int) -> None:
    text = small_file()
    assert [wrong for seed in range(500 * part, 500 * (part + 1)) if (wrong := outcome(seed, text))] == []


READING = r"""
import re, sys, fuzz
from pathlib import Path
from refimpl.formats.errors import ConformanceError

def peak():  # the resource usage that getrusage tells begins with that of the parent
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

text, before = Path(sys.argv[2]).read_bytes(), peak()
try:
    getattr(fuzz, sys.argv[1])(text)
except ConformanceError:
    pass
print(peak() - before)
"""
MANY = 340_000
ANSWER = {"type": "answer", "id": 1, "loss": 0, "gradients": {"W1": {"shape": [1], "data": MANY * [{}]}}}
LARGE: dict[str, tuple[str, Any]] = {
    "cases": ("read_file", {"format": "refimpl.vectors/1", "flags": {}, "cases": MANY * [{}]}),
    "numbers": ("read_file", json.loads(edited(lambda c: c["x"].update(hex=MANY * [0])))),
    "numbers of an answer": ("read_answer", ANSWER),
}


@pytest.mark.parametrize("what", LARGE)
def test_what_is_wrong_many_times_takes_little_memory(what: str, tmp_path: Path) -> None:
    reader, data = LARGE[what]
    path = tmp_path / "large.json"
    path.write_text(json.dumps(data, separators=(",", ":")))
    assert path.stat().st_size < MAX_FILE_BYTES
    places = os.pathsep.join([str(Path(fuzz.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": places}
    arguments = [sys.executable, "-c", READING, reader, str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) <= 2 * path.stat().st_size + 64 * 2**20
