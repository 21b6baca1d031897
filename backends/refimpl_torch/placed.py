"""A network placed on PyTorch's device, run eagerly, compiled, or on a GPU from a captured graph.

`torch.compile` is given `torch.func.grad_and_value` of the loss, which is one graph without autograd's bookkeeping; a
CUDA graph replays the kernels of an eager call without launching them one by one. Neither derives anything else than
autograd does.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from refimpl import NetworkSpec
from refimpl.backend import InModes
from refimpl_torch.arrays import named
from refimpl_torch.functions import ACTIVATIONS, LOSSES
from refimpl_torch.network import cost, forward, targets

Array = NDArray[Any]
FEW = 2**12  # parameters: up to here dispatching costs more than copying them together
WARM_UP = 3  # eager calls before a capture, as PyTorch's notes on CUDA graphs ask
_NUMBERS = itertools.count(1)


def loss_of(spec: NetworkSpec, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The loss ()."""
    s = forward(spec, params, x).a[-1]
    return cost(spec, s, targets(spec, y, s.dtype))


class PlacedNetwork(InModes):
    """A network with parameters and a batch of its own on a device, ready to be run inside `with`.

    `values` are the parameters as the programs take them: one tensor each, or, compiled and few, all in one.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        params: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        learning_rate: float,
        modes: Callable[[], AbstractContextManager[None]],
        compiled: bool,
    ) -> None:
        self.spec, self.x, self.y, self.learning_rate, self.modes = spec, x, y, learning_rate, modes
        self.compiled = compiled
        self.flat = compiled and spec.n_parameters <= FEW
        leaves = tuple(params[name].requires_grad_(not compiled) for name in spec.parameter_shapes)
        self.values = (torch.cat([leaf.reshape(-1) for leaf in leaves]),) if self.flat else leaves
        self.prepared: dict[str, Callable[[], Any]] = {}

    def loss(self) -> Tensor:
        """The loss (), by the forward pass alone."""
        return (self.prepared.get("loss") or self._prepare("loss", self._compiled_loss, self._eager_loss))()

    def gradients(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss () and the gradients of `values`."""
        run = self.prepared.get("gradients")
        return run() if run else self._prepare("gradients", self._compiled_gradients, self._eager_gradients)()

    def descend(self, steps: int) -> tuple[Tensor, ...]:
        """`values` after `steps` more steps of gradient descent, all updated at once."""
        run = self.prepared.get("step") or self._prepare("step", self._compiled_step, self._eager_step)
        for _ in range(steps):
            run()
        return self.values

    def wait(self, result: Any) -> None:
        """Return when `result` has been computed."""
        if self.x.is_cuda:
            torch.cuda.synchronize()

    def answer(self) -> tuple[float, dict[str, Array]]:
        """`gradients` as numbers and NumPy arrays."""
        loss, gradients = self.gradients()
        there = self._named(gradients)
        return loss.item(), named(there, (gradient.clone() for gradient in there.values()))

    def parameters(self) -> dict[str, Array]:
        """The parameters as NumPy arrays."""
        there = self._named(self.values)
        return named(there, (value.clone() for value in there.values()))

    def _named(self, values: tuple[Tensor, ...]) -> dict[str, Tensor]:
        shapes = self.spec.parameter_shapes
        if self.flat:
            parts = values[0].split([math.prod(shape) for shape in shapes.values()])  # type: ignore[no-untyped-call]
            return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return dict(zip(shapes, values, strict=True))

    def _prepare(
        self, what: str, compiled: Callable[[], Callable[[], Any]], eager: Callable[[], Callable[[], Any]]
    ) -> Callable[[], Any]:
        run = compiled() if self.compiled else eager()
        if self.x.is_cuda and not self.compiled:
            run = _captured(run, self.values)
        self.prepared[what] = run
        return run

    # Eager, and on a GPU captured

    def _eager_forward(self) -> Callable[[], Tensor]:
        """The loss of the whole batch, summed. All that is looked up in the spec is looked up beforehand, which takes
        eager PyTorch longer than a small network's arithmetic.
        """
        spec, x = self.spec, self.x.reshape(len(self.x), self.spec.n_in)
        y = targets(spec, self.y, x.dtype)
        layers = [
            (own["W"], own.get("b"), _bound(ACTIVATIONS[layer.activation.name], layer.activation.kwargs))
            for layer, own in zip(spec.layers, spec.by_layer(self._named(self.values)), strict=True)
        ]
        total = _bound(LOSSES[spec.loss.name], spec.loss.kwargs)

        def run() -> Tensor:
            a = x
            for W, b, activation in layers:
                a = activation(linear(a, W, b))
            return total(a, y)

        return run

    def _eager_loss(self) -> Callable[[], Tensor]:
        forward, share = self._eager_forward(), self._share()

        def run() -> Tensor:
            with torch.no_grad():
                return forward() * share

        return run

    def _eager_gradients(self) -> Callable[[], tuple[Tensor, tuple[Tensor, ...]]]:
        forward, values, grad = self._eager_forward(), self.values, torch.autograd.grad
        share = self._share()  # what autograd multiplies back from

        def run() -> tuple[Tensor, tuple[Tensor, ...]]:
            total = forward()
            return total.detach() * share, grad(total, values, share)

        return run

    def _share(self) -> Tensor:
        """What the sum over the batch is multiplied by."""
        share = 1 / len(self.x) if self.spec.reduction == "mean" else 1.0
        return torch.tensor(share, dtype=self.x.dtype, device=self.x.device)

    def _eager_step(self) -> Callable[[], Any]:
        gradients, values, rate = self._eager_gradients(), self.values, self.learning_rate

        def run() -> None:
            _, found = gradients()
            with torch.no_grad():
                for value, gradient in zip(values, found, strict=True):
                    value.sub_(gradient, alpha=rate)

        return run

    # Compiled

    def _compile(self, function: Any) -> Callable[..., Any]:
        """`torch.compile` for this network alone, compiled now.

        PyTorch keeps its programs by code object, at most eight for one: this gets its own, and then needs no guards,
        for what it is called with never changes its form.
        """
        code = function.__code__.replace(co_name=f"{function.__code__.co_name}_{next(_NUMBERS)}")
        own = FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
        unguarded = getattr(torch.compiler, "skip_all_guards_unsafe", None)  # PyTorch 2.9
        options = {} if unguarded is None else {"options": {"guard_filter_fn": unguarded}}
        compiled: Any = torch.compile(own, fullgraph=True, dynamic=False, **options)  # type: ignore[call-overload]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of PyTorch's, about itself
            compiled(self.values, self.x, self.y)
        return compiled

    def _value_and_grad(self) -> Callable[..., tuple[tuple[Tensor, ...], Tensor]]:
        return torch.func.grad_and_value(lambda values, x, y: loss_of(self.spec, self._named(values), x, y))

    def _compiled_loss(self) -> Callable[[], Tensor]:
        compiled = self._compile(lambda values, x, y: loss_of(self.spec, self._named(values), x, y))
        return lambda: compiled(self.values, self.x, self.y)

    def _compiled_gradients(self) -> Callable[[], tuple[Tensor, tuple[Tensor, ...]]]:
        differentiated, x, y = self._value_and_grad(), self.x, self.y

        def gradients(values: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            found, loss = differentiated(values, x, y)
            return loss, found

        compiled = self._compile(gradients)
        return lambda: compiled(self.values, x, y)

    def _compiled_step(self) -> Callable[[], Any]:
        differentiated, x, y, rate = self._value_and_grad(), self.x, self.y, self.learning_rate

        def step(values: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            found, _ = differentiated(values, x, y)
            return tuple(value - rate * gradient for value, gradient in zip(values, found, strict=True))

        compiled = self._compile(step)

        def run() -> None:
            self.values = compiled(self.values, x, y)

        return run


def _captured(run: Callable[[], Any], values: tuple[Tensor, ...]) -> Callable[[], Any]:
    """What replays the kernels of `run`. The parameters are as before it was captured."""
    kept = [value.detach().clone() for value in values]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    with torch.no_grad():
        for value, before in zip(values, kept, strict=True):
            value.copy_(before)

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def _bound(function: Callable[..., Tensor], parameters: Mapping[str, float]) -> Callable[..., Tensor]:
    return partial(function, **parameters) if parameters else function
