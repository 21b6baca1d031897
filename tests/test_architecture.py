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
# a module may import from the lines above its own, and only from them
LEVELS = (
    {"refimpl.errors", "refimpl.signals"},
    {
        "refimpl.arithmetic",
        "refimpl.equations",
        "refimpl.cores",
        "refimpl.files",
        "refimpl.picture",
        "refimpl.strangers",
        "refimpl.descent",
    },
    {"refimpl.functions", "refimpl.strict_json", "refimpl.answers"},
    {"refimpl.spec"},
    {"refimpl.batch", "refimpl.report", "refimpl.sampling", "refimpl.examples"},
    {"refimpl.certification", "refimpl.backend"},
    {"refimpl.tolerance", "refimpl.faults"},
    {"refimpl.bounded", "refimpl.judge"},
    {"refimpl.diagnosis"},
    {"refimpl.agreement"},
    {"refimpl.soak", "refimpl.conformance", "refimpl.conformance.cases", "refimpl.conformance.exact"},
    {"refimpl.conformance.vectors"},
    {"refimpl.conformance.messages", "refimpl.conformance.descendants"},
    {"refimpl.conformance.process"},
    {"refimpl.conformance.causes"},
    {"refimpl.conformance.implementations"},
    {"refimpl.conformance.run", "refimpl.conformance.parallel"},
    {"refimpl.conformance.plugin"},
    {"refimpl.conformance.test_suite"},
    {"refimpl.training", "refimpl.training.config", "refimpl.training.archive"},
    {"refimpl.training.data", "refimpl.training.checkpoints", "refimpl.training.stepping"},
    {"refimpl.training.run", "refimpl.training.model"},
    {"refimpl.training.curves", "refimpl.training.scikit_learn"},
    {"refimpl.teaching", "refimpl.teaching.notation"},
    {"refimpl.teaching.forms", "refimpl.teaching.display"},
    {"refimpl.teaching.trace"},
    {"refimpl.teaching.tracing", "refimpl.teaching.chain"},
    {"refimpl.teaching.explanation", "refimpl.teaching.lesson", "refimpl.teaching.exercise"},
    {"refimpl.teaching.explain", "refimpl.teaching.marking"},
    {
        "refimpl.benchmark",
        "refimpl.benchmark.groups",
        "refimpl.benchmark.contenders",
        "refimpl.benchmark.machine",
    },
    {"refimpl.benchmark.measure"},
    {"refimpl.benchmark.worker", "refimpl.benchmark.run", "refimpl.benchmark.report"},
    {"refimpl.benchmark.page"},
    {"refimpl.cli.check"},
    {"refimpl.cli.soak", "refimpl.cli.diagnose"},
    {
        "refimpl.cli.conform",
        "refimpl.cli.vectors",
        "refimpl.cli.bench",
        "refimpl.cli.train",
        "refimpl.cli.explain",
        "refimpl.cli.exercise",
    },
    {"refimpl.cli.lesson"},
    {"refimpl.cli"},
    {"refimpl.__main__"},
)
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}
# the table of contents, which imports lazily
# and what pytest loads before anything else, which does too
OUTSIDE = {"refimpl", "refimpl.conformance.plugin"}
FOR_BACKENDS = {"refimpl.equations", "refimpl.spec", "refimpl.arithmetic", "refimpl.errors", "refimpl.descent"}


def module_name(path: Path, home: Path) -> str:
    parts = path.relative_to(home).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """All modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in LEVEL else node.module)
    return found


CORE = sorted((ROOT / "refimpl").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: module_name(path, ROOT))
def test_imports_run_one_way(path: Path) -> None:
    name = module_name(path, ROOT)
    assert name in OUTSIDE or name in LEVEL, f"{name} has no place in LEVELS"
    for module in imported(path):
        top = module.partition(".")[0]
        assert top not in ("torch", "jax", "refimpl_numpy", "refimpl_torch", "refimpl_jax", "tests"), (
            f"{name} imports {module}"
        )
        if top == "refimpl" and name not in OUTSIDE:
            assert module in LEVEL, f"{name} imports {module}"
            assert LEVEL[module] < LEVEL[name], f"{name} imports {module}, which stands beside or below it"


def test_the_truth_shares_no_derivation_with_what_it_judges() -> None:
    for judge in ("certification", "tolerance", "functions"):
        assert "refimpl.equations" not in imported(ROOT / f"refimpl/{judge}.py")


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: module_name(path, ROOT / "backends"))
def test_backends_import_no_other_backend_and_only_the_public_house(path: Path) -> None:
    own = module_name(path, ROOT / "backends").partition(".")[0]
    frameworks = {"refimpl_numpy": set(), "refimpl_torch": {"torch"}, "refimpl_jax": {"jax"}}[own]
    for module in imported(path):
        top = module.partition(".")[0]
        if top.startswith("refimpl_"):
            assert top == own
        elif top == "refimpl":
            assert module in FOR_BACKENDS
        assert top not in {"torch", "jax"} - frameworks


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
