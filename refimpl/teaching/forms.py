"""The equations as they are read: for every function of ``refimpl/equations/dense.py`` its number, its name for the
result, and what it says at a layer, for one sample and for a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.spec import NetworkSpec
from refimpl.teaching.notation import Symbol, derivative, slope, symbol

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Form:
    """An equation. `says(spec, layer)` gives it for one sample, and for rows of samples in LaTeX; `layer` is the
    superscript of the result, which is called `name`.
    """

    phase: str
    equation: str
    name: str
    says: Callable[[NetworkSpec, int], tuple[Symbol, str]]
    note: Callable[[NetworkSpec, int], str] = lambda spec, layer: ""


def activation_of(spec: NetworkSpec, layer: int) -> str:
    """The activation between z^layer and a^layer."""
    return spec.layers[layer - 2].activation.name


def _biased(spec: NetworkSpec, layer: int) -> bool:
    return spec.layers[layer - 2].bias


def _join(*parts: Symbol | str) -> Symbol:
    whole = Symbol("", "")
    for part in parts:
        whole += Symbol(part, part) if isinstance(part, str) else part
    return whole


def _is(left: Symbol, *right: Symbol | str) -> Symbol:
    return _join(left, " = ", *right)


def _transposed(of: Symbol) -> Symbol:
    return Symbol(f"{of.plain}ᵀ", rf"({of.latex})^{{\top}}")


TIMES = Symbol(" ", r"\,")
ELEMENTWISE = Symbol(" ⊙ ", r" \odot ")


def _weighted_input(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    W, a, b = symbol("W", layer - 1), symbol("a", layer - 1), symbol("b", layer - 1)
    bias: list[Symbol | str] = [" + ", b] if _biased(spec, layer) else []
    one = _is(symbol("z", layer), W, TIMES, a, *bias)
    rows = f"Z^{{{layer}}} = A^{{{layer - 1}}} {_transposed(W).latex}"
    return one, rows + (rf" + \mathbf{{1}}\,{_transposed(b).latex}" if _biased(spec, layer) else "")


def _activation(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    z = symbol("z", layer)
    return _is(symbol("a", layer), "f(", z, ")"), f"A^{{{layer}}} = f(Z^{{{layer}}})"


def _activation_note(spec: NetworkSpec, layer: int) -> str:
    return f"f is {spec.layers[layer - 2].activation.name}: {ACTIVATIONS[activation_of(spec, layer)].definition_text}"


def _cost(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    loss = LOSSES[spec.loss.name]
    over = r"\frac{1}{N}\sum_n" if spec.reduction == "mean" else r"\sum_n"
    return _is(Symbol("C", "C"), Symbol(loss.definition_text, loss.latex)), rf"C = {over} C_n"


def _reduction_note(spec: NetworkSpec, layer: int) -> str:
    return "averaged over the samples" if spec.reduction == "mean" else "summed over the samples"


def _cost_gradient(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    loss = LOSSES[spec.loss.name]
    one = _is(derivative(symbol("s")), Symbol(loss.derivative_text, loss.derivative_latex))
    over = r"\frac{1}{N} " if spec.reduction == "mean" else ""
    return one, rf"\frac{{\partial C}}{{\partial S}} = {over}\frac{{\partial C_n}}{{\partial s_n}}"


def _through(spec: NetworkSpec, layer: int, before: Symbol, rows: str) -> tuple[Symbol, str]:
    """δ^layer from ∂C/∂a^layer, through the activation."""
    delta, z, a = symbol("δ", layer), symbol("z", layer), symbol("a", layer)
    if ACTIVATIONS[activation_of(spec, layer)].elementwise:
        return _is(delta, before, ELEMENTWISE, slope(z)), rf"\Delta^{{{layer}}} = {rows} \odot f'(Z^{{{layer}}})"
    one = _is(delta, a, ELEMENTWISE, "(", before, " − ", Symbol("Σ", r"\sum"), " ", a, ELEMENTWISE, before, ")")
    big = f"A^{{{layer}}}"
    return one, rf"\Delta^{{{layer}}} = {big} \odot ({rows} - \sum {big} \odot {rows})"


def _output_error(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    return _through(spec, layer, derivative(symbol("s")), r"\frac{\partial C}{\partial S}")


def _hidden_error(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    W, delta = symbol("W", layer), symbol("δ", layer + 1)
    return _through(spec, layer, _join("(", _transposed(W), TIMES, delta, ")"), rf"(\Delta^{{{layer + 1}}} {W.latex})")


def _slope_note(spec: NetworkSpec, layer: int) -> str:
    entry = ACTIVATIONS[activation_of(spec, layer)]
    if not entry.elementwise:
        return "softmax: every a depends on every z of its row"
    return f"f is {entry.name}: f′(z) = {entry.derivative_text}"


def _weight_gradient(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    dW, delta, a = derivative(symbol("W", layer)), symbol("δ", layer + 1), symbol("a", layer)
    return _is(dW, delta, TIMES, _transposed(a)), rf"{dW.latex} = (\Delta^{{{layer + 1}}})^{{\top}} A^{{{layer}}}"


def _bias_gradient(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    db = derivative(symbol("b", layer))
    return _is(db, symbol("δ", layer + 1)), rf"{db.latex} = \sum_n \Delta^{{{layer + 1}}}_n"


def _input_gradient(spec: NetworkSpec, layer: int) -> tuple[Symbol, str]:
    dx, W, delta = derivative(symbol("x")), symbol("W", 1), symbol("δ", 2)
    return _is(dx, _transposed(W), TIMES, delta), r"\frac{\partial C}{\partial X} = \Delta^{2} W^{1}"


FORMS = {
    "weighted_input": Form(FORWARD, "E1", "z{}", _weighted_input),
    "activation": Form(FORWARD, "E2", "a{}", _activation, _activation_note),
    "cost": Form(FORWARD, "E3", "C", _cost, _reduction_note),
    "cost_gradient": Form(BACKWARD, "E3", "da{}", _cost_gradient, _reduction_note),
    "output_error": Form(BACKWARD, "B1", "delta{}", _output_error, _slope_note),
    "hidden_error": Form(BACKWARD, "B2", "delta{}", _hidden_error, _slope_note),
    "weight_gradient": Form(BACKWARD, "B3", "dW{}", _weight_gradient),
    "bias_gradient": Form(BACKWARD, "B4", "db{}", _bias_gradient),
    "input_gradient": Form(BACKWARD, "B5", "dx", _input_gradient),
}
