"""Known ways to get backpropagation wrong, and which of them explains a gradient.

- :mod:`~refimpl.faults.catalogue`: every fault, as a change to the equations
- :mod:`~refimpl.faults.diagnosis`: which fault explains one wrong gradient
- :mod:`~refimpl.faults.common_causes`: which few explain a whole run
- :mod:`~refimpl.faults.ball_equations`: a faulty network in exact arithmetic
"""
