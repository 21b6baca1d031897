"""What a notebook shows: pictures with the right numbers in the right places, and plain text everywhere else."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from networks import network, problem

import refimpl
from refimpl import examples, trace
from refimpl.network.picture import NEGATIVE, POSITIVE, WIDE, drawn

SVG = "{http://www.w3.org/2000/svg}"


def elements(shown: str, kind: str) -> list[ET.Element]:
    """The elements of that kind in the picture, which must be well-formed XML."""
    picture = shown[shown.index("<svg") : shown.index("</svg>") + 6]
    return list(ET.fromstring(picture).iter(SVG + kind))


def title(element: ET.Element) -> str:
    found = element.find(SVG + "title")
    assert found is not None
    return found.text or ""


def test_a_spec_is_its_network() -> None:
    shown = examples.article()._repr_html_()
    assert len(elements(shown, "circle")) == 4 + 2 + 2 + 1
    assert len(elements(shown, "line")) == 8 + 4 + 2
    assert 'aria-label="article 4-2-2-1, squared_error, mean"' in shown
    assert {"4 in", "2 sigmoid", "1 identity"} <= {text.text for text in elements(shown, "text")}


def test_markup_in_a_name_is_text() -> None:
    spec = refimpl.NetworkSpec((2,), [refimpl.LayerSpec(1)], "squared_error", name="<script>alert(1)</script>&")
    p = problem(spec, 1)
    for shown in (spec._repr_html_(), trace(spec, p.params, p.x, p.y)._repr_html_()):
        assert "<script>" not in shown
        elements(shown, "circle")


def test_a_trace_shows_activations_in_the_neurons_and_gradients_on_the_edges() -> None:
    p = problem(examples.article(), 2)
    found = trace(p.spec, p.params, p.x, p.y)
    shown = found.picture(2)
    numbers = [float(title(circle).split(" = ")[1].replace("−", "-")) for circle in elements(shown, "circle")]
    true = np.concatenate([found.values[f"a{layer}"][1] for layer in (1, 2, 3, 4)])
    assert numbers == pytest.approx(true.tolist(), rel=1e-8)
    lines = elements(shown, "line")
    gradients = np.array([float(title(line).split(" = ")[1]) for line in lines])
    true_gradients = [found.grads[f"W{la}"].T.ravel() for la in (1, 2, 3)]  # from k, to j
    assert gradients == pytest.approx(np.concatenate(true_gradients), rel=1e-5)
    widths = np.array([float(line.get("stroke-width", "0")) for line in lines])
    assert (np.diff(widths[np.argsort(np.abs(gradients))]) >= 0).all()
    assert widths[np.argmax(np.abs(gradients))] > 5 * widths[np.argmin(np.abs(gradients))]
    assert [line.get("stroke") for line in lines] == [POSITIVE if g >= 0 else NEGATIVE for g in gradients]


def test_a_wide_layer_is_cut_short_and_says_so() -> None:
    assert drawn(WIDE) == list(range(WIDE))
    assert drawn(50) == [0, 1, 2, 3, 4, 5, None, 49]
    shown = network([50, 3, 20], ["relu", "identity"])._repr_html_()
    assert [text.text for text in elements(shown, "text")].count("⋮") == 2
    assert len(elements(shown, "circle")) == 7 + 3 + 7
    assert len(shown) < 20_000


def test_gradients_are_a_dictionary_with_a_picture() -> None:
    p = problem(examples.article(), 2)
    _, grads = refimpl.value_and_grad(p.spec, p.params, p.x, p.y)
    assert isinstance(grads, dict)
    assert list(grads) == list(p.params)
    shown = grads._repr_html_()  # type: ignore[attr-defined]
    for name in grads:
        assert f"∂C/∂{name}</th>" in shown
    assert len(elements(shown, "line")) == 14
    for other in (pickle.loads(pickle.dumps(grads)), copy.deepcopy(grads)):
        assert {name: array.tobytes() for name, array in other.items()} == {
            name: array.tobytes() for name, array in grads.items()
        }
    assert re.match(r"\{'W1': array", repr(grads))


def test_numbers_that_are_none_are_drawn_too() -> None:
    p = problem(network([2, 2, 1], ["identity", "identity"]), 1)
    big = {name: array * 1e300 for name, array in p.params.items()}
    shown = trace(p.spec, big, p.x, p.y)._repr_html_()
    elements(shown, "line")
    assert "nan" in shown or "inf" in shown


def test_without_latex2mathml_equations_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    p = problem(examples.article(), 1)
    shown = trace(p.spec, p.params, p.x, p.y)._repr_html_()
    assert "<math" not in shown
    assert "<code>δ³ = (W³ᵀ δ⁴) ⊙ f′(z³)</code>" in shown
