"""The true gradient, as balls that provably contain it: a small graph of primitives, read over different numbers.

- :mod:`~refimpl.truth.certification`: `certify`, whose gradients are checked by forward mode as they are made
- :mod:`~refimpl.truth.graph`: nodes and the primitives; `read`, the one interpreter
- :mod:`~refimpl.truth.gradients`: the gradient of a graph, a graph again
- :mod:`~refimpl.truth.elementwise`: the functions that graphs apply, as formulas on power series
- :mod:`~refimpl.truth.network`: the fully connected network as a graph
- :mod:`~refimpl.truth.balls`, :mod:`~refimpl.truth.duals`, :mod:`~refimpl.truth.numbers`,
  :mod:`~refimpl.truth.rounding`: what a graph is read over: balls, derivatives along a direction, float64, error bounds
- :mod:`~refimpl.truth.convolution`: what convolutions by fast algorithms round
- :mod:`~refimpl.truth.precision`: the working precision of ball arithmetic

It knows the definitions of functions only, and nothing of :mod:`refimpl.equations`: the truth may not share a
derivation with what it judges.
"""
