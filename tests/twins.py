"""Definitions of `refimpl.xp`, each with what it is to PyTorch: functions that nobody wrote here, differentiated by
autograd. Between them they use every name that the module offers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

Function = Callable[..., Any]
MASK = np.arange(12).reshape(3, 4) % 3 != 1
PLACES = np.array([[0, 2, 2], [1, 0, 2]])
ROWS = np.array([[0, 3], [1, 1], [2, 0]])


@dataclass(frozen=True)
class Twin:
    """A definition and its twin, for inputs of these shapes, `positive` or of either sign. `sums`: whether PyTorch adds
    up in 16 bits what has 16.
    """

    definition: Function
    function: Function
    shapes: tuple[tuple[int, ...], ...] = ((3, 4),)
    positive: bool = False
    sums: bool = False

    def inputs(self, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Distinct numbers of magnitudes between ¼ and 2, no two at a kink."""
        rng = np.random.default_rng(seed)
        found = []
        for number, shape in enumerate(self.shapes):
            size = int(np.prod(shape))
            array = 0.25 + (1.75 * rng.permutation(size) + 0.2 * number) / max(size, 1)
            sign = 1.0 if self.positive else rng.choice([-1.0, 1.0], size)
            found.append(torch.tensor((array * sign).reshape(shape), dtype=dtype))
        return tuple(found)


def _causal(n: int) -> np.ndarray:
    return np.tril(np.ones((n, n), dtype=bool))


def _attention(xp: Any, q: Any, k: Any, v: Any) -> Any:
    scores = xp.einsum("hqd,hkd->hqk", q, k) / xp.sqrt(q.shape[-1])
    return xp.matmul(xp.softmax(scores, mask=_causal(q.shape[1])), v)


TWO = ((3, 4), (3, 4))
TWINS: dict[str, Twin] = {
    "add": Twin(lambda xp, a, b: xp.add(a, b) + 1.5, lambda a, b: a + b + 1.5, ((3, 4), (4,))),
    "subtract": Twin(lambda xp, a, b: 2 - xp.subtract(a, b), lambda a, b: 2 - (a - b), ((3, 4), (3, 1))),
    "multiply": Twin(lambda xp, a, b: xp.multiply(a, b) * 0.3 * xp.ones(4), lambda a, b: a * b * 0.3, TWO),
    "divide": Twin(lambda xp, a, b: xp.divide(a, b) / 3 + 1 / a, lambda a, b: a / b / 3 + 1 / a, TWO),
    "negative": Twin(lambda xp, a: xp.negative(a) - +a, lambda a: -2 * a),
    "pow": Twin(lambda xp, a: xp.pow(a, 3) + a**2 + a**-1, lambda a: a**3 + a**2 + a**-1),
    "broken pow": Twin(lambda xp, a: a**0.75 + xp.pow(a, -1.5), lambda a: a**0.75 + a**-1.5, positive=True),
    "square": Twin(lambda xp, a: xp.square(a), torch.square),
    "exp": Twin(lambda xp, a: xp.exp(a), torch.exp),
    "expm1": Twin(lambda xp, a: xp.expm1(a), torch.expm1),
    "log": Twin(lambda xp, a: xp.log(a), torch.log, positive=True),
    "log1p": Twin(lambda xp, a: xp.log1p(a), torch.log1p, positive=True),
    "sqrt": Twin(lambda xp, a: xp.sqrt(a), torch.sqrt, positive=True),
    "rsqrt": Twin(lambda xp, a: xp.rsqrt(a), torch.rsqrt, positive=True),
    "sin and cos": Twin(lambda xp, a: xp.sin(a) * xp.cos(3 * a), lambda a: torch.sin(a) * torch.cos(3 * a)),
    "erf": Twin(lambda xp, a: xp.erf(a), torch.erf),
    "abs": Twin(lambda xp, a: xp.abs(a) + abs(a), lambda a: 2 * a.abs()),
    "sign": Twin(lambda xp, a: xp.sign(a) * a, lambda a: a.sign() * a),
    "relu": Twin(lambda xp, a: xp.relu(a), F.relu),
    "leaky_relu": Twin(lambda xp, a: xp.leaky_relu(a, negative_slope=0.2), lambda a: F.leaky_relu(a, 0.2)),
    "elu": Twin(lambda xp, a: xp.elu(a), F.elu),
    "selu": Twin(lambda xp, a: xp.selu(a), F.selu),
    "gelu": Twin(lambda xp, a: xp.gelu(a), F.gelu),
    "gelu_tanh": Twin(lambda xp, a: xp.gelu_tanh(a), lambda a: F.gelu(a, approximate="tanh")),
    "silu": Twin(lambda xp, a: xp.silu(a), F.silu),
    "softplus": Twin(lambda xp, a: xp.softplus(a), F.softplus),
    "softsign": Twin(lambda xp, a: xp.softsign(a), F.softsign),
    "sigmoid": Twin(lambda xp, a: xp.sigmoid(a), torch.sigmoid),
    "tanh": Twin(lambda xp, a: xp.tanh(a), torch.tanh),
    "where a mask holds": Twin(
        lambda xp, a, b: xp.where(MASK, a, b), lambda a, b: torch.where(torch.tensor(MASK), a, b), TWO
    ),
    "where it is greater": Twin(
        lambda xp, a, b: xp.where(xp.logical_and(xp.greater(a, b), a >= 0.5), a * b, -a),
        lambda a, b: torch.where((a > b) & (a >= 0.5), a * b, -a),
        TWO,
    ),
    "where it is less": Twin(
        lambda xp, a, b: xp.where(xp.logical_or(xp.less(a, b), xp.logical_not(a <= 1)), a, b * b),
        lambda a, b: torch.where((a < b) | ~(a <= 1), a, b * b),
        TWO,
    ),
    "where it is equal": Twin(
        lambda xp, a, b: xp.where(xp.equal(a, b), a, b) + xp.where(xp.not_equal(a, b), a, b),
        lambda a, b: torch.where(a == b, a, b) + torch.where(a != b, a, b),
        TWO,
    ),
    "compared with itself": Twin(
        lambda xp, a: xp.where(xp.greater_equal(a, a), a, 2 * a) + xp.where(xp.less_equal(a, a), a, 2 * a),
        lambda a: torch.where(a >= a, a, 2 * a) + torch.where(a <= a, a, 2 * a),
    ),
    "maximum": Twin(lambda xp, a, b: xp.maximum(a, b) * xp.maximum(a, a), lambda a, b: torch.maximum(a, b) * a, TWO),
    "minimum": Twin(lambda xp, a, b: xp.minimum(a, b), torch.minimum, TWO),
    "clip": Twin(lambda xp, a: xp.clip(a, -1, 1) + xp.clip(a, max=1.5), lambda a: a.clamp(-1, 1) + a.clamp(max=1.5)),
    "sum": Twin(lambda xp, a: a * xp.sum(a, axis=0) + a.sum(), lambda a: a * a.sum(0) + a.sum()),
    "mean": Twin(lambda xp, a: a * xp.mean(a, axis=(0, -1), keepdims=True) + a.mean(), lambda a: (a + 1) * a.mean()),
    "max": Twin(lambda xp, a: xp.max(a, axis=1) + a.max(), lambda a: a.amax(1) + a.max()),
    "min": Twin(lambda xp, a: xp.min(a, axis=0), lambda a: a.amin(0)),
    "var": Twin(lambda xp, a: xp.var(a, axis=1, correction=1), lambda a: a.var(1)),
    "std": Twin(lambda xp, a: xp.std(a), lambda a: a.std(correction=0)),
    "cumulative_sum": Twin(lambda xp, a: xp.cumulative_sum(a, axis=0), lambda a: a.cumsum(0)),
    "softmax": Twin(lambda xp, a: xp.softmax(a, axis=0), lambda a: a.softmax(0)),
    "log_softmax": Twin(lambda xp, a: xp.log_softmax(a), lambda a: a.log_softmax(-1)),
    "logsumexp": Twin(lambda xp, a: xp.logsumexp(a, axis=0), lambda a: a.logsumexp(0)),
    "layer norm": Twin(lambda xp, a: xp.standardise(a, 1e-5), lambda a: F.layer_norm(a, (4,), eps=1e-5)),
    "batch norm": Twin(
        lambda xp, a: xp.standardise(a, 1e-5, axis=(0, 2)),
        lambda a: F.batch_norm(a, None, None, training=True, eps=1e-5),
        ((3, 2, 4),),
    ),
    "RMS norm": Twin(lambda xp, a: xp.standardise(a, 1e-6, centred=False), lambda a: F.rms_norm(a, (4,), eps=1e-6)),
    "matmul": Twin(lambda xp, a, b: xp.matmul(a, b) + a @ b, lambda a, b: 2 * a @ b, ((3, 4), (4, 2))),
    "matmul of stacks": Twin(lambda xp, a, b: a @ b, torch.matmul, ((2, 1, 3, 4), (5, 4, 2))),
    "matmul of a vector": Twin(lambda xp, a, b: a @ b, torch.matmul, ((2, 3, 4), (4,))),
    "a vector times a stack": Twin(lambda xp, a, b: a @ b, torch.matmul, ((4,), (2, 4, 3))),
    "matmul with what is known": Twin(
        lambda xp, a: xp.full((2, 3), 0.25) @ a, lambda a: torch.full((2, 3), 0.25, dtype=a.dtype) @ a
    ),
    "vecdot": Twin(lambda xp, a, b: xp.vecdot(a, b), lambda a, b: (a * b).sum(-1), TWO),
    "einsum": Twin(
        lambda xp, a, b, c: xp.einsum("ijk,kl,jl->il", a, b, c),
        lambda a, b, c: torch.einsum("ijk,kl,jl->il", a, b, c),
        ((2, 3, 4), (4, 2), (3, 2)),
    ),
    "einsum of a diagonal": Twin(lambda xp, a: xp.einsum("ii->i", a), torch.diagonal, ((4, 4),)),
    "einsum of sums": Twin(
        lambda xp, a, b: xp.einsum("ij,kl->lj", a, b), lambda a, b: torch.einsum("ij,kl->lj", a, b), ((2, 3), (2, 4))
    ),
    "reshape": Twin(lambda xp, a: xp.reshape(a, (2, -1)) + a.reshape(2, 6), lambda a: 2 * a.reshape(2, 6)),
    "transposes": Twin(
        lambda xp, a: xp.permute_dims(a, (2, 0, 1)) * xp.moveaxis(xp.matrix_transpose(a), 1, 0) + a.mT[0, :1].T,
        lambda a: a.permute(2, 0, 1) * a.mT.movedim(1, 0) + a.mT[0, :1].mT,
        ((3, 3, 3),),
    ),
    "broadcast_to": Twin(lambda xp, a: xp.broadcast_to(a, (2, 3, 4)), lambda a: a.expand(2, 3, 4)),
    "flip": Twin(lambda xp, a: xp.flip(a, axis=1) * a, lambda a: a.flip(1) * a),
    "roll": Twin(lambda xp, a: xp.roll(a, 1, axis=0) * a, lambda a: a.roll(1, 0) * a),
    "repeat": Twin(lambda xp, a: xp.repeat(a, 2, axis=1), lambda a: a.repeat_interleave(2, 1)),
    "tile": Twin(lambda xp, a: xp.tile(a, (2, 1)), lambda a: a.repeat(2, 1)),
    "take": Twin(lambda xp, a: xp.take(a, PLACES, axis=0), lambda a: F.embedding(torch.tensor(PLACES), a), sums=True),
    "take_along_axis": Twin(
        lambda xp, a: xp.take_along_axis(a, ROWS, axis=1), lambda a: a.gather(1, torch.tensor(ROWS))
    ),
    "indices": Twin(lambda xp, a: a[1:, None, ::2], lambda a: a[1:, None, ::2]),
    "new axes": Twin(
        lambda xp, a: xp.squeeze(xp.expand_dims(a, 1), 1) * xp.expand_dims(a, -1)[..., 0], lambda a: a * a
    ),
    "pad": Twin(lambda xp, a: xp.pad(a, ((1, 0), (0, 2))), lambda a: F.pad(a, (0, 2, 1, 0))),
    "triangles": Twin(lambda xp, a: xp.tril(a) + 2 * xp.triu(a, k=1), lambda a: a.tril() + 2 * a.triu(1)),
    "concat": Twin(lambda xp, a, b: xp.concat([a, b, a], axis=1), lambda a, b: torch.cat([a, b, a], 1), TWO),
    "stack": Twin(
        lambda xp, a, b: xp.stack([a, xp.zeros((3, 4)), b], axis=1),
        lambda a, b: torch.stack([a, torch.zeros_like(a), b], 1),
        TWO,
    ),
    "unstack": Twin(
        lambda xp, a: tuple(row * row for row in xp.unstack(a)), lambda a: tuple(row * row for row in a.unbind())
    ),
    "what is known": Twin(
        lambda xp, a: a * xp.arange(4) + xp.asarray([xp.pi] * 4) * xp.ones_like(a) + xp.zeros_like(a),
        lambda a: a * torch.arange(4) + torch.pi,
    ),
    "attention": Twin(
        _attention, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), ((2, 5, 4),) * 3
    ),
}
