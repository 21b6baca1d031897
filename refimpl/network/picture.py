"""A network drawn as SVG: a column of neurons a layer, a line a weight.

With numbers, a neuron shows its activation, and a line the gradient of its weight, by colour (the sign) and width (the
size). Of a wide layer some neurons are left out, which is shown. Nothing is imported: a picture is text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

WIDE = 8  # neurons of a layer that are drawn
COLUMN, ROW, RADIUS, MARGIN = 130, 62, 22, 40
POSITIVE, NEGATIVE, PLAIN = "#0072B2", "#D55E00", "#888888"  # apart for colour-blind readers (Okabe and Ito 2008)
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Value = Callable[[int, int], float]  # (layer, neuron), both from 0
Weight = Callable[[int, int, int], float]  # (layer, to, from), all from 0


def drawn(size: int) -> list[int | None]:
    """The neurons of a layer that are drawn, from 0; None for those left out."""
    if size <= WIDE:
        return list(range(size))
    return [*range(WIDE - 2), None, size - 1]


def network_svg(
    sizes: Sequence[int],
    labels: Sequence[str],
    title: str,
    activation: Value | None = None,
    gradient: Weight | None = None,
) -> str:
    """The picture. `sizes` are the layers' from the input on, `labels` stand under them; `activation` and `gradient`
    give the numbers, where there are any.
    """
    columns = [drawn(size) for size in sizes]
    height = 2 * MARGIN + ROW * max(len(column) for column in columns) + 10
    width = 2 * MARGIN + COLUMN * (len(sizes) - 1) + 2 * RADIUS
    middle = (height - 30) / 2

    def place(layer: int, row: int) -> tuple[float, float]:
        return MARGIN + RADIUS + COLUMN * layer, middle + ROW * (row - (len(columns[layer]) - 1) / 2)

    edges = [
        (layer, j, k, place(layer, row_k), place(layer + 1, row_j))
        for layer in range(len(sizes) - 1)
        for row_k, k in enumerate(columns[layer])
        for row_j, j in enumerate(columns[layer + 1])
        if j is not None and k is not None
    ]
    sized = {(la, j, k): gradient(la, j, k) for la, j, k, _, _ in edges} if gradient else {}
    largest = max((abs(g) for g in sized.values() if math.isfinite(g)), default=0.0)
    parts = [
        _edge(start, end, sized.get((la, j, k)), largest, f"w{str(la + 1).translate(RAISED)} {j + 1},{k + 1}")
        for la, j, k, start, end in edges
    ]
    for layer, column in enumerate(columns):
        for row, neuron in enumerate(column):
            at = place(layer, row)
            if neuron is None:
                parts.append(
                    f'<text x="{at[0]:.0f}" y="{at[1] + 5:.0f}" text-anchor="middle" fill="currentColor">⋮</text>'
                )
            else:
                parts.append(_neuron(at, layer, neuron, activation))
        x, _ = place(layer, 0)
        parts.append(
            f'<text x="{x:.0f}" y="{height - 14}" text-anchor="middle" font-size="12" fill="currentColor">'
            f"{html.escape(labels[layer])}</text>"
        )
    style = "max-width:100%;height:auto;font-family:system-ui,sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(title)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" style="{style}">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}</svg>"
    )


def _edge(
    start: tuple[float, float], end: tuple[float, float], gradient: float | None, largest: float, name: str
) -> str:
    colour, width, told = PLAIN, 1.0, name
    if gradient is not None:
        share = abs(gradient) / largest if largest and math.isfinite(gradient) else 0.0
        colour, width = POSITIVE if gradient >= 0 else NEGATIVE, 0.75 + 5 * share
        told = f"∂C/∂{name} = {gradient:.6g}"
    return (
        f'<line x1="{start[0] + RADIUS:.0f}" y1="{start[1]:.1f}" x2="{end[0] - RADIUS:.0f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="{width:.2f}"><title>{told}</title></line>'
    )


def _neuron(at: tuple[float, float], layer: int, neuron: int, activation: Value | None) -> str:
    above = str(layer + 1).translate(RAISED)
    shown = f"a{above}" if activation is None else f"{activation(layer, neuron):.3g}".replace("-", "−")
    told = f"a{above} {neuron + 1}" + ("" if activation is None else f" = {activation(layer, neuron):.9g}")
    x, y = f"{at[0]:.0f}", f"{at[1]:.1f}"
    return (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="none" stroke="currentColor"><title>{told}</title></circle>'
        f'<text x="{x}" y="{at[1] + 4:.1f}" text-anchor="middle" font-size="11" fill="currentColor">{shown}</text>'
    )
