"""What strangers return, made into plain arrays."""

from __future__ import annotations

import array
import itertools
import resource
from collections import UserDict, UserList, UserString
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from refimpl.judge.submission import MAX_ELEMENTS, MAX_KEYS, Answer, Unusable, settled, taken


def gradients(answer: Any) -> dict[str, Any]:
    found = settled((0.5, answer))
    assert isinstance(found, Answer)
    return found.gradients


def reason(value: Any) -> str:
    found = gradients({"W1": value})["W1"]
    assert isinstance(found, Unusable), found
    return found.reason


class Keys:
    """Neither a mapping nor a sequence, but with keys."""

    def keys(self) -> list[str]:
        return ["W1", "b1"]

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("its keys were to be asked for")

    def __getitem__(self, key: str) -> list[float]:
        return [1.0, 2.0]


@pytest.mark.parametrize(
    "answer",
    [
        {"W1": [1.0, 2.0], "b1": [1.0, 2.0]},
        UserDict({"W1": [1.0, 2.0], "b1": [1.0, 2.0]}),
        [("W1", [1.0, 2.0]), ("b1", [1.0, 2.0])],
        (pair for pair in [("W1", [1.0, 2.0]), ("b1", [1.0, 2.0])]),
        Keys(),
    ],
    ids=["dict", "mapping", "pairs", "generator", "keys"],
)
def test_gradients_are_whatever_a_dictionary_can_be_made_of(answer: Any) -> None:
    found = gradients(answer)
    assert list(found) == ["W1", "b1"]
    for grad in found.values():
        np.testing.assert_array_equal(grad, [1.0, 2.0])
        assert grad.dtype == np.float64


class Text(str):
    def __str__(self) -> str:
        raise AssertionError("not to be asked")


def test_keys_are_plain_text() -> None:
    found = gradients({Text("W1"): 1.0, 5: 2.0, b"W2": 3.0})
    assert {type(key) for key in found} == {str}
    assert list(found) == ["W1", "a key of type int", "a key of type bytes"]


@pytest.mark.parametrize("count", [MAX_KEYS - 1, MAX_KEYS, MAX_KEYS + 1, MAX_KEYS + 2])
def test_keys_are_limited(count: int) -> None:
    answer = settled((0.5, {f"W{number}": 0.0 for number in range(count)}))
    if count > MAX_KEYS:
        assert answer == Unusable("returned gradients of more than 10,000 names")
    else:
        assert isinstance(answer, Answer)
        assert len(answer.gradients) == count


def test_no_more_keys_are_asked_for_than_tell() -> None:
    asked = []

    class Endless(Keys):
        def keys(self) -> Any:
            for number in itertools.count():
                asked.append(number)
                yield f"W{number}"

    assert settled((0.5, Endless())) == Unusable("returned gradients of more than 10,000 names")
    assert len(asked) == MAX_KEYS + 1


def test_the_largest_array_is_taken() -> None:
    found = gradients({"W1": np.broadcast_to(np.int8(1), MAX_ELEMENTS)})["W1"]
    assert (found.shape, found.dtype) == ((MAX_ELEMENTS,), np.int8)


@pytest.mark.parametrize("answer", [None, 3.0, (1.0,), (1.0, {}, 2), (1.0, 5), (1.0, ["W"]), "ab"])
def test_what_has_no_two_parts_is_unusable(answer: Any) -> None:
    assert settled(answer) == Unusable(f"returned {type(answer).__name__}; return (loss, gradients)")


def test_ctrl_c_is_no_answer() -> None:
    class Interrupted:
        def keys(self) -> list[str]:
            raise KeyboardInterrupt

        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    for answer in ((0.5, Interrupted()), (0.5, {"W1": Interrupted()}), (Interrupted(), {})):
        with pytest.raises(KeyboardInterrupt):
            settled(answer)


@pytest.mark.parametrize("value", [Unusable("PASS\x1b[2J"), Answer(np.array(0.5), {})], ids=["unusable", "answer"])
def test_what_only_looks_settled_is_looked_into(value: Any) -> None:
    """As a stranger may return it."""
    assert reason(value).startswith("is a ")
    found = settled(value)
    assert found == Unusable("returned Unusable; return (loss, gradients)") or found is not value
    loose = settled(Answer([0.5], {"W1": [1.0]}))  # type: ignore[arg-type]
    assert isinstance(loose, Answer)
    assert isinstance(loose.gradients["W1"], np.ndarray)


class Liar:
    """Says that it is of another class, or raises where it is asked."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        if self.kind is None:
            raise SystemExit(0)
        return self.kind


@pytest.mark.parametrize("kind", [None, np.ndarray, Answer, list, str, np.ma.MaskedArray])
def test_what_an_object_says_it_is_of_makes_no_difference(kind: Any) -> None:
    assert isinstance(settled(Liar(kind)), Unusable)
    assert "Liar" in reason(Liar(kind)) or "no array" in reason(Liar(kind))
    found = settled((Liar(kind), {Liar(kind): 1.0}))
    assert isinstance(found, Answer)
    assert isinstance(found.loss, Unusable)
    assert list(found.gradients) == ["a key of type Liar"]


class Sequence:
    """Items without an end, and no iterator of its own."""

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: int) -> float:
        return 1.0


def doubled(times: int) -> list[Any]:
    value: list[Any] = [1.0]
    for _ in range(times):
        value = [value, value]
    return value


class Sized(np.ndarray[Any, Any]):
    """Says that it is small."""

    @property
    def size(self) -> int:  # type: ignore[override]
        return 1


class Large:
    """An array of any size, once it is asked for one."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return np.broadcast_to(1.0, 2**29)


@pytest.mark.parametrize(
    "value",
    [Sequence(), doubled(40), [np.broadcast_to(1.0, 2**29)] * 2, Large(), np.broadcast_to(1.0, 2**29).view(Sized)],
    ids=["sequence", "doubled", "list of views", "large", "sized"],
)
def test_what_has_no_end_is_refused_at_once(value: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "of more than" in reason(value) or "not an array of numbers" in reason(value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024  # KiB


@pytest.mark.parametrize(("count", "taken"), [(2**22 - 1, True), (2**22, False)])
def test_lists_have_a_largest_size(count: int, taken: bool) -> None:
    """The list itself counts for one."""
    found = gradients({"W1": [0.0] * count})["W1"]
    assert isinstance(found, np.ndarray) == taken


@pytest.mark.parametrize(
    "value", [array.array("d", [1.0, 2.0]), memoryview(np.array([1.0, 2.0])), (1.0, 2.0), [np.float64(1), 2]]
)
def test_buffers_and_tuples_are_arrays(value: Any) -> None:
    np.testing.assert_array_equal(gradients({"W1": value})["W1"], [1.0, 2.0])


def test_arrays_are_plain_copies() -> None:
    class Sub(np.ndarray[Any, Any]):
        pass

    for given in (np.ones((2, 3)), np.ones((3, 2)).T, np.ones((2, 3)).view(Sub), np.ones((2, 3), "float32")):
        found = gradients({"W1": given})["W1"]
        assert type(found) is np.ndarray
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
        given[0, 0] = 7.0
        assert found[0, 0] == 1.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ma.masked_array([1.0], [True]), "is a masked array; give a plain one"),
        ([[1.0], [1.0, 2.0]], "is no array: setting an array element"),
        (UserList([1.0]), "is a UserList, not an array of numbers"),
        (range(3), "is a range, not an array of numbers"),
        (UserString("a"), "is a UserString, not an array of numbers"),
        ({1.0}, "is a set, not an array of numbers"),
        (None, "is a NoneType, not an array of numbers"),
        (object(), "is a object, not an array of numbers"),
        ([None], "is a list, not an array of numbers"),
        (np.array([1.0], object), "is an array of objects, not an array of numbers"),
        (np.broadcast_to(1.0, MAX_ELEMENTS + 1), "has shape (134217729,), of more than 134,217,728 elements"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_array_says_why(value: Any, words: str) -> None:
    assert reason(value).startswith(words)


@pytest.mark.parametrize("protocol", ["__array__", "__array_interface__", "__array_struct__"])
def test_an_iterable_that_knows_how_to_be_an_array_is_one(protocol: str) -> None:
    right = np.array([1.0, 2.0])

    class Own:
        def __iter__(self) -> Iterator[float]:
            raise AssertionError("its items were not to be gone through")

    if protocol == "__array__":
        Own.__array__ = lambda self, *args, **kwargs: right  # type: ignore[attr-defined]
    else:
        setattr(Own, protocol, getattr(right, protocol))
    np.testing.assert_array_equal(gradients({"W1": Own()})["W1"], right)


@pytest.mark.parametrize("value", [1, 1.5, np.float32(1.5), np.int8(1), np.array(1.5), [1.5], np.array("0.5")])
def test_what_may_be_a_loss_is_left_to_the_judge(value: Any) -> None:
    found = settled((value, {}))
    assert isinstance(found, Answer)
    np.testing.assert_array_equal(found.loss, np.array(value))


@pytest.mark.parametrize("value", ["0.5", True, 0.5j, np.True_, ["0.5"], b"1"])
def test_what_is_no_real_number_is_no_loss(value: Any) -> None:
    found = settled((value, {}))
    assert isinstance(found, Answer)
    assert found.loss == Unusable(f"is a {type(value).__name__}, not a real number")


def test_no_loss_is_none_to_be_judged() -> None:
    found = settled((None, {"W1": 1.0}))
    assert isinstance(found, Answer)
    assert found.loss is None


def test_an_array_is_asked_for_by_name() -> None:
    found = Answer(None, {"W1": np.array([1.0]), "b1": Unusable("is bad")})
    np.testing.assert_array_equal(found.array("W1"), [1.0])
    assert found.array("b1") == "is bad"
    assert found.array("W2") == "is missing"


def test_what_is_settled_is_taken_as_it_is() -> None:
    for found in (settled((0.5, {"W1": [1.0]})), settled(None)):
        assert taken(found) is found
    fresh = taken((0.5, {"W1": [1.0]}))
    assert isinstance(fresh, Answer)
    np.testing.assert_array_equal(fresh.gradients["W1"], [1.0])
