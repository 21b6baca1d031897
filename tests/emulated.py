"""Backends that compute in each arithmetic of :mod:`refimpl.network.arithmetic`, emulated in NumPy: `EMULATED`, by the
presets' names.

Every number is carried in float64 and rounded to a format after every operation; of the products and sums of such
numbers float64 rounds nothing that a format would keep, so what is emulated is the format and nothing else. An
`Emulation` says what given numbers, factors, sums, results and returned numbers are rounded to; one backpropagation,
written out by hand, runs them all. Each is stated here anew, from the papers and manuals of the hardware, and takes
nothing from the preset but the declaration.

NVIDIA's tensor cores, after Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ
Computer Science 7:e330, 2021: a block of exact products and the accumulator are aligned to the largest exponent among
them (of products whose significands, from 1 to 4, are not normalised), cut there, added exactly, and cut to float32.

What it does not do: any activation but relu and tanh, any loss but cross-entropy and squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refimpl.backend.protocols import GradientFunction
from refimpl.network.arithmetic import ARITHMETICS, PRESETS, Arithmetic
from refimpl.network.batch import one_hot
from refimpl.network.spec import NetworkSpec

Array = np.ndarray[Any, Any]
Rounding = Callable[[Array], Array]
Product = Callable[[Array, Array], Array]  # (m, k), (k, n) → (m, n)
NOTHING = -9999  # the exponent of 0, below all others

# --------------------------------------------------------------------------------------------------------------
# Rounding


def exact(values: Array) -> Array:
    return values


def to_bits(bits: int) -> Rounding:
    """To nearest, ties to even, with so many bits of significand and any exponent."""

    def rounded(values: Array) -> Array:
        significand, exponent = np.frexp(values)
        return np.asarray(np.ldexp(np.rint(np.ldexp(significand, bits)), exponent - bits))

    return rounded


def toward_zero(bits: int) -> Rounding:
    """What is beyond so many bits of significand is cut."""

    def rounded(values: Array) -> Array:
        significand, exponent = np.frexp(values)
        return np.asarray(np.ldexp(np.trunc(np.ldexp(significand, bits)), exponent - bits))

    return rounded


def to_format(bits: int, lowest: int) -> Rounding:
    """To nearest, ties to even, in a binary format of IEEE 754: the smallest normal number is 2^lowest, below it are
    subnormal numbers, and what does not fit is infinite.
    """
    beyond = 2.0 ** (2 - lowest)  # 2^(emax + 1), emax = 1 − emin

    def rounded(values: Array) -> Array:
        _, exponent = np.frexp(values)
        last = np.maximum(exponent - 1, lowest) - (bits - 1)  # the exponent of the last place
        made = np.ldexp(np.rint(np.ldexp(values, -last)), last)
        return np.where(np.abs(made) < beyond, made, np.copysign(np.inf, values))

    return rounded


def flushed(rounding: Rounding, lowest: int) -> Rounding:
    """What is below 2^lowest becomes 0."""

    def rounded(values: Array) -> Array:
        made = rounding(values)
        return np.where(np.abs(made) < 2.0**lowest, 0.0, made)

    return rounded


FLOAT32 = to_format(24, -126)
BFLOAT16 = to_format(8, -126)
FLOAT16 = to_format(11, -14)
TF32 = to_bits(11)

# --------------------------------------------------------------------------------------------------------------
# Sums of products


def one_by_one(rounding: Rounding) -> Product:
    """Each product and each sum rounded, from left to right."""

    def product(a: Array, b: Array) -> Array:
        total = np.zeros((len(a), b.shape[1]))
        for left, right in zip(a.T, b, strict=True):
            total = rounding(total + rounding(left[:, None] * right))
        return total

    return product


def in_float32(a: Array, b: Array) -> Array:
    """By BLAS, in its order."""
    with np.errstate(over="ignore"):
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float64)


def tensor_cores(block: int, bits: int) -> Product:
    """Blocks of products beside the accumulator, cut `bits` bits below the largest exponent, the sum cut to float32."""
    to_float32 = toward_zero(24)

    def product(a: Array, b: Array) -> Array:
        total = np.zeros((len(a), b.shape[1]))
        left, right = _exponents(a).T, _exponents(b)
        for start in range(0, len(b), block):
            part = slice(start, start + block)
            terms = a.T[part, :, None] * b[part, None, :]  # (block, m, n)
            exponents = left[part, :, None] + right[part, None, :]
            last = np.maximum(exponents.max(axis=0), _exponents(total)) - bits
            kept = np.trunc(np.ldexp(terms, -last)).sum(axis=0) + np.trunc(np.ldexp(total, -last))
            total = to_float32(np.ldexp(kept, last))
        return total

    return product


def _exponents(values: Array) -> Array:
    return np.where(values == 0, NOTHING, np.frexp(values)[1] - 1)


# --------------------------------------------------------------------------------------------------------------
# The network


@dataclass(frozen=True)
class Emulation:
    """What is rounded to what: given numbers, factors of products, terms of other sums one by one, results, and
    returned numbers; and how products are summed.
    """

    result: Rounding
    product: Product
    factor: Rounding = exact
    summing: Rounding = FLOAT32
    given: Rounding = exact
    returned: Rounding = exact

    def gradients(self, spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array) -> tuple[Array, Any]:
        """The loss and its gradients."""
        params = {name: self._given(array) for name, array in params.items()}
        a, z = [self._given(x)], []  # a: (N, n) of every layer, the input's first
        for number, layer in enumerate(spec.layers, start=1):
            s = self._multiplied(a[-1], params[f"W{number}"].T)
            z.append(self.result(s + params[f"b{number}"]) if layer.bias else s)
            a.append(self._activated(layer.activation.name, z[-1]))
        target = self._given(one_hot(y, spec.n_out) if y.ndim == 1 else y)
        losses = {"cross_entropy": self._cross_entropy, "squared_error": self._squared_error}
        loss, delta = losses[spec.loss.name](a[-1], target, len(x) if spec.reduction == "mean" else 1)
        grads = {}
        for number in range(spec.depth, 0, -1):
            layer = spec.layers[number - 1]
            delta = self._through(layer.activation.name, delta, z[number - 1], a[number])
            grads[f"W{number}"] = self._multiplied(delta.T, a[number - 1])
            if layer.bias:
                grads[f"b{number}"] = self._summed(delta)
            delta = self._multiplied(delta, params[f"W{number}"]) if number > 1 else delta
        return self.returned(loss), {name: self.returned(grads[name]) for name in params}

    def _given(self, values: Array) -> Array:
        return self.given(values.astype(np.float64))

    def _multiplied(self, a: Array, b: Array) -> Array:
        return self.result(self.product(self.factor(a), self.factor(b)))

    def _summed(self, terms: Array) -> Array:
        """Over the first axis."""
        total = np.zeros(terms.shape[1:])
        for term in terms:
            total = self.summing(total + term)
        return self.result(total)

    def _activated(self, name: str, z: Array) -> Array:
        return self.result(np.tanh(z)) if name == "tanh" else np.maximum(z, 0.0) if name == "relu" else z

    def _through(self, name: str, delta: Array, z: Array, a: Array) -> Array:
        """∂C/∂z from ∂C/∂a."""
        if name == "identity":
            return delta
        slope = z > 0 if name == "relu" else self.result(1 - self.result(a * a))
        return self.result(delta * slope)

    def _cross_entropy(self, s: Array, y: Array, parts: int) -> tuple[Array, Array]:
        """The loss, and ∂C/∂s = (softmax(s) − y)/parts."""
        r = self.result
        shifted = r(s - s.max(axis=1, keepdims=True))
        e = r(np.exp(shifted))
        total = self._summed(e.T)[:, None]
        losses = r(y * r(r(np.log(total)) - shifted))
        return r(self._summed(losses.ravel()) / parts), r(r(r(e / total) - y) / parts)

    def _squared_error(self, s: Array, y: Array, parts: int) -> tuple[Array, Array]:
        """½ Σ (s − y)² over outputs and samples, /parts, and its derivative."""
        r = self.result
        error = r(s - y)
        return r(r(self._summed(r(error * error).ravel()) / 2) / parts), r(error / parts)


@dataclass(frozen=True)
class EmulatedBackend:
    """An emulation as a backend, which declares an arithmetic, by rights its own."""

    name: str
    emulation: Emulation
    declared: Arithmetic

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool:
        """On the CPU."""
        return device == "cpu"

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        """What is declared."""
        return self.declared

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """Of the emulated network."""

        @np.errstate(all="ignore")  # float16 overflows
        def run(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            loss, grads = self.emulation.gradients(spec, params, x, y)
            return float(loss), {name: grad.astype(dtype) for name, grad in grads.items()}

        return run

    @property
    def undeclared(self) -> EmulatedBackend:
        """The same, said to be IEEE arithmetic."""
        return self.declaring(ARITHMETICS[self.dtype])

    def declaring(self, arithmetic: Arithmetic) -> EmulatedBackend:
        """The same, said to be in another arithmetic."""
        return replace(self, declared=arithmetic)

    @property
    def dtype(self) -> str:
        """Of the arrays that it takes."""
        return "float64" if self.name.startswith("float64") else "float32"


_PLAIN = Emulation(FLOAT32, in_float32)
_FLOAT64 = Emulation(exact, np.matmul, summing=exact)
_TURING, _HOPPER = tensor_cores(4, 24), tensor_cores(16, 25)


def _flushing(whole: Emulation, rounding: Rounding) -> Emulation:
    """Inputs, results and sums flushed."""
    return replace(whole, given=rounding, result=rounding, summing=rounding)


def _short(name: str, rounding: Rounding) -> dict[str, Emulation]:
    """What computes with numbers of few bits: every result rounded, or sums too, or on the way in and out alone."""
    whole = Emulation(rounding, in_float32, given=rounding, returned=rounding)
    return {
        name: whole,
        f"{name}_sums": replace(whole, product=one_by_one(rounding), summing=rounding),
        f"{name}_boundary": replace(whole, result=FLOAT32),
    }


_PRODUCTS = {
    "tf32": replace(_PLAIN, factor=TF32),
    "bfloat16_products": replace(_PLAIN, factor=to_bits(8)),
    **_short("bfloat16", BFLOAT16),
    **_short("float16", FLOAT16),
}
EMULATIONS: Mapping[str, Emulation] = {
    "float64": _FLOAT64,
    "float32": _PLAIN,
    "float64_flushing": _flushing(_FLOAT64, flushed(exact, -1022)),
    "float32_flushing": _flushing(_PLAIN, flushed(FLOAT32, -126)),
    **_PRODUCTS,
    **{f"{name}_turing": replace(one, product=_TURING) for name, one in _PRODUCTS.items()},
    **{f"{name}_hopper": replace(one, product=_HOPPER) for name, one in _PRODUCTS.items()},
}
EMULATED: Mapping[str, EmulatedBackend] = {
    name: EmulatedBackend(name, EMULATIONS[name], arithmetic) for name, arithmetic in PRESETS.items()
}
