"""`python -m refimpl` is `refimpl`."""

from refimpl.cli import main

main()
