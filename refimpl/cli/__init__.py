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
import threading
from typing import Annotated

import typer

from refimpl import __version__
from refimpl.cli.bench import bench
from refimpl.cli.check import check
from refimpl.cli.conform import WithCommand, conform
from refimpl.cli.diagnose import diagnose
from refimpl.cli.exercise import exercise
from refimpl.cli.explain import explain, trace
from refimpl.cli.interruption import interruption
from refimpl.cli.lesson import lesson
from refimpl.cli.predict import predict
from refimpl.cli.schema import schema
from refimpl.cli.soak import soak
from refimpl.cli.terminal import main_process
from refimpl.cli.train import train
from refimpl.cli.vectors import vectors
from refimpl.formats.errors import RefimplError

BROKEN_PIPE = 128 + 13  # as shells have it
LINGERING = 10.0  # seconds that threads which a backend has left running have to end

app = typer.Typer(
    name="refimpl", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.command()(check)
app.command(cls=WithCommand)(conform)
for one in (diagnose, trace, explain, lesson, train, predict, soak, bench, schema):
    app.command()(one)
app.add_typer(vectors, name="vectors")
app.add_typer(exercise, name="exercise")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"refimpl {__version__}")
        raise typer.Exit


@app.callback()
def refimpl(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A certified reference for backpropagation: gradients held against balls that provably contain them."""


def command() -> None:
    """The command line as a process of its own, which does not wait for threads that a backend has left running."""
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        watch = threading.Timer(LINGERING, os._exit, [code])
        watch.daemon = True
        watch.start()
        raise


def main() -> None:
    """Run the command line."""
    _take_stdout()
    with contextlib.suppress(OSError):  # as python -m does: a backend at module:attribute may lie in the working folder
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    interruption.install()
    try:
        app()
        sys.stdout.flush()
    except RefimplError as error:
        _give_up(str(error))
    except MemoryError:
        _give_up("not enough memory; ask for a smaller batch or network")
    except BrokenPipeError:  # as in `refimpl vectors list | head`
        _give_up("", BROKEN_PIPE)
    except SystemExit as end:
        if interruption.number:
            sys.exit(128 + interruption.number)
        # the command line's library ends so on a broken pipe, with the exit code of a wrong gradient
        if end.code == 1 and type(sys.stdout).__name__ == "PacifyFlushWrapper":
            _give_up("", BROKEN_PIPE)
        raise
    except OSError as error:
        _give_up(f"cannot write: {error.strerror}")


def _take_stdout() -> None:
    """Stdout for what refimpl prints: what libraries and backends write there by themselves goes to stderr."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:  # nobody has put another in its place
        own = os.dup(1) if main_process() else os.open(os.devnull, os.O_WRONLY)
        os.dup2(2, 1)
        sys.stdout = open(own, "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show δ or · is no reason to fail
            stream.reconfigure(errors="replace")


def _give_up(message: str, code: int = 2) -> None:
    """One line, and the exit code."""
    if message:
        with contextlib.suppress(OSError):
            print(f"refimpl: {' '.join(message.split())}", file=sys.stderr, flush=True)
    # nothing more can be written to what is closed or full: keep the interpreter from trying
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
