"""The networks that come with refimpl: the article's 4-2-2-1, and 64-32-16-10 over scikit-learn's handwritten
digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.formats.errors import DataError
from refimpl.network.arithmetic import ARITHMETICS
from refimpl.network.spec import LayerSpec, NetworkSpec

Array = NDArray[Any]


def article() -> NetworkSpec:
    """The article's network: 4-2-2-1, sigmoid hidden layers, an output with neither bias nor activation; 18
    parameters.
    """
    layers = (LayerSpec(2, "sigmoid"), LayerSpec(2, "sigmoid"), LayerSpec(1, "identity", bias=False))
    return NetworkSpec((4,), layers, "squared_error", name="article")


def digits() -> NetworkSpec:
    """64-32-16-10 with softmax cross-entropy, for 8 × 8 images of the ten digits."""
    layers = (LayerSpec(32, "tanh"), LayerSpec(16, "relu"), LayerSpec(10, "identity"))
    return NetworkSpec((64,), layers, "cross_entropy", name="digits")


def article_batch(n: int = 8, seed: int = 0, dtype: str = "float64") -> tuple[Array, Array]:
    """Normal random x (n, 4) and y (n, 1) of dtype float64 or float32.

    Raises DataError for n < 1, a negative seed or another dtype.
    """
    _check_dtype(dtype)
    for name, value, low in (("n", n, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            raise DataError(f"{name} must be an integer ≥ {low}, got {value!r}")
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)).astype(dtype), rng.standard_normal((n, 1)).astype(dtype)


def _check_dtype(dtype: str) -> None:
    if dtype not in ARITHMETICS:
        raise DataError(f"dtype must be one of {', '.join(ARITHMETICS)}; got {dtype!r}")


def digits_data(dtype: str = "float64") -> tuple[Array, Array]:
    """scikit-learn's 1,797 handwritten digits: x (1797, 64) scaled to [0, 1] and labels (1797,).

    Raises DataError without scikit-learn or for another dtype.
    """
    _check_dtype(dtype)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "the digits come with scikit-learn, which is not installed: pip install 'refimpl[data]'"
        ) from None
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(dtype), y.astype(np.int64)
