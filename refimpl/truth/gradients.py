"""The gradient of a graph, as a graph: one vector–Jacobian product a primitive, made of primitives.

`VJPS` is the table: from a node and the cotangent of what it makes to the cotangents of its inputs, None where an input
is not differentiated. The derivative of a `max` goes to the first of the largest, that of a function at its kink is the
catalogue's. Since a gradient is a graph, so is its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

import numpy as np

from refimpl.truth.graph import (
    Node,
    about,
    add,
    apply,
    broadcast,
    constant,
    contract,
    div,
    first_largest,
    gather,
    inverse_deviation,
    mul,
    normalise,
    order,
    reshape,
    scale,
    scatter_add,
    select,
    share,
    sum_over,
    transpose,
)

Cotangents = tuple[Node | None, ...]


def cotangents(output: Node, wrt: Iterable[Node]) -> dict[Node, Node]:
    """∂(Σ output)/∂ each node of `wrt`, and each node between them and `output`. A node that `output` does not depend
    on has a constant 0.
    """
    wanted = list(wrt)
    live = set(wanted)
    for node in order([output]):
        if any(node_in in live for node_in in node.inputs):
            live.add(node)
    found = {output: constant(np.ones(output.shape))}
    for node in reversed(order([output])):
        if node not in found or not any(node_in in live for node_in in node.inputs):
            continue
        for node_in, cotangent in zip(node.inputs, VJPS[node.rule](node, found[node]), strict=True):
            if cotangent is not None and node_in in live:
                found[node_in] = add(found[node_in], cotangent) if node_in in found else cotangent
    return found | {node: constant(np.zeros(node.shape)) for node in wanted if node not in found}


def gradients(output: Node, wrt: Iterable[Node]) -> list[Node]:
    """∂(Σ output)/∂ each node of `wrt`."""
    wanted = list(wrt)
    found = cotangents(output, wanted)
    return [found[node] for node in wanted]


def _last(node: Node) -> tuple[int, ...]:
    return (node.ndim - 1,)


def _over_row(row: Node, like: Node) -> Node:
    return broadcast(row, like.shape)


def _mean(node: Node) -> Node:
    return _over_row(scale(sum_over(node, _last(node)), Fraction(1, node.shape[-1])), node)


def _contract(node: Node, g: Node) -> Cotangents:
    left, out = node.static.split("->")
    first, second = left.split(",")
    a, b = node.inputs
    return contract(f"{out},{second}->{first}", g, b), contract(f"{out},{first}->{second}", g, a)


def _apply(node: Node, g: Node) -> Cotangents:
    function, times = node.static
    return (mul(g, apply(function, node.inputs[0], times + 1)),)


def _div(node: Node, g: Node) -> Cotangents:
    share = div(g, node.inputs[1])
    return share, -mul(share, node)


def _softmax(node: Node, g: Node) -> Cotangents:
    part = mul(node, g)
    return part, -sum_over(part, _last(node))


def _normalise(node: Node, g: Node) -> Cotangents:
    """By way of the moments too; 1/√(σ² + ε) may be computed anew, and round anew."""
    a, inverse, *mean = node.inputs
    factor = _over_row(inverse_deviation(a, *inverse.static), node)
    along = g - mul(node, _mean(mul(g, node)))
    return mul(factor, along - _mean(g) if mean else along), None, *(None for _ in mean)


def _inverse_deviation(node: Node, g: Node) -> Cotangents:
    a = node.inputs[0]
    slope = mul(_over_row(scale(mul(node, node), Fraction(-1, a.shape[-1])), a), normalise(a, *node.static))
    return (mul(_over_row(g, a), slope),)


def _broadcast(node: Node, g: Node) -> Cotangents:
    shape = node.inputs[0].shape
    new = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < new or shape[i - new] == 1 != g.shape[i])
    return (reshape(sum_over(g, axes), shape),)


def _select(node: Node, g: Node) -> Cotangents:
    nothing = constant(np.zeros(node.shape))
    return select(node.static, g, nothing), select(node.static, nothing, g)


VJPS: Mapping[str, Callable[[Node, Node], Cotangents]] = {
    "add": lambda node, g: (g, g),
    "mul": lambda node, g: (mul(g, node.inputs[1]), mul(g, node.inputs[0])),
    "div": _div,
    "scale": lambda node, g: (scale(g, node.static),),
    "contract": _contract,
    "cast": lambda node, g: (g,),
    "about": lambda node, g: (about(g, node.static[0], 1),),
    "apply": _apply,
    "softmax": _softmax,
    "log_sum_exp": lambda node, g: (mul(_over_row(g, node.inputs[0]), share(node.inputs[0], node)),),
    "normalise": _normalise,
    "inverse_deviation": _inverse_deviation,
    "sum": lambda node, g: (_over_row(g, node.inputs[0]),),
    "max": lambda node, g: (mul(_over_row(g, node.inputs[0]), first_largest(node.inputs[0], node.static)),),
    "first_largest": lambda node, g: (None,),
    "select": _select,
    "gather": lambda node, g: (scatter_add(g, node.static, node.inputs[0].shape),),
    "scatter_add": lambda node, g: (gather(g, node.static),),
    "reshape": lambda node, g: (reshape(g, node.inputs[0].shape),),
    "transpose": lambda node, g: (transpose(g, tuple(np.argsort(node.static).tolist())),),
    "broadcast": _broadcast,
}
