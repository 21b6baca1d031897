"""What is wrong over a whole run: few faults that explain every wrong case that can be explained.

One mistake in a program has other names in other cases: a degenerate network cannot tell it from its neighbours, and
it acts at other layers. `common_causes` chooses among the explanations of all cases together, and says what the wrong
cases have in common. What no fault explains is grouped by what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from refimpl.faults.findings import Cause, Causes, Finding
from refimpl.faults.fits import FITS
from refimpl.faults.formulas import NAMED
from refimpl.faults.mistaken import Fault

NOT_ASKED = "not asked"
ACCIDENT = 0.01  # the likelihood below which what all wrong cases have in common is taken to be no accident
MAX_EXPLANATIONS = 20
LISTED = 3
FACTOR = "is the right one times"
NUMBER = r"[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?"

ALL: Mapping[str, Fault] = {**NAMED, **FITS}
Names = frozenset[str]


def _fault(label: str) -> Fault:
    """What a label is about."""
    return ALL[label.partition(" ")[0]]


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong in one case: its verdict, and a finding or, where there is none, the reason."""

    case: str
    verdict: str
    reason: str
    finding: Finding | None = None

    @cached_property
    def explanations(self) -> Mapping[Names, Causes]:
        """By the faults in them, as many as are worth a thought."""
        found = self.finding.explanations[:MAX_EXPLANATIONS] if self.finding else ()
        return {
            frozenset(labels): causes
            for causes in reversed(found)
            for labels in reversed(list(product(*(cause.labels for cause in causes))))
        }

    @cached_property
    def form(self) -> str:
        """What is wrong, whatever the numbers in it and whatever else is right; but a factor is that factor."""
        if self.finding is None:
            return f"{self.verdict} {re.sub(NUMBER, '#', self.reason)}"
        quantity, symptom = self.finding.quantity[0], self.finding.symptom.partition(";")[0]
        if FACTOR in symptom:
            return f"{quantity} {re.sub('times .* = ', 'times ', symptom)}"
        return re.sub(NUMBER, "#", f"{quantity} {symptom}")

    @property
    def text(self) -> str:
        """What is to be said of it, in one line."""
        said = self.finding.text if self.finding else ""
        return "; ".join(part for part in (self.reason, "" if self.reason.startswith(said) else said) if part)


@dataclass(frozen=True)
class CommonCause:
    """What several cases have in common. `faults`: the fault that explains them, and those that no case tells from it;
    empty where nothing does. `example`: what explains the first of them. `traits` are the wrong cases' own: all have
    them; with `exactly`, no other case that was judged has the first.
    """

    verdict: str
    faults: tuple[str, ...]
    wrong: tuple[Wrong, ...]
    example: Causes = ()
    traits: tuple[str, ...] = ()
    exactly: bool = False

    @property
    def cases(self) -> list[str]:
        """The wrong cases."""
        return list(dict.fromkeys(wrong.case for wrong in self.wrong))

    @property
    def where(self) -> str:
        """Where it is wrong, where there is something to say."""
        if not self.traits:
            return ""
        if self.exactly:
            return f"These are all cases with {self.traits[0]}, and no others."
        return f"All of them have: {', '.join(self.traits[:LISTED])}."

    @property
    def text(self) -> str:
        """In one paragraph."""
        first, count = self.wrong[0], len(self.cases)
        place = f"{count} case{'s' if count > 1 else ''}, {'as' if count > 1 else 'namely'} {first.case!r}"
        if not self.faults:
            return " ".join(part for part in (f"{place}: {first.text.rstrip('.')}.", self.where) if part)
        fault = _fault(self.faults[0])
        names = " or ".join(self.faults) + (" (which no case tells apart)" if len(self.faults) > 1 else "")
        said = f"{names} in {place}{self._layers()}, where {first.reason}"
        return f"{said}: {fault.explanation} Remedy: {fault.remedy} {self.where}".strip()

    def _layers(self) -> str:
        here = [cause for cause in self.example if self.faults[0] in cause.labels]
        layers = [str(cause.layer) for cause in here if cause.layer]
        place = f" at layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}" if layers else ""
        fitted = here[0].parameter and not here[0].readings
        number = f" ({here[0].fault.parameter} {here[0].parameter:.4g})" if fitted else ""
        every = (c for w in self.wrong for causes in w.explanations.values() for c in causes)
        told = here[0].within(c for c in every if self.faults[0] in c.labels).told
        return place + (f" ({told})" if told else number)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {"verdict": self.verdict, "faults": list(self.faults), "cases": self.cases, "text": self.text}


def common_causes(
    wrong: Sequence[Wrong],
    traits: Mapping[str, Collection[str]],
    kills: Mapping[str, Collection[tuple[str, int]]] | None = None,
) -> list[CommonCause]:
    """The causes of all that is wrong, the one with the most cases first. `traits`: of every case that was judged;
    `kills`: the faults, and their layers, that each of these tells from the truth.
    """
    excluded = _excluded(wrong, kills or {})
    wrong = [_surviving(item, traits, excluded) for item in wrong]
    coincidences = _coincidences(wrong)
    explained = [item for item in wrong if item.explanations and item.form not in coincidences]
    chosen = _fewest([item.explanations.keys() for item in explained])
    uses: dict[str, list[tuple[Wrong, Names]]] = {}
    unknown: dict[str, list[Wrong]] = {}
    for item in wrong:
        if not item.explanations or item.form in coincidences:
            unknown.setdefault(item.form, []).append(item)
            continue
        names = min((names for names in item.explanations if names <= chosen), key=len)
        for name in sorted(names):
            uses.setdefault(name, []).append((item, names))
    having = _having(traits)
    found = []
    for name, items in uses.items():
        plainest = sorted(items, key=lambda item: (len(item[1]), len(item[0].explanations)))
        example = plainest[0][0].explanations[plainest[0][1]]
        found.append(_common([item for item, _ in plainest], having, (name, *_alike(name, items)), example))
    groups: dict[str, list[Wrong]] = {}
    for form, same in unknown.items():  # a factor of one case alone is any factor
        groups.setdefault(re.sub(NUMBER, "#", form) if len(same) == 1 else form, []).extend(same)
    found += [_common(same, having) for same in groups.values()]
    # what was not even asked is a consequence
    return sorted(found, key=lambda cause: (cause.wrong[0].reason.startswith(NOT_ASKED), -len(cause.cases)))


def _excluded(
    wrong: Sequence[Wrong], kills: Mapping[str, Collection[tuple[str, int]]]
) -> dict[str, set[tuple[str, int]]]:
    """What each case rules out: all that it tells from the truth where it passes; where it is explained, all of that
    but the faults that explain it. What nothing explains rules out nothing.
    """
    excluded = {case: set(own) for case, own in kills.items()}
    for item in wrong:
        found = item.finding.explanations if item.finding else ()
        names = {cause.fault.name for causes in found for cause in causes}
        own = excluded.get(item.case, set())
        excluded[item.case] = {(name, layer) for name, layer in own if found and name not in names}
    return excluded


def _surviving(
    item: Wrong, traits: Mapping[str, Collection[str]], excluded: Mapping[str, Collection[tuple[str, int]]]
) -> Wrong:
    """Without explanations by a fault that other cases rule out, unless the wrong case has something that none of
    these has.
    """
    if item.finding is None or not item.finding.explanations:
        return item
    own = set(traits.get(item.case, ()))

    def holds(cause: Cause) -> bool:
        against = [case for case, faults in excluded.items() if (cause.fault.name, cause.layer) in faults]
        return not against or bool(own - set().union(*(traits.get(case, ()) for case in against)))

    left = tuple(causes for causes in item.finding.explanations if all(map(holds, causes)))
    return replace(item, finding=replace(item.finding, explanations=left))


def _fewest(explained: Sequence[Collection[Names]]) -> Names:
    """Few faults among which every one of these has an explanation, chosen by how many more each choice explains."""
    chosen: Names = frozenset()
    open_ = list(explained)
    while open_:
        gains: dict[Names, int] = {}
        for names in dict.fromkeys(names for explanations in open_ for names in explanations):
            gains[names] = sum(_covered(explanations, chosen | names) for explanations in open_)
        best = max(gains, key=lambda names: (gains[names] / len(names - chosen), gains[names], -_order(names)))
        chosen |= best
        open_ = [explanations for explanations in open_ if not _covered(explanations, chosen)]
    for name in sorted(chosen, key=lambda name: sum(name in names for e in explained for names in e)):
        if all(_covered(explanations, chosen - {name}) for explanations in explained):
            chosen -= {name}
    return chosen


def _covered(explanations: Iterable[Names], chosen: Names) -> bool:
    return any(names <= chosen for names in explanations)


def _order(names: Names) -> int:
    """The catalogue's, and that of the readings of a factor."""
    return min(list(ALL).index(_fault(name).name) for name in names)


def _alike(name: str, items: Sequence[tuple[Wrong, Names]]) -> list[str]:
    """The faults that could stand in the place of this one in every case."""
    others = [
        {next(iter(names - rest)) for names in item.explanations if rest < names and len(names - rest) == 1}
        for item, used in items
        for rest in [used - {name}]
    ]
    common = set.intersection(*others)
    return sorted(common - {name}, key=lambda other: _order(frozenset({other})))


def _coincidences(wrong: Sequence[Wrong]) -> set[str]:
    """Being wrong by one factor in most cases without an explanation: what a few others have is one of that factor."""
    counts: dict[str, list[int]] = {}
    for item in wrong:
        if item.finding and FACTOR in item.finding.symptom:
            counts.setdefault(item.form, [0, 0])[bool(item.explanations)] += 1
    return {form for form, (without, with_) in counts.items() if without > with_}


def _having(traits: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """The cases by what they have; under "" all of them."""
    having: dict[str, set[str]] = {"": set(traits)}
    for case, own in traits.items():
        for trait in own:
            having.setdefault(trait, set()).add(case)
    return having


def _common(
    wrong: Sequence[Wrong],
    having: Mapping[str, set[str]],
    faults: tuple[str, ...] = (),
    example: Causes = (),
) -> CommonCause:
    cases, judged = {item.case for item in wrong}, having[""]
    accident = ACCIDENT / max(len(having) - 1, 1)
    shared = [
        trait
        for trait, own in sorted(having.items(), key=lambda item: len(item[1]))
        if trait and cases <= own and len(own) < len(judged) and (len(own) / len(judged)) ** len(cases) <= accident
    ]
    exactly = bool(shared) and having[shared[0]] == cases
    return CommonCause(wrong[0].verdict, faults, tuple(wrong), example, tuple(shared), exactly)
