"""The groups of `refimpl bench` under pytest-benchmark: one group a network, batch, dtype, device and quantity, one row
a contender. `make pytest-benchmark` runs them; `refimpl bench` measures the same in turns, with a process a group.

Every contender's gradient is checked before it is timed, inputs are placed before the clock starts, and every call is
waited for.
"""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.backend import supported
from refimpl.benchmark import contenders
from refimpl.benchmark.contenders import FLOOR
from refimpl.benchmark.groups import ARTICLE, DEEP, DIGITS, LEARNING_RATE, MNIST, Group
from refimpl.benchmark.measure import QUANTITIES, RUN_STEPS, Judged

GROUPS = [
    Group(ARTICLE, 1, "float64"),
    Group(ARTICLE, 32, "float64"),
    Group(DIGITS, 32, "float64"),
    Group(MNIST, 64, "float32"),
    Group(DEEP, 32, "float32"),
]


@pytest.fixture(scope="module", params=GROUPS, ids=lambda group: f"{group.spec.name}-{group.batch}-{group.dtype}")
def judged(request: pytest.FixtureRequest) -> Judged:
    return Judged(request.param)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", list(contenders.available()))
def test_benchmark(benchmark: Any, judged: Judged, name: str, quantity: str) -> None:
    group, contender = judged.group, contenders.find(name)
    reason = supported(contender, group.spec, group.dtype, group.device)
    if reason is not True:
        pytest.skip(str(reason))
    if name != FLOOR:
        judged.check(contender)
    params, x, y = group.data()
    benchmark.group = f"{group.name}: {quantity}"
    with contender.place(group.spec, params, x, y, device=group.device, learning_rate=LEARNING_RATE) as placed:
        calls: dict[str, Any] = {
            "forward": placed.loss,
            "gradients": placed.gradients,
            "step": lambda: placed.descend(1),
            "run": lambda: placed.descend(RUN_STEPS),
        }
        call, wait = calls[quantity], placed.wait
        wait(call())
        benchmark(lambda: wait(call()))
