"""A network as `torch.nn.Sequential`, and back: equal weights, the same function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from refimpl import Function, LayerSpec, NetworkSpec, SpecError

Array = NDArray[Any]
# where PyTorch's softplus goes over to the identity: from here on log(1 + eᶻ) rounds to z
LINEAR_FROM = 40.0

MODULES: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "softplus": lambda: nn.Softplus(threshold=LINEAR_FROM),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "softsign": nn.Softsign,
    "softmax": lambda: nn.Softmax(dim=-1),
}


def to_sequential(spec: NetworkSpec, params: Mapping[str, Array]) -> nn.Sequential:
    """The network as a module over copies of `params`: (N, *input_shape) → (N, n_out). The loss is not part of it."""
    modules: list[nn.Module] = []
    if len(spec.input_shape) != 1:
        modules.append(nn.Flatten() if spec.input_shape else nn.Unflatten(0, (-1, 1)))
    for layer, own in zip(spec.layers, spec.by_layer(params), strict=True):
        W = torch.tensor(own["W"])
        # without initial values, which are drawn from the global generator
        linear = nn.utils.skip_init(nn.Linear, W.shape[1], layer.size, layer.bias, dtype=W.dtype)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            linear.weight.copy_(W)
            if layer.bias:
                linear.bias.copy_(torch.tensor(own["b"]))
        modules.append(linear)
        if layer.activation.name != "identity":
            modules.append(MODULES[layer.activation.name](**layer.activation.kwargs))
    return nn.Sequential(*modules)


def from_sequential(
    module: nn.Sequential, loss: str | Mapping[str, Any], input_shape: Sequence[int] | None = None, **options: Any
) -> tuple[NetworkSpec, dict[str, Array]]:
    """The spec and the parameters of a module of Linear layers, each followed by at most one activation.

    `loss` is the spec's; `input_shape` that of a sample, by default the first layer's inputs; `options` go to
    `NetworkSpec` (reduction, name). Raises SpecError for a module that no spec describes.
    """
    parts = [part for part in module if not isinstance(part, nn.Flatten | nn.Unflatten | nn.Identity)]
    layers: list[LayerSpec] = []
    arrays: list[dict[str, Array]] = []
    inputs: list[int] = []
    for part, after in zip(parts, [*parts, None][1:], strict=True):
        if isinstance(part, nn.Linear):
            activation = Function("identity") if after is None or isinstance(after, nn.Linear) else _activation(after)
            layers.append(LayerSpec(part.out_features, activation, part.bias is not None))
            inputs.append(part.in_features)
            held = {"W": part.weight} if part.bias is None else {"W": part.weight, "b": part.bias}
            arrays.append({role: _numpy(tensor) for role, tensor in held.items()})
        elif (after is not None and not isinstance(after, nn.Linear)) or not layers:
            raise SpecError(f"{type(part).__name__} stands where a Linear layer must; a layer has one activation")
    if not layers:
        raise SpecError("the module has no Linear layer")
    spec = NetworkSpec(inputs[:1] if input_shape is None else input_shape, layers, loss, **options)
    wanted = [spec.n_in, *(layer.size for layer in layers[:-1])]
    if inputs != wanted:
        raise SpecError(f"the Linear layers take {inputs} inputs, where the layers before them give {wanted}")
    return spec, spec.by_name(arrays)


def _activation(module: nn.Module) -> Function:
    """The activation that a module is, with its parameters."""
    match module:
        case nn.LeakyReLU():
            return Function("leaky_relu", (("negative_slope", float(module.negative_slope)),))
        case nn.ELU():
            return Function("elu", (("alpha", float(module.alpha)),))
        case nn.GELU():
            return Function("gelu" if module.approximate == "none" else "gelu_tanh")
        case nn.Softplus():
            if module.beta != 1:
                raise SpecError(f"Softplus with beta {module.beta} is no activation of the catalogue; use beta 1")
            return Function("softplus")
        case nn.Softmax():
            if module.dim not in (-1, 1):
                raise SpecError(f"Softmax over the dimension {module.dim}; a layer's is over the last")
            return Function("softmax")
    for name in ("relu", "selu", "sigmoid", "tanh", "silu", "softsign"):
        if type(module) is MODULES[name]:
            return Function(name)
    raise SpecError(f"{type(module).__name__} is no activation of the catalogue; known are {', '.join(MODULES)}")


def _numpy(tensor: torch.Tensor) -> Array:
    return np.array(tensor.detach().cpu().numpy())
