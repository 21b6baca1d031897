"""The article's equations, one function each: :mod:`~refimpl.equations.dense` is the fully connected layer's."""

from refimpl.equations.dense import (
    EQUATIONS,
    Equations,
    VectorJacobianProduct,
    activation,
    bias_gradient,
    cost,
    cost_gradient,
    hidden_error,
    input_gradient,
    output_error,
    weight_gradient,
    weighted_input,
)

__all__ = [
    "EQUATIONS",
    "Equations",
    "VectorJacobianProduct",
    "activation",
    "bias_gradient",
    "cost",
    "cost_gradient",
    "hidden_error",
    "input_gradient",
    "output_error",
    "weight_gradient",
    "weighted_input",
]
