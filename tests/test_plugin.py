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
        from refimpl.faults import FAULTS, PlantedBackend
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
    ],
)
def test_a_wrong_marker_is_said(pytester: pytest.Pytester, marker: str, message: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.refimpl({marker})\ndef test_it(refimpl_case):\n    pass\n")
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert outcome.ret != 0
    assert message in outcome.stdout.str() + outcome.stderr.str()


def test_the_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\ndef test_it():\n    assert not {'numpy', 'flint', 'torch', 'jax', 'rich'} & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest"
    ).assert_outcomes(passed=1)
