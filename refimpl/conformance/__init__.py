"""The suite for everyone else's backpropagation.

- :mod:`~refimpl.conformance.drafts`: where the cases come from
- :mod:`~refimpl.conformance.generate`: the cases certified and written
- :mod:`~refimpl.conformance.vectors`: cases with their certified answers, as files
- :mod:`~refimpl.conformance.messages`: what refimpl and a program say to each other
- :mod:`~refimpl.conformance.doors`: a Python backend, a program, a file of answers
- :mod:`~refimpl.conformance.run`: the suite run on one of them; :mod:`~refimpl.conformance.report`: what came of it
- :mod:`~refimpl.conformance.plugin`: the same under pytest
"""
