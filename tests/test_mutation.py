"""The mutation self-proof proved: it makes the mutants that it says, and tells one that is killed from one that is not.

The mutants of a whole module are `make mutation`'s; here one is run, in a process of its own, because what it replaces
must not have been imported.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

mutation = pytest.importorskip("mutation", reason="the mutants are made with mutmut")

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent


@pytest.mark.parametrize("module", ["refimpl.equations.dense", "refimpl_numpy.network", "refimpl.checking"])
def test_the_mutants_of_a_module_parse_and_differ(module: str) -> None:
    made, source = mutation.mutants(module), mutation.unchanged(module).source
    trees = {ast.dump(ast.parse(mutant.source)) for mutant in made}
    assert len(made) > 40
    assert len({mutant.source for mutant in made}) == len(made)
    assert ast.dump(ast.parse(source)) not in trees
    for mutant in made:
        assert mutant.module == module
        assert mutant.before != mutant.after


def test_every_module_is_there_and_its_tests_too() -> None:
    for file, tests in mutation.MODULES.values():
        assert (ROOT / file).is_file()
        for test in tests:
            name, _, function = test.partition("::")
            assert f"def {function.partition('[')[0]}" in (TESTS / name).read_text()


def test_our_own_operators_are_among_them() -> None:
    changes = {(mutant.before, mutant.after) for mutant in mutation.mutants("refimpl.equations.dense")}
    assert {
        ("z = a @ W.T  # (N, out) = (N, in)(in, out)", "z = W.T @ a  # (N, out) = (N, in)(in, out)"),
        ("z = a @ W.T  # (N, out) = (N, in)(in, out)", "z = a @ W  # (N, out) = (N, in)(in, out)"),
        ("return delta.sum(axis=0)  # (out,)", "return delta.sum(axis=1)  # (out,)"),
    } <= changes


def test_messages_imports_and_docstrings_are_not_mutated() -> None:
    for mutant in mutation.mutants("refimpl.checking"):
        assert "raise" not in mutant.before.split()
        assert not mutant.before.startswith(('"""', "import ", "from "))


@pytest.mark.parametrize("module", sorted({key.split(":")[0] for key in mutation.EQUIVALENT}))
def test_what_is_listed_as_equivalent_is_still_a_mutant_and_says_why(module: str) -> None:
    listed = {key: why for key, why in mutation.EQUIVALENT.items() if key.split(":")[0] == module}
    assert set(listed) <= {mutant.key for mutant in mutation.mutants(module)}
    assert all(len(why.split()) > 5 for why in listed.values())


PROGRAM = """
import mutation
mutation._prepare()
module = "refimpl.equations.dense"
mutation.MODULES[module] = (mutation.MODULES[module][0], ("equations/test_equations.py",))
killed = next(mutant for mutant in mutation.mutants(module) if "return W @ delta" in mutant.source)
print(mutation.survives(mutation.unchanged(module)), mutation.survives(killed))
"""


def test_the_original_survives_and_a_mutant_does_not() -> None:
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (["True", "False"], "")
