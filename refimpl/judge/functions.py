"""A function's outputs and gradients held against the certified ones: `FunctionJudge`.

The truth is a definition, traced onto the graph; what is judged is whatever some framework made of the function. All
of it answers to the bounds of :mod:`refimpl.judge.bounds`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from refimpl.backend.functions import REAL, Numbers
from refimpl.judge.bounds import BOTH, Tolerance, bounds
from refimpl.judge.report import Report, Row
from refimpl.judge.verdicts import judged, largest_element, refused, with_repeats
from refimpl.network.arithmetic import Arithmetic
from refimpl.truth.balls import Balls
from refimpl.truth.programs import COTANGENT, Program, certify_program, differentiated, gradient_of

Array = NDArray[Any]


@dataclass(frozen=True)
class FunctionReport(Report):
    """A `Report` about a function, which `spec` says in one line; `n` is 0."""

    spec: str  # type: ignore[assignment]

    @property
    def _subject(self) -> str:
        return str(self.spec)

    @property
    def indistinct(self) -> tuple[str, ...]:
        """Nothing is known of it."""
        return ()

    @property
    def text(self) -> str:
        """As a terminal of 120 columns shows it."""
        console = Console(width=120, file=io.StringIO(), record=True, color_system=None)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines())

    def _about(self) -> dict[str, Any]:
        return {"function": str(self.spec)}


class FunctionJudge:
    """Knows the truth about a program at numbers. `inputs`: the real ones by name, as float64; `cotangents` by output;
    `wrt`: the inputs to differentiate by. Raises CertificationError where it is not defined there.
    """

    def __init__(
        self, program: Program, inputs: Mapping[str, Array], cotangents: Mapping[str, Array], wrt: Sequence[str],
        arithmetic: Arithmetic, bound: str = BOTH,
    ) -> None:  # fmt: skip
        self.cotangents, self.arithmetic, self.bound = cotangents, arithmetic, bound
        self.found = differentiated(program, wrt)
        self.given = {**inputs, **{COTANGENT + name: array for name, array in cotangents.items()}}
        self.truth = certify_program(self.found, self.given, arithmetic.smallest_normal)
        self._tolerances: dict[bool, Tolerance] = {}

    def tolerance(self, repeated: bool = False) -> Tolerance:
        """How far a right implementation may lie from the truth. `repeated`: whether repeated terms are looked for."""
        if repeated not in self._tolerances:
            self._tolerances[repeated] = bounds(
                self.found.ends,
                self.given,
                self.arithmetic,
                seed=zlib.crc32(b"".join(np.ascontiguousarray(array).tobytes() for array in self.given.values())),
                repeated=repeated,
                by=self.bound,
                known={node: self.truth.ends[name].mid for name, node in self.found.ends.items()},
            )
        return self._tolerances[repeated]

    def rows(self, name: str, answers: Mapping[str, Numbers | None]) -> list[Row]:
        """The verdicts on outputs and gradients by name."""
        return [self._judge(name, key, answers.get(key), balls) for key, balls in self.truth.ends.items()]

    def _judge(self, name: str, key: str, answer: Numbers | None, truth: Balls) -> Row:
        size = truth.mid.size
        if answer is None:
            return refused(name, key, "is None: the output does not depend on it, as it was computed", size)
        if answer.values.shape != truth.mid.shape:
            return refused(name, key, f"has shape {answer.values.shape}; it must be {truth.mid.shape}", size)
        if answer.dtype not in REAL:
            return refused(name, key, f"is {answer.dtype}, not an array of real numbers", size)
        of_its_kind = {other: balls for other, balls in self.truth.ends.items() if _kind(other) == _kind(key)}

        def verdict(repeated: bool) -> Row:
            largest = largest_element(truth.mid, of_its_kind)
            return judged(name, key, answer.values, truth, self.tolerance(repeated), answer.dtype, largest)

        return with_repeats(verdict)


def _kind(key: str) -> bool:
    return key.startswith(gradient_of(""))
