"""A benchmark's results as Markdown: one table a group, times as medians, and how many times the floor a gradient
takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refimpl.benchmark.measure import QUANTITIES
from refimpl.formats.markdown import table

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return ""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.1e} s"


def gigaflops(group: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """GFLOP/s of the matrix products in forward and backward pass."""
    times = row.get("gradients")
    return None if times is None else group["flops"] / times["median"] / 1e9


def conditions(result: Mapping[str, Any]) -> list[str]:
    """The machine, the versions and the frameworks' state, a line each."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    states: dict[str, Any] = {}
    for group in result["groups"]:
        states |= group.get("frameworks", {})
    for threads in ("OMP_NUM_THREADS", "torch threads"):  # they differ from group to group, whose names say how many
        states.pop(threads, None)
    return [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
        f"Python {machine['python']}, {machine['blas']}; {versions}",
        "; ".join([result["started"], *(f"{name}: {value}" for name, value in states.items())]),
    ]


COLUMNS = ("contender", *QUANTITIES, "× floor", "GFLOP/s", "first call", "memory")


def _cells(group: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    first = row.get("first", {})
    rate, ratio, memory = gigaflops(group, row), row["gradients"].get("to_floor"), first.get("peak_memory")
    return [
        f"**{row['contender']}**" if row["ours"] else row["contender"],
        *(duration(row[quantity]["median"]) for quantity in QUANTITIES),
        f"{ratio:.3g}" if ratio else "",
        f"{rate:.3g}" if rate else "",
        duration(first.get("first_call")),
        f"{memory / 2**20:.0f} MiB" if memory is not None else "",
    ]


def _not_measured(group: Mapping[str, Any]) -> list[str]:
    rows = [row for row in group.get("rows", []) if "gradients" not in row]
    return [f"{row['contender']}: {row.get('skipped') or row.get('error') or 'not measured'}" for row in rows]


def markdown(result: Mapping[str, Any]) -> str:
    """Everything: the conditions, and a table a group, in which our backends are bold."""
    lines = ["\n\n".join(conditions(result)), ""]
    for group in result["groups"]:
        measured = [row for row in group.get("rows", []) if "gradients" in row]
        lines += [f"### {group['name']}", ""]
        if "error" in group:
            lines += [f"Failed: {group['error']}", ""]
        else:
            lines += [table(COLUMNS, (_cells(group, row) for row in measured)), ""]
        lines += [*(f"Not measured: {reason}\n" for reason in _not_measured(group))]
    return "\n".join(lines)


def comparison(changes: Sequence[Mapping[str, Any]]) -> str:
    """How the ratios to the floor changed since a saved run; by more than 15 % in bold. As Markdown."""
    columns = ("group", "contender", "quantity", "saved", "now", "now / saved")
    rows = []
    for change in changes:
        ratio, much = f"{change['change']:.2f}", not 1 / 1.15 <= change["change"] <= 1.15
        numbers = (f"{change['saved']:.3g}", f"{change['now']:.3g}", f"**{ratio}**" if much else ratio)
        rows.append((change["group"], change["contender"], change["quantity"], *numbers))
    return f"### Ratio to the floor of the same run, against the saved run\n\n{table(columns, rows, left=3)}"


def claims(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For every group, the fastest of our backends against the fastest contender that is not ours."""
    for group in result["groups"]:
        measured = [row for row in group.get("rows", []) if "gradients" in row and row["contender"] != "floor"]
        ours = [row for row in measured if row["ours"]]
        others = [row for row in measured if not row["ours"]]
        if ours and others:
            best, rival = (min(rows, key=_gradient_time) for rows in (ours, others))
            yield {
                "group": group["name"],
                "ours": best["contender"],
                "other": rival["contender"],
                "ratio": _gradient_time(best) / _gradient_time(rival),
            }


def _gradient_time(row: Mapping[str, Any]) -> float:
    times = row["gradients"]
    return float(times.get("to_floor") or times["median"])
