"""What a good user writes in PyTorch: `nn.Sequential`, a loss module, `backward()`, and `torch.optim.SGD`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from refimpl import NetworkSpec
from refimpl.backend import InModes
from refimpl_peers.placed import Peer

ACTIVATIONS: dict[str, Any] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
LOSSES: dict[str, Any] = {
    "squared_error": lambda n: _Half(nn.MSELoss(reduction="sum"), n),
    "cross_entropy": lambda n: nn.CrossEntropyLoss(),
}


class _Half(nn.Module):
    def __init__(self, total: nn.Module, n: int) -> None:
        super().__init__()
        self.total, self.scale = total, 0.5 / n

    def forward(self, s: Any, y: Any) -> Any:
        return self.scale * self.total(s, y)


class TorchNN(Peer):
    """nn.Sequential + backward()."""

    name = "torch nn"
    activations, losses = frozenset(ACTIVATIONS), frozenset(LOSSES)

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        if device == "cuda" and not torch.cuda.is_available():
            return "this PyTorch sees no CUDA device"
        return super().supports(spec, dtype=dtype, device=device)

    def place(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, *, device: str, learning_rate: float
    ) -> PlacedNN:
        return PlacedNN(spec, params, x, y, device, learning_rate)


class PlacedNN(InModes):
    """The module, its optimiser and the batch on the device."""

    def __init__(
        self, spec: NetworkSpec, params: Mapping[str, Any], x: Any, y: Any, device: str, learning_rate: float
    ) -> None:
        dtype = torch.float64 if x.dtype == np.float64 else torch.float32
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):  # a layer draws its first values, which are not used
            for n_in, layer in zip(spec.sizes[:-1], spec.layers, strict=True):
                layers.append(nn.Linear(n_in, layer.size, bias=layer.bias, device=device, dtype=dtype))
                if layer.activation.name != "identity":
                    layers.append(ACTIVATIONS[layer.activation.name]())
        self.names = list(spec.parameter_shapes)
        self.network = nn.Sequential(*layers)
        with torch.no_grad():
            for name, parameter in zip(self.names, self.network.parameters(), strict=True):
                parameter.copy_(torch.as_tensor(np.array(params[name])))
        self.criterion = LOSSES[spec.loss.name](len(x))
        self.x = torch.as_tensor(np.array(x).reshape(len(x), -1), device=device)
        self.y = torch.as_tensor(np.array(y), device=device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=learning_rate)

    def loss(self) -> Any:
        with torch.no_grad():
            return self.criterion(self.network(self.x), self.y)

    def gradients(self) -> Any:
        self.optimizer.zero_grad()
        loss = self.criterion(self.network(self.x), self.y)
        loss.backward()
        return loss

    def descend(self, steps: int) -> Any:
        for _ in range(steps):
            self.gradients()
            self.optimizer.step()
        return self.network

    def wait(self, result: Any) -> None:
        if self.x.is_cuda:
            torch.cuda.synchronize()

    def answer(self) -> tuple[float, dict[str, Any]]:
        loss = self.gradients().item()
        return loss, self._named(parameter.grad for parameter in self.network.parameters())

    def parameters(self) -> dict[str, Any]:
        return self._named(self.network.parameters())

    def _named(self, tensors: Iterable[Any]) -> dict[str, Any]:
        return {name: np.array(each.detach().cpu().numpy()) for name, each in zip(self.names, tensors, strict=True)}


backend = TorchNN()
