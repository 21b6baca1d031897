"""Backends by name: those that are installed, one at module:attribute, and one that is none."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from networks import BACKENDS, article

from refimpl import backend as backends
from refimpl import check
from refimpl.formats.errors import BackendError
from refimpl_numpy import NumpyBackend


def installed(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    entries = [EntryPoint(name, place, backends.GROUP) for name, place in places.items()]
    monkeypatch.setattr("refimpl.backend.registry.registered", lambda: entries)


def test_refimpls_own_come_first_and_the_one_without_a_framework_before_the_others() -> None:
    assert list(backends.available()) == ["numpy", *sorted(set(BACKENDS) - {"numpy"})]


def test_a_framework_that_is_not_installed_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: EntryPoint) -> Any:
        if self.name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
        return load(self)

    load = EntryPoint.load
    monkeypatch.setattr(EntryPoint, "load", absent)
    with pytest.raises(BackendError, match=r"No module named 'torch'; pip install 'refimpl\[torch\]'"):
        backends.load("torch")
    p = article()
    report = check(p.spec, p.params, p.x, p.y)
    assert "pip install 'refimpl[torch]'" in report.unavailable["torch"]
    assert {row.backend for row in report.rows} == {"numpy", "jax"}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_module:backend", "'mine' is not installed: .*no_such_module.*; install what no_such_module:backend"),
        ("refimpl_numpy:nothing", r"'mine' \(refimpl_numpy:nothing\) cannot be loaded: AttributeError"),
        ("refimpl.network:examples", "'mine' is a module without supports and gradient_function"),
    ],
)
def test_a_broken_plug_in_is_named_and_does_not_take_the_others_along(
    monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    installed(monkeypatch, numpy="refimpl_numpy:backend", mine=place)
    with pytest.raises(BackendError, match=message):
        backends.load("mine")
    assert backends.load("numpy").name == "numpy"


def test_two_backends_with_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [EntryPoint("mine", f"{place}:backend", backends.GROUP) for place in ("one", "two")]
    monkeypatch.setattr("refimpl.backend.registry.registered", lambda: two)
    with pytest.raises(BackendError, match="two backends are called 'mine': one:backend and two:backend"):
        backends.available()


def test_a_backend_may_be_a_class_and_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, mine="refimpl_numpy:NumpyBackend")
    for name in ("mine", "refimpl_numpy:NumpyBackend", "refimpl_numpy:backend"):
        assert isinstance(backends.load(name), NumpyBackend)
    for name in ("no_such_module:backend", "refimpl_numpy:nothing"):
        with pytest.raises(BackendError, match=f"'{name}'.* cannot be loaded") as refused:
            backends.load(name)
        assert "frozen" not in str(refused.value)


def test_an_unknown_name_is_answered_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="no backend 'tensorflow'; known are numpy, jax, torch"):
        backends.load("tensorflow")
    installed(monkeypatch)
    with pytest.raises(BackendError, match="known are none"):
        backends.load("numpy")


class Mine:
    """As little as a backend can be."""

    name = "mine"
    supports = gradient_function = print


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "the backend is a int without supports and gradient_function"),
        (Mine, "the class Mine; give an instance"),
        (type("Half", (Mine,), {"supports": None})(), "is a Half without supports"),
    ],
)
def test_what_is_no_backend_is_refused(given: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        backends.resolve(given)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(False, "no reason given"), (None, "no reason given"), ("float64 only", "float64 only"), (1, "1")],
)
def test_only_true_is_support_and_anything_else_the_reason(answer: Any, words: str) -> None:
    one = type("One", (Mine,), {"supports": lambda self, spec, dtype, device: answer})()
    with pytest.raises(BackendError, match=f"'mine' does not support this: {words}$"):
        backends.check_supported(one, article().spec, "float64", "cpu")


def test_a_backend_that_cannot_say_what_it_supports_supports_nothing() -> None:
    one = type("One", (Mine,), {"supports": lambda self: True})()
    with pytest.raises(BackendError, match="'mine' does not support this: supports raised TypeError"):
        backends.check_supported(one, article().spec, "float64", "cpu")
