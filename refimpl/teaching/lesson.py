"""`lesson`: a small network's forward and backward pass as one HTML file to step through, click, change and break.

The file needs nothing else: no network, no fonts, no libraries. It computes its numbers itself, by
``page/backprop.js``, which goes through the conformance suite like any other implementation; equations, code lines and
the mistakes that can be planted come from here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from refimpl.faults.catalogue import places
from refimpl.formats.errors import DataError
from refimpl.network.spec import NetworkSpec
from refimpl.teaching.display import mathml
from refimpl.teaching.notation import Symbol
from refimpl.teaching.record import trace
from refimpl.teaching.trace import Trace

PAGE = Path(__file__).with_name("page")
WIDEST, DEEPEST, MOST_SAMPLES, MOST_PATHS = 8, 6, 16, 4096
# the faults that page/backprop.js can plant
FAULTS = (
    "not_averaged", "averaged_twice", "averaged_sum", "averaged_at_every_layer", "layer_averaged_again",
    "accumulated_twice", "wrong_sign", "squared_error_without_half", "squared_error_with_half",
    "averaged_over_outputs", "not_averaged_over_outputs", "bias_gradient_averaged", "bias_gradient_missing",
    "bias_gradient_from_row_sums", "slope_dropped", "output_slope_dropped", "slope_at_activation", "slope_twice",
    "activation_formula_fed_z", "relu_mask_on_gradient", "diagonal_softmax_jacobian", "weight_not_transposed",
    "z_in_weight_gradient", "output_in_weight_gradient", "earlier_activation_in_weight_gradient",
    "weight_updated_first", "regulariser_added", "gradient_of_output", "last_sample_only", "layer_last_sample_only",
    "layers_swapped",
)  # fmt: skip

Array = NDArray[Any]


def lesson(spec: NetworkSpec, params: Mapping[str, Array], x: Array, y: Array, *, learning_rate: float = 0.5) -> str:
    """The page, as HTML.

    Parameters: `params` with the spec's keys and shapes, `x` (N, *input_shape), `y` as the loss asks; at most 8
    neurons a layer, 6 layers of weights and 16 samples. Raises DataError for more; ImportError without the extra
    ``teach``.
    """
    import jinja2

    _check_size(spec, len(x))
    if not (math.isfinite(learning_rate) and learning_rate >= 0):
        raise DataError(f"learning_rate must be a finite number ≥ 0, got {learning_rate!r}")
    found = trace(spec, params, x, y)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((PAGE / "page.html").read_text(encoding="utf-8"))
    data = lesson_data(found, learning_rate)
    return template.render(
        title=f"{spec.name} {'-'.join(map(str, spec.sizes))}".strip(), conditions=found.conditions,
        steps=found.steps, faults=data["faults"], samples=found.n, learning_rate=learning_rate,
        version=version("refimpl"),
        css=_asset("page.css"), backprop=_asset("backprop.js"), page=_asset("page.js"),
        data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    )  # fmt: skip


def _asset(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _check_size(spec: NetworkSpec, n: int) -> None:
    remedy = "a lesson is for a network that fits on a screen; take a smaller one"
    if max(spec.sizes) > WIDEST:
        raise DataError(f"a layer of {max(spec.sizes)} neurons is more than {WIDEST}: {remedy}")
    if spec.depth > DEEPEST:
        raise DataError(f"{spec.depth} layers of weights are more than {DEEPEST}: {remedy}")
    if n > MOST_SAMPLES:
        raise DataError(f"{n} samples are more than {MOST_SAMPLES}; take fewer")
    paths = 1
    for size in spec.sizes[2:]:
        paths *= size
    if paths > MOST_PATHS:
        raise DataError(f"{paths:,} paths lead from one weight to the cost, more than {MOST_PATHS:,}: {remedy}")


def lesson_data(found: Trace, learning_rate: float) -> dict[str, Any]:
    """What the page is told: the network and its numbers, the steps, and the mistakes."""
    spec = found.spec
    faults = [
        {"name": fault.name, "layer": layer, "parameter": fault.example, "explanation": fault.explanation,
         "remedy": fault.remedy}
        for fault, layer in places(spec, found.n, found.dtype)
        if fault.name in FAULTS
    ]  # fmt: skip
    steps = [
        {
            "number": step.number, "phase": step.phase, "equation": step.equation, "name": step.name,
            "mathml": mathml(Symbol(step.text, step.latex if found.n == 1 else step.latex_batch)),
            "note": step.note, "function": step.code.function, "file": step.code.file, "line": step.code.line,
            "source": step.code.source, "operands": list(step.operands),
        }
        for step in found.steps
    ]  # fmt: skip
    return {
        "network": spec.to_dict(),
        "labels": spec.labels,
        "params": {name: array.tolist() for name, array in found.params.items()},
        "x": found.values["a1"].tolist(),
        "y": found.y.tolist(),
        "learning_rate": learning_rate,
        "chosen": "W2[2,2]" if min(spec.parameter_shapes.get("W2", (0,))) > 1 else "W1[1,1]",
        "steps": steps,
        "faults": faults,
    }
