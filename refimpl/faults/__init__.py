"""Known ways to get backpropagation wrong, and which of them explains a gradient.

- :mod:`~refimpl.faults.catalogue`: every fault, as a change to the equations
- :mod:`~refimpl.faults.formulas`: formulas that lose digits or overflow in floating point
- :mod:`~refimpl.faults.prediction`: what changed equations give, as a graph, and how far rounding may be from it
- :mod:`~refimpl.faults.diagnosis`: which fault explains one wrong gradient
- :mod:`~refimpl.faults.common_causes`: which few explain a whole run
"""
