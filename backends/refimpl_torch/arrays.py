"""NumPy's arrays as tensors, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def tensor(array: Array, device: Any) -> Tensor:
    """A copy: the caller's memory may be read-only, and must not be shared with a graph."""
    return torch.tensor(np.ascontiguousarray(array).reshape(array.shape), device=device)


def array(tensor: Tensor) -> Array:
    """The tensor's own memory, where that is the CPU's: nothing of PyTorch's may write to it any more."""
    return np.asarray(tensor.detach().cpu().numpy())


def named(names: Iterable[str], tensors: Iterable[Tensor]) -> dict[str, Array]:
    """Arrays by name."""
    return {name: array(each) for name, each in zip(names, tensors, strict=True)}
