"""`python -m refimpl` is `refimpl`."""

from refimpl.cli import command

command()
