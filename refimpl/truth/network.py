"""The fully connected network as a graph: what its layers and losses are, and nothing of their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from refimpl.network.documents import Function
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.spec import NetworkSpec
from refimpl.truth.elementwise import ABSOLUTE, LOGARITHM, LOGISTIC, SQUARE, activation, huber
from refimpl.truth.graph import Node, about, apply, constant, contract, given, log_sum_exp, scale, select, softmax

Real = NDArray[np.float64]
Definition = Callable[[Node, Real, Mapping[str, float]], Node]


@dataclass(frozen=True)
class NetworkGraph:
    """The loss of a network on N samples. `inputs`: the nodes of the parameters and of x (N, n_in), by name; `values`:
    those of z2, a2, z3 …, each (N, n); `places`: what the argument of a function with kinks is called.
    """

    loss: Node
    inputs: dict[str, Node]
    values: dict[str, Node]
    places: dict[Node, str]


def network_graph(spec: NetworkSpec, y: Real) -> NetworkGraph:
    """The graph of a spec for targets y (N, n_out)."""
    inputs = {parameter.name: given(parameter.name, parameter.shape) for parameter in spec.parameters}
    a = inputs["x"] = given("x", (len(y), spec.n_in))
    values: dict[str, Node] = {}
    places: dict[Node, str] = {}
    for number, layer in enumerate(spec.layers, start=1):
        z = contract("ni,oi->no", a, inputs[f"W{number}"])
        if layer.bias:
            z = z + inputs[f"b{number}"]
        a = activate(layer.activation, z)
        values |= {f"z{number + 1}": z, f"a{number + 1}": a}
        places[z] = f"z{number + 1}"
    losses = LOSS_DEFINITIONS[spec.loss.name](a, y, spec.loss.kwargs)
    if losses.rule == "apply":
        places[losses.inputs[0]] = "s − y"
    return NetworkGraph(scale(losses.sum(), share(spec, len(y))), inputs, values, places)


def share(spec: NetworkSpec, n: int) -> Fraction:
    """What the losses of n samples' outputs are multiplied by."""
    parts = spec.divisor(n)
    return Fraction(1, parts * spec.n_out if LOSSES[spec.loss.name].averages_outputs else parts)


def activate(function: Function, z: Node) -> Node:
    """a of z."""
    if ACTIVATIONS[function.name].elementwise:
        return apply(activation(function.name, tuple(function.kwargs.items())), z)
    return softmax(z)


def _negative_log_likelihood(s: Node, y: Real, p: Mapping[str, float]) -> Node:
    certain = select(y == 0, constant(np.ones(s.shape)), s)  # 0 log s is 0, whatever s
    return -(constant(y) * apply(LOGARITHM, certain))


def _cross_entropy(s: Node, y: Real, p: Mapping[str, float]) -> Node:
    off = np.abs(y.sum(axis=1, keepdims=True) - 1)  # softmax(s) − y takes Σy for 1
    return constant(y) * (about(log_sum_exp(s), off) - s)


# per sample and output, before the reduction
LOSS_DEFINITIONS: Mapping[str, Definition] = {
    "squared_error": lambda s, y, p: scale(apply(SQUARE, s - y), Fraction(1, 2)),
    "mean_squared_error": lambda s, y, p: apply(SQUARE, s - y),
    "absolute_error": lambda s, y, p: apply(ABSOLUTE, s - y),
    "huber": lambda s, y, p: apply(huber(p["delta"]), s - y),
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": lambda s, y, p: apply(LOGISTIC, s) - constant(y) * s,
    "negative_log_likelihood": _negative_log_likelihood,
}
