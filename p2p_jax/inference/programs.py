"""Compiled programs of the sizes that were met last; those of others give their memory back."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from p2p_jax.objectives import DEVICE_AXIS
from p2p_jax.process.freed_memory import arrived
from p2p_jax.reporting import say

_LONG = 2.0  # seconds of compiling before it is reported


class Kind(NamedTuple):
    """What images have in common that one program translates, but for their number.

    Attributes:
      shape: [H, W, C] of one image, padded.
      dtype: of what goes to the device.
      to_bytes: whether uint8 is wanted of it, else floats in [-1, 1].
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    to_bytes: bool


class Programs:
    """A function on batches of images, compiled for each size; the last `most` programs are kept.

    A program takes 10 MB and more of memory, and hundreds of a process's 65,530 memory mappings on Linux. Each
    is made of a function of its own, so that nothing of it stays in JAX's caches once it is dropped.

    Args:
      function: ``(weights, images [B, H, W, C]) -> images [B, H, W, C']``, floats in [-1, 1], on one device.
      weights: on the devices of `mesh`.
      mesh: of the devices that share a batch.
      most: programs that are kept.
    """

    def __init__(self, function: Callable[[Any, jax.Array], jax.Array], weights: Any, mesh: Mesh, most: int = 8):
        self.function, self.weights, self._mesh, self._most = function, weights, mesh, most
        self._split = NamedSharding(mesh, PartitionSpec(DEVICE_AXIS))
        self._kept: OrderedDict[tuple[Kind, int], Any] = OrderedDict()  # the longest unused one first
        self._told: set[tuple[int, ...]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def rows(self, kind: Kind) -> set[int]:
        """Return the batch sizes with a compiled program."""
        return {rows for known, rows in self._kept if known == kind}

    def run(self, kind: Kind, images: np.ndarray, rows: int, before: jax.Array | None = None) -> jax.Array:
        """Start the translation of at most `rows` images in a batch of that size, filled up with the last one.

        Args:
          kind: of the images.
          images: [N, H, W, C].
          rows: of the batch.
          before: what the last run returned, if it may still be under way: CPUs would run both at once, which takes
            twice the memory and no less time. Accelerators have a queue.
        """
        program = self._kept.get((kind, rows))
        if program is None:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            program = self._kept[kind, rows] = self._compile(kind, rows)
        self._kept.move_to_end((kind, rows))
        if len(images) < rows:
            images = images[np.minimum(np.arange(rows), len(images) - 1)]
        images = arrived(jax.device_put(images, self._split))
        if before is not None and self._mesh.devices.flat[0].platform == "cpu":
            jax.block_until_ready(before)
        return program(self.weights, images)

    def _compile(self, kind: Kind, rows: int) -> Any:
        def on_one(weights, images):
            if images.dtype == jnp.uint8:
                images = images.astype(jnp.float32) / 127.5 - 1
            fakes = self.function(weights, images)
            if not kind.to_bytes:
                return fakes
            return jnp.rint((jnp.clip(fakes.astype(jnp.float32), -1, 1) + 1) * 127.5).astype(jnp.uint8)

        def over_devices(weights, images):
            split = PartitionSpec(DEVICE_AXIS)
            return jax.shard_map(
                on_one,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), split),
                out_specs=split,
                check_vma=False,
            )(weights, images)

        images = jax.ShapeDtypeStruct((rows, *kind.shape), kind.dtype, sharding=self._split)
        with self._tell_if_long(kind.shape):
            return jax.jit(over_devices).lower(self.weights, images).compile()

    @contextlib.contextmanager
    def _tell_if_long(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Say once of every size that it is compiled, if that takes long; programs kept on the disk do not."""
        height, width = shape[:2]
        if (height, width) in self._told:
            yield
            return

        def tell():
            self._told.add((height, width))
            say(f"compiling for {width}x{height}")

        timer = threading.Timer(_LONG, tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
