"""Gradients and training with the rows of the batch sharded over all devices that JAX sees, in one process or in
several that `jax.distributed` joins:

    XLA_FLAGS=--xla_force_host_platform_device_count=8 refimpl check --backend refimpl_jax.sharded:backend

    JAX_COORDINATOR_ADDRESS=host:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 refimpl check --backend …   # and 1

Where the devices do not divide the rows, copies of the first row fill up, and weigh nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from refimpl import BackendError, NetworkSpec
from refimpl.backend import Arithmetic, ForwardFunction, GradientFunction, Leg, Limits, UpdateRule
from refimpl_jax import JaxBackend, _scope
from refimpl_jax.placed import COMPILED, Leaves, leaves_of, named
from refimpl_jax.sharding import filled, mesh, on_all, over_rows, placed, weighted_loss
from refimpl_jax.training import Training, compiled_measure

Array = NDArray[Any]
JOINED = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 20  # seconds that a process waits for the others


def join() -> None:
    """Join the other processes where the environment names them. Raises BackendError."""
    given = [name for name in JOINED if name in os.environ]
    if not given or jax.distributed.is_initialized():
        return
    missing = [name for name in JOINED if name not in os.environ]
    if missing:
        raise BackendError(f"{', '.join(given)} without {', '.join(missing)}: set all three, or none")
    address, processes, number = (os.environ[name] for name in JOINED)
    try:
        jax.distributed.initialize(
            address, int(processes), int(number), initialization_timeout=PATIENCE, heartbeat_timeout_seconds=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        line = next(iter(str(error).splitlines()), "no message")[:120]
        raise BackendError(f"cannot join the distributed run at {address}: {line}") from None


@lru_cache(maxsize=COMPILED)
def compiled_gradients(spec: NetworkSpec, dtype: str, device: str) -> Callable[..., tuple[jax.Array, Leaves]]:
    """(leaves, x, y, weights) → the loss and the gradients, on every device."""
    return jax.jit(jax.value_and_grad(partial(weighted_loss, spec, dtype)), out_shardings=on_all(device))


def shared(device: str, x: Array, y: Array, dtype: str) -> list[jax.Array]:
    """x and y over the devices, and the weights of their rows."""
    rows, weights = filled(np.arange(len(x)), mesh(device).size)
    return [placed(array, over_rows(device)) for array in (x[rows], y[rows], weights.astype(dtype))]


class ShardedTraining(Training):
    """A `Trainer` whose batches lie over all devices; every device holds the parameters and the training data."""

    def __init__(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, rule: UpdateRule,
        modes: Callable[[], AbstractContextManager[None]], device: str,
    ) -> None:  # fmt: skip
        self.over = device
        super().__init__(spec, state, x, y, rule, modes)

    def _placed(self, array: Array) -> jax.Array:
        return placed(np.asarray(array), on_all(self.over))

    def run(self, batches: Array | None, coefficients: Array, limits: Limits, previous: float) -> Leg:
        """As `Trainer.run`."""
        rows = np.arange(len(self.x))[None] if batches is None else batches
        filled_up, weights = filled(rows, mesh(self.over).size)
        return self._run(filled_up, weights.astype(self.dtype), coefficients, limits, previous)

    def measure(self, x: Array, y: Array) -> tuple[float, float]:
        """As `Trainer.measure`."""
        batch = shared(self.over, x, y, self.dtype)
        loss, norm = compiled_measure(self.spec, self.dtype, self.over)(self.leaves, *batch)
        return float(loss), float(norm)


class ShardedBackend:
    """Gradients by jax.value_and_grad, the rows over all devices."""

    name = "jax-sharded"
    single = JaxBackend()

    def supports(self, spec: NetworkSpec, *, dtype: str, device: str) -> bool | str:
        """As JAX's backend."""
        join()
        return self.single.supports(spec, dtype=dtype, device=device)

    def arithmetic(self, *, dtype: str, device: str) -> Arithmetic:
        """As JAX's backend."""
        return self.single.arithmetic(dtype=dtype, device=device)

    def gradient_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> GradientFunction:
        """(params, x, y) → (loss, gradients of every W and b), the same in every process."""
        join()

        def gradients(params: Mapping[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array]]:
            with _scope(dtype, device):
                leaves = tuple(placed(array, on_all(device)) for array in leaves_of(spec, params))
                loss, found = compiled_gradients(spec, dtype, device)(leaves, *shared(device, x, y, dtype))
                return float(loss), named(spec, found)

        return gradients

    def forward_function(self, spec: NetworkSpec, *, dtype: str, device: str) -> ForwardFunction:
        """(params, x) → the outputs (N, n_out), computed in every process."""
        return self.single.forward_function(spec, dtype=dtype, device=device)

    def trainer(
        self, spec: NetworkSpec, state: Mapping[str, Array], x: Array, y: Array, *, rule: UpdateRule, device: str
    ) -> ShardedTraining:
        """The network in training, over all devices."""
        join()
        return ShardedTraining(spec, state, x, y, rule, partial(_scope, x.dtype.name, device), device)


backend = ShardedBackend()
