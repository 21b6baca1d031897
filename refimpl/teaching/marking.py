"""The process in which an exercise is run: `python -m refimpl.teaching.marking FILE [FUNCTION]`.

Speaks refimpl.process/1 (:mod:`refimpl.conformance.messages`). With a FUNCTION, that one of the file stands in an
otherwise right backward pass; what the file prints goes to stderr.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from refimpl.backend import EquationsBackend, able
from refimpl.backend.untrusted import FAILURES, described
from refimpl.equations import EQUATIONS, Equations
from refimpl.formats.arrays import number, tensor
from refimpl.network.spec import NetworkSpec

TOGETHER = "all together"
FUNCTIONS = ("cost_gradient", "output_error", "hidden_error", "weight_gradient", "bias_gradient")


def equations(module: ModuleType, function: str) -> Equations:
    """The right equations with the file's function, or all of them, in their places."""
    taken = FUNCTIONS if function == TOGETHER else (function,)
    theirs: dict[str, Any] = {}
    for name in taken:
        theirs[name] = _adapted(name, getattr(module, name))
    return dataclasses.replace(EQUATIONS, **theirs)


def _adapted(name: str, written: Any) -> Any:
    """A function of the exercise in the form of an equation: it is given f'(z) where that takes the activation."""
    if name == "cost_gradient":
        return lambda dlosses_ds, reduction: written(dlosses_ds.copy())
    if name == "output_error":
        return lambda dC_ds, z, a, vjp: written(dC_ds.copy(), vjp(z, a, np.ones_like(z)))
    if name == "hidden_error":
        return lambda W, delta, z, a, vjp: written(W.copy(), delta.copy(), vjp(z, a, np.ones_like(z)))
    return lambda *operands: written(*(operand.copy() for operand in operands))


def answer(module: ModuleType, function: str, message: dict[str, Any]) -> dict[str, Any]:
    """The file's loss and gradients for one case."""
    spec = NetworkSpec.from_dict(message["network"])
    params = {name: _array(item) for name, item in message["parameters"].items()}
    x, y = _array(message["x"]), _array(message["y"])
    if function:
        run = able(EquationsBackend).with_equations([equations(module, function)] * spec.depth)
        loss, grads = run.gradient_function(spec, dtype="float64", device="cpu")(params, x, y)
    else:
        names = [layer.activation.name for layer in spec.layers]
        loss, grads = module.loss_and_gradients(names, params, x, y)
    gradients = {name: tensor(np.asarray(grad, dtype=np.float64)) for name, grad in dict(grads).items()}
    return {"type": "answer", "id": message["id"], "loss": number(float(loss)), "gradients": gradients}


def _array(item: dict[str, Any]) -> Any:
    return np.array(item["data"], dtype=np.float64).reshape(item["shape"])


def loaded(path: Path) -> ModuleType:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location("exercise", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: Path, function: str) -> None:
    """Answer what is asked on stdin."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module: ModuleType | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "bye":
            return
        if message["type"] == "hello":
            said: dict[str, Any] = {"type": "hello", "format": "refimpl.process/1", "name": "exercise"}
        else:
            try:
                module = module or loaded(path)
                with np.errstate(all="ignore"):
                    said = answer(module, function, message)
            except NotImplementedError:
                said = {"type": "error", "id": message["id"], "message": "not filled in yet"}
            except FAILURES as error:
                said = {"type": "error", "id": message["id"], "message": f"raises {described(error)}"}
        print(json.dumps(said), file=out, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
