"""A network trained by PyTorch: autograd's gradients, and the update rules over tensors on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from refimpl import NetworkSpec
from refimpl.backend import StepTrainer, UpdateRule
from refimpl_torch.arrays import array, tensor
from refimpl_torch.network import forward
from refimpl_torch.placed import loss_of

Array = NDArray[Any]


class Training(StepTrainer):
    """A `refimpl.backend.Trainer` on a device."""

    def __init__(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, rule: UpdateRule, device: str,
        modes: Callable[[], AbstractContextManager[None]],
    ) -> None:  # fmt: skip
        self.device, self.modes = device, modes
        there = {name: self.placed(each) for name, each in state.items()}
        super().__init__(spec, there, self.placed(x), self.placed(y), rule)

    def placed(self, array: Array) -> Tensor:
        """On the device."""
        return tensor(array, self.device)

    def fetched(self, array: Tensor) -> Array:
        """A copy."""
        return array.cpu().numpy().copy()

    def gradients(self, x: Tensor, y: Tensor) -> tuple[float, float, Mapping[str, Tensor]]:
        """By autograd."""
        leaves = {name: value.detach().requires_grad_() for name, value in self.params.items()}
        loss, gradients = self.differentiated(leaves, x, y)
        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        return loss.item(), norm.item(), dict(zip(leaves, gradients, strict=True))

    def differentiated(self, leaves: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss () and the gradients of `leaves`, in their order."""
        loss = loss_of(self.spec, leaves, x, y)
        return loss, torch.autograd.grad(loss, list(leaves.values()))

    def outputs(self, x: Array) -> Array:
        """As `Trainer.outputs`."""
        with torch.no_grad():
            return array(forward(self.spec, self.params, self.placed(x)).a[-1])
