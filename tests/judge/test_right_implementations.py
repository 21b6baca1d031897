"""No right implementation is outside its bounds: a few random networks, data that repeat, sums for which √n is false.
`make false-alarms` runs many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

import pytest
from false_alarms import Found, listed_program, on_network, structured_case
from listed_programs import (
    Listed,
    convolution,
    convolution_bias,
    embedding,
    equal_terms,
    exponentials_of_two,
    in_bfloat16,
    nearly_constant_row,
    nearly_equal_logits,
    one_large_sample,
    tanh_slopes,
)
from right_frameworks import RIGHT

from refimpl.network.random_problems import DRAWS, random_problem

LISTED = (
    equal_terms, convolution_bias, partial(tanh_slopes, 4096), exponentials_of_two, one_large_sample,
    partial(embedding, same=True),
    partial(nearly_equal_logits, 1024), partial(nearly_constant_row, 1024), partial(in_bfloat16, 512),
    partial(convolution, "normal", 28, "fft"), partial(convolution, "sparse", 34, "winograd"),
)  # fmt: skip
NETWORKS = 3  # at least


def outside(found: list[Found]) -> list[str]:
    return [f"{name}, {dtype}, {case}: {share}" for name, dtype, case, share in found if share.failed]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_implementation_is_outside_on_random_networks(seed: int, dtype: str) -> None:
    missing = {one.name for one in RIGHT if dtype in one.dtypes and not one.missing}
    for number in count():
        found = list(on_network(random_problem, seed, DRAWS * number, dtype))
        assert not outside(found)
        missing -= {name for name, *_ in found}
        if number >= NETWORKS and not missing:
            break


@pytest.mark.parametrize("kind", ["all rows equal", "weights 0, equal rows", "rows 1e-4 apart, any class"])
def test_no_order_of_summation_is_outside_on_data_that_repeat(seed: int, kind: str) -> None:
    assert not outside(list(structured_case(kind, True, 256, "float32", seed)))


@pytest.mark.parametrize("build", LISTED)
def test_no_program_on_which_the_square_root_of_n_is_false_is_outside(build: Callable[[], Listed]) -> None:
    assert not outside(list(listed_program(build)))
