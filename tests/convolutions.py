"""Convolutions y of x (N, C, H, W) by w (O, C, r, r), without padding, with their gradients for a given g = ∂C/∂y: as a
graph, and in float32 by Winograd's algorithm, by FFT and by products of matrices. `FAST` says what each must declare.

Winograd's F(m, r) after Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, at the points 0,
±1, ±2, ±½ and ∞: of tiles of a = m + r − 1 numbers y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A, and its transposes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from refimpl.truth.gradients import gradients
from refimpl.truth.graph import Node, contract, gather, given, transpose

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
F4 = np.float32


def conv2d(x: Node, w: Node) -> Node:
    """The graph: windows, and their products with the weights."""
    places = sliding_window_view(np.arange(x.size).reshape(x.shape), w.shape[2:], (2, 3))
    return contract("nchwij,ocij->nohw", gather(x, places), w)


def as_matrices(x: Node, w: Node) -> Node:
    """The same as a product of two matrices."""
    places = sliding_window_view(np.arange(x.size).reshape(x.shape), w.shape[2:], (2, 3)).transpose(0, 2, 3, 1, 4, 5)
    n, h, v = places.shape[:3]
    y = gather(x, places).reshape(n * h * v, -1) @ w.reshape(len(w), -1).T
    return transpose(y.reshape(n, h, v, len(w)), (0, 3, 1, 2))


def graph(numbers: Arrays, convolve: Callable[[Node, Node], Node] = conv2d) -> dict[str, Node]:
    """y, and the gradients of Σ g y."""
    x, w, g = (given(name, numbers[name].shape) for name in ("x", "w", "g"))
    y = convolve(x, w)
    dx, dw = gradients((y * g).sum(), [x, w])
    return {"y": y, "dx": dx, "dw": dw}


def numbers(kind: str, shape: tuple[int, ...] = (16, 1, 28, 28), outputs: int = 8, r: int = 3) -> Arrays:
    """Data of a kind: normal; sparse, one in fifty; one bright pixel."""
    rng = np.random.default_rng(0)
    n, c, h, v = shape
    x = rng.standard_normal(shape)
    if kind == "sparse":
        x *= rng.random(shape) < 0.02
    elif kind == "bright":
        x *= 1e-3
        x[..., 9, 9] = 1e3
    w = rng.uniform(-1, 1, (outputs, c, r, r)) / (r * np.sqrt(c))
    g = rng.standard_normal((n, outputs, h - r + 1, v - r + 1))
    if kind != "normal":
        g *= rng.random(g.shape) < 0.02
    return {"x": x.astype(F4), "w": w.astype(F4), "g": g.astype(F4)}


def direct(x: Array, w: Array, g: Array) -> Arrays:
    """By products of matrices, in the dtype of what is given."""
    windows = sliding_window_view(x, w.shape[2:], (2, 3))  # (N, C, h, v, i, j)
    each = np.einsum("nohv,ocij->nchvij", g, w)
    dx = np.zeros_like(x)
    for i, j in np.ndindex(w.shape[2:]):
        dx[:, :, i : i + g.shape[2], j : j + g.shape[3]] += each[..., i, j]
    y = np.tensordot(windows, w, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    return {"y": y, "dx": dx, "dw": np.tensordot(g, windows, ((0, 2, 3), (0, 2, 3)))}


def by_fft(x: Array, w: Array, g: Array) -> Arrays:
    """Of the whole image, padded to a power of two."""
    size = [2 ** int(np.ceil(np.log2(length))) for length in x.shape[2:]]
    of_x, of_w, of_g = (scipy.fft.rfft2(one, size) for one in (x, w, g))

    def back(subscripts: str, a: Array, b: Array, like: Array) -> Array:
        return scipy.fft.irfft2(np.einsum(subscripts, a, b), size)[..., : like.shape[2], : like.shape[3]]

    return {
        "y": back("nchv,ochv->nohv", of_x, of_w.conj(), g),
        "dx": back("nohv,ochv->nchv", of_g, of_w, x),
        "dw": back("nohv,nchv->ochv", of_g.conj(), of_x, w),
    }


@dataclass(frozen=True)
class Winograd:
    """F(m, r); `rotated`: ∂C/∂x as another convolution, of ∂C/∂y with the weights rotated."""

    m: int
    rotated: bool = False

    def __call__(self, x: Array, w: Array, g: Array) -> Arrays:
        to_y, of_w, of_x = self.transforms(w.shape[2])
        tiles, weights = _both(of_x, self.tiles(x, w.shape[2])), _both(of_w, w)
        y = _both(to_y.T, np.einsum("nctuab,ocab->notuab", tiles, weights))
        n, outputs, t, u = y.shape[:4]
        padded = np.zeros((n, outputs, t * self.m, u * self.m), F4)
        padded[:, :, : g.shape[2], : g.shape[3]] = g
        of_g = _both(to_y, padded.reshape(n, outputs, t, self.m, u, self.m).transpose(0, 1, 2, 4, 3, 5))
        dw = _both(of_w.T, np.einsum("nctuab,notuab->ocab", tiles, of_g))
        if self.rotated:
            edge = w.shape[2] - 1
            around = np.pad(g, [(0, 0), (0, 0), (edge, edge), (edge, edge)])
            turned = np.ascontiguousarray(w.transpose(1, 0, 2, 3)[..., ::-1, ::-1])
            dx = Winograd(self.m)(around, turned, np.zeros_like(x))["y"]
        else:
            dx = self.added(_both(of_x.T, np.einsum("notuab,ocab->nctuab", of_g, weights)), x)
        whole = y.transpose(0, 1, 2, 4, 3, 5).reshape(padded.shape)
        return {"y": whole[:, :, : g.shape[2], : g.shape[3]], "dx": dx, "dw": dw}

    def transforms(self, r: int) -> tuple[Array, Array, Array]:
        """A (a, m), G (a, r) and Bᵀ (a, a) by Lagrange's interpolation."""
        a = self.m + r - 1
        points = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5][: a - 1]
        to_y, of_w, of_x = np.zeros((a, self.m)), np.zeros((a, r)), np.zeros((a, a))
        for k, point in enumerate(points):
            others = [other for other in points if other != point]
            to_y[k], of_w[k] = (point ** np.arange(size) for size in (self.m, r))
            of_w[k] /= np.prod(point - np.array(others))
            of_x[k, :-1] = np.poly(others)[::-1]
        to_y[-1, -1] = of_w[-1, -1] = 1
        of_x[-1] = np.poly(points)[::-1]
        return to_y.astype(F4), of_w.astype(F4), of_x.astype(F4)

    def tiles(self, x: Array, r: int) -> Array:
        """(N, C, t, u, a, a), one for m × m outputs."""
        edges = [(0, -(size - r + 1) % self.m) for size in x.shape[2:]]
        padded = np.pad(x, [(0, 0), (0, 0), *edges])
        a = self.m + r - 1
        return sliding_window_view(padded, (a, a), (2, 3))[:, :, :: self.m, :: self.m]

    def added(self, tiles: Array, like: Array) -> Array:
        """Overlapping tiles added up."""
        n, c, t, u, a, _ = tiles.shape
        total = np.zeros((n, c, t * self.m + a, u * self.m + a), F4)
        for i, j in np.ndindex(t, u):
            total[:, :, i * self.m : i * self.m + a, j * self.m : j * self.m + a] += tiles[:, :, i, j]
        return total[:, :, : like.shape[2], : like.shape[3]]


def _both(matrix: Array, tiles: Array) -> Array:
    """A transform along both of the last axes."""
    return matrix @ tiles @ matrix.T


FAST: dict[str, tuple[Callable[..., Arrays], str]] = {
    "FFT": (by_fft, "fft"),
    **{
        f"F({m}, 3){', rotated' if rotated else ''}": (Winograd(m, rotated), declared)
        for m, declared in ((2, "winograd F(2, 3)"), (4, "winograd F(4, 3)"), (6, "winograd"))
        for rotated in (False, True)
    },
}


def torch_conv2d(x: Array, w: Array, onednn: bool) -> Array:
    """By torch; without oneDNN by NNPACK, which takes FFT on tiles of 16 × 16 or Winograd's F(6, 3), by the size."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that oneDNN has no TF32 here
        with torch.backends.mkldnn.flags(enabled=onednn):
            return torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w)).numpy()
