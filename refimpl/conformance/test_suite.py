"""Collected by `pytest --pyargs refimpl.conformance`: every case of the suite, on the backends asked for."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.conformance.plugin import run_case


def test_case(refimpl_backend: Any, refimpl_suite_case: Any, pytestconfig: pytest.Config) -> None:
    run_case(refimpl_backend, refimpl_suite_case, pytestconfig)
