"""The command line: `refimpl COMMAND`. One module per command; this one gathers them and turns errors into exit
codes.

Exit codes: 0 all pass; 1 a gradient is wrong; 2 the request is wrong (one line, no traceback); 3 nothing is wrong,
but something is UNDETERMINED. Heavy imports happen inside the commands, so that `--help` costs nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

import typer

from refimpl.cli.bench import bench
from refimpl.cli.check import check
from refimpl.cli.conform import WithCommand, conform
from refimpl.cli.diagnose import diagnose
from refimpl.cli.soak import soak
from refimpl.cli.vectors import vectors
from refimpl.errors import RefimplError

app = typer.Typer(
    name="refimpl", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command()(check)
app.command(cls=WithCommand)(conform)
app.command()(diagnose)
app.command()(soak)
app.command()(bench)
app.add_typer(vectors, name="vectors")


@app.callback()
def refimpl() -> None:
    """A certified reference for backpropagation: gradients held against balls that provably contain them."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show δ or · is no reason to fail
            stream.reconfigure(errors="replace")
    if os.getcwd() not in sys.path:  # as python -m does: a backend at module:attribute may lie in the working folder
        sys.path.append(os.getcwd())
    try:
        app()
        sys.stdout.flush()
    except RefimplError as error:
        _give_up(str(error))
    except MemoryError:
        _give_up("not enough memory; ask for a smaller batch or network")
    except BrokenPipeError:
        _give_up("")
    except OSError as error:
        _give_up(f"cannot write: {error.strerror}")


def _give_up(message: str) -> None:
    """One line, and exit code 2."""
    if message:
        print(f"refimpl: {' '.join(message.split())}", file=sys.stderr)
    # nothing more can be written to a closed or full stdout: keep the interpreter from trying
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(2)
