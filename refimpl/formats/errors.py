"""What refimpl raises when a request is wrong: one line that names the field, what was wrong and what to write
instead.
"""

from __future__ import annotations


class RefimplError(ValueError):
    """Base of all errors that refimpl raises on purpose."""


class SpecError(RefimplError):
    """A network spec, or the JSON of one, is wrong."""


class DataError(RefimplError):
    """Parameters, x, y or their dtype are wrong."""


class BackendError(RefimplError):
    """A backend is unknown, not installed, or does not support what is asked of it."""


class CertificationError(RefimplError):
    """The truth cannot be computed: the loss is not defined at this point."""


class ConformanceError(RefimplError):
    """A vector file, an answers file, or a list of expected failures is wrong."""


class CheckpointError(RefimplError):
    """A checkpoint or a saved model cannot be written, cannot be read, or does not fit."""
