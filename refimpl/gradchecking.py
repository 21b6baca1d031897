"""Backward passes held against the certified gradient: `gradcheck`, `check_function`, `assert_gradients_close`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.backend.functions import REAL, ArrayLibrary, Derivatives, Numbers, library_of
from refimpl.backend.untrusted import FAILURES, contained, described
from refimpl.formats.errors import DataError, RefimplError
from refimpl.judge.bounds import BOTH, FIRST_ORDER, THEOREM
from refimpl.judge.functions import FunctionJudge, FunctionReport
from refimpl.judge.report import FAIL, PASS, UNDETERMINED, Row
from refimpl.judge.verdicts import refused
from refimpl.network.arithmetic import PRESETS, Arithmetic
from refimpl.truth.graph import order, summed
from refimpl.truth.programs import OUTPUT, Program, gradient_of, names_of, trace

Array = NDArray[Any]


LARGEST = 2**26  # operations, of balls
SEVERITY = {PASS: 0, UNDETERMINED: 1, FAIL: 2}
ARITHMETIC_HINT = "the name of a preset of refimpl.network.arithmetic, such as 'float32', 'tf32' or 'bfloat16_boundary'"


class GradientError(RefimplError, AssertionError):
    """A gradient is wrong, or undetermined; `report` says which."""

    def __init__(self, report: FunctionReport) -> None:
        super().__init__(report.text)
        self.report = report


@dataclass(frozen=True)
class Observation:
    """Something about a function that is no verdict on a number."""

    text: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {"text": self.text}


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    definition: Callable[..., Any],
    *,
    wrt: Sequence[str | int] | None = None,
    arithmetic: str | Arithmetic | None = None,
    bound: str = BOTH,
    seed: int = 0,
    cotangent: Any = None,
    raise_exception: bool = True,
) -> bool:
    """Whether a function's outputs and gradients are right, in the precision of its inputs: True, or GradientError with
    the report; False in its place unless `raise_exception`. Parameters and other errors: as `check_function`.
    """
    report = check_function(
        function, inputs, definition, wrt=wrt, arithmetic=arithmetic, bound=bound, seed=seed, cotangent=cotangent
    )
    if not report.ok and raise_exception:
        raise GradientError(report)
    return report.ok


def check_function(
    function: Callable[..., Any],
    inputs: Any,
    definition: Callable[..., Any],
    *,
    wrt: Sequence[str | int] | None = None,
    arithmetic: str | Arithmetic | None = None,
    bound: str = BOTH,
    seed: int = 0,
    cotangent: Any = None,
) -> FunctionReport:
    """Hold a function's outputs and its vector–Jacobian product against the certified ones.

    Parameters
    ----------
    function : what is checked, called as `function(*inputs)`: of tensors, differentiated by autograd; of JAX arrays, by
        `jax.vjp`; of NumPy arrays it returns (output, vjp), vjp(cotangent) giving the gradients. It returns an array or
        a tuple of several.
    inputs : its inputs: an array or a tuple, of float64, float32, bfloat16 or float16, in any shape, strides and place;
        integers, booleans and what is no array are handed over.
    definition : the function as mathematics, `definition(xp, *inputs)`, of `refimpl.xp`.
    wrt : the inputs to differentiate by, by the definition's names or by place (from 0); by default those that require
        gradients, or if none does all of floating-point numbers.
    arithmetic : what it is declared to compute in, a preset by name; by default the inputs' own: of 16 bits
        sums in float32 and every operation's result rounded.
    bound : "both", "worst-case" or "first-order", as for `check`.
    seed : of the random cotangents, which are between ½ and 2, of either sign.
    cotangent : an array, or a tuple of one for each output, in their place.

    Raises DataError for a wrong request, CertificationError where the function is not defined at these inputs. What the
    function itself raises is a FAIL.
    """
    given = _several(inputs)
    library = library_of(given)
    request = _requested(library, definition, given, wrt, arithmetic, bound)
    judge = request.judge(cotangent, seed)
    places = [request.names.index(name) for name in request.wrt]
    name = _name(function)
    outputs, cotangents = list(judge.cotangents), list(judge.cotangents.values())

    def once() -> Derivatives:
        with contained():
            return library.differentiate(function, given, places, partial(_fitting, cotangents))

    try:
        runs = [once(), once()]
    except FAILURES as error:
        rows: Sequence[Row] = [refused(name, OUTPUT, f"raised {described(error)}")]
        observations = []
    else:
        answers = [dict(_answers(outputs, request.wrt, judge, run)) for run in runs]
        both = [judge.rows(name, answer) for answer in answers]
        rows = [max(pair, key=lambda row: (SEVERITY[row.verdict], row.ratio)) for pair in zip(*both, strict=True)]
        rows += [
            refused(name, request.names[place], "is an input that the function overwrites; give it back as it was")
            for place in runs[0].overwritten
        ]
        if len(runs[0].outputs) != len(outputs):
            count = f"returned {len(runs[0].outputs)} outputs; its definition has {len(outputs)}"
            rows.append(refused(name, OUTPUT, count))
        observations = [Observation(text) for text in _spread(answers, judge)]
    return request.report(judge, rows, {name: observations} if observations else {})


def assert_gradients_close(
    gradients: Any,
    definition: Callable[..., Any],
    inputs: Any,
    cotangent: Any = None,
    *,
    wrt: Sequence[str | int] | None = None,
    arithmetic: str | Arithmetic | None = None,
    bound: str = BOTH,
) -> None:
    """Assert that gradients that someone already has are those of a definition. `gradients`: an array, or a tuple of
    one for each of `wrt`; `cotangent`: as they were computed with, by default ones. Other parameters: as
    `check_function`. Raises GradientError with the report, DataError, CertificationError.
    """
    given, found = _several(inputs), _several(gradients)
    library = library_of([*given, *found])
    request = _requested(library, definition, given, wrt, arithmetic, bound)
    if len(found) != len(request.wrt):
        raise DataError(f"gradients: {len(found)} given; there must be one for each of {', '.join(request.wrt)}")
    judge = request.judge(cotangent, None)
    answers = {gradient_of(key): library.numbers(one) for key, one in zip(request.wrt, found, strict=True)}
    rows = [row for row in judge.rows("gradients", answers) if row.quantity in answers]
    report = request.report(judge, rows, {})
    if not report.ok:
        raise GradientError(report)


def _name(function: Callable[..., Any]) -> str:
    """A function's own, or that of the class whose method it is, as `torch.autograd.Function.apply` is."""
    owner = getattr(function, "__self__", None)
    return owner.__name__ if isinstance(owner, type) else getattr(function, "__name__", type(function).__name__)


def _several(value: Any) -> list[Any]:
    """Several things, or one."""
    return list(value) if isinstance(value, tuple | list) else [value]


@dataclass(frozen=True)
class _Request:
    """What is asked: `handed` are the inputs by name as the definition gets them, `real` those that are traced."""

    definition: Callable[..., Any]
    names: list[str]
    handed: dict[str, Any]
    dtypes: dict[str, str]
    wrt: list[str]
    arithmetic: Arithmetic
    bound: str
    device: str

    def judge(self, cotangent: Any, seed: int | None) -> FunctionJudge:
        """Who knows the truth, for the cotangents that are given, or drawn, or without a seed ones."""
        program = _program(self.definition, self.handed)
        real = {name: self.handed[name] for name in self.dtypes}
        return FunctionJudge(
            program, real, _cotangents(program, cotangent, seed), self.wrt, self.arithmetic, self.bound
        )

    def report(
        self, judge: FunctionJudge, rows: Sequence[Row], findings: Mapping[str, Sequence[Observation]]
    ) -> FunctionReport:
        """What was found, under what is checked in one line."""
        shapes = (f"{name} {self.dtypes[name]} {self.handed[name].shape}" for name in self.dtypes)
        return FunctionReport(
            spec=f"{getattr(self.definition, '__name__', 'definition')}({', '.join(shapes)})",
            dtype=self.arithmetic.name,
            device=self.device,
            n=0,
            precision=judge.truth.precision,
            rows=tuple(rows),
            findings=findings,
        )


def _requested(
    library: ArrayLibrary, definition: Callable[..., Any], given: Sequence[Any], wrt: Sequence[str | int] | None,
    arithmetic: str | Arithmetic | None, bound: str,
) -> _Request:  # fmt: skip
    if bound not in (BOTH, FIRST_ORDER, THEOREM):
        raise DataError(f"bound must be {BOTH!r}, {FIRST_ORDER!r} or {THEOREM!r}, got {bound!r:.40}")
    names = names_of(definition, given)
    arrays = {name: library.numbers(value) for name, value in zip(names, given, strict=True) if hasattr(value, "dtype")}
    handed = {name: arrays[name].values if name in arrays else value for name, value in zip(names, given, strict=True)}
    real = {name: array for name, array in arrays.items() if array.dtype in REAL}
    for name, array in real.items():
        if not array.values.size:
            raise DataError(f"input {name} has shape {array.values.shape}, without an element; give one that has some")
        if not np.isfinite(array.values).all():
            raise DataError(f"input {name} holds numbers that are not finite")
    if not real:
        raise DataError(f"inputs: none is an array of {', '.join(REAL)}")
    coarsest = max((array.dtype for array in real.values()), key=REAL.index)
    device = next(iter(real.values())).device
    return _Request(
        definition,
        names,
        handed,
        {name: array.dtype for name, array in real.items()},
        _by(names, real, wrt),
        _declared(arithmetic, library.arithmetic(coarsest, device)),
        bound,
        device,
    )


def _by(names: Sequence[str], real: Mapping[str, Numbers], wrt: Sequence[str | int] | None) -> list[str]:
    if wrt is None:
        return [name for name, array in real.items() if array.wanted] or list(real)
    found = []
    for one in _several(wrt):
        name = names[one] if isinstance(one, int) and -len(names) <= one < len(names) else one
        if name not in real:
            raise DataError(f"wrt: {one!r:.40} is none of {', '.join(real)}, the inputs of floating-point numbers")
        found.append(str(name))
    if not found:
        raise DataError("wrt: names no input")
    return found


def _declared(arithmetic: str | Arithmetic | None, own: str) -> Arithmetic:
    if isinstance(arithmetic, Arithmetic):
        return arithmetic
    name = own if arithmetic is None else arithmetic
    if name not in PRESETS:
        raise DataError(f"arithmetic must be {ARITHMETIC_HINT}; known are {', '.join(PRESETS)}; got {name!r:.40}")
    return PRESETS[name]


def _program(definition: Callable[..., Any], handed: Mapping[str, Any]) -> Program:
    try:
        program = trace(definition, handed)
    except RefimplError:
        raise
    except FAILURES as error:
        raise DataError(f"the definition cannot be traced: {described(error)}") from error
    nodes = order(program.outputs.values())
    if not all(node.size for node in program.outputs.values()):
        raise DataError("the definition returns an array without an element")
    if (products := sum(node.size * (summed(node) if node.rule == "contract" else 1) for node in nodes)) > LARGEST:
        raise DataError(
            f"too large to be certified: {products:,} operations, of which {LARGEST:,} are the most; give smaller "
            "inputs, which show the same mistakes"
        )
    return program


def _cotangents(program: Program, given: Any, seed: int | None) -> dict[str, Array]:
    """By output; drawn where none is given and there is a seed, else ones."""
    shapes = {name: node.shape for name, node in program.outputs.items()}
    if given is None:
        return {
            name: np.ones(shape) if seed is None else drawn(seed, number, shape)
            for number, (name, shape) in enumerate(shapes.items())
        }
    several = _several(given)
    if len(several) != len(shapes):
        raise DataError(f"cotangent: {len(several)} given; there must be one for each of {len(shapes)} outputs")
    found = {name: library_of([one]).numbers(one).values for name, one in zip(shapes, several, strict=True)}
    for name, array in found.items():
        if array.shape != shapes[name]:
            raise DataError(f"cotangent of {name} has shape {array.shape}; it must be {shapes[name]}")
    return found


def drawn(seed: int, number: int, shape: tuple[int, ...]) -> Array:
    """Cotangents of magnitudes between ½ and 2, of either sign, with 8 bits, which every dtype has."""
    rng = np.random.default_rng([seed, number])
    mantissas = rng.integers(128, 256, shape) / 128.0
    return np.asarray(mantissas * np.ldexp(1.0, rng.integers(-1, 1, shape)) * rng.choice([-1.0, 1.0], shape))


def _fitting(cotangents: Sequence[Array], number: int, shape: tuple[int, ...]) -> Array:
    """The cotangent of an output; of one that the definition has not, or not in this shape, zeros."""
    if number < len(cotangents) and cotangents[number].shape == tuple(shape):
        return cotangents[number]
    return np.zeros(shape)


def _answers(
    outputs: Sequence[str], wrt: Sequence[str], judge: FunctionJudge, run: Derivatives
) -> Iterator[tuple[str, Numbers | None]]:
    yield from zip(outputs, run.outputs, strict=False)
    for name, gradient in zip(wrt, run.gradients, strict=True):
        key = gradient_of(name)
        truth = judge.truth.ends[key].mid
        if gradient is None and not truth.any():  # which is what None says
            gradient = Numbers(np.zeros(truth.shape), run.outputs[0].dtype)
        yield key, gradient


def _spread(answers: Sequence[Mapping[str, Numbers | None]], judge: FunctionJudge) -> Iterator[str]:
    """What differs between two runs, and how much of the tolerance that is."""
    first, second = answers
    for key, one in first.items():
        other = second[key]
        if one is None or other is None or np.array_equal(one.values, other.values, equal_nan=True):
            continue
        away = np.abs(one.values - other.values)
        bound = np.minimum(judge.tolerance().worst_case[key], judge.tolerance().statistical[key])
        with np.errstate(all="ignore"):
            share = float(np.nanmax(away / bound)) if away.shape == bound.shape else float("nan")
        by = f"{np.nanmax(away):.2g}, {share:.2g} of the tolerance"
        yield f"{key} differs between two runs on the same inputs, by {by}"
