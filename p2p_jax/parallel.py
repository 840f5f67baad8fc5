"""Devices: one step body, mapped over the devices of one host or of many.

On one host the step is pmapped; with several processes the same body runs under ``jit(shard_map)``, whose global state
Orbax can save, and on CPUs too, because jit takes compiler options. Either way the state carries no device axis.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from p2p_jax.errors import InputError
from p2p_jax.objectives import DEVICE_AXIS

PyTree = Any


def check_batch_size(batch_size: int) -> None:
    """Raise InputError unless `batch_size` (global) is a multiple of the number of devices."""
    if batch_size % jax.device_count():
        raise InputError(
            f"config.batch_size={batch_size} does not divide over {jax.device_count()} devices; choose a multiple of "
            f"{jax.device_count()}, or hide devices (CUDA_VISIBLE_DEVICES=0, TPU_VISIBLE_CHIPS=0)"
        )


def _step_body(update: Callable) -> Callable:
    """Give `update` an rng of its own for every step and device, and report whether its metrics are finite."""

    def body(state, batch, rng):
        rng = jax.random.fold_in(jax.random.fold_in(rng, state["step"]), jax.lax.axis_index(DEVICE_AXIS))
        state, metrics = update(state, batch, rng)
        finite = jnp.all(jnp.stack([jnp.isfinite(value).all() for value in jax.tree.leaves(metrics)]))
        return state, metrics, finite

    return body


def pmap_update(update: Callable, devices: list | None = None) -> Callable:
    """Return ``(state, local numpy batch, rng) -> (state, metrics, finite)`` over the devices of this host."""
    devices = devices or jax.local_devices()
    mapped = jax.pmap(
        _step_body(update),
        axis_name=DEVICE_AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=devices,
        donate_argnums=_donated(),
    )
    return lambda state, batch, rng: mapped(state, _split(batch, len(devices)), rng)


def shard_map_update(update: Callable, devices: list | None = None) -> Callable:
    """Return the same function as ``pmap_update`` over the devices of all processes."""
    mesh = _mesh(devices)
    replicated, split = PartitionSpec(), PartitionSpec(DEVICE_AXIS)
    mapped = jax.jit(
        # check_vma would silently multiply gradients by the device count, because `update` averages them itself.
        jax.shard_map(
            _step_body(update),
            mesh=mesh,
            in_specs=(replicated, split, replicated),
            out_specs=replicated,
            check_vma=False,
        ),
        donate_argnums=_donated(),
        compiler_options=_compiler_options(),
    )
    sharding = NamedSharding(mesh, split)

    def run(state, batch, rng):
        batch = {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
        return mapped(state, batch, rng)

    return run


def compile_update(update: Callable) -> Callable:
    """Return the training step for the devices at hand; see ``pmap_update``."""
    on_cpu = jax.default_backend() == "cpu"
    return shard_map_update(update) if jax.process_count() > 1 or on_cpu else pmap_update(update)


def compile_evaluate(evaluate: Callable, per_device: int) -> Callable:
    """Return ``(state, local numpy batch, rng) -> (metrics, images)`` in numpy, over the devices of this host.

    A batch of any size is worked off in parts of `per_device` images a device; the last part is filled up, so that
    there is one compilation, and cut back.
    """
    devices = jax.local_devices()
    order: list[str] = []

    def in_order(state, batch, rng):
        metrics, images = evaluate(state, batch, rng)
        order[:] = (
            images  # a compiled function returns a dict sorted by its keys; the columns have an order of their own
        )
        return metrics, images

    mapped = jax.pmap(in_order, in_axes=(None, 0, None), devices=devices)
    part = per_device * len(devices)

    def run(state, batch, rng):
        state, count = _local(state), len(batch["real_a"])
        results = []
        for first in range(0, count, part):
            rows = np.minimum(np.arange(first, first + part), count - 1)
            results.append(mapped(state, _split({k: v[rows] for k, v in batch.items()}, len(devices)), rng))
        metrics, images = jax.tree.map(
            lambda *parts: np.concatenate([np.asarray(x).reshape(part, *x.shape[2:]) for x in parts])[:count], *results
        )
        return metrics, {name: images[name] for name in order}

    return run


def replicate(state: PyTree) -> PyTree:
    """Place a state on every device, as the step returns it: placed otherwise, the second step would compile again."""
    return jax.device_put(state, state_sharding())


def state_sharding() -> jax.sharding.Sharding:
    """Return the sharding in which the step takes and returns a state, and in which it is restored."""
    return NamedSharding(_mesh(), PartitionSpec())


def for_saving(state: PyTree) -> PyTree:
    """Return the state as Orbax takes it: one copy on one host, the global arrays with several processes."""
    return state if jax.process_count() > 1 else _local(state)


@jax.jit
def _all_finite(leaves: list) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in leaves]))


def all_finite(state: PyTree) -> bool:
    """Tell whether every floating-point number of the state is finite."""
    return bool(_all_finite([x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]))


def any_process(flag: bool) -> bool:
    """Tell whether `flag` is set on any process; all of them must call it at the same step."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Add up an array over all processes."""
    return values if jax.process_count() == 1 else multihost_utils.process_allgather(values).sum(0)


def _mesh(devices: list | None = None) -> Mesh:
    return Mesh(np.array(devices or jax.devices()), (DEVICE_AXIS,))


def _donated() -> tuple[int, ...]:
    # Giving the old state's memory to the new one halves the peak on accelerators, but on XLA's CPU back end it makes
    # the optimizer's part about three times slower.
    return () if jax.default_backend() == "cpu" else (0,)


@functools.cache
def _compiler_options() -> dict[str, Any]:
    """Return what XLA is told on CPUs: to run operations in an order that saves memory.

    Its own choice runs independent ones side by side, which gains no time where each fills all cores, and takes more
    than twice the memory for a CycleGAN step.
    """
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # an XLA that does not know the option
        return {}
    return options


def _split(batch: dict, num_devices: int) -> dict:
    return {k: v.reshape(num_devices, -1, *v.shape[1:]) for k, v in batch.items()}


def _local(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, state)
