"""Exercises: a backward pass to fill in, bugs to find, and their marking.

`new` writes them into a folder; `check` runs each in a process of its own, through the same door as any program
(:mod:`refimpl.conformance`), on cases of the conformance suite, and names the mistake where it can. It isolates crashes
and endless loops, not malice: whoever marks strangers' work runs it in a sandbox.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.conformance.doors.program import ProgramDoor
from refimpl.conformance.run import CaseResult, judge_case
from refimpl.conformance.vectors import Case, load
from refimpl.formats import files
from refimpl.formats.errors import ConformanceError, DataError
from refimpl.judge.report import FAIL, PASS
from refimpl.teaching.marking import FUNCTIONS, TOGETHER

TASKS = Path(__file__).with_name("tasks")
FORMAT = "refimpl.exercise/1"
CASES = 24
DEEPEST, WIDEST = 4, 20  # layers of weights, and neurons in all, of the networks that are marked on
SECONDS = 10.0
DIAGNOSED = 2  # wrong cases of an exercise that are diagnosed
ACTIVATIONS = ("sigmoid", "tanh", "identity")
# (the line as it is, as it is in the exercise): what must be found and mended
BUGS = (
    ("gradients[f\"b{l}\"] = delta.sum(axis=0)", "gradients[f\"b{l}\"] = delta.mean(axis=0)"),
    ("dC_da = (a[-1] - y) / len(x)", "dC_da = a[-1] - y"),
    ("[1](z[l - 1])", "[1](a[l])"),
    ("delta = dC_da * slope", "delta = dC_da * slope if l == last else dC_da"),
    ("delta.T @ a[l - 1]", "delta.T @ (z[l - 2] if l > 1 else x)"),
    (
        "        dC_da = delta @ params[f\"W{l}\"]",
        "        params[f\"W{l}\"] = params[f\"W{l}\"] - 0.1 * gradients[f\"W{l}\"]\n"
        "        dC_da = delta @ params[f\"W{l}\"]",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Marked:
    """One exercise, marked: PASS or FAIL, on how many cases, and what is wrong in words."""

    exercise: str
    verdict: str
    passed: int
    cases: int
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dict(vars(self))


def new(folder: Path) -> list[Path]:
    """Write the exercises into a folder that has none of them yet; what was written.

    Raises DataError where a file of theirs is there already, or nothing can be written.
    """
    made = {"README.md": _task("README.md"), "backward.py": _task("backward.py")}
    right = _task("bug.py")
    for number, (line, wrong) in enumerate(BUGS, start=1):
        made[f"bug_{number}.py"] = right.replace(line, wrong)
    there = [name for name in made if (folder / name).exists()]
    if there:
        raise DataError(f"{folder} holds {there[0]} already; name another folder, or begin in an empty one")
    files.make_folder(folder, DataError)
    for name, text in made.items():
        files.write(folder / name, text.encode(), DataError)
    return [folder / name for name in made]


def _task(name: str) -> str:
    return (TASKS / f"{name}.txt").read_text(encoding="utf-8")


def exercises(folder: Path) -> list[tuple[str, Path, str]]:
    """The exercises of a folder: name, file, and the function that is asked for ("" for a file as a whole).

    Raises DataError where there are none.
    """
    found = []
    backward = folder / "backward.py"
    if backward.is_file():
        found += [(f"backward.py {function}", backward, function) for function in (*FUNCTIONS, TOGETHER)]
    bugs = sorted(folder.glob("bug_*.py"), key=lambda path: (len(path.name), path.name))
    found += [(path.name, path, "") for path in bugs]
    if not found:
        raise DataError(f"{folder} holds no exercises; refimpl exercise new {folder} writes them")
    return found


def check(folder: Path) -> Iterator[Marked]:
    """Mark the exercises of a folder, one after the other. Raises DataError where there are none."""
    cases = chosen_cases()
    for name, path, function in exercises(folder):
        yield mark(name, path, function, cases)


def chosen_cases() -> list[Case]:
    """Cases of the suite that an exercise is marked on: its activations, the averaged squared error, all sorts of
    shapes, and one sample as well as several.
    """
    fitting = [
        case
        for case in load().cases
        if case.spec.loss.name == "squared_error"
        and case.spec.reduction == "mean"
        and len(case.spec.input_shape) == 1
        and all(layer.activation.name in ACTIVATIONS for layer in case.spec.layers)
        and 1 < case.spec.depth <= DEEPEST
        and sum(case.spec.sizes) <= WIDEST
        and "HugeLogit" not in case.flags
    ]
    # several samples and several layers first: that is where mistakes show
    return sorted(fitting, key=lambda case: (len(case.x) == 1, -case.spec.depth))[:CASES]


def mark(name: str, path: Path, function: str, cases: list[Case]) -> Marked:
    """One exercise on these cases."""
    command = [sys.executable, "-m", "refimpl.teaching.marking", str(path), *([function] if function else [])]
    try:
        door = ProgramDoor(command, "float64", SECONDS)
    except ConformanceError as error:
        return Marked(name, FAIL, 0, len(cases), str(error).replace(f"{sys.executable}: ", ""))
    results: list[CaseResult] = []
    try:
        for case in cases:
            diagnosed = sum(bool(result.findings) for result in results) < DIAGNOSED
            results.append(judge_case(door, case, "float64", diagnosed))
            if results[-1].verdict != PASS and results[-1].reason.startswith(("said:", "no answer", "not asked")):
                break  # it cannot be run, which more cases will not change
    finally:
        door.close()
    passed = sum(result.verdict == PASS for result in results)
    return Marked(name, PASS if passed == len(cases) else FAIL, passed, len(cases), _message(results))


def _message(results: list[CaseResult]) -> str:
    """What is wrong: the mistake that is named most often, or else what came in place of an answer."""
    wrong = [result for result in results if result.verdict != PASS]
    if not wrong:
        return ""
    named = Counter(finding.text for result in wrong for finding in result.findings if finding.known)
    if named:
        return named.most_common(1)[0][0]
    return wrong[0].text.removeprefix("said: ").strip("'\"")
