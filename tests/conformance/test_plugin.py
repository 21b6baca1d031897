"""The pytest plugin: every case a test with the case's name, and fixtures for people's own code."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from refimpl.backend import available
from refimpl.conformance import run, vectors
from refimpl.conformance.vectors import Suite, load
from refimpl_numpy import backend as numpy_backend
from refimpl_torch import backend as torch_backend

pytest_plugins = ["pytester"]

SUITE = ("-p", "no:cacheprovider", "-p", "no:randomly", "--pyargs", "refimpl.conformance")
QUIET = ("-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:cov")
ALL = load()
FEW = Suite.of([case for case in ALL.cases if "Tie" in case.flags or case.id.startswith(("article", "basic softplus"))])
# what is imported in a run within this process is forgotten after it, unless it was imported before
IMPORTED = (run, numpy_backend, torch_backend)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of some cases, read already."""
    monkeypatch.setattr(vectors, "load", lambda: FEW)


@pytest.fixture
def inner(pytester: pytest.Pytester, few: None) -> Any:
    """pytest with some options, in this process: of the suite, or of the file given."""

    def call(*arguments: str, mine: str = "") -> pytest.RunResult:
        if mine:
            pytester.makepyfile(test_mine=mine)
        return pytester.runpytest_inprocess(*QUIET, *([] if mine else ["--pyargs", "refimpl.conformance"]), *arguments)

    return call


def backend(pytester: pytest.Pytester, **modules: str) -> None:
    pytester.makepyfile(**modules)
    pytester.syspathinsert()


def test_every_case_is_a_test_with_its_name(pytester: pytest.Pytester) -> None:
    outcome = pytester.runpytest_subprocess(*SUITE, "--refimpl-backend", "numpy", "-v")
    outcome.assert_outcomes(passed=len(ALL.cases))
    outcome.stdout.fnmatch_lines(["*refimpl: numpy in float64 on cpu; tolerance: worst case*"])
    outcome.stdout.fnmatch_lines(["*test_case[[]article batch 1[]] PASSED*"])
    (versions,) = (line for line in outcome.outlines if line.startswith("refimpl 0.1.0: "))
    assert all(f"{name} " in versions for name in available())


def test_the_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n\ndef test_it():\n"
        "    assert not {'numpy', 'flint', 'torch', 'jax', 'rich', 'pydantic'} & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=1)


def test_two_backends_and_float32(inner: Any) -> None:
    both = ("--refimpl-backend", "numpy", "--refimpl-backend", "refimpl_torch:backend")
    outcome = inner(*both, "--refimpl-dtype", "float32", "-k", "article", "-v")
    outcome.assert_outcomes(passed=2 * 6, deselected=2 * (len(FEW.cases) - 6))
    outcome.stdout.fnmatch_lines(["*test_case[[]refimpl_torch:backend-article parity[]] PASSED*"])
    outcome.stdout.fnmatch_lines(["*refimpl: numpy, refimpl_torch:backend in float32 on cpu*"])


def test_a_wrong_backend_fails_with_the_cause(inner: Any, pytester: pytest.Pytester) -> None:
    backend(
        pytester,
        planted_here="""
        from refimpl.faults.catalogue import FAULTS
        from refimpl.faults.mistaken import PlantedBackend
        from refimpl_numpy import NumpyBackend
        backend = PlantedBackend(((FAULTS["slope_dropped"], 1, 0.0),), NumpyBackend())
        """,
    )
    outcome = inner("--refimpl-backend", "planted_here:backend", "-k", "article and parity")
    outcome.assert_outcomes(failed=1, deselected=len(FEW.cases) - 1)
    outcome.stdout.fnmatch_lines(["*slope_dropped at layer 1: The error signal goes through*"])


def test_a_backend_that_lacks_a_case_skips_it(inner: Any, pytester: pytest.Pytester) -> None:
    backend(
        pytester,
        narrow="""
        from refimpl_numpy import NumpyBackend
        class Narrow(NumpyBackend):
            name = "narrow"
            def supports(self, spec, *, dtype, device):
                return spec.loss.name == "huber" or "huber only"
        """,
    )
    outcome = inner("--refimpl-backend", "narrow:Narrow", "-k", "basic and softplus", "-rs")
    outcome.assert_outcomes(passed=1, skipped=6, deselected=len(FEW.cases) - 7)
    outcome.stdout.fnmatch_lines(["*narrow: huber only*"])


def test_a_backend_may_lie_where_pytest_is_called(inner: Any, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(lying_here="from refimpl_numpy import backend")
    assert str(pytester.path) not in sys.path
    outcome = inner("--import-mode=importlib", "--refimpl-backend", "lying_here:backend", "-k", "article and parity")
    outcome.assert_outcomes(passed=1, deselected=len(FEW.cases) - 1)


def test_the_suite_is_collected_whatever_ones_own_tests_are_called(inner: Any, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\npython_files = check_*.py\npython_functions = check_*\npython_classes = Check\n")
    outcome = inner("--refimpl-backend", "numpy", "-k", "article and parity")
    outcome.assert_outcomes(passed=1, deselected=len(FEW.cases) - 1)


@pytest.mark.parametrize("required", ["good", "good_one:Good"])
def test_a_required_backend_may_be_meant_by_name_or_place(required: str, inner: Any, pytester: pytest.Pytester) -> None:
    backend(pytester, good_one="from refimpl_numpy import NumpyBackend\nclass Good(NumpyBackend):\n    name = 'good'\n")
    asked = ("--refimpl-backend", "good_one:Good", "--refimpl-require-backend", required)
    inner(*asked, "-k", "article and parity").assert_outcomes(passed=1, deselected=len(FEW.cases) - 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name what to test, with --refimpl-backend"),
        (("--refimpl-require-backend", "numpy", "--refimpl-device", "cuda"), "backend numpy supports no case"),
    ],
)
def test_a_wrong_request_is_said(inner: Any, arguments: tuple[str, ...], words: str) -> None:
    outcome = inner(*arguments)
    assert outcome.ret != 0
    said = outcome.stdout.str() + outcome.stderr.str()
    assert words in said
    assert "Traceback" not in said
    assert "plugin.py" not in said


@pytest.mark.parametrize(("option", "workers"), [("--refimpl-backend", ()), ("--refimpl-require-backend", ("-n", "2"))])
def test_an_unknown_backend_is_one_line_with_workers_too(
    pytester: pytest.Pytester, option: str, workers: tuple[str, ...]
) -> None:
    outcome = pytester.runpytest_subprocess(*SUITE, *workers, option, "nobody")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in outcome.stderr.lines if line)
    assert "there is no backend 'nobody'" in line


MINE = """
import pytest
from refimpl_numpy import backend

def run(case, dtype="float64"):
    return backend.gradient_function(case.spec, dtype=dtype, device="cpu")(*case.data(dtype))

@pytest.mark.refimpl(flags=["Tie"], activations=["sigmoid", "identity"])
def test_right(refimpl_case, refimpl_judge):
    refimpl_judge(*run(refimpl_case))

@pytest.mark.refimpl(flags=["Tie"], losses=["squared_error"])
def test_wrong(refimpl_case, refimpl_judge):
    loss, grads = run(refimpl_case)
    refimpl_judge(loss, {name: -grad for name, grad in grads.items()})

@pytest.mark.refimpl(flags=["KnownExample"], dtype="float32")
def test_float32(refimpl_case, refimpl_judge):
    refimpl_judge(*run(refimpl_case, "float32"))
"""


def test_the_fixtures_judge_ones_own_code(inner: Any) -> None:
    outcome = inner(mine=MINE)
    outcome.assert_outcomes(passed=2 + 6, failed=3)
    outcome.stdout.fnmatch_lines(["*your answer: FAIL in tie sigmoid squared_error: * wrong_sign or *"])


def test_markers_add_up_the_closest_first(inner: Any) -> None:
    mine = """
    import pytest

    @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
    class TestMine:
        def test_both(self, refimpl_case):
            assert "Tie" in refimpl_case.flags and refimpl_case.spec.loss.name == "cross_entropy"

        @pytest.mark.refimpl(losses=["squared_error"])
        def test_closer(self, refimpl_case):
            assert "Tie" in refimpl_case.flags and refimpl_case.spec.loss.name == "squared_error"
    """
    inner(mine=mine).assert_outcomes(passed=3 + 3)


def test_a_test_that_judges_nothing_fails(inner: Any) -> None:
    mine = """
    import pytest

    @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
    def test_nothing(refimpl_case, refimpl_judge):
        pass

    @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
    def test_skipped(refimpl_case, refimpl_judge):
        pytest.skip("not today")
    """
    outcome = inner(mine=mine)
    outcome.assert_outcomes(failed=3, skipped=3)
    outcome.stdout.fnmatch_lines(["*nothing was judged: call refimpl_judge(loss, gradients)*"])


@pytest.mark.parametrize(("option", "outcomes"), [("float32", {"passed": 3}), ("float64", {"failed": 3})])
def test_the_dtype_of_the_command_line_is_the_judges(inner: Any, option: str, outcomes: dict[str, int]) -> None:
    mine = """
    import pytest
    from refimpl_numpy import backend

    @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
    def test_mine(refimpl_case, refimpl_judge):
        run = backend.gradient_function(refimpl_case.spec, dtype="float32", device="cpu")
        refimpl_judge(*run(*refimpl_case.data("float32")))
    """
    inner("--refimpl-dtype", option, mine=mine).assert_outcomes(**outcomes)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("flags=['Nonsense']", "chooses no case"),
        ("flag='Tie'", "takes flags, activations, losses, dtype by name; got flag"),
        ("['Tie']", "got a position"),
        ("flags='Tie'", "flags must be a list of names, got 'Tie'"),
        ("losses=[1]", "losses must be a list of names"),
        ("dtype='float16'", "dtype must be one of float64, float32, got 'float16'"),
    ],
)
def test_a_wrong_marker_is_said(inner: Any, marker: str, words: str) -> None:
    outcome = inner(mine=f"import pytest\n@pytest.mark.refimpl({marker})\ndef test_it(refimpl_case):\n    pass\n")
    assert outcome.ret != 0
    said = outcome.stdout.str() + outcome.stderr.str()
    assert words in said
    assert "plugin.py" not in said


def test_pytest_lists_both_fixtures(inner: Any) -> None:
    outcome = inner("--fixtures", mine="def test_it(): pass")
    outcome.stdout.fnmatch_lines(["refimpl_case -- *", "*Each conformance case in turn*"])
    outcome.stdout.fnmatch_lines(["refimpl_judge -- *", "*the test fails with what is wrong*"])
