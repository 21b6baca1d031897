"""The pytest plugin: every case a test with the case's name, and fixtures for people's own code."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SUITE = ("-p", "no:cacheprovider", "-p", "no:randomly", "--pyargs", "refimpl.conformance")
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

@pytest.mark.refimpl(flags=["Exact"], dtype="float32")
def test_float32(refimpl_case, refimpl_judge):
    refimpl_judge(*run(refimpl_case, "float32"))
"""


def test_every_case_is_a_test_with_its_name(pytester: pytest.Pytester) -> None:
    outcome = pytester.runpytest_subprocess(*SUITE, "--refimpl-backend", "numpy", "-v")
    outcome.assert_outcomes(passed=463)
    outcome.stdout.fnmatch_lines(["*refimpl 0.1.0: numpy *, torch *, jax *"])
    outcome.stdout.fnmatch_lines(["*refimpl: numpy in float64 on cpu; tolerance: worst case*"])
    outcome.stdout.fnmatch_lines(["*test_case[[]article batch 1[]] PASSED*"])


def test_two_backends_and_float32(pytester: pytest.Pytester) -> None:
    arguments = (
        "--refimpl-backend",
        "numpy",
        "--refimpl-backend",
        "refimpl_torch:backend",
        "--refimpl-dtype",
        "float32",
    )
    outcome = pytester.runpytest_subprocess(*SUITE, *arguments, "-k", "article", "-v")
    outcome.assert_outcomes(passed=12, deselected=2 * 463 - 12)
    outcome.stdout.fnmatch_lines(["*test_case[[]refimpl_torch:backend-article parity[]] PASSED*"])


def test_a_wrong_backend_fails_with_the_cause(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        mine="""
        from refimpl.faults.catalogue import FAULTS, PlantedBackend
        backend = PlantedBackend(((FAULTS["slope_dropped"], 1, 0.0),))
        """
    )
    pytester.syspathinsert()
    outcome = pytester.runpytest_subprocess(*SUITE, "--refimpl-backend", "mine:backend", "-k", "article and parity")
    outcome.assert_outcomes(failed=1, deselected=462)
    outcome.stdout.fnmatch_lines(["*slope_dropped at layer 1: The error signal goes through*"])


def test_a_backend_that_lacks_a_case_skips_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        mine="""
        from refimpl_numpy import NumpyBackend
        class Narrow(NumpyBackend):
            name = "narrow"
            def supports(self, spec, *, dtype, device):
                return spec.loss.name == "huber" or "huber only"
        """
    )
    pytester.syspathinsert()
    outcome = pytester.runpytest_subprocess(
        *SUITE, "--refimpl-backend", "mine:Narrow", "-k", "basic and softplus", "-rs"
    )
    outcome.assert_outcomes(passed=1, skipped=6, deselected=456)
    outcome.stdout.fnmatch_lines(["*narrow: huber only*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to test, with --refimpl-backend"),
        (("--refimpl-backend", "nobody"), "there is no backend 'nobody'"),
        (("--refimpl-require-backend", "nobody"), "there is no backend 'nobody'"),
        (
            ("--refimpl-require-backend", "numpy", "--refimpl-device", "cuda"),
            "the required backend numpy supports no case",
        ),
    ],
)
def test_a_wrong_request_is_said(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    outcome = pytester.runpytest_subprocess(*SUITE, *arguments)
    assert outcome.ret != 0
    assert message in outcome.stdout.str() + outcome.stderr.str()
    assert "Traceback" not in outcome.stdout.str() + outcome.stderr.str()
    assert "plugin.py" not in outcome.stdout.str()


def test_the_fixtures_for_ones_own_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MINE)
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=2 + 24, failed=3)
    outcome.stdout.fnmatch_lines(["*your answer: FAIL in tie sigmoid squared_error: * wrong_sign: *"])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("flags=['Nonsense']", "chooses no case"),
        ("flag='Tie'", "takes flags, activations, losses, dtype by name; got flag"),
        ("['Tie']", "got a position"),
        ("flags='Tie'", "flags must be a list of names, got 'Tie'"),
        ("losses=[1]", "losses must be a list of names"),
        ("dtype='float16'", "dtype must be one of float64, float32, got 'float16'"),
    ],
)
def test_a_wrong_marker_is_said(pytester: pytest.Pytester, marker: str, message: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.refimpl({marker})\ndef test_it(refimpl_case):\n    pass\n")
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert outcome.ret != 0
    assert message in outcome.stdout.str() + outcome.stderr.str()
    assert "plugin.py" not in outcome.stdout.str()


def test_the_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\ndef test_it():\n    assert not {'numpy', 'flint', 'torch', 'jax', 'rich'} & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest"
    ).assert_outcomes(passed=1)


def test_a_backend_may_lie_where_pytest_is_called(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(mine="from refimpl_numpy import backend")
    for mode in ("prepend", "importlib"):
        outcome = pytester.runpytest_subprocess(
            *SUITE, f"--import-mode={mode}", "--refimpl-backend", "mine:backend", "-k", "article and parity"
        )
        outcome.assert_outcomes(passed=1, deselected=462)


def test_the_suite_is_collected_whatever_ones_own_tests_are_called(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\npython_files = check_*.py\npython_functions = check_*\npython_classes = Check\n")
    outcome = pytester.runpytest_subprocess(*SUITE, "--refimpl-backend", "numpy", "-k", "article and parity")
    outcome.assert_outcomes(passed=1, deselected=462)


def test_an_unknown_backend_is_one_line_with_workers_too(pytester: pytest.Pytester) -> None:
    for workers in ((), ("-n", "2")):
        outcome = pytester.runpytest_subprocess(*SUITE, *workers, "--refimpl-backend", "nobody")
        assert outcome.ret == pytest.ExitCode.USAGE_ERROR
        said = [line for line in outcome.stderr.lines if line]
        assert len(said) == 1
        assert "there is no backend 'nobody'" in said[0]


def test_a_required_backend_may_be_meant_by_name_or_place(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(mine="from refimpl_numpy import NumpyBackend\nclass Good(NumpyBackend):\n    name = 'good'\n")
    for required in ("good", "mine:Good"):
        outcome = pytester.runpytest_subprocess(
            *SUITE, "--refimpl-backend", "mine:Good", "--refimpl-require-backend", required, "-k", "article and parity"
        )
        outcome.assert_outcomes(passed=1, deselected=462)


def test_markers_add_up_the_closest_first(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
        class TestMine:
            def test_both(self, refimpl_case):
                assert "Tie" in refimpl_case.flags and refimpl_case.spec.loss.name == "cross_entropy"

            @pytest.mark.refimpl(losses=["squared_error"])
            def test_closer(self, refimpl_case):
                assert "Tie" in refimpl_case.flags and refimpl_case.spec.loss.name == "squared_error"
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert outcome.ret == 0
    assert outcome.parseoutcomes()["passed"] >= 2


def test_a_test_that_judges_nothing_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
        def test_nothing(refimpl_case, refimpl_judge):
            pass

        @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
        def test_skipped(refimpl_case, refimpl_judge):
            pytest.skip("not today")
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    counts = outcome.parseoutcomes()
    assert set(counts) == {"failed", "skipped"}
    outcome.stdout.fnmatch_lines(["*nothing was judged: call refimpl_judge(loss, gradients)*"])


def test_the_dtype_of_the_command_line_is_the_judges(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import numpy as np, pytest
        from refimpl_numpy import backend

        @pytest.mark.refimpl(flags=["Tie"], losses=["cross_entropy"])
        def test_mine(refimpl_case, refimpl_judge):
            run = backend.gradient_function(refimpl_case.spec, dtype="float32", device="cpu")
            refimpl_judge(*run(*refimpl_case.data("float32")))
        """
    )
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider", "--refimpl-dtype", "float32").ret == 0
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider").ret == 1


def test_pytest_lists_both_fixtures(pytester: pytest.Pytester) -> None:
    outcome = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    outcome.stdout.fnmatch_lines(["refimpl_case -- *", "*Each conformance case in turn*"])
    outcome.stdout.fnmatch_lines(["refimpl_judge -- *", "*the test fails with what is wrong*"])
