"""refimpl: a framework-cross-checked reference implementation of backpropagation.

    spec = refimpl.examples.article()                                  # what the network is
    params = spec.init(seed=0)
    loss, grads = refimpl.value_and_grad(spec, params, x, y)           # by one backend
    truth = refimpl.certify(spec, params, x, y)                        # balls that provably contain the true gradient
    report = refimpl.check(spec, params, x, y)                         # every backend held against them

Names are imported when they are first used, so that `import refimpl` costs nothing.
"""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING, Any

from refimpl import moved

if TYPE_CHECKING:
    from refimpl.backend import Backend, value_and_grad
    from refimpl.checking import check
    from refimpl.faults.diagnosis import diagnose
    from refimpl.faults.findings import Finding
    from refimpl.formats.errors import BackendError, CertificationError, DataError, RefimplError, SpecError
    from refimpl.gradchecking import GradientError, assert_gradients_close, check_function, gradcheck
    from refimpl.judge.judge import Judge
    from refimpl.judge.report import Report, Row
    from refimpl.network import examples
    from refimpl.network.documents import Function
    from refimpl.network.spec import LayerSpec, NetworkSpec
    from refimpl.teaching.explain import explain
    from refimpl.teaching.explanation import Explanation
    from refimpl.teaching.record import trace
    from refimpl.teaching.trace import Trace
    from refimpl.truth import xp
    from refimpl.truth.balls import Balls
    from refimpl.truth.certification import Certificate, certify

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendError",
    "Balls",
    "Certificate",
    "CertificationError",
    "DataError",
    "Explanation",
    "Finding",
    "Function",
    "GradientError",
    "Judge",
    "LayerSpec",
    "NetworkSpec",
    "RefimplError",
    "Report",
    "Row",
    "SpecError",
    "Trace",
    "__version__",
    "assert_gradients_close",
    "certify",
    "check",
    "check_function",
    "diagnose",
    "examples",
    "explain",
    "gradcheck",
    "trace",
    "value_and_grad",
    "xp",
]

_HOME = {
    "refimpl.checking": ("check",),
    "refimpl.gradchecking": ("GradientError", "assert_gradients_close", "check_function", "gradcheck"),
    "refimpl.faults.diagnosis": ("diagnose",),
    "refimpl.faults.findings": ("Finding",),
    "refimpl.backend": ("Backend", "value_and_grad"),
    "refimpl.truth.balls": ("Balls",),
    "refimpl.truth.certification": ("Certificate", "certify"),
    "refimpl.formats.errors": ("BackendError", "CertificationError", "DataError", "RefimplError", "SpecError"),
    "refimpl.judge.judge": ("Judge",),
    "refimpl.judge.report": ("Report", "Row"),
    "refimpl.network.documents": ("Function",),
    "refimpl.network.spec": ("LayerSpec", "NetworkSpec"),
    "refimpl.teaching.explain": ("explain",),
    "refimpl.teaching.explanation": ("Explanation",),
    "refimpl.teaching.trace": ("Trace",),
    "refimpl.teaching.record": ("trace",),
}
_MODULES = {"examples": "refimpl.network.examples", "xp": "refimpl.truth.xp"}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

moved.install()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _MODULE_OF:
        state = random.getstate()  # importing rich draws from the global generator
        try:
            return getattr(import_module(_MODULE_OF[name]), name)
        finally:
            random.setstate(state)
    raise AttributeError(f"module 'refimpl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
