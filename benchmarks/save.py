"""Keep a benchmark's results: copy them to `benchmarks/results/` and write their summary into `benchmarks/README.md`.
Run by `make bench-save`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refimpl.benchmark.report import claims
from refimpl.formats.markdown import table

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
BEGIN, END = "<!-- results: written by make bench-save -->\n", "<!-- end of results -->\n"
COLUMNS = ("numpy", "jax", "torch", "torch-compiled", "jax jit", "torch nn", "scikit-learn", "autograd")


def summary(result: Mapping[str, Any]) -> str:
    """The gradients' times of every group as multiples of the floor's, and where ours are behind, in Markdown."""
    machine = result["machine"]
    rows = []
    for group in result["groups"]:
        ratios = {row["contender"]: row["gradients"]["to_floor"] for row in group["rows"] if "gradients" in row}
        cells = [f"{ratios[name]:.2f}" if name in ratios else "" for name in COLUMNS]
        rows.append([group["name"].replace(", cpu", ""), *cells])
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {result['started'][:10]}. The time of a gradient as a "
        "multiple of the matrix products alone, measured in the same rounds; in full, with forward pass, steps, runs "
        "and first calls, in [cpu.md](results/cpu.md) and [cpu.html](results/cpu.html).",
        "",
        table(["", *COLUMNS], rows),
    ]
    found = list(claims(result))
    behind = [claim for claim in found if claim["ratio"] > 1]
    ahead = f"{len(found) - len(behind)} of {len(found)}"
    lines += ["", f"The best of ours is at least as fast as the best of the others in {ahead} groups."]
    for claim in behind:
        lines.append(f"In {claim['group']}, {claim['ours']} takes {claim['ratio']:.3f} of {claim['other']}.")
    return "\n".join(lines) + "\n"


def updated(text: str, result: Mapping[str, Any]) -> str:
    """The README with this result's summary."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + summary(result) + END + rest.partition(END)[2]


def main(folder: Path) -> None:
    """Keep the results in a folder."""
    for kind in ("json", "html", "md"):
        shutil.copy(folder / f"bench.{kind}", HERE / "results" / f"cpu.{kind}")
    README.write_text(updated(README.read_text(), json.loads((HERE / "results" / "cpu.json").read_text())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
