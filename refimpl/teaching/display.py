"""Numbers, arrays and equations as text and as HTML."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.teaching.notation import Symbol

DIGITS = 17

Array = NDArray[Any]


def value_text(value: float) -> str:
    """A number with all its digits and a real minus."""
    return f"{value:.{DIGITS}g}".replace("-", "−")


def array_text(array: Array) -> str:
    """An array, the middle of a large one left out."""
    shown = np.array2string(np.asarray(array), threshold=24, edgeitems=3, precision=5, max_line_width=110)
    return shown.replace("-", "−")


def shape_text(array: Array) -> str:
    """A shape as NumPy writes it."""
    return f"({', '.join(map(str, array.shape))}{',' if array.ndim == 1 else ''})"


def mathml(symbol: Symbol) -> str:
    """An equation as MathML; as plain text where latex2mathml is not installed."""
    try:
        from latex2mathml.converter import convert
    except ImportError:
        return f"<code>{html.escape(symbol.plain)}</code>"
    return str(convert(symbol.latex))
