"""Where the cases come from: networks, parameters and batches, each drawn to meet one difficulty.

A `Draft` is a name, flags and a recipe; `draw(draft, attempt)` cooks it from a generator seeded by both, so that the
suite is a function of this file. All numbers are multiples of a power of two with few digits, exact in float32 and
short in decimal. Which drafts become cases is decided in :mod:`refimpl.conformance.vectors`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.network import examples
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.spec import LayerSpec, NetworkSpec

SEED = 20260101
GRID = 256.0  # numbers are multiples of 1/256

FLAGS: Mapping[str, str] = {
    "Basic": "An ordinary network: each activation, loss and reduction, in turn.",
    "KnownExample": "The article's 4-2-2-1 network.",
    "Textbook": "What textbooks, courses and scikit-learn put together: hidden and last activation, loss, reduction.",
    "NonSquare": "Layers that widen and narrow, so that a transposed matrix does not fit.",
    "Batch1": "A single sample.",
    "Width1": "Layers of one neuron.",
    "Deep": "Eight layers or more.",
    "KinkAtZero": "A weighted input or a residual exactly at a kink.",
    "DeadReLU": "Layers whose units are all, or nearly all, off.",
    "SaturatedSigmoid": "Units so saturated that 1 − a loses all digits.",
    "HugeLogit": "Logits whose exponential over- or underflows.",
    "Tie": "Equal logits and symmetric weights.",
    "TinyGradient": "Gradients far below one, still normal numbers.",
    "Subnormal": "Gradients below float32's normal range.",
    "Cancellation": "Contributions of the samples that nearly cancel.",
    "ZeroWeight": "Weights that are exactly zero.",
    "EqualParameters": "Weights of one layer that equal those of another, and biases of 0.",
    "Exact": "All intermediate results are exact: the gradients must be, to the last bit.",
    "OddEvenShapes": "Widths and batches around the sizes of vector registers.",
    "NoBias": "Layers without a bias.",
    "MultiDimInput": "An input of another rank than one.",
    "ProbabilityTargets": "Targets that are rows of probabilities.",
    "SumReduction": "The loss is summed over the batch.",
    "Random": "Drawn without a purpose.",
}

Array = NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """A network with numbers, all float64 and exact in float32 (labels: int64)."""

    spec: NetworkSpec
    params: dict[str, Array]
    x: Array
    y: Array


Recipe = Callable[[np.random.Generator], Drawn]


@dataclass(frozen=True)
class Draft:
    """A case to be: its name, its flags, and how it is drawn."""

    name: str
    flags: tuple[str, ...]
    recipe: Recipe


def draw(draft: Draft, attempt: int) -> Drawn:
    """The draft's numbers at an attempt."""
    return draft.recipe(np.random.default_rng([SEED, zlib.crc32(draft.name.encode()), attempt]))


def grid(values: Any, unit: float = GRID) -> Array:
    """Rounded to multiples of 1/unit."""
    return np.round(np.asarray(values, dtype=np.float64) * unit) / unit + 0.0


# --------------------------------------------------------------------------------------------------------------
# Pieces of recipes


def network(
    sizes: Sequence[int],
    activations: Sequence[Any],
    loss: Any = "squared_error",
    reduction: str = "mean",
    bias: bool = True,
    input_shape: tuple[int, ...] | None = None,
) -> NetworkSpec:
    """A network of the given sizes, the input's first."""
    layers = [LayerSpec(size, activation, bias) for size, activation in zip(sizes[1:], activations, strict=True)]
    return NetworkSpec((sizes[0],) if input_shape is None else input_shape, layers, loss, reduction)


def parameters(spec: NetworkSpec, rng: np.random.Generator, scale: float = 1.0) -> dict[str, Array]:
    """W of the size that keeps activations near one; b a little smaller."""
    drawn = {}
    for parameter in spec.parameters:
        spread = scale / np.sqrt(parameter.shape[1]) if parameter.role == "W" else 0.4 * scale
        drawn[parameter.name] = grid(spread * rng.uniform(-1.7, 1.7, parameter.shape))
    return drawn


def targets(spec: NetworkSpec, rng: np.random.Generator, n: int, rows: bool = False) -> Array:
    """y as the loss asks."""
    kind = LOSSES[spec.loss.name].target
    if kind == "values":
        return grid(rng.uniform(-1.5, 1.5, (n, spec.n_out)))
    if kind == "probabilities":
        return grid(rng.uniform(0, 1, (n, spec.n_out)))
    if not rows:
        return rng.integers(spec.n_out, size=n)
    parts = rng.multinomial(16, np.full(spec.n_out, 1 / spec.n_out), size=n)
    return parts / 16.0


def usual(spec: NetworkSpec, n: int, scale: float = 1.0, rows: bool = False) -> Recipe:
    """Numbers of the usual size."""

    def recipe(rng: np.random.Generator) -> Drawn:
        params = parameters(spec, rng, scale)
        x = grid(rng.uniform(-1.7, 1.7, (n, *spec.input_shape)))
        return Drawn(spec, params, x, targets(spec, rng, n, rows))

    return recipe


def changed(recipe: Recipe, change: Callable[..., None], *options: Any) -> Recipe:
    """A recipe with its numbers edited in place, by `change(drawn, rng, *options)`."""

    def edited(rng: np.random.Generator) -> Drawn:
        drawn = recipe(rng)
        change(drawn, rng, *options)
        return drawn

    return edited


def _last(loss: str) -> str:
    return "softmax" if loss == "negative_log_likelihood" else "identity"


# --------------------------------------------------------------------------------------------------------------
# The families


def drafts() -> Iterator[Draft]:
    """All drafts, in the order of the suite."""
    for family in (
        _basic, _known, _textbook, _shapes, _deep, _kinks, _saturated, _logits, _ties, _tiny, _cancelling, _zeros,
        _equal, _exact, _inputs, _targets, _random,
    ):  # fmt: skip
        yield from family()


def _basic() -> Iterator[Draft]:
    for activation in ACTIVATIONS:
        for loss in LOSSES:
            spec = network((3, 4, 2), [activation, _last(loss)], loss)
            yield Draft(f"basic {activation} {loss}", ("Basic",), usual(spec, 3))
    for loss in LOSSES:
        for last in ("sigmoid", "softmax") if loss == "negative_log_likelihood" else ("identity", "tanh"):
            spec = network((4, 3, 3), ["sigmoid", last], loss, "sum")
            yield Draft(f"sum {loss} {last}", ("Basic", "SumReduction"), usual(spec, 4))
    for activation in ACTIVATIONS:
        spec = network((3, 3, 3, 3), ["tanh", activation, activation])
        yield Draft(f"output {activation}", ("Basic",), usual(spec, 4))


def _known() -> Iterator[Draft]:
    spec = examples.article()
    for n in (1, 2, 3, 8):
        yield Draft(f"article batch {n}", ("KnownExample", *(("Batch1",) if n == 1 else ())), usual(spec, n))
    yield Draft(
        "article cross-entropy",
        ("KnownExample",),
        usual(NetworkSpec((4,), spec.layers, "binary_cross_entropy", "mean", "article"), 4),
    )

    def parity(drawn: Drawn, rng: np.random.Generator) -> None:
        drawn.x[...] = [[0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0]]
        drawn.y[...] = [[0], [0], [0], [1]]

    yield Draft("article parity", ("KnownExample",), changed(usual(spec, 4), parity))


HIDDEN = ("identity", "sigmoid", "tanh", "relu", "leaky_relu")
LAST = (
    ("sigmoid", "squared_error"), ("sigmoid", "mean_squared_error"), ("tanh", "squared_error"),
    ("tanh", "mean_squared_error"), ("relu", "squared_error"), ("relu", "mean_squared_error"),
    ("identity", "squared_error"), ("identity", "mean_squared_error"), ("identity", "huber"),
    ("identity", "cross_entropy"), ("identity", "binary_cross_entropy"), ("softmax", "negative_log_likelihood"),
    ("softmax", "squared_error"),
)  # fmt: skip


def _textbook() -> Iterator[Draft]:
    for hidden in HIDDEN:
        for last, loss in LAST:
            for reduction in ("mean", "sum"):
                flags = ("Textbook", *(("SumReduction",) if reduction == "sum" else ()))
                for sizes, n in (((3, 4, 2), 4), ((3, 5, 4, 3), 5)):
                    spec = network(sizes, [hidden] * (len(sizes) - 2) + [last], loss, reduction)
                    name = f"textbook {'-'.join(map(str, sizes))} {hidden} {last} {loss} {reduction}"
                    yield Draft(name, flags, usual(spec, n))


def _shapes() -> Iterator[Draft]:
    sizes: tuple[int, ...]
    for sizes in ((2, 5, 3), (6, 2, 4), (1, 6, 2), (5, 1, 5), (7, 3, 5, 2)):
        for activation in ("sigmoid", "relu", "softmax", "gelu"):
            spec = network(sizes, [activation] * (len(sizes) - 2) + ["identity"])
            name = f"sizes {'-'.join(map(str, sizes))} {activation}"
            yield Draft(name, ("NonSquare",), usual(spec, 3))
    for activation in ACTIVATIONS:
        spec = network((3, 4, 2), [activation, "identity"])
        yield Draft(f"one sample {activation}", ("Batch1",), usual(spec, 1))
    for loss in LOSSES:
        yield Draft(f"one sample {loss}", ("Batch1",), usual(network((3, 3, 3), ["tanh", _last(loss)], loss), 1))
    for activation in ACTIVATIONS:
        spec = network((2, 1, 3), [activation, "identity"])
        yield Draft(f"width 1 hidden {activation}", ("Width1",), usual(spec, 3))
    for loss in ("squared_error", "huber", "binary_cross_entropy"):
        for sizes in ((1, 1), (1, 1, 1), (3, 2, 1)):
            spec = network(sizes, ["tanh"] * (len(sizes) - 2) + ["identity"], loss)
            yield Draft(f"width 1 {'-'.join(map(str, sizes))} {loss}", ("Width1",), usual(spec, 4))
    for width in (2, 3, 4, 5, 7, 8, 9, 15, 16, 17):
        for n in (2, 7, 8, 9):
            if width * n > 64 and n != 2:
                continue
            spec = network((width, width, 3), ["sigmoid", "identity"])
            yield Draft(f"shape {width} batch {n}", ("OddEvenShapes",), usual(spec, n))
    for activation in ("sigmoid", "tanh", "relu", "softplus", "softmax"):
        spec = network((3, 4, 3), [activation, "identity"], bias=False)
        yield Draft(f"no bias {activation}", ("NoBias",), usual(spec, 4))
        mixed = NetworkSpec((3,), [LayerSpec(3, activation), LayerSpec(3, activation, False), LayerSpec(2)], "huber")
        yield Draft(f"one layer without bias {activation}", ("NoBias",), usual(mixed, 4))


def _deep() -> Iterator[Draft]:
    for activation in ("identity", "tanh", "relu", "leaky_relu", "elu", "softplus", "softsign", "silu", "gelu"):
        for depth in (8, 12):
            spec = network([3] * (depth + 1), [activation] * (depth - 1) + ["identity"])
            yield Draft(f"depth {depth} {activation}", ("Deep",), usual(spec, 3, scale=1.4))


def _kinks() -> Iterator[Draft]:
    def first_row_zero(drawn: Drawn, rng: np.random.Generator) -> None:
        drawn.x[0] = 0.0
        drawn.params["b1"][:2] = 0.0

    for activation in ("relu", "leaky_relu", "elu", "selu"):
        for loss in ("squared_error", "cross_entropy", "huber"):
            spec = network((3, 4, 3), [activation, "identity"], loss)
            name = f"kink {activation} {loss}"
            yield Draft(name, ("KinkAtZero",), changed(usual(spec, 3), first_row_zero))
        slopes = {"leaky_relu": {"negative_slope": 0.25}, "elu": {"alpha": 0.5}}.get(activation, {})
        spec = network((3, 4, 2), [{"name": activation, **slopes}, "identity"])
        yield Draft(f"kink {activation} parameter", ("KinkAtZero",), changed(usual(spec, 3), first_row_zero))

    def residual(drawn: Drawn, rng: np.random.Generator, size: float) -> None:
        drawn.x[0] = 0.0  # the prediction is 0 in any arithmetic
        drawn.y[0] = -size

    for size in (0.0, 1.0, -1.0):
        for loss in ("absolute_error", "huber"):
            spec = network((2, 3), ["identity"], loss, bias=False)
            yield Draft(f"residual {size:g} {loss}", ("KinkAtZero",), changed(usual(spec, 3), residual, size))

    def dead(drawn: Drawn, rng: np.random.Generator, units: int) -> None:
        drawn.params["b1"][:units] = -8.0

    for activation in ("relu", "leaky_relu", "elu"):
        for units in (2, 4):
            spec = network((3, 4, 3), [activation, "identity"])
            yield Draft(f"dead {activation} {units} of 4", ("DeadReLU",), changed(usual(spec, 3), dead, units))


def _coarse(spec: NetworkSpec, n: int) -> Recipe:
    """Multiples of 1/4, small enough for every product and sum to be exact."""

    def recipe(rng: np.random.Generator) -> Drawn:
        params = {name: rng.integers(-6, 7, shape) / 4 for name, shape in spec.parameter_shapes.items()}
        x = rng.integers(-6, 7, (n, *spec.input_shape)) / 4
        return Drawn(spec, params, x, rng.integers(-6, 7, (n, spec.n_out)) / 4)

    return recipe


def _saturated() -> Iterator[Draft]:
    def biased(drawn: Drawn, rng: np.random.Generator, size: float) -> None:
        signs = np.where(np.arange(len(drawn.params["b1"])) % 2, size, -size)
        signs[0] = 0.25
        drawn.params["b1"][...] = signs

    for activation in ("sigmoid", "tanh", "softplus", "silu", "gelu", "gelu_tanh", "softsign", "softmax"):
        for size in (12.0, 30.0):
            spec = network((3, 4, 2), [activation, "identity"])
            name = f"saturated {activation} {size:g}"
            yield Draft(name, ("SaturatedSigmoid",), changed(usual(spec, 3), biased, size))


def _logits() -> Iterator[Draft]:
    def logits(drawn: Drawn, rng: np.random.Generator, size: float) -> None:
        offset = np.zeros(drawn.spec.n_out)
        offset[0], offset[-1] = size, -size
        drawn.params["b2"][...] = offset

    for loss in ("cross_entropy", "binary_cross_entropy"):
        for size in (20.0, 60.0, 200.0, 1000.0):
            spec = network((3, 3, 4), ["tanh", "identity"], loss)
            yield Draft(f"logit {size:g} {loss}", ("HugeLogit",), changed(usual(spec, 4), logits, size))
    for size in (8.0, 20.0):
        spec = network((3, 3, 4), ["tanh", "softmax"])
        yield Draft(f"logit {size:g} softmax", ("HugeLogit",), changed(usual(spec, 4), logits, size))


def _ties() -> Iterator[Draft]:
    def equal(drawn: Drawn, rng: np.random.Generator) -> None:
        drawn.params["W2"][1] = drawn.params["W2"][0]
        drawn.params["b2"][1] = drawn.params["b2"][0]

    for activation in ("sigmoid", "tanh", "relu"):
        for loss in ("cross_entropy", "negative_log_likelihood", "squared_error"):
            spec = network((3, 4, 3), [activation, _last(loss)], loss)
            yield Draft(f"tie {activation} {loss}", ("Tie",), changed(usual(spec, 4), equal))


def _tiny() -> Iterator[Draft]:
    def shrunk(drawn: Drawn, rng: np.random.Generator, by: float) -> None:
        drawn.x[...] *= by

    for activation in ("sigmoid", "tanh", "identity", "softplus"):
        for exponent in (-20, -60, -100):
            spec = network((3, 3, 2), [activation, "identity"], bias=False)
            name = f"tiny 2^{exponent} {activation}"
            yield Draft(name, ("TinyGradient",), changed(usual(spec, 3), shrunk, 2.0**exponent))
    for activation in ("identity", "tanh", "sigmoid"):
        spec = network((3, 3, 2), [activation, "identity"], bias=False)
        name = f"subnormal {activation}"
        yield Draft(name, ("Subnormal",), changed(usual(spec, 3), shrunk, 2.0**-134))


def _cancelling() -> Iterator[Draft]:
    def mirrored(drawn: Drawn, rng: np.random.Generator, exponent: int) -> None:
        half = len(drawn.x) // 2
        drawn.x[half:] = drawn.x[:half] + rng.integers(1, 4, drawn.x[:half].shape) * 2.0**exponent
        drawn.y[half:] = -drawn.y[:half]
        drawn.y[...] *= 16

    for activation in ("sigmoid", "tanh", "relu", "softplus"):
        for exponent in (-6, -10):
            spec = network((3, 3, 2), [activation, "identity"])
            name = f"cancelling 2^{exponent} {activation}"
            yield Draft(name, ("Cancellation",), changed(usual(spec, 6), mirrored, exponent))


def _zeros() -> Iterator[Draft]:
    def sparse(drawn: Drawn, rng: np.random.Generator) -> None:
        for own in drawn.spec.by_layer(drawn.params):
            own["W"][rng.random(own["W"].shape) < 0.4] = 0.0

    for activation in ACTIVATIONS:
        spec = network((3, 4, 3), [activation, "identity"])
        yield Draft(f"zero weights {activation}", ("ZeroWeight",), changed(usual(spec, 4), sparse))


def _equal() -> Iterator[Draft]:
    def alike(drawn: Drawn, rng: np.random.Generator) -> None:
        drawn.params["W2"][...] = drawn.params["W1"]
        for number in (1, 2, 3):
            drawn.params[f"b{number}"][...] = 0.0

    for activation in HIDDEN:
        spec = network((3, 3, 3, 3), [activation, activation, "identity"])
        yield Draft(f"equal weights {activation}", ("EqualParameters",), changed(usual(spec, 4), alike))


def _exact() -> Iterator[Draft]:
    for activation in ("identity", "relu"):
        for loss in ("squared_error", "absolute_error"):
            for reduction in ("mean", "sum"):
                for sizes in ((2, 3), (3, 2, 2), (2, 2, 3, 1)):
                    spec = network(sizes, [activation] * (len(sizes) - 2) + ["identity"], loss, reduction)
                    name = f"exact {'-'.join(map(str, sizes))} {activation} {loss} {reduction}"
                    flags = ("Exact", *(("SumReduction",) if reduction == "sum" else ()))
                    yield Draft(name, flags, _coarse(spec, 4))


def _inputs() -> Iterator[Draft]:
    for shape in ((), (1,), (2, 3), (2, 2, 2), (1, 4, 1)):
        for activation in ("sigmoid", "softplus"):
            size = int(np.prod(shape))
            spec = network((size, 3, 2), [activation, "identity"], input_shape=shape)
            name = f"input {'x'.join(map(str, shape)) or 'scalar'} {activation}"
            yield Draft(name, ("MultiDimInput",), usual(spec, 3))


def _targets() -> Iterator[Draft]:
    for loss in ("cross_entropy", "negative_log_likelihood"):
        for reduction in ("mean", "sum"):
            for activation in ("tanh", "relu", "gelu_tanh"):
                spec = network((3, 4, 4), [activation, _last(loss)], loss, reduction)
                flags = ("ProbabilityTargets", *(("SumReduction",) if reduction == "sum" else ()))
                yield Draft(f"rows {loss} {activation} {reduction}", flags, usual(spec, 4, rows=True))
    for delta in (0.25, 2.0):
        spec = network((3, 4, 2), ["tanh", "identity"], {"name": "huber", "delta": delta})
        yield Draft(f"huber {delta:g}", ("Basic",), usual(spec, 4))
    for slope in (0.125, 1.5):
        spec = network((3, 4, 2), [{"name": "leaky_relu", "negative_slope": slope}, "identity"])
        yield Draft(f"leaky {slope:g}", ("Basic",), usual(spec, 4))
    for alpha in (0.5, 2.0):
        spec = network((3, 4, 2), [{"name": "elu", "alpha": alpha}, "identity"])
        yield Draft(f"elu {alpha:g}", ("Basic",), usual(spec, 4))


def _random() -> Iterator[Draft]:
    rng = np.random.default_rng(SEED)
    names = list(ACTIVATIONS)
    for number in range(70):
        depth = int(rng.integers(1, 5))
        sizes = [int(rng.integers(1, 7)) for _ in range(depth + 1)]
        activations = [names[int(rng.integers(len(names)))] for _ in range(depth)]
        loss = str(rng.choice(list(LOSSES)))
        if loss == "negative_log_likelihood":
            activations[-1] = "softmax"
        if LOSSES[loss].target == "classes":
            sizes[-1] = max(sizes[-1], 2)  # a single class leaves nothing to learn
        bias = bool(rng.random() < 0.75)
        spec = network(sizes, activations, loss, str(rng.choice(["mean", "sum"])), bias)
        yield Draft(f"random {number + 1}", ("Random",), usual(spec, int(rng.integers(1, 8))))
