"""The true gradient, as balls that provably contain it.

- :mod:`~refimpl.truth.certification`: `certify`
- :mod:`~refimpl.truth.precision`: the working precision of ball arithmetic

It knows the definitions of functions only, and nothing of :mod:`refimpl.equations`: the truth may not share a
derivation with what it judges.
"""
