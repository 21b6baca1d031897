"""The pytest plugin: `pytest --pyargs refimpl.conformance --refimpl-backend NAME` runs every case as a test.

For people who test their own code there is a marker and two fixtures:

    @pytest.mark.refimpl(flags=["Basic"], activations=["sigmoid", "identity"], losses=["squared_error"])
    def test_my_backprop(refimpl_case, refimpl_judge):
        loss, gradients = my_backprop(refimpl_case.spec, *refimpl_case.data("float64"))
        refimpl_judge(loss, gradients)

`refimpl_case` is each chosen case in turn; `refimpl_judge` fails the test with the place, the size and the cause of
what is wrong. pytest loads this module in every run, so it imports nothing heavy before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refimpl.conformance.implementations import BackendDoor
    from refimpl.conformance.vectors import Case

MARKER = (
    "refimpl(flags, activations, losses, dtype): which conformance cases `refimpl_case` goes through; "
    "all by default, in float64"
)
CHOICES = ("flags", "activations", "losses", "dtype")
SUITE_FIXTURES = ("refimpl_backend", "refimpl_suite_case")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all of which begin with --refimpl."""
    group = parser.getgroup("refimpl", "conformance of backpropagation")
    group.addoption(
        "--refimpl-backend", action="append", default=[], metavar="NAME_OR_MODULE:ATTRIBUTE",
        help="the backend to run through refimpl.conformance; may be given again",
    )  # fmt: skip
    group.addoption("--refimpl-dtype", choices=("float64", "float32"), default="float64", help="its arithmetic")
    group.addoption("--refimpl-device", default="cpu", metavar="DEVICE", help="cpu or cuda")
    group.addoption(
        "--refimpl-require-backend", action="append", default=[], metavar="NAME",
        help="fail the run if this backend is not installed or supports no case; may be given again",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which backends run, in what, and how they are judged."""
    asked = _asked(config)
    if not asked:
        return []
    from importlib.metadata import PackageNotFoundError, version

    import numpy as np

    import refimpl

    def installed(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} not installed"

    dtype, device = config.getoption("--refimpl-dtype"), config.getoption("--refimpl-device")
    versions = ", ".join(installed(name) for name in ("torch", "jax"))
    return [
        f"refimpl {refimpl.__version__}: numpy {np.__version__}, {versions}",
        f"refimpl: {', '.join(asked)} in {dtype} on {device}; tolerance: worst case, as written in the vector files",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case as a test of its own."""
    if set(SUITE_FIXTURES) <= set(metafunc.fixturenames):
        _suite_tests(metafunc)
    elif "refimpl_case" in metafunc.fixturenames:
        cases = _chosen(_choices(metafunc.definition.get_closest_marker("refimpl")))
        metafunc.parametrize("refimpl_case", cases, ids=[case.id for case in cases])


@pytest.fixture
def refimpl_judge(request: pytest.FixtureRequest, refimpl_case: Case) -> Callable[[Any, Mapping[str, Any]], None]:
    """(loss, gradients) → nothing, or the test fails with what is wrong."""
    dtype = _choices(request.node.get_closest_marker("refimpl"))["dtype"]

    def judge(loss: Any, gradients: Mapping[str, Any]) -> None:
        __tracebackhide__ = True
        from refimpl.conformance.implementations import Answered

        _assert(_Returned(Answered((loss, gradients))), refimpl_case, dtype)

    return judge


class _Returned:
    """An answer that is already there, as an implementation."""

    name = description = "your answer"

    def __init__(self, answered: Any) -> None:
        self.answered = answered

    def arithmetic(self, dtype: str) -> Any:
        """IEEE's."""
        from refimpl.arithmetic import ARITHMETICS

        return ARITHMETICS[dtype]

    def answer(self, case: Case, dtype: str) -> Any:
        """What was returned."""
        return self.answered

    def close(self) -> None:
        """Nothing is held."""


def run_case(door: BackendDoor, case: Case, config: pytest.Config) -> None:
    """One case on one backend, as a test."""
    __tracebackhide__ = True
    _assert(door, case, config.getoption("--refimpl-dtype"))


def _assert(implementation: Any, case: Case, dtype: str) -> None:
    __tracebackhide__ = True
    from refimpl.conformance.run import SKIP, judge_case
    from refimpl.report import PASS

    result = judge_case(implementation, case, dtype)
    if result.verdict == SKIP:
        pytest.skip(f"{implementation.name}: {result.reason}")
    if result.verdict != PASS:
        pytest.fail(f"{implementation.name}: {result.verdict} in {case.id}: {result.text}", pytrace=False)


def _asked(config: pytest.Config) -> list[str]:
    return list(dict.fromkeys([*config.getoption("--refimpl-backend"), *config.getoption("--refimpl-require-backend")]))


def _suite_tests(metafunc: pytest.Metafunc) -> None:
    from refimpl import backend as backends
    from refimpl.conformance.implementations import BackendDoor
    from refimpl.errors import BackendError

    config = metafunc.config
    asked = _asked(config)
    if not asked:
        raise pytest.UsageError(
            "refimpl.conformance: name what to test, with --refimpl-backend NAME or module:attribute"
        )
    cases = _chosen(_choices(None))
    pairs, names = [], []
    for name in asked:
        try:
            door = BackendDoor(backends.load(name), config.getoption("--refimpl-device"))
        except BackendError as error:
            raise pytest.UsageError(f"refimpl.conformance: {error}") from None
        pairs += [(door, case) for case in cases]
        names += [case.id if len(asked) == 1 else f"{name}-{case.id}" for case in cases]
        required = name in config.getoption("--refimpl-require-backend")
        if required and not any(_supported(door, case, config) for case in cases):
            raise pytest.UsageError(f"refimpl.conformance: the required backend {name} supports no case")
    metafunc.parametrize(SUITE_FIXTURES, pairs, ids=names)


def _supported(door: BackendDoor, case: Case, config: pytest.Config) -> bool:
    from refimpl import backend as backends

    return backends.supported(door.backend, case.spec, config.getoption("--refimpl-dtype"), door.device) is True


def _choices(marker: pytest.Mark | None) -> dict[str, Any]:
    chosen = dict(marker.kwargs) if marker else {}
    unknown = [name for name in chosen if name not in CHOICES]
    if unknown or (marker and marker.args):
        raise pytest.UsageError(
            f"the marker refimpl takes {', '.join(CHOICES)} by name; got {(unknown or ['a position'])[0]}"
        )
    return {"flags": None, "activations": None, "losses": None, "dtype": "float64", **chosen}


def _chosen(choices: Mapping[str, Any]) -> list[Case]:
    from refimpl.conformance.vectors import load

    flags, activations, losses = choices["flags"], choices["activations"], choices["losses"]
    cases = [
        case
        for case in load().cases
        if (flags is None or set(flags) & set(case.flags))
        and (activations is None or {layer.activation.name for layer in case.spec.layers} <= set(activations))
        and (losses is None or case.spec.loss.name in losses)
    ]
    if not cases:
        raise pytest.UsageError(
            "the marker refimpl chooses no case; `refimpl vectors list` shows them with their flags"
        )
    return cases
