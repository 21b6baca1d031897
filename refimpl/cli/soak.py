"""`refimpl soak`: thousands of random networks through every backend, to find a false alarm or a wrong gradient."""

from __future__ import annotations

from typing import Annotated

import typer

from refimpl.cli.requested import Arithmetic, AsJson, Backends, Device, Dtype, Processes, Seed
from refimpl.cli.terminal import ALL_PASS, WRONG, print_json, print_markdown, progress


def soak(
    count: Annotated[int, typer.Option(min=1, help="How many random networks.")] = 1000,
    backend: Backends = None,
    dtype: Arithmetic = Dtype.float64,
    device: Device = "cpu",
    seed: Seed = 0,
    first: Annotated[int, typer.Option(min=0, help="The first network's number: with --count 1, replays one.")] = 0,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Check random networks of every kind on every backend.

    They have every shape, activation, loss and scale. The verdicts are summed up per backend.
    """
    from refimpl import backend as backends
    from refimpl.judge.soak import Soaked, run
    from refimpl.network.random_problems import random_problem

    names = backend or sorted(backends.available())
    network = random_problem(seed, first, dtype.value).spec
    for name in names:
        backends.check_supported(backends.load(name), network, dtype.value, device)
    soaked = Soaked()
    for outcome in progress(run(count, names, dtype.value, device, seed, first, processes), count, "networks", as_json):
        soaked.add(outcome)
    if as_json:
        print_json(soaked.to_dict())
    else:
        print_markdown(soaked.markdown(count, dtype.value, seed))
    raise typer.Exit(WRONG if soaked.failures else ALL_PASS)
