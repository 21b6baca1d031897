"""`refimpl bench`: every backend beside its peers and the floor, as tables, one HTML page and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from refimpl.cli.requested import AsJson, Device, folder
from refimpl.cli.terminal import print_json, print_markdown, progress
from refimpl.formats.errors import DataError


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Four groups instead of all.")] = False,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="TEXT", help="Only groups whose name holds this; may be given again."),
    ] = None,
    contender: Annotated[
        list[str] | None,
        typer.Option("--contender", metavar="NAME", help="Only this one, or module:attribute; may be given again."),
    ] = None,
    device: Device = "cpu",
    seconds: Annotated[
        float, typer.Option(min=0.01, max=600, help="About how long a group's quantity may take.")
    ] = 3.0,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", parser=folder, help="Where bench.json, bench.md and bench.html go.")
    ] = Path("benchmark-results"),
    compare: Annotated[
        Path | None, typer.Option(metavar="SAVED.json", help="Hold this run against a saved bench.json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the backends beside their peers.

    In turns, on the same networks; every gradient is checked first.
    """
    from refimpl.benchmark import contenders, page, report
    from refimpl.benchmark import run as runs
    from refimpl.benchmark.contenders import FLOOR
    from refimpl.benchmark.groups import groups
    from refimpl.formats import files

    if device not in ("cpu", "cuda"):
        raise DataError(f"device must be cpu or cuda; got {device!r}")
    if missing := page.needs():
        raise DataError(f"{' and '.join(missing)} must be installed for the report; pip install 'refimpl[bench]'")
    saved = None if compare is None else runs.read(compare)
    names = list(contender or contenders.available())
    for name in contender or ():
        contenders.find(name)
    if FLOOR not in names:
        names.append(FLOOR)
    chosen = [group for group in groups(device, quick) if not network or any(part in group.name for part in network)]
    if not chosen:
        every = "; ".join(group.name for group in groups(device, quick))
        raise DataError(f"no group's name holds {' or '.join(network or ())!r}; there are {every}")
    target = out.absolute()
    files.make_folder(target, DataError)
    benchmark, todo = runs.Benchmark(), runs.tasks(chosen, names)
    for _ in progress(runs.run(benchmark, todo, seconds), len(todo), "groups and first calls"):
        pass
    result = benchmark.to_dict()
    pages = {"json": json.dumps(result, indent=1) + "\n", "md": report.markdown(result), "html": page.page(result)}
    for kind, text in pages.items():
        files.write(target / f"bench.{kind}", text.encode(), DataError)
    if as_json:
        print_json(result)
        return
    print_markdown(pages["md"])
    if saved is not None:
        print_markdown(report.comparison(runs.compare(result, saved)))
    typer.echo(f"{target / 'bench.html'}, bench.md and bench.json written")
