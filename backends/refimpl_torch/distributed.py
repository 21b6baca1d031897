"""Data-parallel gradients and training over the processes of `torch.distributed`, which torchrun begins:

    torchrun --nproc-per-node 2 -m refimpl check --backend refimpl_torch.distributed:backend
    torchrun --nproc-per-node 2 -m refimpl train … --backend refimpl_torch.distributed:backend

Every process is given the whole batch, differentiates the loss of its own share of the rows, and adds its gradients
to the others'. Shares differ by at most one row, and may be empty. gloo on the CPU, nccl on CUDA devices.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from refimpl import BackendError, NetworkSpec
from refimpl.backend import ForwardFunction, GradientFunction, UpdateRule
from refimpl_torch import TorchBackend, _autograd, _leaves
from refimpl_torch.arrays import named, tensor
from refimpl_torch.placed import loss_of
from refimpl_torch.training import Training

Array = NDArray[Any]
PATIENCE = timedelta(seconds=20)  # that a process waits for the others


def share(rows: int, rank: int, processes: int) -> slice:
    """The rows that a process takes."""
    return slice(rows * rank // processes, rows * (rank + 1) // processes)


def join(device: str) -> None:
    """Take part in the run that torchrun began. Raises BackendError where there is none, or nobody answers."""
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        raise BackendError("no distributed run; begin one with torchrun --nproc-per-node 2 -m refimpl …")
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"cannot join the distributed run: {_first_line(error)}") from None
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    atexit.register(dist.destroy_process_group)


def summed(parts: Sequence[Tensor]) -> list[Tensor]:
    """The sums over all processes, in one exchange. Raises BackendError where a process has died or hangs."""
    flat = torch.cat([part.detach().reshape(-1) for part in parts])
    try:
        dist.all_reduce(flat)
    except RuntimeError as error:
        raise BackendError(
            f"another process of the distributed run died or did not answer within {PATIENCE.seconds} s "
            f"({_first_line(error)}); begin it again, with --resume where it was training"
        ) from None
    pieces = flat.split([part.numel() for part in parts])  # type: ignore[no-untyped-call]
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "no message")[:120]


@dataclass(frozen=True)
class Shared:
    """The loss and the gradients of a network, summed over the processes."""

    spec: NetworkSpec

    def __call__(self, leaves: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The loss () and the gradients of `leaves`, in their order."""
        rows = share(len(x), dist.get_rank(), dist.get_world_size())
        total = NetworkSpec(self.spec.input_shape, self.spec.layers, self.spec.loss, "sum")
        values = list(leaves.values())
        parts = [torch.zeros((), dtype=x.dtype, device=x.device), *map(torch.zeros_like, values)]
        if rows.start < rows.stop:
            loss = loss_of(total, leaves, x[rows], y[rows])
            parts = [loss, *torch.autograd.grad(loss, values)]
        found = summed(parts)
        if self.spec.reduction == "mean":
            found = [part / len(x) for part in found]
        return found[0], found[1:]


class DistributedTraining(Training):
    """A `Trainer` whose gradients are summed over the processes; every process holds the same parameters."""

    def differentiated(self, leaves: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Each process its share."""
        return Shared(self.spec)(leaves, x, y)


class DistributedBackend:
    """Gradients by torch autograd, each process over its share of the rows."""

    name = "torch-distributed"
    single = TorchBackend()

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """As PyTorch's backend, in a process that torchrun began."""
        if "RANK" not in os.environ and not dist.is_initialized():
            return "not in a distributed run; begin one with torchrun --nproc-per-node 2 -m refimpl …"
        return self.single.supports(spec, dtype=dtype, device=device)

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b), the same in every process."""
        join(device)
        shared, place = Shared(spec), _place(device)

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            with _autograd(device):
                leaves = _leaves(spec, params, place)
                loss, found = shared(leaves, tensor(x, place), tensor(y, place))
                return loss.item(), named(leaves, found)

        return gradients

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> ForwardFunction:
        """(params, x) → the outputs (N, n_out), computed in every process."""
        return self.single.forward_function(spec, dtype=dtype, device=device)

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> DistributedTraining:
        """The network in training, over tensors of its own on the device."""
        join(device)
        return DistributedTraining(spec, state, x, y, rule, _place(device), partial(_autograd, device))


def _place(device: str) -> str:
    return f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device


backend = DistributedBackend()
