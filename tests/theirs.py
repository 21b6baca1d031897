"""Right gradients in arrays of another kind, as other people's code has them: `Theirs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refimpl.network.spec import NetworkSpec
from refimpl_numpy import NumpyBackend


class Theirs(NumpyBackend):
    """The right gradients in the arrays that `conventions` declares; `wrong`: zero below the last layer."""

    def __init__(self, conventions: Mapping[str, Any], wrong: bool = False) -> None:
        super().__init__()
        self.name, self.conventions, self.wrong = "theirs", conventions, wrong

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> Any:
        run, declared = super().gradient_function(spec, dtype=dtype, device=device), self.conventions

        def turned(name: str, array: Any) -> Any:
            if name[0] == "W":
                return np.ascontiguousarray(array.T) if declared.get("weights") == "in_out" else array
            return array[:, None] if declared.get("biases") == "columns" else array

        def gradients(params: Any, x: Any, y: Any) -> Any:
            assert declared.get("labels_only") is not True or spec.loss.name != "cross_entropy" or y.ndim == 1
            if declared.get("samples") == "columns":
                x, y = x.T.reshape(-1, *spec.input_shape), y.T
            ours = {name: array if name[0] == "b" else turned(name, array) for name, array in params.items()}
            ours = {name: array.reshape(-1) if name[0] == "b" else array for name, array in ours.items()}
            loss, grads = run(ours, x, y)
            if self.wrong:
                grads = {name: grad * (name[1:] == str(spec.depth)) for name, grad in grads.items()}
            rate = declared.get("learning_rate")
            answer = {
                name: ours[name] - np.asarray(rate, dtype) * grad if rate else grad for name, grad in grads.items()
            }
            return None if declared.get("loss") is False else loss, {k: turned(k, v) for k, v in answer.items()}

        return gradients
