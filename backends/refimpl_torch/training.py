"""A network trained by PyTorch: autograd's gradients, and the update rules over tensors on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refimpl import NetworkSpec
from refimpl.backend import DIVERGED, Leg, Limits, UpdateRule, reached
from refimpl_torch.arrays import array, named, tensor
from refimpl_torch.network import forward
from refimpl_torch.placed import loss_of

Array = NDArray[Any]


class Training:
    """A `refimpl.backend.Trainer` on a device."""

    def __init__(
        self,
        spec: NetworkSpec,
        state: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        rule: UpdateRule,
        modes: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.spec, self.x, self.y, self.rule, self.modes = spec, x, y, rule, modes
        self.names = tuple(spec.parameter_shapes)
        self.values = tuple(state[name].requires_grad_() for name in self.names)
        self.good = self.values
        self.buffers = [tuple(state[f"{buffer}.{name}"] for buffer in rule.buffers) for name in self.names]
        self.entered = ExitStack()

    def __enter__(self) -> Training:
        self.entered.enter_context(self.modes())
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.entered.close()

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """As `Trainer.run`."""
        losses, norms, found = [], [], 0
        there = None if batches is None else torch.tensor(batches, device=self.x.device)
        self.good = self.values
        for index, row in enumerate(coefficients.tolist()):
            x, y = (self.x, self.y) if there is None else (self.x[there[index]], self.y[there[index]])
            loss, norm, gradients = self._gradients(x, y)
            losses.append(loss)
            norms.append(norm)
            found = reached(loss, norm, previous, limits)
            if found:
                break
            previous = loss
            self._update(gradients, row)
        if found & DIVERGED:
            self.revert()
        return Leg(np.array(losses), np.array(norms), found)

    def _gradients(self, x: Tensor, y: Tensor) -> tuple[float, float, tuple[Tensor, ...]]:
        loss = loss_of(self.spec, dict(zip(self.names, self.values, strict=True)), x, y)
        gradients = torch.autograd.grad(loss, self.values)
        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients]
        return loss.item(), torch.linalg.vector_norm(torch.stack(norms)).item(), gradients

    def _update(self, gradients: tuple[Tensor, ...], coefficients: list[float]) -> None:
        self.good = self.values
        moved = []
        with torch.no_grad():
            for index, (value, gradient) in enumerate(zip(self.values, gradients, strict=True)):
                new, self.buffers[index] = self.rule.update(value, gradient, self.buffers[index], coefficients)
                moved.append(new.requires_grad_())
        self.values = tuple(moved)

    def revert(self) -> None:
        """As `Trainer.revert`."""
        self.values = self.good

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """As `Trainer.measure`."""
        return self._gradients(tensor(x, self.x.device), tensor(y, self.x.device))[:2]

    def outputs(self, x: Array) -> Array:
        """As `Trainer.outputs`."""
        with torch.no_grad():
            params = dict(zip(self.names, self.values, strict=True))
            return array(forward(self.spec, params, tensor(x, self.x.device)).a[-1])

    def state(self) -> dict[str, Array]:
        """As `Trainer.state`."""
        found = named(self.names, (value.detach().clone() for value in self.values))
        for index, buffer in enumerate(self.rule.buffers):
            kept = (buffers[index].clone() for buffers in self.buffers)
            found |= named((f"{buffer}.{name}" for name in self.names), kept)
        return found
