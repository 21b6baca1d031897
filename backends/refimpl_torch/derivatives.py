"""Functions of tensors, differentiated by `torch.autograd`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from refimpl.backend import Cotangent, Derivatives, Numbers, outputs_of, overwritten


def numbers(array: Any) -> Numbers:
    """A tensor's numbers, copied; real ones as float64."""
    if not isinstance(array, Tensor):
        array = torch.as_tensor(array)
    own = array.detach().resolve_conj().resolve_neg()
    wide = own.to(torch.float64) if own.is_floating_point() else own
    name = str(array.dtype).removeprefix("torch.")
    return Numbers(wide.cpu().numpy().copy(), name, str(array.device), array.requires_grad)


def arithmetic(dtype: str, device: str) -> str:
    """IEEE's, and of formats of 16 bits every operation's result rounded."""
    return dtype


def differentiate(
    function: Callable[..., Any], inputs: Sequence[Any], wrt: Sequence[int], cotangent: Cotangent
) -> Derivatives:
    """By `torch.autograd.grad`; what an output does not depend on has no gradient."""
    given = [_copied(value, place in wrt) for place, value in enumerate(inputs)]
    with torch.enable_grad():
        outputs = outputs_of(function(*given), "a tensor or a tuple of tensors")
        live = [(i, one) for i, one in enumerate(outputs) if isinstance(one, Tensor) and one.requires_grad]
        cotangents = [torch.as_tensor(cotangent(i, tuple(one.shape))).to(one) for i, one in live]
        leaves = [given[place] for place in wrt]
        found = (
            torch.autograd.grad([one for _, one in live], leaves, cotangents, allow_unused=True)
            if live
            else [None for _ in leaves]
        )
    return Derivatives(
        [numbers(one) for one in outputs],
        [None if one is None else numbers(one) for one in found],
        overwritten(numbers, inputs, given),
    )


def _copied(value: Any, differentiated: bool) -> Any:
    """A tensor with its strides, in a memory of its own; in a plain one where elements lie over one another."""
    if not isinstance(value, Tensor):
        return value
    if any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.size(), strict=True)):
        copy = value.detach().clone()
    else:
        copy = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device)
        copy.copy_(value.detach())
    return copy.requires_grad_(differentiated)
