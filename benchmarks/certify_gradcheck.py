"""How many times faster `certify` is than `torch.autograd.gradcheck` on 784-128-64-10 with 64 samples, float64.

gradcheck perturbs every parameter, twice: it is timed on the gradients of b1, b2 and b3, as many calls of the network
as they have numbers, and extrapolated to all parameters, which understates it (a larger input is copied for every
call). Run by `make certify-gradcheck`.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from rich.progress import track

from refimpl import certify
from refimpl.benchmark.groups import MNIST, Group
from refimpl_torch.placed import loss_of

PERTURBED = ("b1", "b2", "b3")


def gradcheck_seconds(params: dict[str, Any], x: Any, y: Any) -> float:
    """Of gradcheck on the perturbed parameters alone."""
    tensors = {name: torch.tensor(array, requires_grad=name in PERTURBED) for name, array in params.items()}
    x, y = torch.tensor(x), torch.tensor(y)

    def loss(*perturbed: torch.Tensor) -> torch.Tensor:
        return loss_of(MNIST, {**tensors, **dict(zip(PERTURBED, perturbed, strict=True))}, x, y)

    start = time.perf_counter()
    assert torch.autograd.gradcheck(loss, tuple(tensors[name] for name in PERTURBED))
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns and print the ratio."""
    torch.set_num_threads(1)
    params, x, y = Group(MNIST, 64, "float64").data()
    certified, checked = [], []
    for _ in track(range(5), "certify and gradcheck"):
        start = time.perf_counter()
        certify(MNIST, params, x, y)
        certified.append(time.perf_counter() - start)
        checked.append(gradcheck_seconds(params, x, y))
    part = sum(params[name].size for name in PERTURBED)
    one, other = statistics.median(certified), statistics.median(checked)
    whole = other * MNIST.n_parameters / part
    print(f"certify: {one:.3f} s (median of {len(certified)})")
    print(f"gradcheck of {', '.join(PERTURBED)}, {part} of {MNIST.n_parameters:,} parameters: {other:.3f} s")
    print(f"gradcheck of all, extrapolated: {whole:.0f} s, {whole / one:.0f} times as long as certify")


if __name__ == "__main__":
    main()
