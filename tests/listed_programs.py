"""Right programs, each of which breaks a bound like √n or a naive one: long sums of equal terms, functions whose errors
have one sign, softmax by exponentials of base 2, fast convolutions. `PROGRAMS` lists what makes each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from convolutions import conv2d, torch_conv2d
from convolutions import numbers as convolved
from networks import network
from right_implementations import Arrays, Style, backpropagate
from structured_data import structured
from summation import Array, products_by, sequential, shuffled, strided

from refimpl.network.arithmetic import PRESETS, Arithmetic
from refimpl.network.random_problems import Problem
from refimpl.truth import graph
from refimpl.truth.elementwise import activation
from refimpl.truth.gradients import gradients
from refimpl.truth.graph import Node, given
from refimpl_torch import backend as torch_backend

F4 = np.float32


@dataclass(frozen=True)
class Named:
    """An implementation."""

    name: str
    run: Callable[[], Arrays]
    flushes: bool = False


@dataclass(frozen=True)
class Listed:
    """A program: its results as a graph of given numbers, or a network; and right implementations of it, in an
    arithmetic.
    """

    name: str
    answers: tuple[Named, ...]
    ends: Mapping[str, Node]
    given: Mapping[str, Array]
    parts: int = 1
    network: Problem | None = None
    arithmetic: Arithmetic = PRESETS["float32"]


def one(name: str, value: Callable[[], Any], flushes: bool = False) -> Named:
    """An implementation of the result "sum"."""
    return Named(name, lambda: {"sum": np.asarray(value())}, flushes)


def equal_terms() -> Listed:
    """65,536 × 0.1."""
    terms = np.full(65536, F4(0.1))
    answers = (
        one("cumsum", lambda: sequential(terms)),
        one("16 lanes", lambda: strided(16)(terms)),
        one("numpy", terms.sum),
        one("numpy, first axis", lambda: np.stack([terms, terms], axis=1).sum(axis=0)[0]),
        one("torch", lambda: torch.tensor(terms).sum().numpy()),
        one("jax", lambda: jnp.asarray(terms).sum(), True),
    )
    return Listed("65,536 equal terms", answers, {"sum": given("terms", (65536,)).sum()}, {"terms": terms})


def _one_large(rows: int) -> Array:
    """(rows, 64): a term beside which the others, of random bits, are a thousandth."""
    terms = np.random.default_rng(0).uniform(1, 2, (rows, 64))
    terms[:, 0], terms[:, 1:] = 1 + terms[:, 0] / 1000, terms[:, 1:] / 1000
    return terms.astype(F4)


def one_large_term() -> Listed:
    """400 sums that stay in one binade, each addition rounding by up to a whole u."""
    terms = _one_large(400)
    answers = (one("cumsum", lambda: sequential(terms)), one("pairwise", lambda: terms.sum(axis=1)))
    return Listed("64 terms, one large", answers, {"sum": given("terms", terms.shape).sum(axis=1)}, {"terms": terms})


def one_residue(kind: str) -> Listed:
    """Whole numbers moved by a constant, as pixels less their mean are: distinct, but rounded alike in a large sum."""
    n, rng = 65536, np.random.default_rng(0)
    terms = {
        "pixels less their mean": rng.integers(0, 90, n) - 103.939, "prices": rng.integers(0, 100, n) + 0.99,
        "whole numbers and 0.49": rng.integers(0, 500, n) + 0.49,
    }[kind].astype(F4)  # fmt: skip
    answers = (one("cumsum", lambda: sequential(terms)), one("16 lanes", lambda: strided(16)(terms)))
    return Listed(f"65,536 {kind}", answers, {"sum": given("terms", (n,)).sum()}, {"terms": terms})


def nearly_equal_logits(n: int) -> Listed:
    """Log-sum-exp over n classes after one small step from zero weights, the exponentials summed in a loop."""
    z = np.full((1, n), F4(-4e-4 / n))
    z[0, 3] = 4e-4

    def by_loop() -> Array:
        return np.asarray(z.max() + np.log(sequential(np.exp(z - z.max()))))[None]

    answers = (
        one("sequential", by_loop),
        one("torch", lambda: torch.logsumexp(torch.tensor(z), dim=1, keepdim=True).numpy()),
        one("jax", lambda: jax.nn.logsumexp(z, axis=1, keepdims=True), True),
    )
    ends = {"sum": graph.log_sum_exp(given("z", z.shape))}
    return Listed(f"log-sum-exp, {n:,} nearly equal logits", answers, ends, {"z": z})


def nearly_constant_row(n: int) -> Listed:
    """Layer norm of a row that is 0.1 but for one place, its sums in a loop."""
    x = np.full((1, n), F4(0.1))
    x[0, 0] = 1

    def by_loop() -> Array:
        away = x - sequential(x)[:, None] / F4(n)
        variance = sequential(away * away)[:, None] / F4(n)
        return np.asarray(away / np.sqrt(variance + F4(0.5)))

    answers = (
        one("sequential", by_loop),
        one("torch", lambda: torch.nn.functional.layer_norm(torch.tensor(x), (n,), eps=0.5).numpy()),
    )
    ends = {"sum": graph.normalise(given("x", x.shape), 0.5)}
    return Listed(f"layer norm of {n:,} nearly equal numbers", answers, ends, {"x": x})


def one_large_sample() -> Listed:
    """The weights' gradient under the absolute error, whose error signals are exact."""
    spec = network((100, 1), ["identity"], "absolute_error", "sum", bias=False)
    x, y = _one_large(100).T.copy(), np.full((64, 1), F4(-1000))
    problem = Problem(spec, {"W1": np.full((1, 100), F4(0.1))}, x, y, 0, 0)
    style = Style(sequential, products_by(sequential))
    return of_network("100-1, a large sample", problem, Named("sequential", lambda: backpropagate(problem, style)[1]))


def embedding(same: bool) -> Listed:
    """The gradient of rows chosen from a table by 16,384 tokens, all the same or of four kinds."""
    n, rows, width = 16384, 4, 3
    tokens = np.full(n, 2) if same else np.arange(n) % rows
    g = np.full((n, width), F4(0.1))
    table = given("table", (rows, width))
    places = tokens[:, None] * width + np.arange(width)
    loss = (graph.gather(table, places) * given("g", g.shape)).sum()
    weights = np.ones((rows, width), F4)

    def by_torch() -> Array:
        leaf: Any = torch.tensor(weights, requires_grad=True)
        torch.nn.functional.embedding(torch.tensor(tokens), leaf).backward(torch.tensor(g))
        return leaf.grad.numpy()

    def by_numpy() -> Array:
        sums = np.zeros((rows, width), F4)
        np.add.at(sums, tokens, g)
        return sums

    answers = (
        one("torch", by_torch),
        one("np.add.at", by_numpy),
        one("jax .at[].add", lambda: jnp.zeros((rows, width)).at[tokens].add(g), True),
    )
    name = f"embedding, 16,384 tokens {'all equal' if same else 'of four kinds'}"
    return Listed(name, answers, {"sum": gradients(loss, [table])[0]}, {"table": weights, "g": g})


def convolution_bias() -> Listed:
    """Of Conv2d(3, 8, 3, padding=1) at x (32, 3, 56, 56), under the mean."""
    shape, bias = (32, 8, 56, 56), given("bias", (8,))
    y = graph.broadcast(bias.reshape(1, 8, 1, 1), shape)
    loss = y.sum() / y.size

    def by_torch() -> Array:
        layer: Any = torch.nn.Conv2d(3, 8, 3, padding=1)
        x = torch.tensor(np.random.default_rng(0).standard_normal((32, 3, 56, 56)).astype(F4))
        layer(x).mean().backward()
        return layer.bias.grad.numpy()

    with torch.random.fork_rng():
        found = by_torch()
    return Listed(
        "Conv2d bias under mean", (one("torch", lambda: found),), {"sum": gradients(loss, [bias])[0]},
        {"bias": np.zeros(8, F4)}, y.size,
    )  # fmt: skip


def layer_norm_bias() -> Listed:
    """Of LayerNorm(64) at 65,536 rows, under 0.1 times the sum."""
    bias = given("bias", (64,))
    loss = graph.broadcast(bias, (65536, 64)).sum() * float(F4(0.1))

    def by_torch() -> Array:
        layer: Any = torch.nn.LayerNorm(64)
        x = torch.tensor(np.random.default_rng(0).standard_normal((65536, 64)).astype(F4))
        (0.1 * layer(x).sum()).backward()
        return layer.bias.grad.numpy()

    ends = {"sum": gradients(loss, [bias])[0]}
    return Listed("LayerNorm bias", (one("torch", by_torch),), ends, {"bias": np.zeros(64, F4)})


def _by_torch(problem: Problem) -> Arrays:
    run = torch_backend.gradient_function(problem.spec, dtype="float32", device="cpu")
    return run(problem.params, problem.x, problem.y)[1]


def of_network(name: str, problem: Problem, *more: Named) -> Listed:
    """A network's gradients by torch, and what else is named."""
    return Listed(name, (Named("torch", lambda: _by_torch(problem)), *more), {}, {}, network=problem)


def softmax_regression(kind: str) -> Listed:
    """16 → 10 at 16,384 rows."""
    return of_network(f"softmax regression, {kind}", structured(kind, True, 16384, "float32", 0))


def zero_weights(order: str) -> Listed:
    """16 → 10, whose error signals have two values a column."""
    problem = structured("weights 0, sorted", True, 16384, "float32", 0)
    n = len(problem.x)
    y = {
        "sorted": problem.y, "shuffled": np.random.default_rng(0).permutation(problem.y), "i mod 10": np.arange(n) % 10
    }[order]  # fmt: skip
    delta = ((F4(0.1) - (y[:, None] == np.arange(10)).astype(F4)) * F4(1 / n)).astype(F4)
    sums: dict[str, Any] = {
        "delta.sum(0)": lambda: delta.sum(axis=0), "16 lanes": lambda: strided(16)(delta.T),
        "shuffled sums": lambda: shuffled(delta.T),
    }  # fmt: skip
    more = [Named(name, partial(lambda run: {"b1": run()}, run)) for name, run in sums.items()]
    return of_network(f"weights 0, labels {order}", Problem(problem.spec, problem.params, problem.x, y, 0, 0), *more)


def in_bfloat16(n: int) -> Listed:
    """Linear layer and cross-entropy of torch in bfloat16, all weights 0."""
    problem = structured("weights 0, sorted", True, n, "float32", 0)

    def by_torch() -> Arrays:
        x, w, b = (torch.tensor(array).bfloat16() for array in (problem.x, *problem.params.values()))
        leaves = [w.requires_grad_(), b.requires_grad_()]
        torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, w, b), torch.tensor(problem.y)).backward()
        return {name: leaf.grad.float().numpy() for name, leaf in zip(problem.params, leaves, strict=True)}

    name = f"softmax regression in bfloat16, weights 0, N = {n:,}"
    return Listed(name, (Named("torch", by_torch),), {}, {}, network=problem, arithmetic=PRESETS["bfloat16"])


def convolution(kind: str, size: int, algorithm: str) -> Listed:
    """Of 3 × 3 and 8 outputs, by torch without oneDNN."""
    data = convolved(kind, (16, 1, size, size))
    ends = {"sum": conv2d(*(given(name, data[name].shape) for name in ("x", "w")))}
    return Listed(
        f"convolution of {size} × {size} {kind} numbers, declared {algorithm}",
        (one("torch without oneDNN", lambda: torch_conv2d(data["x"], data["w"], onednn=False)),), ends,
        {name: data[name] for name in ("x", "w")}, arithmetic=replace(PRESETS["float32"], convolution=algorithm),
    )  # fmt: skip


def wide() -> Listed:
    """All weights 0.1, 4-4096-2."""
    spec, rng = network((4, 4096, 2), ["relu", "identity"], "squared_error"), np.random.default_rng(0)
    params = {name: np.full(shape, F4(0.1)) for name, shape in spec.parameter_shapes.items()}
    x, y = (rng.standard_normal((64, size)).astype(F4) for size in (4, 2))
    problem = Problem(spec, params, x, y, 0, 0)
    style = Style(sequential, products_by(sequential))
    by_loop = Named("sequential", lambda: backpropagate(problem, style)[1])
    return of_network("all weights 0.1, 4-4096-2", problem, by_loop)


def tanh_slopes(n: int = 65536) -> Listed:
    """Σ g (1 − tanh² z), z in (6, 8)."""
    rng = np.random.default_rng(0)
    z, g = rng.uniform(6, 8, n).astype(F4), rng.uniform(0.5, 1, n).astype(F4)
    end = (given("g", (n,)) * graph.apply(activation("tanh"), given("z", (n,)), 1)).sum()
    answers = (
        one("numpy", lambda: (g * (1 - np.tanh(z) ** 2)).sum()),
        one("numpy, cumsum", lambda: sequential(g * (1 - np.tanh(z) ** 2))),
        one("torch", lambda: (torch.tensor(g) * (1 - torch.tanh(torch.tensor(z)) ** 2)).sum().numpy()),
        one("jax", lambda: (g * (1 - jnp.tanh(z) ** 2)).sum(), True),
        one("jax.grad", lambda: jax.grad(lambda b: (g * jnp.tanh(z + b)).sum())(0.0), True),
    )
    return Listed("Σ g(1 − tanh²z), z in (6, 8)", answers, {"sum": end}, {"z": z, "g": g})


def exponentials_of_two() -> Listed:
    """Softmax over 4,096 keys as 2^(z log₂e − lse log₂e), times v."""
    rng, n = np.random.default_rng(0), 4096
    z = (1000 + 0.5 * rng.standard_normal((1, n))).astype(F4)
    v = (1 + 0.01 * rng.standard_normal((n, 2))).astype(F4)

    def by_two() -> Array:
        log2e = F4(np.log2(np.e))
        largest = z.max()
        lse = largest + np.log(np.exp(z - largest).sum(dtype=F4))
        return np.exp2(z * log2e - lse * log2e) @ v

    answers = (
        one("exp2", by_two),
        one("torch", lambda: (torch.softmax(torch.tensor(z), dim=1) @ torch.tensor(v)).numpy()),
        one("jax", lambda: jax.nn.softmax(z) @ v, True),
    )
    ends = {"sum": graph.softmax(given("z", z.shape)) @ given("v", v.shape)}
    return Listed("softmax as exp2, logits 1,000, times v", answers, ends, {"z": z, "v": v})


PROGRAMS: tuple[Callable[[], Listed], ...] = (
    equal_terms,
    one_large_term,
    one_large_sample,
    *(partial(one_residue, kind) for kind in ("pixels less their mean", "prices", "whole numbers and 0.49")),
    *(partial(nearly_equal_logits, n) for n in (1024, 16384)),
    *(partial(nearly_constant_row, n) for n in (1024, 4096, 16384)),
    partial(embedding, True),
    partial(embedding, False),
    convolution_bias,
    layer_norm_bias,
    *(partial(softmax_regression, kind) for kind in ("all rows equal", "rows 1e-4 apart")),
    *(partial(zero_weights, order) for order in ("sorted", "shuffled", "i mod 10")),
    *(partial(in_bfloat16, n) for n in (512, 4096)),
    wide,
    tanh_slopes,
    exponentials_of_two,
    # NNPACK takes tiles of 16 × 16 and FFT for the one size, Winograd's F(6, 3) for the other
    *(
        partial(convolution, kind, size, algorithm)
        for size, algorithm in ((28, "fft"), (34, "winograd"))
        for kind in ("normal", "sparse", "bright")
    ),
)
