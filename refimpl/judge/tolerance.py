"""How far a *correct* implementation of a network may lie from its certified loss and gradients, element by element:
the bounds of :mod:`refimpl.judge.bounds` on the network's graph.
"""

from __future__ import annotations

import zlib

from refimpl.judge.bounds import BOTH, Tolerance, bounds
from refimpl.network.arithmetic import Arithmetic
from refimpl.network.batch import Batch
from refimpl.network.spec import NetworkSpec
from refimpl.truth.certification import Certificate, named_nodes
from refimpl.truth.network import network_graph, share


def tolerance(
    spec: NetworkSpec,
    batch: Batch,
    truth: Certificate,
    arithmetic: Arithmetic,
    *,
    inputs: bool = False,
    repeated: bool = False,
    by: str = BOTH,
) -> Tolerance:
    """The bounds for a correct implementation in `arithmetic`, around the certified values `truth` of the same batch.

    `inputs`: of the gradient of x too; `repeated`: whether to look in every sum for terms that repeat; `by`: as for
    `bounds`.
    """
    graph = network_graph(spec, batch.targets(spec.n_out))
    nodes = named_nodes(graph)
    certified = {"loss": truth.loss, **truth.grads, **truth.values}
    known = {node: certified[name].mid.reshape(node.shape) for name, node in nodes.items()}
    # by how much the loss and the gradients may be divided last, and overflow until then
    parts = (2 if spec.loss.name == "squared_error" else 1) / share(spec, len(batch.x))
    found = bounds(
        {name: node for name, node in nodes.items() if not name.startswith("da") and (inputs or name != "x")},
        {**batch.params, "x": batch.x},
        arithmetic,
        int(parts),
        zlib.crc32(b"".join(array.tobytes() for array in (*batch.params.values(), batch.x))),
        repeated=repeated,
        by=by,
        known=known,
        slopes={node: truth.slopes[place] for node, place in graph.places.items() if place in truth.slopes},
    )
    x = (len(batch.x), *spec.input_shape)
    return found.mapped(lambda form: {name: b.reshape(x) if name == "x" else b for name, b in form.items()})
