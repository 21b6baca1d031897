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

import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refimpl.backend import Backend
    from refimpl.conformance.doors.backend import BackendDoor
    from refimpl.conformance.run import CaseResult
    from refimpl.conformance.vectors import Case

MARKER = (
    "refimpl(flags, activations, losses, dtype): which conformance cases `refimpl_case` goes through; "
    "all by default, in float64"
)
CHOICES = ("flags", "activations", "losses", "dtype")
LOADED = pytest.StashKey["dict[str, Backend]"]()
SUITE = Path(__file__).with_name("test_suite.py")
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
    """Make the marker known, and what was asked for loadable: a backend may lie where pytest was called."""
    config.addinivalue_line("markers", MARKER)
    if not _asked(config):
        return
    here = str(config.invocation_params.dir)
    if here not in sys.path:
        sys.path.append(here)
    from refimpl.formats.errors import BackendError

    try:
        config.stash[LOADED] = _loaded(config)
    except BackendError as error:
        raise pytest.UsageError(f"refimpl.conformance: {error}") from None


def _loaded(config: pytest.Config) -> dict[str, Backend]:
    """The backends by what they were asked for by. A required one may be meant by its name or by its place."""
    from refimpl import backend as backends

    found = {name: backends.load(name) for name in config.getoption("--refimpl-backend")}
    for name in config.getoption("--refimpl-require-backend"):
        if name not in {*found, *(backend.name for backend in found.values())}:
            found[name] = backends.load(name)
    return found


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """The suite's module as pytest collects it by default, whatever the user's own files are called."""
    return SuiteModule.from_parent(parent, path=module_path) if module_path == SUITE else None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """The suite's module, where the user's python_files does not match it."""
    if file_path != SUITE or any(fnmatch(file_path.name, str(form)) for form in parent.config.getini("python_files")):
        return None
    return SuiteModule.from_parent(parent, path=file_path)


class SuiteModule(pytest.Module):
    """The suite's module, in which `test_case` is a test whatever the user's python_functions is."""

    def funcnamefilter(self, name: str) -> bool:
        """Whether a function is a test."""
        return name == "test_case"


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which backends run, in what, and how they are judged."""
    asked = _asked(config)
    if not asked:
        return []
    import refimpl
    from refimpl.backend import available
    from refimpl.backend.registry import installed

    dtype, device = config.getoption("--refimpl-dtype"), config.getoption("--refimpl-device")
    versions = ", ".join(f"{name} {installed(name) or 'not installed'}" for name in available())
    return [
        f"refimpl {refimpl.__version__}: {versions}",
        f"refimpl: {', '.join(asked)} in {dtype} on {device}; tolerance: worst case, as written in the vector files",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case as a test of its own."""
    if set(SUITE_FIXTURES) <= set(metafunc.fixturenames):
        _suite_tests(metafunc)
    elif "refimpl_case" in metafunc.fixturenames:
        cases = _chosen(_choices(metafunc.definition.iter_markers("refimpl"), metafunc.config))
        metafunc.parametrize("refimpl_case", cases, ids=[case.id for case in cases], indirect=True)


class Judging:
    """(loss, gradients) → nothing, or the test fails with what is wrong."""

    def __init__(self, case: Case, dtype: str) -> None:
        self.case, self.dtype, self.asked = case, dtype, False

    def __call__(self, loss: Any, gradients: Mapping[str, Any]) -> None:
        """Judge an answer to the case."""
        __tracebackhide__ = True
        from refimpl.conformance.doors import Answered
        from refimpl.conformance.run import judge_answered
        from refimpl.judge.submission import Submission
        from refimpl.network.arithmetic import ARITHMETICS

        self.asked = True
        answered, name = Answered(Submission.of((loss, gradients))), "your answer"
        _assert(name, judge_answered(name, ARITHMETICS[self.dtype], answered, self.case, self.dtype))


@pytest.fixture
def refimpl_case(request: pytest.FixtureRequest) -> Case:
    """Each conformance case in turn: spec, data(dtype), id, flags. The marker refimpl chooses which."""
    case: Case = request.param
    return case


@pytest.fixture
def refimpl_judge(request: pytest.FixtureRequest, refimpl_case: Case) -> Judging:
    """(loss, gradients) → nothing, or the test fails with what is wrong; it fails too where nothing is judged."""
    return Judging(refimpl_case, _choices(request.node.iter_markers("refimpl"), request.config)["dtype"])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[Any]:
    """A test that asks for the judge and never calls it would pass whatever is computed."""
    result = yield
    judging = pyfuncitem.funcargs.get("refimpl_judge")
    if isinstance(judging, Judging) and not judging.asked:
        pytest.fail("nothing was judged: call refimpl_judge(loss, gradients)", pytrace=False)
    return result


def run_case(door: BackendDoor, case: Case, config: pytest.Config) -> None:
    """One case on one backend, as a test."""
    __tracebackhide__ = True
    from refimpl.conformance.run import judge_case

    _assert(door.name, judge_case(door, case, config.getoption("--refimpl-dtype")))


def _assert(name: str, result: CaseResult) -> None:
    __tracebackhide__ = True
    from refimpl.conformance.run import SKIP
    from refimpl.judge.report import PASS

    if result.verdict == SKIP:
        pytest.skip(f"{name}: {result.reason}")
    if result.verdict != PASS:
        pytest.fail(f"{name}: {result.verdict} in {result.case}: {result.text}", pytrace=False)


def _asked(config: pytest.Config) -> list[str]:
    return list(dict.fromkeys([*config.getoption("--refimpl-backend"), *config.getoption("--refimpl-require-backend")]))


def _suite_tests(metafunc: pytest.Metafunc) -> None:
    from refimpl.conformance.doors.backend import BackendDoor

    config = metafunc.config
    if not _asked(config):
        raise pytest.Collector.CollectError(
            "refimpl.conformance: name what to test, with --refimpl-backend NAME or module:attribute"
        )
    loaded, cases = config.stash[LOADED], _chosen(_choices((), config))
    pairs, names = [], []
    for name, backend in loaded.items():
        door = BackendDoor(backend, config.getoption("--refimpl-device"))
        pairs += [(door, case) for case in cases]
        names += [case.id if len(loaded) == 1 else f"{name}-{case.id}" for case in cases]
        required = {name, backend.name} & set(config.getoption("--refimpl-require-backend"))
        if required and not any(_supported(door, case, config) for case in cases):
            raise pytest.Collector.CollectError(f"refimpl.conformance: the required backend {name} supports no case")
    metafunc.parametrize(SUITE_FIXTURES, pairs, ids=names)


def _supported(door: BackendDoor, case: Case, config: pytest.Config) -> bool:
    from refimpl import backend as backends

    return backends.supported(door.backend, case.spec, config.getoption("--refimpl-dtype"), door.device) is True


def _choices(markers: Iterable[pytest.Mark], config: pytest.Config) -> dict[str, Any]:
    """What the markers say, the closest first, each argument for itself."""
    chosen: dict[str, Any] = {}
    for marker in markers:
        unknown = [name for name in marker.kwargs if name not in CHOICES]
        if unknown or marker.args:
            raise pytest.Collector.CollectError(
                f"the marker refimpl takes {', '.join(CHOICES)} by name; got {(unknown or ['a position'])[0]}"
            )
        for name, value in marker.kwargs.items():
            _check_choice(name, value)
        chosen = {**marker.kwargs, **chosen}
    nothing = {"flags": None, "activations": None, "losses": None, "dtype": config.getoption("--refimpl-dtype")}
    return {**nothing, **chosen}


def _check_choice(name: str, value: Any) -> None:
    from refimpl.network.arithmetic import ARITHMETICS

    if name == "dtype":
        right, wanted = isinstance(value, str) and value in ARITHMETICS, f"one of {', '.join(ARITHMETICS)}"
    else:
        right = isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, str) for item in value)
        wanted = "a list of names"
    if not right:
        raise pytest.Collector.CollectError(f"the marker refimpl: {name} must be {wanted}, got {value!r}")


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
        raise pytest.Collector.CollectError(
            "the marker refimpl chooses no case; `refimpl vectors list` shows them with their flags"
        )
    return cases
