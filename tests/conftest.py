"""What every test stands under: nothing global may be left changed, and random tests replay from a printed seed."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import flint
import hypothesis
import numpy as np
import pytest
import rich.style  # noqa: F401  draws random numbers when it is first imported, which is no test's doing

EXAMPLES = int(os.environ.get("REFIMPL_TEST_EXAMPLES", "15"))  # of a property; `make test-all` draws more
hypothesis.settings.register_profile(
    "refimpl", max_examples=EXAMPLES, deadline=None, print_blob=True, derandomize=True, database=None
)
hypothesis.settings.load_profile("refimpl")


def _torch_state(torch: Any) -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "TF32": torch.backends.cuda.matmul.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random state": torch.get_rng_state().numpy().tobytes(),
    }


def _jax_state(jax: Any) -> dict[str, Any]:
    names = (
        "jax_enable_x64",
        "jax_default_matmul_precision",
        "jax_default_device",
        "jax_disable_jit",
        "jax_debug_nans",
        "jax_numpy_dtype_promotion",
    )
    return {name: getattr(jax.config, name) for name in names}


def _numpy_state(name: str, keys: Any, *rest: Any) -> tuple[Any, ...]:
    return name, keys.tobytes(), *rest


def global_state() -> dict[str, Any]:
    """All the state that a library could leave changed. torch and jax only once they are imported."""
    state: dict[str, Any] = {
        "numpy errors": np.geterr(),
        "numpy random": _numpy_state(*np.random.get_state()),
        "random": hash(random.getstate()),
        "flint precision": (flint.ctx.prec, flint.ctx.cap, flint.ctx.dps),
        "working folder": os.getcwd(),
    }
    if "torch" in sys.modules:
        state["torch"] = _torch_state(sys.modules["torch"])
    if "jax" in sys.modules:
        state["jax"] = _jax_state(sys.modules["jax"])
    return state


@pytest.fixture(autouse=True)
def nothing_global_is_left_changed() -> Iterator[None]:
    before = global_state()
    yield
    after = global_state()
    assert {name: after[name] for name in before} == before


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for this test, the same in every run but where REFIMPL_TEST_SEED gives another; printed when the
    test fails.
    """
    chosen = int(os.environ.get("REFIMPL_TEST_SEED", "20261123"))
    print(f"replay with REFIMPL_TEST_SEED={chosen} pytest '{request.node.nodeid}'")
    return chosen


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
