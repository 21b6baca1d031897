"""Cases beside the suite's, for an implementation that few of these fit: drawn from what it declares, and certified as
they are drawn. They are a function of the seed, of what the implementation declares and of how many it declines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.conformance.drafts import network, usual
from refimpl.conformance.run import WANTED
from refimpl.conformance.vectors import Asked
from refimpl.formats.errors import CertificationError
from refimpl.judge.judge import Judge
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import ACTIVATIONS, LOSSES, REDUCTIONS
from refimpl.network.random_problems import PROBABILITIES
from refimpl.network.spec import NetworkSpec

DRAWN = 5 * WANTED  # at most, of which some may be declined
TRIED = 10_000  # kinds of networks, of which an implementation may declare few
ATTEMPTS = 10  # at numbers that can be decided
FLAG = "Drawn"
SIZES = ((3, 4, 2), (4, 5, 3, 2), (3, 4, 1), (2, 3, 3, 1), (3, 3, 3), (4, 2, 2, 1), (2, 5, 4, 3, 2), (2, 2, 1))
BATCHES = (4, 1, 5, 3, 8, 2)

Array = NDArray[Any]
Kind = tuple[str, str, str, str, bool, tuple[int, ...]]


def _sensible(hidden: str, last: str, loss: str, reduction: str, bias: bool, sizes: tuple[int, ...]) -> bool:
    """No logarithm of what may be negative, and no single class, which leaves nothing to learn."""
    if loss == "negative_log_likelihood" and last not in PROBABILITIES:
        return False
    return LOSSES[loss].target != "classes" or sizes[-1] > 1


@dataclass(frozen=True)
class DrawnCase(Asked):
    """A network with numbers that were drawn; the certificate and the tolerance are computed when it is judged."""

    id: str
    spec: NetworkSpec
    params: dict[str, Array]
    x: Array
    y: Array
    dtype: str
    flags: tuple[str, ...] = (FLAG,)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.spec, self.batch(self.dtype))

    def judge(self, dtype: str) -> Judge:
        """A judge who has certified it."""
        return self._judge if dtype == self.dtype else Judge(self.spec, self.batch(dtype))


class Draws:
    """Cases that lack nothing: `lacks` says what an implementation lacks for a network, "" for nothing. They have the
    activations, losses and reductions of those among `others` that lack nothing, where any fit. With a `spec` all are
    of that network.
    """

    def __init__(
        self, lacks: Callable[[NetworkSpec], str], dtype: str, seed: int = 0, others: Iterable[NetworkSpec] = (),
        spec: NetworkSpec | None = None,
    ) -> None:  # fmt: skip
        self.lacks, self.dtype, self.seed, self.others, self.spec = lacks, dtype, seed, others, spec
        self.reasons: Counter[str] = Counter()

    def __iter__(self) -> Iterator[DrawnCase]:
        """At most `DRAWN`."""
        specs = self._fitting()
        for number in range(DRAWN if specs else 0):
            case = self._case(number, specs[number % len(specs)])
            if case is not None:
                yield case

    @property
    def why_not(self) -> str:
        """Why no more were drawn."""
        if not self.reasons:
            return ""
        reason, times = self.reasons.most_common(1)[0]
        return f"{reason} (of {times:,} of the {self.reasons.total():,} networks that were tried and do not fit)"

    def _fitting(self) -> list[NetworkSpec]:
        """Networks with a hidden layer that lack nothing, as many as are wanted or as there are, in a drawn order; or
        the one that all are to be of.
        """
        if self.spec:
            return [] if self._refused(self.spec) else [self.spec]
        having = [spec for spec in self.others if not self.lacks(spec)]
        activations = {layer.activation.name for spec in having for layer in spec.layers}
        losses, reductions = {spec.loss.name for spec in having}, {spec.reduction for spec in having}

        def known(hidden: str, last: str, loss: str, reduction: str, *_: Any) -> bool:
            return {hidden, last} <= activations and loss in losses and reduction in reductions

        kinds = [
            kind
            for kind in product(ACTIVATIONS, ACTIVATIONS, LOSSES, REDUCTIONS, (True, False), SIZES)
            if _sensible(*kind)
        ]
        rng = np.random.default_rng([self.seed, len(SIZES)])
        drawn = [kinds[number] for number in rng.permutation(len(kinds))]
        return self._first([k for k in drawn if known(*k)]) or self._first([k for k in drawn if not known(*k)][:TRIED])

    def _first(self, kinds: Iterable[Kind]) -> list[NetworkSpec]:
        made = (
            network(sizes, [hidden] * (len(sizes) - 2) + [last], loss, reduction, bias)
            for hidden, last, loss, reduction, bias, sizes in kinds
        )
        return list(islice((spec for spec in made if not self._refused(spec)), WANTED))

    def _refused(self, spec: NetworkSpec) -> bool:
        reason = self.lacks(spec)
        self.reasons.update([reason] if reason else [])
        return bool(reason)

    def _case(self, number: int, spec: NetworkSpec) -> DrawnCase | None:
        """The first attempt at numbers that can be decided."""
        reason = ""
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.seed, number, attempt])
            drawn = usual(spec, BATCHES[number % len(BATCHES)])(rng)
            name = f"drawn {number + 1} of seed {self.seed}"
            case = DrawnCase(name, spec, drawn.params, drawn.x, drawn.y, self.dtype)
            try:
                bounds = case.judge(self.dtype).tolerance(ARITHMETICS[self.dtype])
            except CertificationError as error:
                reason = str(error)
                continue
            if all(np.isfinite(bound).all() for bound in bounds.across_kinks.values()):
                return case
            reason = "cannot be decided"
        self.reasons[reason] += 1
        return None
