"""How the documentation is built: `make docs`. Every code cell is run, and one that fails fails the build."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

project = "refimpl"
author = "The refimpl authors"
copyright = "2026, the refimpl authors"
version = release = installed("refimpl")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_math_renderer = "mathml"
napoleon_google_docstring = False
exclude_patterns = ["_build", "adapters", "pictures", "detection-table.md"]
html_theme = "furo"
html_title = f"refimpl {version}"
templates_path: list[str] = []
suppress_warnings = ["myst.header"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
default_role = "code"


def as_written(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: a star in (N, *input_shape) begins no emphasis, and what is indented is code."""
    made: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith(" ") or (inside and not line.strip())
        if indented != inside:
            made += ["", "::", ""] if indented else [""]
            inside = indented
        made.append(line if indented else line.replace("*", "\\*").replace("|", "\\|"))
    lines[:] = made


def math(display: str) -> Any:
    """Formulas as MathML, which browsers show without a script from elsewhere."""

    def visit(translator: Any, node: Any) -> None:
        translator.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_written, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (math("inline"), None), (math("block"), None))
