"""The floating-point arithmetics that an implementation may declare, as data: what is stored, what enters a product,
what accumulates, which way it rounds. `PRESETS` has them by name; others are made with `dataclasses.replace`.

| preset | products of | sums in | every result, and what is returned |
|---|---|---|---|
| float64, float32, and with _flushing | what is stored | the same | the same |
| tf32 | 11 bits of each factor | float32 | float32 |
| bfloat16_products | 8 bits of each factor | float32 | float32 |
| bfloat16, float16 | what is stored | float32 | bfloat16, float16 |
| …_boundary | what is stored | float32 | float32, and returned in bfloat16, float16 |
| …_sums | what is stored | bfloat16, float16 | bfloat16, float16 |
| …_turing, …_hopper | as above | tensor cores | as above |

NVIDIA's tensor cores add a block of products and what was accumulated with all fractions cut to 24 bits (Turing to Ada)
or 25 (Hopper) beside the largest of them, and round the sum toward zero (Fasi, Higham, Mikaitis, Pranesh, "Numerical
behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021): one-sided errors, for which √n is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

# Winograd's F(m, 3) makes m outputs at a time along each axis; "winograd" is any up to F(6, 3)
CONVOLUTIONS = ("direct", "winograd", "winograd F(4, 3)", "winograd F(2, 3)", "fft")


@dataclass(frozen=True)
class Arithmetic:
    """One arithmetic, rounding to nearest.

    `unit_roundoff` u is half the distance from 1 to the next number, of what every operation returns. With
    `flushes_subnormals`, subnormal inputs and results become 0. `products`: the roundoff of the factors of a sum of
    products; `accumulation`: that within sums and library functions, where it is not u; `block`: the number of
    terms in the blocks that are summed one by one and then in pairs, 0 for any order. `truncated`: the number of
    products that a sum of products takes at a time, cut to a multiple of `accumulation` times the largest, the sum
    cut to float32. `returned`: the arithmetic whose numbers are returned, where it is coarser; `given`: the one
    that what is given is rounded to first. `convolution`: the algorithm, one of `CONVOLUTIONS`;
    `one_pass_variance`: as the mean of squares less the square of the mean. Raises ValueError, with the field.
    """

    name: str
    unit_roundoff: float
    smallest_normal: float
    smallest_subnormal: float
    largest: float
    flushes_subnormals: bool = False
    products: float = 0.0
    accumulation: float | None = None
    block: int = 0
    truncated: int = 0
    returned: Arithmetic | None = None
    given: Arithmetic | None = None
    convolution: str = "direct"
    one_pass_variance: bool = False

    @property
    def coarsest(self) -> float:
        """The largest roundoff of what it stores, multiplies, takes and returns."""
        around = [other.unit_roundoff for other in (self.given, self.returned) if other]
        return max(self.unit_roundoff, self.products, *around)

    def __post_init__(self) -> None:
        numbers = ("unit_roundoff", "smallest_normal", "smallest_subnormal", "largest", "products", "block")
        for field in numbers if self.accumulation is None else (*numbers, "accumulation"):
            if not getattr(self, field) >= 0:  # 0 and inf: a model without that limit
                raise ValueError(f"Arithmetic: {field} must be 0 or more, got {getattr(self, field)!r:.40}")
        if self.truncated < 0 or (self.truncated and not self.accumulation):
            raise ValueError(
                f"Arithmetic: truncated must be 0, or more with an accumulation, got {self.truncated!r:.40}"
            )
        if self.convolution not in CONVOLUTIONS:
            raise ValueError(
                f"Arithmetic: convolution must be one of {', '.join(CONVOLUTIONS)}, got {self.convolution!r:.40}"
            )


def _ieee(name: str) -> Arithmetic:
    limits = np.finfo(name)
    return Arithmetic(
        name=name,
        unit_roundoff=float(limits.eps) / 2,
        smallest_normal=float(limits.smallest_normal),
        smallest_subnormal=float(limits.smallest_subnormal),
        largest=float(limits.max),
    )


ARITHMETICS: Mapping[str, Arithmetic] = {name: _ieee(name) for name in ("float64", "float32")}
FLUSHING: Mapping[str, Arithmetic] = {
    name: replace(arithmetic, name=f"{name}_flushing", flushes_subnormals=True)
    for name, arithmetic in ARITHMETICS.items()
}

_FLOAT32 = ARITHMETICS["float32"]
_BFLOAT16 = Arithmetic("bfloat16", 2.0**-8, 2.0**-126, 2.0**-133, (2 - 2.0**-7) * 2.0**127)


def _low(whole: Arithmetic) -> list[Arithmetic]:
    """What computes with numbers of few bits: rounded after every operation, inside sums too, or on return only."""
    return [
        replace(whole, accumulation=_FLOAT32.unit_roundoff, given=whole),
        replace(whole, name=f"{whole.name}_sums", given=whole),
        replace(_FLOAT32, name=f"{whole.name}_boundary", returned=whole, given=whole),
    ]


_TF32 = replace(_FLOAT32, name="tf32", products=2.0**-11)
_BFLOAT16_PRODUCTS = replace(_FLOAT32, name="bfloat16_products", products=_BFLOAT16.unit_roundoff)
_SHORT = [_TF32, _BFLOAT16_PRODUCTS, *_low(_BFLOAT16), *_low(_ieee("float16"))]
_TENSOR_CORES = [
    replace(one, name=f"{one.name}_{generation}", accumulation=2.0**-bits, truncated=block)
    for one in _SHORT
    if not one.name.endswith("_sums")
    for generation, bits, block in (("turing", 24, 4), ("hopper", 25, 16))
]
PRESETS: Mapping[str, Arithmetic] = {
    one.name: one for one in (*ARITHMETICS.values(), *FLUSHING.values(), *_SHORT, *_TENSOR_CORES)
}
