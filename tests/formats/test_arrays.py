"""Arrays as JSON: every float64 and float32 reads back, what JSON lacks is a word, and shapes have limits."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refimpl.formats.arrays import Tensor, number, tensor
from refimpl.formats.errors import ConformanceError
from refimpl.formats.strict_json import parse
from refimpl.formats.validation import checked

FLOATS = st.sampled_from([np.float64, np.float32])
SHAPES = st.lists(st.integers(1, 3), max_size=4).map(tuple)


def read(data: Any) -> np.ndarray:
    return checked(Tensor, parse(json.dumps(data), ConformanceError, "an answer", 10**7), ConformanceError).array


@given(FLOATS.flatmap(lambda dtype: arrays(dtype, SHAPES)))
def test_every_float_reads_back_in_its_shape(array: np.ndarray) -> None:
    found = read(tensor(array))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, array.astype(np.float64), strict=True)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(array) & ~np.isnan(array))


def test_the_numbers_are_flat_in_c_order() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert tensor(array) == {"shape": [2, 3], "data": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
    assert tensor(array.T) == {"shape": [3, 2], "data": [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]}
    assert tensor(np.array(0.1, np.float32)) == {"shape": [], "data": [0.10000000149011612]}
    assert tensor(np.array([1, 2])) == {"shape": [2], "data": [1, 2]}


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_what_json_lacks_is_a_word(value: float, word: str) -> None:
    assert number(value) == word
    assert tensor(np.array([value, 1.0]))["data"] == [word, 1.0]
    np.testing.assert_array_equal(read({"shape": [1], "data": [word]}), [value])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"shape": [2, 2], "data": [1, 2, 3]}, r"3 numbers.*\[2, 2\].*4"),
        ({"shape": [], "data": []}, "0 numbers"),
        ({"shape": [2], "data": [1, "0.5"]}, r"data\[1\].*number.*'0\.5'"),
        ({"shape": [1], "data": ["nan"]}, r"data\[0\].*number.*'nan'"),
        ({"shape": [1], "data": [True]}, r"data\[0\].*number.*True"),
        ({"shape": [1], "data": [None]}, r"data\[0\].*number.*None"),
        ({"shape": [1], "data": [[1.0]]}, r"data\[0\].*number.*list"),
        ({"shape": [1], "data": 1.0}, r"data.*list.*1\.0"),
        ({"shape": [0], "data": []}, r"shape\[0\].*greater than 0.*0"),
        ({"shape": [-1], "data": []}, r"shape\[0\].*greater than 0.*-1"),
        ({"shape": [1.0], "data": [1]}, r"shape\[0\].*integer.*1\.0"),
        ({"shape": [True], "data": [1]}, r"shape\[0\].*integer.*True"),
        ({"shape": [10**12], "data": [1]}, r"shape\[0\].*less than 2147483648.*1000000000000"),
        ({"shape": [2**30] * 33, "data": [1]}, r"1 numbers"),
        ({"shape": [1] * 34, "data": [1]}, r"shape.*at most 33"),
        ({"shape": 3, "data": [1, 2, 3]}, "shape.*list.*3"),
        ({"data": [1]}, "lacks the key 'shape'; add it"),
        ({"shape": [1]}, "lacks the key 'data'; add it"),
        ({"shape": [1], "data": [1], "dtype": "f"}, "unknown key 'dtype'; known are data, shape"),
    ],
)
def test_what_is_no_array_is_said_with_its_place(data: Any, words: str) -> None:
    with pytest.raises(ConformanceError, match=words) as caught:
        read(data)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["350000000000000000000", "-350000000000000000000", "9223372036854775808"])
def test_integers_of_any_size_are_numbers(text: str) -> None:
    """As JavaScript prints 3.5e20."""
    found = parse(f'{{"shape":[1],"data":[{text}]}}', ConformanceError, "an answer", 10**7)
    assert checked(Tensor, found, ConformanceError).array.tolist() == [float(text)]


def test_an_integer_beyond_float64_is_infinite() -> None:
    found = parse(f'{{"shape":[2],"data":[1{"0" * 400},-1{"0" * 400}]}}', ConformanceError, "an answer", 10**7)
    assert checked(Tensor, found, ConformanceError).array.tolist() == [math.inf, -math.inf]
