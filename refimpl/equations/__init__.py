"""The article's equations, one function each: :mod:`~refimpl.equations.dense` is the fully connected layer's."""

from refimpl.equations.dense import EQUATIONS, Equations, VectorJacobianProduct

__all__ = ["EQUATIONS", "Equations", "VectorJacobianProduct"]
