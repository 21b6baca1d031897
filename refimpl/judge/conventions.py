"""How somebody's code has its arrays where that is not as refimpl has them: `Conventions`, which it declares.

`given` makes of a batch what the code takes, `returned` of what it returns a submission as others are. The gradient of
code that only updates its parameters is (before − after)/rate, which is known less well than what is returned: by half
a unit in the last place of the parameter over the rate, and by three roundings of the gradient. That much is granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from refimpl.backend.protocols import Backend
from refimpl.backend.untrusted import FAILURES, described
from refimpl.formats.errors import BackendError
from refimpl.formats.validation import Document, Flag, OneOf, checked
from refimpl.judge.submission import Submission, Unusable
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.functions import LOSSES
from refimpl.network.spec import NetworkSpec

Array = NDArray[Any]
Data = tuple[dict[str, Array], Array, Array]
ROUNDINGS = 3  # of the gradient: the product with the rate, the difference, the quotient


class Conventions(Document):
    """What an implementation declares; by default it is as refimpl is.

    `loss`: whether it returns one. `labels_only`: of classes it takes labels, no probabilities. `one_activation`: all
    layers have the same. `samples`: x is (N, n_in) in "rows", (n_in, N) in "columns", and y so too. `weights`: W is
    (n_out, n_in), "out_in", or (n_in, n_out), "in_out". `biases`: b is (n_out,), "flat", or (n_out, 1), "columns".
    `learning_rate`: it returns no gradients but the parameters after one step, W − rate × ∂C/∂W.
    """

    loss: Flag = True
    labels_only: Flag = False
    one_activation: Flag = False
    samples: Annotated[str, OneOf(("rows", "columns"))] = "rows"
    weights: Annotated[str, OneOf(("out_in", "in_out"))] = "out_in"
    biases: Annotated[str, OneOf(("flat", "columns"))] = "flat"
    learning_rate: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None

    def __str__(self) -> str:
        """What is declared, in words."""
        words = (
            ("no loss", not self.loss),
            ("labels only", self.labels_only),
            ("one activation for all layers", self.one_activation),
            ("columns as samples", self.samples == "columns"),
            ("W as (n_in, n_out)", self.weights == "in_out"),
            ("b as (n_out, 1)", self.biases == "columns"),
            (f"gradients as (before − after)/{self.learning_rate or 1:g}", self.learning_rate is not None),
        )  # fmt: skip
        return ", ".join(word for word, declared in words if declared)

    def lacks(self, spec: NetworkSpec) -> str:
        """What it lacks for a network; "" for nothing."""
        several = self.one_activation and len({layer.activation for layer in spec.layers}) > 1
        return "has one activation for all layers" if several else ""

    def declines(self, spec: NetworkSpec, y: Array) -> str:
        """Why it takes no such targets; "" where it does."""
        soft = self.labels_only and LOSSES[spec.loss.name].target == "classes" and y.ndim == 2
        return "takes labels only" if soft else ""

    def given(self, params: Mapping[str, Array], x: Array, y: Array) -> Data:
        """Parameters and a batch as the code takes them; new arrays, which it may change."""
        if self.samples == "columns":
            x = x.reshape(len(x), -1).T.copy()
            y = y.T.copy()
        return {name: self._theirs(name, array) for name, array in params.items()}, x, y

    def _theirs(self, name: str, array: Array) -> Array:
        if name.startswith("W"):
            return array.T.copy() if self.weights == "in_out" else array
        return array.reshape(-1, 1) if self.biases == "columns" else array

    def returned(
        self, submission: Submission | Unusable, params: Mapping[str, Array], dtype: str
    ) -> Submission | Unusable:
        """What came back for these parameters, which are refimpl's own, in a dtype, as a submission."""
        if isinstance(submission, Unusable) or self == AS_REFIMPL:
            return submission
        arrays = {name: self._ours(name, array) for name, array in submission.gradients.items()}
        slack: dict[str, Array] = {}
        for name, after in arrays.items() if self.learning_rate else ():
            if name in params and not isinstance(after, Unusable) and after.shape == params[name].shape:
                arrays[name], slack[name] = self._recovered(params[name].astype(dtype), after)
        return Submission(submission.loss, arrays, slack, self.loss)

    def _ours(self, name: str, array: Array | Unusable) -> Array | Unusable:
        if isinstance(array, Unusable) or array.ndim != 2:
            return array
        if name.startswith("W"):
            return array.T if self.weights == "in_out" else array
        return array[:, 0] if self.biases == "columns" and array.shape[1] == 1 else array

    def _recovered(self, before: Array, after: Array) -> tuple[Array, Array]:
        """The gradient, and how far it may be off."""
        assert self.learning_rate is not None
        u = ARITHMETICS[str(before.dtype)].unit_roundoff
        with np.errstate(all="ignore"):
            grad = (before.astype(np.float64) - after.astype(np.float64)) / self.learning_rate
            slack = u * np.abs(after) / self.learning_rate + ROUNDINGS * u * np.abs(grad)
            return grad.astype(after.dtype if after.dtype.kind == "f" else before.dtype), slack


AS_REFIMPL = Conventions()


def declared_conventions(backend: Backend) -> Conventions:
    """What a backend has as `conventions`, a dictionary or `Conventions`. Raises BackendError."""
    try:
        declared: Any = getattr(backend, "conventions", AS_REFIMPL)
    except FAILURES as error:
        raise BackendError(f"backend {backend.name!r}: conventions raised {described(error)}") from None
    if isinstance(declared, Conventions):
        return declared
    return checked(Conventions, declared, BackendError, "it", f"backend {backend.name!r}: conventions")
