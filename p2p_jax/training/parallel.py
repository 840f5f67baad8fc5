"""Devices: one step body, mapped over the devices of one host or of many.

On the accelerators of one host the step is pmapped; with several processes the same body runs under
``jit(shard_map)``, since Orbax can save its global state, on CPUs too, because jit takes compiler options, and where
devices draw their own batches, because pmap needs something to split. Either way the state carries no device axis.

Note:
  JAX keeps a program of pmap until the process ends; one of jit goes with the function that it was made of, at the end
  of ``train``.
"""

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from p2p_jax.errors import InputError
from p2p_jax.objectives import DEVICE_AXIS
from p2p_jax.process.compiler_options import QUICK, on_cpu
from p2p_jax.process.freed_memory import arrived, give_back

PyTree = Any


def check_batch_size(batch_size: int) -> None:
    """Raise InputError unless `batch_size` (global) is a multiple of the number of devices."""
    if batch_size % jax.device_count():
        raise InputError(
            f"config.batch_size={batch_size} cannot be split over {jax.device_count()} devices; choose a multiple of "
            f"{jax.device_count()}, or hide devices (CUDA_VISIBLE_DEVICES=0, TPU_VISIBLE_CHIPS=0)"
        )


class Step(NamedTuple):
    """A compiled training step, or several in one dispatch; call it with NumPy arrays, or `place` these ahead of time.

    Attributes:
      run: ``(state, placed, rng) -> (state, metrics, finite)``; the metrics are those of the last step, and `finite`
        [num_steps] says of each step whether all of its metrics were. The new state takes the memory of the old one,
        which cannot be used afterwards.
      place: puts this process's share of a batch, {name: [B, ...]} in NumPy, on the devices; of `num_steps` batches,
        {name: [num_steps, B, ...]}, if it is more than 1. A step that draws its own takes the arrays to draw from.
    """

    run: Any
    place: Callable

    def metrics(self, state: PyTree, placed: PyTree, rng: jax.Array) -> list[str]:
        """Return the names of the metrics; only the shapes of `state` count. The first run uses the same trace."""
        return list(jax.eval_shape(self.run, _placed(state, state_sharding()), placed, rng)[1])

    def compile(self, state: PyTree, placed: PyTree, rng: jax.Array) -> None:
        """Compile for the shapes and dtypes of `state`, on CPUs; the first run uses this program.

        So the memory of compiling is given back before there is a state. Accelerators have their own memory.
        """
        if jax.default_backend() == "cpu":
            self.run.lower(_placed(state, state_sharding()), placed, rng).compile()
            give_back()

    def __call__(self, state: PyTree, batch: dict[str, np.ndarray], rng: jax.Array) -> tuple[PyTree, dict, jax.Array]:
        """Place a batch and run."""
        return self.run(state, self.place(batch), rng)


def _step_body(
    update: Callable, num_steps: int, draw: Callable | None = None, batch_size: int | None = None
) -> Callable:
    """Return what a device does in one dispatch.

    Every step gives `update` a different rng for each step and device and, with `draw`, its share of the batch.
    """

    def one_step(state, batch, rng):
        device = jax.lax.axis_index(DEVICE_AXIS)
        rng = jax.random.fold_in(jax.random.fold_in(rng, state["step"]), device)
        if draw is not None:
            share = batch_size // jax.lax.psum(1, DEVICE_AXIS)
            first = state["step"].astype(jnp.uint32) * batch_size + device.astype(jnp.uint32) * share
            batch = draw(batch, first + jnp.arange(share, dtype=jnp.uint32))
        state, metrics = update(state, batch, rng)
        finite = jnp.all(jnp.stack([jnp.isfinite(value).all() for value in jax.tree.leaves(metrics)]))
        return state, metrics, finite

    def several_steps(state, batches, rng):
        def body(state, batch):
            state, *results = one_step(state, batch if draw is None else batches, rng)
            return state, results

        state, (metrics, finite) = jax.lax.scan(body, state, batches if draw is None else None, length=num_steps)
        return state, jax.tree.map(lambda x: x[-1], metrics), finite

    def single_step(state, batch, rng):
        state, metrics, finite = one_step(state, batch, rng)
        return state, metrics, finite[None]

    return several_steps if num_steps > 1 else single_step


def pmap_update(update: Callable, devices: list | None = None, num_steps: int = 1) -> Step:
    """Return the step over the devices of this host; see ``compile_update``."""
    devices = devices or jax.local_devices()
    axis = int(num_steps > 1)  # of the devices, in a batch
    run = jax.pmap(
        _step_body(update, num_steps),
        axis_name=DEVICE_AXIS,
        in_axes=(None, axis, None),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )
    sharding = NamedSharding(_mesh(devices), _split_along(axis))

    def place(batch):
        split = {k: v.reshape(*v.shape[:axis], len(devices), -1, *v.shape[axis + 1 :]) for k, v in batch.items()}
        return jax.device_put(split, sharding)

    return Step(run, place)


def shard_map_update(
    update: Callable,
    devices: list | None = None,
    num_steps: int = 1,
    draw: Callable | None = None,
    batch_size: int | None = None,
    compiler_options: dict[str, Any] | None = None,
) -> Step:
    """Return the step over the devices of all processes; see ``compile_update``.

    `compiler_options` are XLA's, in addition to those of the platform: ``benchmarks.lab`` tries them.
    """
    mesh = _mesh(devices)
    replicated = PartitionSpec()
    split = replicated if draw else _split_along(int(num_steps > 1))
    run = jax.jit(
        # check_vma would silently multiply gradients by the device count, because `update` averages them itself.
        jax.shard_map(
            _step_body(update, num_steps, draw, batch_size),
            mesh=mesh,
            in_specs=(replicated, split, replicated),
            out_specs=replicated,
            check_vma=False,
        ),
        donate_argnums=0,  # on CPUs XLA copies most of it first, which costs a thirtieth of a step
        # XLA's own order of operations runs independent ones side by side, which gains no time where each fills all
        # cores, and takes more than twice the memory for a CycleGAN step.
        compiler_options=on_cpu(xla_cpu_scheduler_type="CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED", **QUICK)
        | (compiler_options or {}),
    )
    sharding = NamedSharding(mesh, split)

    def place(batch):
        if jax.process_count() == 1:
            return arrived(jax.device_put(batch, sharding))
        return arrived({k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()})

    return Step(run, place)


def compile_init(init: Callable) -> Callable:
    """Return ``Objective.init``, compiled to run once."""
    return jax.jit(init, compiler_options=on_cpu(**QUICK))


def compile_update(
    update: Callable, draw: Callable | None = None, batch_size: int | None = None, num_steps: int = 1
) -> Step:
    """Return the training step for the devices at hand.

    Args:
      update: see ``Objective``.
      draw: ``(arrays, positions) -> batch``, see ``Resident``. The step then takes the arrays in place of a
        batch, and every device draws its share, at ``step * batch_size`` and onwards in the stream.
      batch_size: over all devices of all processes; needed with `draw` only.
      num_steps: steps in one dispatch. On accelerators their results may differ in the last bits from those of single
        steps, because XLA compiles another program.
    """
    if draw or jax.process_count() > 1 or jax.default_backend() == "cpu":
        return shard_map_update(update, None, num_steps, draw, batch_size)
    return pmap_update(update, None, num_steps)


class Evaluation:
    """A compiled evaluation over the devices of this host: ``(state, local batch, rng) -> (metrics, images)`` in NumPy.

    A batch of any size is processed in parts of `per_device` images a device; the last part is filled up, so there is
    one compilation, and cut back.

    Attributes:
      part: the images of a part.
    """

    def __init__(self, evaluate: Callable, per_device: int):
        mesh, split, whole = _mesh(jax.local_devices()), _split_along(0), PartitionSpec()
        self.part = per_device * mesh.size
        self._split, self._whole = NamedSharding(mesh, split), NamedSharding(mesh, whole)

        def in_order(batch, state, rng):
            metrics, images = evaluate(state, batch, rng)
            return metrics, collections.OrderedDict(images)  # a plain dict would come back sorted by its keys

        self._run = jax.jit(
            jax.shard_map(in_order, mesh=mesh, in_specs=(split, whole, whole), out_specs=split, check_vma=False),
            compiler_options=on_cpu(**QUICK),
        )

    def metrics(self, state: PyTree, batch: Mapping[str, np.ndarray], rng: jax.Array) -> list[str]:
        """Return the names of the metrics; only shapes and dtypes count. The first call uses the same trace."""
        part = {k: jax.ShapeDtypeStruct((self.part, *v.shape[1:]), v.dtype) for k, v in batch.items()}
        given = _placed(part, self._split), *_placed((state, rng), self._whole)
        return list(jax.eval_shape(self._run, *given)[0])

    def __call__(self, state: PyTree, batch: Mapping[str, np.ndarray], rng: jax.Array) -> tuple[dict, dict]:
        """Evaluate a batch: a value of every metric for each image, and the images."""
        state, rng = jax.device_put((_local(state), rng), self._whole)
        count, results = len(batch["real_a"]), []
        for first in range(0, count, self.part):
            rows = np.minimum(np.arange(first, first + self.part), count - 1)
            share = arrived(jax.device_put({k: v[rows] for k, v in batch.items()}, self._split))
            results.append(self._run(share, state, rng))
        metrics, images = jax.tree.map(lambda *parts: np.concatenate([np.asarray(x) for x in parts])[:count], *results)
        return metrics, dict(images)


def _placed(values: PyTree, sharding: NamedSharding) -> PyTree:
    """Return the shapes and dtypes of what will be placed so: a trace of them is one of the placed values."""

    def placed(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding, weak_type=getattr(x, "weak_type", False))

    return jax.tree.map(placed, values)


def replicate(state: PyTree) -> PyTree:
    """Place a state on every device, as the step returns it: placed otherwise, the second step would compile again."""
    return jax.device_put(state, state_sharding())


def state_sharding() -> NamedSharding:
    """Return the sharding of the state in a step, and when it is restored."""
    return NamedSharding(_mesh(), PartitionSpec())


def for_saving(state: PyTree) -> PyTree:
    """Return the state as Orbax takes it: one copy on one host, the global arrays with several processes."""
    return state if jax.process_count() > 1 else _local(state)


@jax.jit
def _all_finite(leaves: list) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in leaves]))


def all_finite(state: PyTree) -> bool:
    """Return whether every floating-point number of the state is finite."""
    return bool(_all_finite([x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]))


def highest(number: int) -> int:
    """Return the highest of the numbers of all processes; all of them must call it at the same step."""
    return number if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.array(number)).max())


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Add up an array of float64 over all processes."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(values.view(np.uint32))  # as they are: JAX would round to float32
    return np.asarray(gathered).view(values.dtype).sum(0)


def _mesh(devices: list | None = None) -> Mesh:
    return Mesh(np.array(devices or jax.devices()), (DEVICE_AXIS,))


def _split_along(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, DEVICE_AXIS)


def _local(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, state)
