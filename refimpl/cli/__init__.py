"""The command line: `refimpl COMMAND`. One module per command; this one gathers them and turns errors into exit
codes.

Exit codes: 0 all pass; 1 a gradient is wrong; 2 the request is wrong (one line, no traceback); 3 nothing is wrong,
but something is UNDETERMINED. Heavy imports happen inside the commands, so that `--help` costs nothing.
"""

from __future__ import annotations

import io
import sys

import typer

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
app.add_typer(vectors, name="vectors")


@app.callback()
def refimpl() -> None:
    """A certified reference for backpropagation: gradients held against balls that provably contain them."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show δ or · is no reason to fail
            stream.reconfigure(errors="replace")
    try:
        app()
    except RefimplError as error:
        print(f"refimpl: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
