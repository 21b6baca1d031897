"""`value_and_grad`: what one backend says, in the caller's shapes, and nothing of the caller's changed."""

from __future__ import annotations

from typing import Any

import pytest
from networks import BACKENDS, DTYPES, article, problem

from refimpl import value_and_grad
from refimpl.formats.errors import BackendError
from refimpl.network.spec import LayerSpec, NetworkSpec


class Float64:
    """Only what a backend must have, and only in float64; its answer is what `function` gives."""

    name = "mine"

    def __init__(self, function: Any) -> None:
        self.function = function

    def supports(self, spec: Any, *, dtype: str, device: str) -> bool | str:
        return True if dtype == "float64" else "float64 only"

    def gradient_function(self, spec: Any, *, dtype: str, device: str) -> Any:
        return self.function


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACKENDS)
def test_gradients_have_the_shapes_and_the_dtype_of_what_they_are_by(name: str, dtype: str) -> None:
    p = problem(NetworkSpec((2, 3), [LayerSpec(3, "tanh"), LayerSpec(2)], "huber"), n=4, dtype=dtype)
    for inputs in (False, True):
        _, grads = value_and_grad(p.spec, p.params, p.x, p.y, backend=name, inputs=inputs)
        expected = {**p.params, "x": p.x} if inputs else p.params
        assert list(grads) == list(expected)
        assert all(grads[key].shape == array.shape for key, array in expected.items())
        assert {str(grad.dtype) for grad in grads.values()} == {dtype}


def test_without_a_word_it_is_the_hand_derived_backend() -> None:
    p = article()
    given, numpy = (value_and_grad(p.spec, p.params, p.x, p.y, backend=name) for name in (None, "numpy"))
    assert given[0] == numpy[0]
    assert all((given[1][name] == numpy[1][name]).all() for name in p.params)


def test_the_callers_data_are_kept() -> None:
    def writing(params: Any, x: Any, y: Any) -> Any:
        for array in (*params.values(), x, y):
            array[...] = 7
        return 0.5, {}

    p = article()
    before = [array.copy() for array in (*p.params.values(), p.x, p.y)]
    assert value_and_grad(p.spec, p.params, p.x, p.y, backend=Float64(writing)) == (0.5, {})
    assert all((a == b).all() for a, b in zip(before, (*p.params.values(), p.x, p.y), strict=True))


@pytest.mark.parametrize("answer", [None, 1, (), (1, 2, 3), (None, None)])
def test_an_answer_that_is_none_is_refused(answer: Any) -> None:
    p = article()
    with pytest.raises(BackendError, match=r"'mine' returned .* it must return \(loss, gradients\)"):
        value_and_grad(p.spec, p.params, p.x, p.y, backend=Float64(lambda *data: answer))


def test_what_a_backend_cannot_do_is_refused() -> None:
    mine = Float64(lambda *data: (0.5, {}))
    p = problem(article().spec, dtype="float32")
    with pytest.raises(BackendError, match="float64 only"):
        value_and_grad(p.spec, p.params, p.x, p.y, backend=mine)
    p = article()
    with pytest.raises(BackendError, match="does not give the gradient of x"):
        value_and_grad(p.spec, p.params, p.x, p.y, backend=mine, inputs=True)
