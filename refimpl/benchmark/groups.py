"""What is measured: the networks, batches and dtypes, and the random data, which is nowhere zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.judge.workers import cores
from refimpl.network import examples
from refimpl.network.spec import LayerSpec, NetworkSpec

Array = NDArray[Any]
LEARNING_RATE = 1e-3  # small: what is timed stays in the normal range for as long as it is timed


def classifier(sizes: Sequence[int], activation: str = "relu") -> NetworkSpec:
    """A network of these sizes, the input's first, with softmax cross-entropy."""
    layers = [LayerSpec(size, activation) for size in sizes[1:-1]]
    return NetworkSpec(
        (sizes[0],), [*layers, LayerSpec(sizes[-1], "identity")], "cross_entropy", name="-".join(map(str, sizes))
    )


def deep(depth: int, width: int) -> NetworkSpec:
    """`depth` layers of one width."""
    spec = classifier([width] * (depth + 1), "tanh")
    return NetworkSpec(spec.input_shape, spec.layers, spec.loss, name=f"{depth} layers of {width}")


ARTICLE, DIGITS, MNIST = examples.article(), classifier((64, 32, 16, 10), "tanh"), classifier((784, 128, 64, 10))
LARGE, DEEP = classifier((1024, 4096, 4096, 1024)), deep(64, 64)


@dataclass(frozen=True)
class Group:
    """One comparison. `sweep` names the plot that it is a point of."""

    spec: NetworkSpec
    batch: int
    dtype: str
    device: str = "cpu"
    threads: int = 1
    sweep: str = ""

    @property
    def name(self) -> str:
        """For tables and charts."""
        return f"{self.spec.name}, N = {self.batch}, {self.dtype}, {self.device}, {_threads(self.threads)}"

    @property
    def products(self) -> list[tuple[int, int]]:
        """(n_in, n_out) of every layer."""
        return list(zip(self.spec.sizes[:-1], self.spec.sizes[1:], strict=True))

    @property
    def flops(self) -> int:
        """Of the matrix products of forward and backward pass: three a layer, but two for the first."""
        sizes = [n_in * n_out for n_in, n_out in self.products]
        return 2 * self.batch * (3 * sum(sizes) - sizes[0])

    def data(self, seed: int = 0) -> tuple[dict[str, Array], Array, Array]:
        """Parameters, x and y."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((self.batch, *self.spec.input_shape)).astype(self.dtype)
        params = self.spec.init(seed=seed, dtype=self.dtype)
        for own in self.spec.by_layer(params):
            if "b" in own:
                own["b"][...] = 0.1 * rng.standard_normal(own["b"].shape)
        if self.spec.loss.name == "cross_entropy":
            return params, x, rng.integers(0, self.spec.n_out, self.batch)
        return params, x, rng.standard_normal((self.batch, self.spec.n_out)).astype(self.dtype)

    def with_batch(self, batch: int) -> Group:
        """The same with another batch."""
        return Group(self.spec, batch, self.dtype, self.device, self.threads)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "network": self.spec.to_dict(), "batch": self.batch, "dtype": self.dtype, "device": self.device,
            "threads": self.threads, "sweep": self.sweep,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Group:
        """From `to_dict`."""
        spec = NetworkSpec.from_dict(data["network"])
        return cls(spec, data["batch"], data["dtype"], data["device"], data["threads"], data["sweep"])


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def groups(device: str = "cpu", quick: bool = False) -> Iterator[Group]:
    """All of them, or the four that show most."""
    most = cores()
    if quick:
        yield Group(ARTICLE, 1, "float64", device)
        yield Group(ARTICLE, 32, "float64", device)
        yield Group(DIGITS, 32, "float64", device)
        yield Group(MNIST, 64, "float32", device)
        return
    for batch in (1, 32, 1024):
        yield Group(ARTICLE, batch, "float64", device)
    yield Group(ARTICLE, 1, "float32", device)
    for batch in (1, 32, 512):
        yield Group(DIGITS, batch, "float64", device)
    for batch in (1, 4, 16, 64, 256, 1024):
        yield Group(MNIST, batch, "float32", device, sweep="batch")
    yield Group(MNIST, 64, "float64", device)
    yield Group(DEEP, 32, "float32", device)
    for width in (16, 64, 256, 1024):
        yield Group(classifier((width,) * 4), 64, "float32", device, sweep="width")
    if most > 1:  # of one thread it is there
        yield Group(MNIST, 1024, "float32", device, most)
    yield Group(LARGE, 512, "float32", device, most)
