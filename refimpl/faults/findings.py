"""What `diagnose` says: `Cause`, and `Finding` of one or more of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from refimpl.faults.mistaken import Fault


def simplest(low: float, high: float) -> float | None:
    """Zero or a number of one digit between these, if there is one."""
    return next((one for one in (0.0, float(f"{(low + high) / 2:.1g}")) if low <= one <= high), None)


def one_between(low: float, high: float) -> float:
    """The simplest number between these."""
    simple = simplest(low, high)
    return (low + high) / 2 if simple is None else simple


@dataclass(frozen=True)
class Cause:
    """A fault at a layer (0: the whole network), with the number in it that was fitted, if it has one. `readings`: what
    was fitted in words, and what it equals here; `detail`: the first of them in full, with {} for
    the `interval` that the number is in.
    """

    fault: Fault
    layer: int
    parameter: float | None = None
    readings: tuple[str, ...] = ()
    detail: str = ""
    interval: tuple[float, float] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What it may be called, wherever it is: one for every reading."""
        return tuple(f"{self.fault.name} {reading}" for reading in self.readings) or (self.fault.name,)

    @property
    def told(self) -> str:
        """The detail, with the simplest number in the interval, or both ends."""
        if self.interval is None:
            return self.detail
        low, high = self.interval
        simple = simplest(low, high)
        return self.detail.format(f"{low:.3g} to {high:.3g}" if simple is None else f"{simple:g}")

    def within(self, others: Iterable[Cause]) -> Cause:
        """The same, with the number in the intervals of all; as it is where these have none in common."""
        intervals = [other.interval for other in others if other.interval]
        if self.interval is None or not intervals:
            return self
        low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
        return replace(self, interval=(low, high), parameter=one_between(low, high)) if low <= high else self

    @property
    def text(self) -> str:
        """The name and the place: slope_dropped at layer 2."""
        number = f" ({self.fault.parameter} {self.parameter:.4g})" if self.parameter is not None else ""
        if self.readings:
            equal = " or ".join(one.removeprefix("× ") for one in self.readings[1:])
            number = f" ({self.told or self.readings[0]}{f', which is {equal} here' if equal else ''})"
        return f"{self.fault.name}{f' at layer {self.layer}' if self.layer else ''}{number}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "fault": self.fault.name,
            "layer": self.layer or None,
            "parameter": self.parameter,
            **({"readings": list(self.readings)} if self.readings else {}),
            "explanation": self.fault.explanation,
            "remedy": self.fault.remedy,
        }


Causes = tuple[Cause, ...]


@dataclass(frozen=True)
class Finding:
    """What is wrong: `explanations` that cannot be told apart on this network and batch, each of one or two causes, or
    of faults at every layer; none where the cause is unknown. `quantity` is the first wrong one in backward order,
    `symptom` what about it is wrong. `pairs`: whether pairs of faults were tried too; `compared`: whether there was
    an array to compare; `by_array`: what of every array is right or wrong, where several are wrong.
    """

    quantity: str
    symptom: str
    explanations: tuple[Causes, ...] = ()
    pairs: bool = True
    compared: bool = True
    by_array: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def known(self) -> bool:
        """Whether a fault explains it."""
        return bool(self.explanations)

    @property
    def text(self) -> str:
        """The finding in one paragraph."""
        if not self.known:
            if not self.compared:
                return f"{self.quantity} {self.symptom}"
            unknown = "cause unknown" + ("" if self.pairs else " (two mistakes at once were not tried)")
            every = f". By array: {self.by_array}" if self.by_array else ""
            return f"{unknown}; the first that is wrong, going backwards: {self.quantity} {self.symptom}{every}"
        named = [_named(explanation) for explanation in self.explanations[:6]]
        more = f" or {len(self.explanations) - 6} more" if len(self.explanations) > 6 else ""
        causes = self.explanations[0]
        meaning = " ".join(dict.fromkeys(cause.fault.explanation for cause in causes))
        remedy = " ".join(dict.fromkeys(cause.fault.remedy for cause in causes))
        together = " (which cannot be told apart here)" if len(named) > 1 else ""
        return f"{' or '.join(named)}{more}{together}: {meaning} Remedy: {remedy}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "quantity": self.quantity,
            "symptom": self.symptom,
            "by_array": self.by_array,
            "explanations": [[cause.to_dict() for cause in explanation] for explanation in self.explanations],
            "text": self.text,
        }


def _named(causes: Causes) -> str:
    """The causes in words; one fault at several layers is named once."""
    layers: dict[str, list[Cause]] = {}
    for cause in causes:
        layers.setdefault(cause.fault.name, []).append(cause)
    parts = []
    for name, same in layers.items():
        numbers = [str(cause.layer) for cause in same]
        several = f"{name} at layers {', '.join(numbers[:-1])} and {numbers[-1]}"
        parts.append(several if len(same) > 1 else same[0].text)
    return " and ".join(parts)
