"""What no answer on a network and a batch can show, since two things are equal there: `indistinct`."""

from __future__ import annotations

from refimpl.network.spec import NetworkSpec

SQUARES = ("squared_error", "mean_squared_error")


def indistinct(spec: NetworkSpec, n: int) -> tuple[str, ...]:
    """Pairs that are one on this network and N samples, in words, each with what would tell them apart."""
    outputs, squares = spec.n_out, spec.loss.name in SQUARES
    linear = spec.depth > 1 and all(layer.activation.name == "identity" for layer in spec.layers[:-1])
    said = (
        ("a sum over the batch from its mean (N = 1)", n == 1),
        (f"N from n_out (both are {n})", n == outputs > 1),
        ("N from the 2 of a square (N = 2)", n == 2 and squares),
        ("a sum over the outputs from their mean (n_out = 1)", outputs == 1),
        ("the slopes of both squared errors (n_out = 2, so that 2/n_out = 1)", outputs == 2 and squares),
        ("what is propagated from nothing (no hidden layer)", spec.depth == 1),
        ("f'(z) of a hidden layer from 1 (all are identity)", linear),
    )  # fmt: skip
    return tuple(what for what, holds in said if holds)
