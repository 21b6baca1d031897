"""What needs a CUDA device: run by `make test-gpu` on a machine that has one, skipped elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from networks import BACKENDS, judge, network, problem, verdicts

import refimpl_torch
from refimpl import backend as backends
from refimpl import check, examples
from refimpl.benchmark.groups import MNIST, Group
from refimpl.conformance.doors.backend import BackendDoor
from refimpl.conformance.run import conform
from refimpl.conformance.vectors import Suite, load
from refimpl.judge.report import FAIL, PASS
from refimpl.network.random_problems import Problem
from refimpl_torch.placed import loss_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def usable(name: str, dtype: str = "float64") -> Any:
    backend = backends.load(name)
    reason = backend.supports(examples.article(), dtype=dtype, device="cuda")
    if reason is not True:
        pytest.skip(str(reason))
    return backend


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_backend_passes_on_the_gpu(name: str, dtype: str) -> None:
    door = BackendDoor(usable(name, dtype), "cuda")
    suite = load()
    part = Suite.of(suite.cases if name == "torch" else suite.cases[::16])
    wrong = [result for result in conform(door, part, dtype) if result.verdict == FAIL]
    assert wrong == []


@pytest.mark.parametrize("name", [*BACKENDS, pytest.param("refimpl_torch:compiled", marks=pytest.mark.compiled)])
def test_a_placed_network_is_right_on_the_gpu(name: str) -> None:
    backend: Any = usable(name)
    p = problem(examples.article(), 6)
    with backend.place(p.spec, p.params, p.x, p.y, device="cuda", learning_rate=0.1) as placed:
        for _ in range(3):
            assert set(verdicts(judge(p).judge_answer(name, placed.answer())).values()) == {PASS}
        before = placed.answer()[0]
        placed.wait(placed.descend(5))
        assert placed.answer()[0] < before


def test_a_captured_graph_leaves_the_parameters_as_they_were() -> None:
    p = problem(network([4, 3, 2], ["tanh", "identity"]), 5)
    with refimpl_torch.backend.place(p.spec, p.params, p.x, p.y, device="cuda", learning_rate=0.5) as placed:
        placed.descend(0)
        assert all((array == p.params[name]).all() for name, array in placed.parameters().items())


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def test_undeclared_tf32_fails(tf32: None) -> None:
    """The canary: a float32 gradient computed in TF32 is FAIL, and our backend's, which turns it off, is not."""
    params, x, y = Group(MNIST, 64, "float32").data()
    p = Problem(MNIST, params, x, y, 0, 0)
    tensors = {name: torch.tensor(array, device="cuda", requires_grad=True) for name, array in params.items()}
    loss = loss_of(MNIST, tensors, torch.tensor(x, device="cuda"), torch.tensor(y, device="cuda"))
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {name: tensor.grad.cpu().numpy() for name, tensor in tensors.items() if tensor.grad is not None}
    assert FAIL in verdicts(judge(p).judge_answer("TF32", (loss.item(), grads))).values()
    report = check(MNIST, params, x, y, backends=["torch"], device="cuda")
    assert FAIL not in {row.verdict for row in report.rows}
