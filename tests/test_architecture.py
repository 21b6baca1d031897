"""The house as it is meant to be: imports run one way, backends are strangers to each other, and nothing heavy
is imported unasked.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import refimpl

ROOT = Path(__file__).resolve().parent.parent
# a room may import from the floors before its own, and from no other room of its floor
FLOORS = (
    {"formats"}, {"network"}, {"backend", "equations", "truth"}, {"judge"}, {"faults"}, {"checking", "gradchecking"},
    {"conformance"}, {"training", "benchmark", "teaching"}, {"cli"},
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = {"__init__", "__main__", "moved"}  # the contents page, the door, and where modules were before
FRAMEWORKS = {"refimpl_numpy": set(), "refimpl_torch": {"torch"}, "refimpl_jax": {"jax"}}
# what a backend may know of refimpl, ours like a third party's
FOR_BACKENDS = {"refimpl", "refimpl.backend", "refimpl.equations"}


def imported(path: Path) -> set[str]:
    """All modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"refimpl.{alias.name}" for alias in node.names if node.module == "refimpl"} or {node.module}
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("refimpl"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / "refimpl").with_suffix("").parts[0]
    if room in OUTSIDE:
        return
    for module in imported(path):
        top, _, other = module.partition(".")
        assert top not in {"torch", "jax", "tests", *FRAMEWORKS}, module
        if top == "refimpl" and (there := other.partition(".")[0]) in FLOOR:
            assert there == room or FLOOR[there] < FLOOR[room], f"{room} imports {module}"


def test_only_the_checks_stand_outside_the_rooms() -> None:
    assert {path.stem for path in (ROOT / "refimpl").glob("*.py")} == {*OUTSIDE, "checking", "gradchecking"}


@pytest.mark.parametrize("path", files("refimpl"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_core_names_none_of_our_backends(path: Path) -> None:
    if path.parent.name == "benchmark" and path.stem in ("machine", "page"):  # versions, and colours
        return
    strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert not strings & {"numpy", "torch", "jax", *FRAMEWORKS}


@pytest.mark.parametrize("path", files("backends"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_backends_import_no_other_backend_and_only_what_is_meant_for_them(path: Path) -> None:
    own = path.relative_to(ROOT / "backends").parts[0]
    for module in imported(path):
        top = module.partition(".")[0]
        if top.startswith("refimpl_"):
            assert top == own
        elif top == "refimpl":
            assert module in FOR_BACKENDS or module.removeprefix("refimpl.") in refimpl.__all__, module
        assert top not in {"torch", "jax"} - FRAMEWORKS[own]


def test_the_packages_that_must_not_be_importable_are_not() -> None:
    for folder in ("backends", "tests", "benchmarks"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_importing_refimpl_imports_nothing() -> None:
    program = "import sys, refimpl; print([m for m in ('numpy', 'flint', 'torch', 'jax', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_table_of_contents_is_true() -> None:
    assert set(dir(refimpl)) == set(refimpl.__all__)
    for name in refimpl.__all__:
        assert getattr(refimpl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = refimpl.nothing


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == refimpl.__version__
    assert set(project["entry-points"]["refimpl.backends"]) == {"numpy", "torch", "jax"}


def test_the_pins_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in lines)
