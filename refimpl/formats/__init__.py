"""JSON, files and archives: all that is read from others or written for them, and the errors.

- :mod:`~refimpl.formats.errors`: what refimpl raises
- :mod:`~refimpl.formats.validation`: `Document`, the statement of a format, by which it is read and from which its
  schema is made
- :mod:`~refimpl.formats.strict_json`: JSON without its traps
- :mod:`~refimpl.formats.arrays`: arrays in JSON
- :mod:`~refimpl.formats.archive`: arrays with a checksum, as safetensors
- :mod:`~refimpl.formats.files`: files read with a limit, and written whole or not at all
- :mod:`~refimpl.formats.markdown`: tables
"""
