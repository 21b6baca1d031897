"""What an answer outside its bounds would be within, had its arithmetic been declared: `undeclared`.

Convolutions by Winograd's algorithm or FFT, a variance in one pass and products of fewer bits are right, but off by
more than what they stand for. They are a FAIL unless declared, and this says so by name.

What it does not do: find out how an answer was computed. A mistake as small as such an error is within these bounds
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from refimpl.judge.bounds import bounds
from refimpl.judge.report import FAIL, Row
from refimpl.judge.verdicts import judged, largest_element
from refimpl.network.arithmetic import ARITHMETICS, Arithmetic
from refimpl.truth.balls import Balls
from refimpl.truth.graph import Node

Array = NDArray[Any]
# the fields of an arithmetic by what they declare; of the first line in which something explains an answer, all that do
DECLARATIONS: tuple[Mapping[str, dict[str, Any]], ...] = (
    {"Winograd's convolution": {"convolution": "winograd"}, "a convolution by FFT": {"convolution": "fft"}},
    {"a one-pass variance (two passes or Welford's need no declaration)": {"one_pass_variance": True}},
    {"products in TF32": {"products": 2.0**-11}},
    {"products in bfloat16": {"products": 2.0**-8}},
)


def undeclared(
    ends: Mapping[str, Node],
    given: Mapping[str, Array],
    arithmetic: Arithmetic,
    answer: Mapping[str, Array],
    truth: Mapping[str, Balls],
    **options: Any,
) -> str | None:
    """What an answer to the named ends of a graph, a FAIL in its arithmetic, is within the bounds of, and what to
    declare; None where that is nothing. No array may be a FAIL then, and of those that were, most elements must be a
    PASS: a bound that decides nothing explains nothing. `options` are those of `bounds`.
    """

    def rows(declared: Arithmetic) -> list[Row]:
        found = bounds(ends, given, declared, **options)
        return [
            judged("", name, array, truth[name], found, str(array.dtype), largest_element(truth[name].mid, truth))
            for name, array in answer.items()
        ]

    wrong = [row.verdict == FAIL for row in rows(arithmetic)]

    def explains(fields: dict[str, Any]) -> bool:
        if "products" in fields and arithmetic.unit_roundoff < ARITHMETICS["float32"].unit_roundoff:
            return False  # nobody multiplies longer numbers so
        found = rows(replace(arithmetic, **fields))
        before = [row for row, was in zip(found, wrong, strict=True) if was]
        undecided = sum(row.undetermined for row in before)
        return undecided < sum(row.size for row in before) / 2 and all(row.verdict != FAIL for row in found)

    for line in DECLARATIONS if any(wrong) else ():
        if named := [name for name, fields in line.items() if explains(fields)]:
            fields = [f"{field}={value!r}" for name in named for field, value in line[name].items()]
            return f"within the bounds of {' and of '.join(named)}: declare {' or '.join(fields)}"
    return None
