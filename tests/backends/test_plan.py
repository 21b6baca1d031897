"""The planned hand-derived backend: the gradients that the equations give, in memory that nobody else's is."""

from __future__ import annotations

import itertools
import re
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from networks import DTYPES, judge, network, problem, sampled, verdicts
from plan_program import Program, look, memory

from refimpl import check, examples
from refimpl.equations import EQUATIONS
from refimpl.formats.errors import BackendError
from refimpl.judge.report import FAIL, PASS
from refimpl.network.functions import ACTIVATIONS, LOSSES
from refimpl.network.random_problems import Problem, random_problem
from refimpl_numpy import NumpyBackend, backend, plan
from refimpl_numpy.network import targets
from refimpl_numpy.noting import Unplanned
from refimpl_numpy.placed import PlannedGradients, gradients_of, plan_of

ELEMENTWISE = [name for name, activation in ACTIVATIONS.items() if activation.elementwise]


def planned(p: Problem) -> Any:
    return backend.gradient_function(p.spec, dtype=p.x.dtype.name, device="cpu")


def as_problem(spec: Any, n: int, dtype: str = "float64") -> Problem:
    return problem(spec, n, dtype=dtype)


@pytest.mark.parametrize("index", sampled(30, default=12))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_planned_gradients_of_random_networks_are_right_again_and_again(index: int, dtype: str) -> None:
    p = random_problem(4, index, dtype)
    run = planned(p)
    answers = [run(p.params, p.x, p.y) for _ in range(3)]
    judged = judge(p)
    for answer in answers:
        assert FAIL not in verdicts(judged.judge_answer("numpy", answer)).values()
    for name in p.params:
        assert np.array_equal(answers[0][1][name], answers[2][1][name], equal_nan=True)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "gelu"])
def test_every_activation_can_be_planned(name: str) -> None:
    p = as_problem(network([3, 4, 2], [name, name]), 5)
    run = planned(p)
    assert set(verdicts(judge(p).judge_answer("numpy", run(p.params, p.x, p.y))).values()) == {PASS}
    assert list(run.plans.values()) != [None]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n", [1, 5])
def test_every_loss_can_be_planned(name: str, n: int) -> None:
    last = "softmax" if name == "negative_log_likelihood" else "identity"
    p = as_problem(network([3, 4, 2], ["tanh", last], name), n)
    run = planned(p)
    assert set(verdicts(judge(p).judge_answer("numpy", run(p.params, p.x, p.y))).values()) == {PASS}
    assert list(run.plans.values()) != [None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_what_cannot_be_noted_is_run_as_the_equations_stand(loss: str, dtype: str) -> None:
    p = as_problem(network([3, 4, 2], ["gelu", "identity"], loss), 5, dtype)
    run = planned(p)
    out = {name: np.empty_like(array) for name, array in p.params.items()}
    answer = run(p.params, p.x, p.y, out=out)
    assert list(run.plans.values()) == [None]
    placed = backend.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1)
    assert set(verdicts(judge(p).judge_answer("numpy", answer)).values()) == {PASS}
    expected, grads, _ = gradients_of(p.spec, p.params, p.x, targets(p.spec, p.y, dtype), [EQUATIONS] * 2)
    for value, found in (answer, placed.answer(), (float(placed.loss()), grads)):
        assert value == float(expected)
        assert all((found[name] == grads[name]).all() for name in grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_placed_network_is_planned(loss: str, dtype: str) -> None:
    p = as_problem(network([3, 4, 2], ["tanh", "identity"], loss), 5, dtype)
    placed = backend.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1)
    first, again = placed.loss(), placed.loss()
    assert first is again  # planned memory, which the next call overwrites
    assert placed.gradients()[0] is placed.gradients()[0]
    assert first.dtype == dtype
    assert float(first) == placed.answer()[0]
    placed.wait(first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_parameter_begins_on_a_cache_line(dtype: str) -> None:
    p = as_problem(network([3, 5, 2], ["tanh", "identity"]), 5, dtype)
    placed = backend.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1)
    for flat, views in ((placed.flat, placed.params), (placed.flat_gradient, placed.grads)):
        offsets = [view.ctypes.data - flat.ctypes.data for view in views.values()]
        assert offsets[0] == 0
        assert all(offset % 64 == 0 for offset in offsets)
        assert flat.size * flat.itemsize - offsets[-1] < 128


@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_a_learning_rate_has_the_parameters_dtype(name: str) -> None:
    p = as_problem(network([3, 40, 2], [name, "identity"]), 5, "float32")
    with backend.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1) as placed:
        _, grads = placed.answer()
        after = placed.descend(1)
    for key, array in after.items():
        assert array.dtype == np.float32
        assert (array == p.params[key] - np.float32(0.1) * grads[key]).all()


def test_a_mistake_in_the_equations_is_not_taken_for_what_cannot_be_noted() -> None:
    p = as_problem(network([3, 4, 2], ["tanh", "identity"]), 5)
    wrong: Any = replace(EQUATIONS, bias_gradient=lambda: None)
    with pytest.raises(TypeError, match="positional argument"):
        NumpyBackend((EQUATIONS, wrong)).place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1)


@pytest.mark.parametrize("n", [1, 32])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_memory_for_numbers_is_allocated_after_the_first_call(n: int, dtype: str) -> None:
    p = as_problem(examples.article(), n, dtype)
    run = planned(p)
    out = {name: np.empty_like(array) for name, array in p.params.items()}
    placed = backend.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=1e-3)
    calls = [lambda: run(p.params, p.x, p.y, out=out), placed.gradients, placed.loss, lambda: placed.descend(3)]
    tracemalloc.start()
    try:
        for call in calls:
            call()
            tracemalloc.clear_traces()
            call()
            assert _numbers_allocated() == 0
        run(p.params, p.x, p.y)  # where no out is given, the gradients are new arrays
        kept = run(p.params, p.x, p.y)
        assert _numbers_allocated() > 0
        assert kept is not None
    finally:
        tracemalloc.stop()


def _numbers_allocated() -> int:
    """The blocks of NumPy's own allocator that were allocated and are held."""
    numpy_s = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return len(tracemalloc.take_snapshot().filter_traces([numpy_s]).traces)


def test_a_returned_array_is_never_written_to_again() -> None:
    p = as_problem(examples.article(), 4)
    run = planned(p)
    loss, grads = run(p.params, p.x, p.y)
    kept = {name: array.copy() for name, array in grads.items()}
    for _ in range(3):
        other_loss, others = run(p.params, p.x + 1, p.y)
        assert other_loss != loss
        for name, array in kept.items():
            assert (grads[name] == array).all()
            assert not np.shares_memory(grads[name], others[name])


def test_gradients_are_written_where_the_caller_wants_them() -> None:
    p = as_problem(examples.article(), 4)
    run = planned(p)
    out = {name: np.full_like(array, np.nan) for name, array in p.params.items()}
    arrays = dict(out)
    loss, grads = run(p.params, p.x, p.y, out=out)
    assert all(grads[name] is arrays[name] for name in arrays)
    assert set(verdicts(judge(p).judge_answer("numpy", (loss, grads))).values()) == {PASS}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out, p: out.pop("b1"), r"out\['b1'\] must be an array of float64 and shape \(2,\)"),
        (lambda out, p: out.update(W1=np.empty((4, 2))), r"out\['W1'\] must be an array of float64 and shape \(2, 4\)"),
        (lambda out, p: out.update(W1=np.empty((2, 4), "f4")), r"out\['W1'\] must be an array of float64"),
        (lambda out, p: out.update(W1=np.empty((4, 2)).T), r"out\['W1'\] must be writable, C-contiguous"),
        (lambda out, p: out["W2"].setflags(write=False), r"out\['W2'\] must be writable"),
        (lambda out, p: out.update(W3=p.params["W3"]), r"out\['W3'\] must be .* not the parameter itself"),
        (lambda out, p: out.update(W9=np.empty(1)), "out must hold W1, b1, W2, b2, W3 and nothing else"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(spoil: Any, message: str) -> None:
    p = as_problem(examples.article(), 4)
    out = {name: np.zeros_like(array) for name, array in p.params.items()}
    spoil(out, p)
    with pytest.raises(BackendError, match=message):
        planned(p)(p.params, p.x, p.y, out=out)
    assert not any(array.any() for name, array in out.items() if name not in ("W1", "W3", "W9"))


def test_shapes_of_the_batch_have_plans_of_their_own() -> None:
    spec = examples.article()
    run = backend.gradient_function(spec, dtype="float64", device="cpu")
    for n in (*range(1, 12), 1, 5):
        p = as_problem(spec, n)
        assert set(verdicts(judge(p).judge_answer("numpy", run(p.params, p.x, p.y))).values()) == {PASS}
    assert isinstance(run, PlannedGradients)
    assert len(run.plans) == 8


def test_threads_do_not_share_planned_memory() -> None:
    problems = [problem(network([6, 40, 3], ["tanh", "identity"]), 40, seed) for seed in range(4)]
    run = planned(problems[0])
    expected = [planned(p)(p.params, p.x, p.y) for p in problems]
    wrong: list[int] = []

    def work(index: int) -> None:
        p = problems[index]
        for _ in range(200):
            loss, grads = run(p.params, p.x, p.y)
            close = all(np.allclose(grads[name], expected[index][1][name], rtol=1e-12, atol=1e-14) for name in grads)
            if not close or abs(loss - expected[index][0]) > 1e-12:
                wrong.append(index)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_the_plan_runs_the_equations_that_it_is_given() -> None:
    """There is no second statement of the mathematics that a planted mistake would miss."""
    p = as_problem(network([4, 3, 2], ["tanh", "identity"]), 5)
    mistakes: dict[str, Any] = {
        "bias_gradient": lambda delta: delta.sum(axis=0) / len(delta),
        "weight_gradient": lambda delta, a: -(delta.T @ a),
        "cost_gradient": lambda dlosses_ds, reduction: dlosses_ds,
    }
    for name, mistake in mistakes.items():
        wrong = NumpyBackend([replace(EQUATIONS, **{name: mistake})] * 2)
        placed = wrong.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1)
        assert placed._gradients != placed._gradients_unplanned
        assert FAIL in verdicts(judge(p).judge_answer("numpy", placed.answer())).values()


def test_the_program_can_be_read() -> None:
    p = as_problem(examples.article(), 3)
    source = plan_of(p.spec, {**p.params, "x": p.x, "y": p.y}, [EQUATIONS] * 3, np).source
    calls = [line.strip() for line in source.splitlines() if line.startswith("        ")]
    assert sum(call.startswith("dot(") and "ones" not in call for call in calls) == 8  # 3 forward, 5 back
    assert len(calls) < 50
    assert all("(" in call or call.startswith("return") for call in calls)
    assert all(re.search(rf"\b{letter}\d+\b", source) for letter in "cmv")  # constants, memory and views of it


# The programs, by what their calls read and write


def programs() -> Iterator[Program]:
    """Of every activation with every loss, and of the article's network."""
    problems = [as_problem(examples.article(), n) for n in (1, 3)]
    for index, (activation, loss) in enumerate(itertools.product([*ACTIVATIONS], LOSSES)):
        last = "softmax" if loss == "negative_log_likelihood" else activation
        if "gelu" not in (activation, last):
            spec = network([3, 4, 2], [activation, last], loss, ("mean", "sum")[index % 2])
            problems.append(as_problem(spec, (5, 1)[index % 3 == 0], DTYPES[index % 2]))
    for p in problems:
        arrays = {**p.params, "x": p.x, "y": p.y}
        made = plan_of(p.spec, arrays, [EQUATIONS] * p.spec.depth, np)
        yield Program(made, arrays, {name: np.empty_like(array) for name, array in p.params.items()})


def test_nothing_is_computed_twice() -> None:
    for program in programs():
        numbers: dict[Any, int] = {}
        held: dict[int, int] = {}  # the number of the value that a memory holds

        def value(array: Any, held: dict[int, int] = held) -> Any:
            whole = memory(array)
            return held.get(id(whole), -id(whole)), look(array)

        for call in program.calls:
            what = (call.name, *map(value, call.reads), value(call.writes) if call.where else look(call.writes))
            assert what not in numbers or (call.name == "copyto" and not call.where), program.plan.source
            held[id(memory(call.writes))] = numbers.setdefault(what, len(numbers))


def test_what_is_computed_is_used_and_so_is_every_constant() -> None:
    for program in programs():
        wanted = {id(memory(array)) for array in (*program.out.values(), program.returned)}
        for call in reversed(program.calls):
            written = id(memory(call.writes))
            assert written in wanted, program.plan.source
            if not call.where:
                wanted.remove(written)
            wanted |= {id(memory(array)) for array in call.reads}
        constants = [array for name, array in program.plan.bind.__globals__.items() if re.fullmatch(r"c\d+", name)]
        assert {id(array) for array in constants} <= wanted
        assert len({(array.dtype, array.shape, array.tobytes()) for array in constants}) == len(constants)
        # ones change nothing, and neither does a sum or the largest of one
        for call in program.calls:
            if call.name in ("multiply", "divide"):
                factors = call.reads if call.name == "multiply" else call.reads[1:]
                assert not any((f == 1).all() for f in factors for c in constants if f is c), program.plan.source
            elif call.name == "row_max":
                assert call.reads[0].shape[1] > 1
            elif call.name == "dot" and any(name.startswith("ones") for name in program.called(call.reads)):
                assert min(array.size for array in call.reads) > 1, program.plan.source


def test_memory_is_used_again_as_soon_as_its_value_is_dead() -> None:
    for program in programs():
        for time, call in enumerate(program.calls):
            whole = id(memory(call.writes))
            if whole in program.foreign or call.where:
                continue
            if program.first[whole] == time:
                assert program.reusable(time) == [], program.plan.source
        held = [array for name, array in program.plan.bind.__globals__.items() if re.fullmatch(r"m\d+", name)]
        assert program.plan.allocated == sum(array.nbytes for array in held)
        assert {id(array) for array in held} == set(program.first), program.plan.source


def test_outputs_are_computed_where_they_are_wanted() -> None:
    for program in programs():
        for name, out in program.out.items():
            writers = [call for call in program.calls if memory(call.writes) is out]
            assert writers, name
            assert not any(call.name == "copyto" for call in writers)


def test_every_call_is_of_one_dtype_and_needed() -> None:
    for program in programs():
        for call, following in itertools.zip_longest(program.calls, program.calls[1:]):
            read = {array.dtype for array in call.reads if array.dtype != bool}
            assert len(read) <= 1, program.plan.source
            if call.name != "copyto" and call.writes.dtype != bool:
                assert read == {call.writes.dtype}, program.plan.source
            if call.name == "copyto":
                cast = not call.where and not (following and following.where)
                assert (call.reads[0].dtype != call.writes.dtype) == cast, program.plan.source
            assert call.name != "copyto" or call.reads[0] is not call.writes, program.plan.source
        assert not re.search(r"\b(out_W\d|W\d|b\d)_reshape", program.plan.source)
        assert not re.search(r"\bx_reshape", program.plan.source) or len(program.arrays["x"]) == 1


def test_what_is_so_already_is_not_made_so() -> None:
    x = np.ones((3, 2))
    made = plan.Plan(lambda x: ((x.astype(x.dtype).reshape(3, 2).copy() * x).sum(), {}), {"x": x})
    assert "copyto" not in made.source
    assert "x_reshape" not in made.source
    assert float(made.bind({"x": x}, {})()) == 6


def test_one_array_is_cast_to_several_dtypes() -> None:
    x = np.array([[1 / 3, 2 / 3]])
    squares = {dtype: x.astype(dtype) * x.astype(dtype) for dtype in ("f2", "f4")}
    made = plan.Plan(lambda x: (x.sum(), {d: x.astype(d) * x.astype(d) for d in squares}), {"x": x})
    out = {dtype: np.full((1, 2), np.nan, dtype) for dtype in squares}
    made.bind({"x": x}, out)()
    assert all((out[dtype] == square).all() for dtype, square in squares.items())


def test_outputs_may_be_inputs_transposes_and_one_another() -> None:
    def function(x: Any) -> Any:
        square = x * x
        outputs = {"input": x, "turned": (x + 1).T, "one": square, "same": square, "row": (x + 2).reshape(6)}
        again = (x + 3).reshape(6).reshape(2, 3)
        return square.sum(), {**outputs, "again": again, "view": x.T}

    x = np.arange(6.0).reshape(3, 2)
    expected = function(x)[1]
    out = {name: np.full(array.shape, np.nan) for name, array in expected.items()}
    made = plan.Plan(function, {"x": x})
    assert float(made.bind({"x": x}, out)()) == (x * x).sum()
    assert all((out[name] == array).all() for name, array in expected.items())


def test_a_choice_is_made_in_the_memory_of_what_it_is_made_from() -> None:
    x = np.array([[-1.0, 2.0], [3.0, -4.0], [5.0, 6.0], [7.0, 8.0]])
    made = plan.Plan(lambda x: ((np.where(x > 0, x * x, x + 1) * 2).sum(), {}), {"x": x})
    assert float(made.bind({"x": x}, {})()) == 2 * (4 + 9 + 25 + 36 + 49 + 64 + 0 - 3)
    both, condition, scalar = 2 * x.nbytes, x.size, 8
    assert made.allocated == both + condition + scalar


@pytest.mark.parametrize(("size", "summed"), [(2**12, "dot"), (2**12 + 1, "total")])
def test_sums_of_4096_numbers_are_products_with_ones(size: int, summed: str) -> None:
    x = np.ones((1, size))
    made = plan.Plan(lambda x: ((x * x).sum(), {}), {"x": x})
    program = Program(made, {"x": x}, {})
    assert program.calls[-1].name == summed
    assert program.known.get("total", np.add.reduce) == np.add.reduce  # np.sum costs a third more


def test_long_sums_on_a_device_and_constants_as_numbers(cupy: FakeCupy) -> None:
    x = cupy.asarray(np.ones((3, 2000)))
    made = plan.Plan(lambda x: ((x * 2.0).sum(), {}), {"x": x}, cupy)  # type: ignore[arg-type]
    assert float(made.bind({"x": x}, {})()) == 12000
    constants = [value for name, value in made.bind.__globals__.items() if re.fullmatch(r"c\d+", name)]
    assert constants == [2.0]
    assert type(constants[0]) is float


def test_rows_of_a_batch_of_one_are_of_one_shape() -> None:
    for program in programs():
        if len(program.arrays["x"]) == 1:
            for call in program.calls:
                arrays = [array for array in (*call.reads, call.writes) if array.shape]
                if call.elementwise and len({array.size for array in arrays}) == 1:
                    assert len({array.shape for array in arrays}) == 1, program.plan.source


@pytest.mark.parametrize(("samples", "summed"), [(4, "dot"), (5, "total")])
def test_long_sums_are_not_made_by_products_with_ones(
    samples: int, summed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "DOT_SIZE", 12)
    p = as_problem(network([2, 3], ["identity"]), samples)
    made = plan.Plan(lambda x: ((x * x).sum(), {}), {"x": np.ones((samples, 3))})
    (call,) = [call for call in Program(made, {"x": np.ones((samples, 3))}, {}).calls if not call.elementwise]
    assert call.name == summed
    assert set(verdicts(judge(p).judge_answer("numpy", planned(p)(p.params, p.x, p.y))).values()) == {PASS}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.linalg.norm(x),
        lambda x: x[0],
        lambda x: x.sum(axis=0, keepdims=True),
        lambda x: x.max(axis=0, keepdims=True),
        lambda x: np.asarray(x) + 1,
        lambda x: np.add.reduce(x),
        lambda x: np.add(x, x, dtype=np.float32),
        lambda x: np.clip(x, 0, 1, dtype=np.float32),
        lambda x: x.sum(axis=0).sum(axis=0),
        lambda x: x.max(axis=1),
        lambda x: x + np.zeros(2, like=x),
        lambda x: x + np.arange(2, dtype=np.float32, like=x),
    ],
)
def test_what_a_plan_does_not_know_is_unplanned(function: Any) -> None:
    with pytest.raises(Unplanned, match="plan"):
        plan.Plan(lambda x: (x.sum(), {"y": function(x)}), {"x": np.ones((3, 2))})


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "softmax"])
def test_gradient_descent_in_place_is_gradient_descent(n: int, name: str) -> None:
    p = as_problem(network([3, 4, 2], [name, "identity"]), n)
    placed = backend.place(p.spec, p.params, p.x, p.y, device="cpu", learning_rate=0.1)
    params = {key: array.copy() for key, array in p.params.items()}
    for steps in (1, 4):
        placed.descend(steps)
        for _ in range(steps):
            _, grads, _ = gradients_of(p.spec, params, p.x, p.y, [EQUATIONS] * 2)
            params = {key: params[key] - 0.1 * grads[key] for key in params}
    for key, array in placed.parameters().items():
        assert np.allclose(array, params[key], rtol=1e-12, atol=1e-14)
        assert not np.allclose(array, p.params[key], rtol=1e-6)


# CuPy, played by NumPy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    return fake


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "gelu"])  # whose erfc is the C library's
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_equations_run_planned_on_a_device(name: str, n: int, dtype: str, cupy: FakeCupy) -> None:
    p = as_problem(network([3, 4, 2], [name, "identity"], "cross_entropy"), n, dtype)
    judged = judge(p)
    run: Any = backend.gradient_function(p.spec, dtype=dtype, device="cuda")
    out = {key: np.empty_like(array) for key, array in p.params.items()}
    placed = backend.place(p.spec, p.params, p.x, p.y, device="cuda", learning_rate=0.1)
    written = run(p.params, p.x, p.y, out=out)
    assert list(run.plans.values()) != [None]
    assert placed.loss() is placed.loss()
    for answer in (run(p.params, p.x, p.y), written, placed.answer()):
        assert set(verdicts(judged.judge_answer("numpy", answer)).values()) == {PASS}
        assert all(type(array) is np.ndarray and array.dtype == dtype for array in answer[1].values())
    assert all(written[1][key] is array for key, array in out.items())
    if dtype == "float64":
        assert_descends_on_a_device(p, judged, placed, cupy)


def assert_descends_on_a_device(p: Problem, judged: Any, placed: Any, cupy: FakeCupy) -> None:
    outputs = backend.forward_function(p.spec, dtype="float64", device="cuda")(p.params, p.x)
    assert type(outputs) is np.ndarray
    assert outputs == pytest.approx(judged.truth.values["a3"].mid, rel=1e-13, abs=1e-14)
    before = placed.answer()[0]
    waited = cupy.waited
    placed.wait(placed.descend(5))
    assert cupy.waited == waited + 1
    assert placed.answer()[0] < before
    for key, array in placed.parameters().items():
        assert type(array) is np.ndarray
        assert (array != p.params[key]).any()
    report = check(p.spec, p.params, p.x, p.y, backends=["numpy"], device="cuda", inputs=True, intermediates=True)
    assert report.ok


def test_a_device_without_cupy_or_without_a_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = examples.article()
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install cupy" in str(backend.supports(spec, dtype="float64", device="cuda"))
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(devices=0))  # type: ignore[arg-type]
    assert backend.supports(spec, dtype="float64", device="cuda") == "device cuda: CuPy sees no CUDA device"
