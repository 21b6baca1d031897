"""Right implementations by frameworks, in modes that the backends do not use: per-sample gradients by torch.func,
forward mode by JAX, HIPS autograd. `FRAMEWORKS` lists them, as `RIGHT` in `right_implementations.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import torch
from right_implementations import NUMPY, Answer, Right, count, targets

from refimpl.network.random_problems import Problem
from refimpl.network.spec import NetworkSpec
from refimpl_jax.network import cost as jax_cost
from refimpl_jax.network import forward as jax_forward
from refimpl_torch.network import cost as torch_cost
from refimpl_torch.network import forward as torch_forward


def per_sample(problem: Problem) -> Answer:
    """torch.func: vmap of the gradient of one sample's loss, summed."""
    spec = problem.spec
    summed = NetworkSpec(spec.input_shape, spec.layers, spec.loss, "sum")

    def loss(params: Any, x: Any, y: Any) -> Any:
        return torch_cost(summed, torch_forward(summed, params, x[None]).a[-1], y[None])

    params = {name: torch.tensor(array) for name, array in problem.params.items()}
    y = torch.tensor(targets(problem, problem.x.dtype))
    each = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(None, 0, 0))
    grads, losses = each(params, torch.tensor(problem.x), y)
    n = len(problem.x) if spec.reduction == "mean" else 1
    return (losses.sum() / n).numpy(), {name: (grad.sum(0) / n).numpy() for name, grad in grads.items()}


@lru_cache(maxsize=1)
def _forward_mode(spec: NetworkSpec) -> Callable[..., Any]:
    def loss(params: Any, x: Any, y: Any) -> Any:
        found = jax_cost(spec, jax_forward(spec, params, x).a[-1], y)
        return found, found

    return jax.jit(jax.jacfwd(loss, has_aux=True))


def forward_mode(problem: Problem) -> Answer:
    """jax.jacfwd: a tangent for each parameter."""
    with jax.enable_x64(problem.x.dtype == np.float64), jax.default_matmul_precision("highest"):
        y = targets(problem, problem.x.dtype)
        grads, loss = _forward_mode(problem.spec)(problem.params, problem.x, y)
        return np.array(loss), {name: np.array(grad) for name, grad in grads.items()}


def hips(problem: Problem) -> Answer:
    """HIPS autograd, of the forward pass that the benchmarks have."""
    import autograd
    import autograd.numpy as anp

    from refimpl_peers.hips_autograd import ACTIVATIONS, LOSSES

    spec, y = problem.spec, targets(problem, problem.x.dtype)
    averages = y.shape[1] if spec.loss.name == "mean_squared_error" else 1  # which that loss divides by itself

    def loss(params: Any) -> Any:
        a: Any = problem.x.reshape(len(problem.x), -1)
        for layer, own in zip(spec.layers, spec.by_layer(params), strict=True):
            z = anp.dot(a, own["W"].T)
            z = z + own["b"] if layer.bias else z
            a = ACTIVATIONS[layer.activation.name](z, **layer.activation.kwargs)
        return anp.sum(LOSSES[spec.loss.name](a, y, **spec.loss.kwargs)) / (count(problem) // averages)

    value, grads = autograd.value_and_grad(loss)(dict(problem.params))
    return value, {name: grad.astype(problem.x.dtype) for name, grad in grads.items()}


FRAMEWORKS = (
    Right("torch.func, per sample", per_sample),
    Right("jax.jacfwd", forward_mode, small=True, forward=True, flushes=True),
    Right("HIPS autograd", hips, needs="autograd"),
)
RIGHT = NUMPY + FRAMEWORKS
