"""Dispatches: how many steps the devices do at a time, and what they work on."""

import collections
import math
from collections.abc import Generator, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape
from p2p_jax.data import Data
from p2p_jax.objectives import Objective
from p2p_jax.training import parallel

Dispatch = tuple[parallel.Step, parallel.PyTree]  # the compiled step, or steps, and what it works on


def dispatch(config: ConfigDict, objective: Objective, data: Data, step: int) -> Generator[Dispatch, None, None]:
    """Yield what the devices do, dispatch by dispatch; what they work on is put on them one ahead."""
    found, at_once = data.resident, num_steps(config)
    draw, sizes = found.draw if found else None, sizes_of(config, step, at_once)
    updates = {n: parallel.compile_update(objective.update, draw, config.batch_size, n) for n in (1, at_once)}
    if found:
        arrays = updates[1].place(found.arrays)
        yield from ((updates[n], arrays) for n in sizes)
        return
    batches, ahead = data.train(step), collections.deque[Dispatch]()
    try:
        for n in sizes:
            parts = [next(batches) for _ in range(n)]
            batch = {k: np.stack([part[k] for part in parts]) for k in parts[0]} if n > 1 else parts[0]
            ahead.append((updates[n], updates[n].place(batch)))
            if len(ahead) > 1:
                yield ahead.popleft()
        yield from ahead
    finally:
        getattr(batches, "close", lambda: None)()  # a generator's reading threads end with the run


def sizes_of(config: ConfigDict, step: int, at_once: int) -> Iterator[int]:
    """Yield how many steps each dispatch does: `at_once` from its multiples, but 1 if anything is due inside it."""
    while step < config.num_steps:
        inside = step + at_once - 1  # the last step with nothing due at its end
        passes_over = any(step // n != inside // n for n in intervals(config))
        fits = step % at_once == 0 and inside < config.num_steps and not passes_over
        size = at_once if fits else 1
        yield size
        step += size


def intervals(config: ConfigDict) -> tuple[int, ...]:
    """Return the intervals, in steps, of the host's work."""
    every = config.log_every, config.sample_every, config.eval_every, config.checkpoint_every
    return (*every, config.distances.every) if config.distances.every else every


def num_steps(config: ConfigDict) -> int:
    """Return ``config.steps_per_dispatch``, or where it is 0 what suits the devices.

    On CPUs that is 1, because XLA's loops are slow there. Accelerators get as many steps as divide all of the config's
    intervals and work on no more images than 64 of 256x256 a device: so the host holds little, and a stop request or a
    loss that is not finite is noticed soon.
    """
    if config.steps_per_dispatch or jax.default_backend() == "cpu":
        return config.steps_per_dispatch or 1
    common = math.gcd(100, *intervals(config))
    pixels = config.batch_size // jax.device_count() * math.prod(crop_shape(config.data))
    return max(n for n in range(1, common + 1) if common % n == 0 and (n == 1 or n * pixels <= 64 * 256 * 256))
