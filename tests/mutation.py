"""Mutation testing of what decides: does a test notice every change to the equations, the tolerance, the judge and
the hand-derived backend? Run by `make mutation`.

The mutants are mutmut's, applied to each node in turn, and our own: operands of ``@`` swapped, ``.T`` dropped, an axis
changed, which no tool makes. Each runs in a process of its own, with the mutated source in the place of the module,
through the tests that are about it, until one fails. What survives is printed with its line;
`mutation_equivalent.json` lists those that cannot be told from the original, each with the argument why.

Messages, docstrings and assertions are not mutated: strings that are no names, what stands in `raise`, and the strict
of zip.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators
from rich.progress import track

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
OPTIONS = (  # the first failure is enough, and nobody reads it: no rewritten assertions, no traceback, no plug-ins
    *("-x", "-q", "--assert=plain", "--tb=no", "-o", "addopts=--import-mode=importlib"),
    *("-m", "not (compiled or distributed or kills or soak)"),
    *(
        f"-pno:{plugin}"
        for plugin in ("cacheprovider", "unraisableexception", "threadexception", "junitxml", "doctest")
    ),
)
SECONDS = 600  # that the tests without any mutant may take; a mutant may take five times what they took, and a minute

# The quickest first: most mutants do not survive it.
SUITE = "conformance/test_run.py::test_a_built_in_backend_passes_every_case[{}-numpy]"
EQUATIONS, FUNCTIONS = "equations/test_equations.py", "backends/test_numpy_functions.py"
AWKWARD, AGREEMENT = "backends/test_awkward_points.py", "backends/test_agreement.py"
PROGRAMS = "backends/test_plan.py"
NUMPY = (EQUATIONS, SUITE.format("float64"), AWKWARD, AGREEMENT, SUITE.format("float32"), PROGRAMS)
PLAN = (EQUATIONS, PROGRAMS, AWKWARD, SUITE.format("float64"), AGREEMENT)
JUDGE = ("judge/test_judge.py", "judge/test_submission.py")
CHECKING = "test_checking.py"  # the only tests here that need more than one backend
MODULES = {
    "refimpl.equations.dense": ("refimpl/equations/dense.py", NUMPY),
    "refimpl_numpy.network": ("backends/refimpl_numpy/network.py", NUMPY),
    "refimpl_numpy": ("backends/refimpl_numpy/__init__.py", (*NUMPY, "faults/test_catalogue.py")),
    "refimpl_numpy.functions": ("backends/refimpl_numpy/functions.py", (FUNCTIONS, *NUMPY[1:])),
    "refimpl.checking": ("refimpl/checking.py", (CHECKING, "cli/test_cli.py")),
    "refimpl.judge.submission": ("refimpl/judge/submission.py", ("judge/test_submission.py",)),
    "refimpl.judge.judge": ("refimpl/judge/judge.py", (*JUDGE, "judge/test_verdicts.py", CHECKING)),
    "refimpl.judge.verdicts": ("refimpl/judge/verdicts.py", ("judge/test_verdicts.py", *JUDGE)),
    "refimpl.judge.tolerance": (
        "refimpl/judge/tolerance.py", ("judge/test_reference_tolerance.py", "judge/test_tolerance.py"),
    ),
    "refimpl_numpy.placed": ("backends/refimpl_numpy/placed.py", PLAN),
    "refimpl_numpy.noting": ("backends/refimpl_numpy/noting.py", PLAN),
    "refimpl_numpy.plan": ("backends/refimpl_numpy/plan.py", PLAN),
}  # fmt: skip
# "module: the line as it is -> the line as it is mutated": why no test can tell
EQUIVALENT: dict[str, str] = json.loads((TESTS / "mutation_equivalent.json").read_text())


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    module: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """What it is known by in the list of equivalent mutants."""
        return f"{self.module}: {self.before.strip()} -> {self.after.strip()}"


def matmul_order(node: cst.BinaryOperation) -> Iterator[cst.CSTNode]:
    """a @ b → b @ a."""
    if isinstance(node.operator, cst.MatrixMultiply):
        yield node.with_changes(left=node.right, right=node.left)


def dropped_transpose(node: cst.Attribute) -> Iterator[cst.CSTNode]:
    """x.T → x."""
    if node.attr.value == "T":
        yield node.value


def changed_axis(node: cst.Arg) -> Iterator[cst.CSTNode]:
    """axis=0 ↔ axis=1."""
    if node.keyword is not None and node.keyword.value == "axis" and isinstance(node.value, cst.Integer):
        yield node.with_changes(value=cst.Integer("1" if node.value.value == "0" else "0"))


OWN = ((cst.BinaryOperation, matmul_order), (cst.Attribute, dropped_transpose), (cst.Arg, changed_axis))
STRICT = re.compile(r",\s*(strict=\w+)?\)")  # zip's strict= is an assertion
SKIPPED = (cst.Raise, cst.Import, cst.ImportFrom, cst.Annotation, cst.FormattedString, cst.Assert)


class Collector(cst.CSTVisitor):
    """Every (node, mutated node) of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, SKIPPED) or self._is_text(node) or self._is_typing(node):
            return False
        for kind, operator in (*mutation_operators, *OWN):
            if isinstance(node, kind) and not isinstance(node, cst.BaseString):
                self.found += [(node, changed) for changed in operator(node)]
        return True

    def _is_text(self, node: cst.CSTNode) -> bool:
        return m.matches(node, m.Expr(value=m.SimpleString() | m.ConcatenatedString())) or m.matches(
            node, m.Decorator() | m.Call(func=m.Name("TypeVar") | m.Name("cast"))
        )

    def _is_typing(self, node: cst.CSTNode) -> bool:
        """Array = NDArray[Any] and the like: mypy's business."""
        alias = m.AssignTarget(
            target=m.Name(value=m.MatchIfTrue(lambda name: name[0].isupper() and not name.isupper()))
        )
        return m.matches(node, m.Assign(targets=[alias], value=m.Subscript() | m.Name("Any")))


@cache
def mutants(module: str) -> list[Mutant]:
    """Every mutant of a module that still parses."""
    source = (ROOT / MODULES[module][0]).read_text()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    collector = Collector()
    wrapper.visit(collector)
    spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    functions = _functions(source)
    made = {}
    for node, changed in collector.found:
        span = spans[node]
        begin, end = (starts[place.line - 1] + place.column for place in (span.start, span.end))
        code = wrapper.module.code_for_node(changed)
        text = source[:begin] + code + source[end:]
        if text == source:
            continue
        # the function around it is parsed, not the whole module a thousand times
        around = [function for function in functions if function[1] < begin and end <= function[2]]
        opening, first, last = around[-1] if around else ("", 0, len(source))
        if not _parses(opening + source[first:begin] + code + source[end:last]):
            continue
        before, after = _difference(source, text)
        if STRICT.sub(")", before) == STRICT.sub(")", after):
            continue
        made.setdefault(text, Mutant(module, span.start.line, before, after, text))
    return list(made.values())


def _functions(source: str) -> list[tuple[str, int, int]]:
    """What makes the text of a function parse alone, and where it begins and ends; the inner ones last."""
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [
        ("if 1:\n" if node.col_offset else "", starts[node.lineno - 1], starts[node.end_lineno or node.lineno])
        for node in nodes
    ]


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _difference(source: str, text: str) -> tuple[str, str]:
    """The lines that differ, each joined to one."""
    old, new = source.splitlines(), text.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return " ".join(map(str.strip, old)), " ".join(map(str.strip, new))


class Replaced:
    """An importer that gives the mutated source for one module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.mutant.module:
            return None
        file = ROOT / MODULES[name][0]
        spec = importlib.util.spec_from_file_location(
            name, file, loader=_Loader(self.mutant.source, str(file)),
            submodule_search_locations=[str(file.parent)] if file.name == "__init__.py" else None,
        )  # fmt: skip
        return spec


class _Loader:
    def __init__(self, source: str, file: str) -> None:
        self.source, self.file = source, file

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.source, self.file, "exec"), module.__dict__)


def survives(mutant: Mutant, seconds: float = SECONDS) -> bool:
    """Whether all tests of its module pass on the mutant, in so many seconds of the processor's time: one that hangs
    is noticed too. By the clock it has ten times as long, for a busy machine must not kill a mutant.
    """
    child = os.fork()  # neither torch nor JAX has been imported here
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        _run_tests(mutant)
    deadline = time.monotonic() + 10 * seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(mutant: Mutant) -> None:
    if not os.environ.get("MUTATION_DEBUG"):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    code: int = 1
    try:
        import pytest

        os.chdir(ROOT)
        sys.meta_path.insert(0, Replaced(mutant))
        import networks

        tests = MODULES[mutant.module][1]
        if CHECKING not in tests:  # the others do not run what is mutated, and take seconds to import
            networks.BACKENDS = ("numpy",)
        for test in tests:
            selected = [] if "::" in test else ["-k", "not jax and not torch"]
            code = int(pytest.main([str(TESTS / test), *OPTIONS, *selected]))
            if code not in (0, 5):  # 5: nothing selected
                break
            code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)


def _prepare() -> None:
    """What every mutant needs and none changes, imported once."""
    for name in ("flint", "mpmath", "numpy", "numpy.testing", "rich.table", "typer.testing", "pytest", "hypothesis"):
        importlib.import_module(name)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.disable()  # a process that lives for a second


def outcome(mutant: Mutant, seconds: float = SECONDS) -> tuple[Mutant, bool]:
    """The mutant, and whether it survives."""
    return mutant, survives(mutant, seconds)


def unchanged(module: str) -> Mutant:
    """The module as it is."""
    return Mutant(module, 0, "", "", (ROOT / MODULES[module][0]).read_text())


def run(modules: Sequence[str], processes: int, first: int, step: int) -> list[Mutant]:
    """The survivors that are not known to be equivalent."""
    unknown: list[Mutant] = []
    total = 0
    for module in modules:
        made = mutants(module)[first::step]
        todo = [mutant for mutant in made if mutant.key not in EQUIVALENT]
        total += len(made)
        with multiprocessing.get_context("fork").Pool(processes, initializer=_prepare, maxtasksperchild=200) as pool:
            began = time.monotonic()
            if not pool.apply(survives, [unchanged(module)]):
                sys.exit(f"{module}: its tests fail without any mutant")
            judged = partial(outcome, seconds=60 + 5 * (time.monotonic() - began))
            survivors = []
            for mutant, survived in track(pool.imap_unordered(judged, todo), module, total=len(todo)):
                if survived:  # said at once: a module may take an hour
                    survivors.append(mutant)
                    print(f"  line {mutant.line}: {mutant.before}\n        ->  {mutant.after}", flush=True)
        killed = len(todo) - len(survivors)
        print(
            f"{module}: {len(made)} mutants, {killed} killed, {len(made) - len(todo)} equivalent, "
            f"{len(survivors)} survive",
            flush=True,
        )
        unknown += survivors
    print(f"{total} mutants, {len(unknown)} survivors that are not known to be equivalent")
    return unknown


def main() -> None:
    """Mutate, test, report; exit code 1 where a mutant survives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", action="append", choices=list(MODULES))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--first", type=int, default=0, help="with --step, a part of the mutants")
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    sys.path[:0] = [str(TESTS)]
    sys.exit(1 if run(options.module or list(MODULES), options.processes, options.first, options.step) else 0)


if __name__ == "__main__":
    main()
