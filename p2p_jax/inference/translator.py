"""A trained run as a function on arrays of any size."""

import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from p2p_jax.errors import InputError
from p2p_jax.images.pictures import with_channels
from p2p_jax.inference import tiling
from p2p_jax.inference.run import Run, digest, open_run
from p2p_jax.monitoring import to_uint8
from p2p_jax.objectives import DEVICE_AXIS, Objective, make_network

PyTree = Any
_COARSEST = 64  # pixels to which sides may be rounded up beyond what the network needs, for fewer compilations
_MOST_WAITING = 4  # batches of images of sizes of which there is no full batch yet
_OTHER = {"AtoB": "BtoA", "BtoA": "AtoB"}


class Translator:
    """A trained run as a function on images, under the switches with which it was trained.

    Every image is translated alone, whatever else is in its batch, and with the same noise each time: the one that the
    run's validation and sample grids have. Sides are padded by reflection to what the network takes, at the right and
    at the bottom, and cut back.

    Attributes:
      run: the run, opened.
      config: the run's config, with the switches in force under ``inference``.
      step: the step of the checkpoint.
      checkpoint_id: 12 hexadecimal digits that tell the weights in use.
      num_parameters: how many they are.
      direction: "AtoB" or "BtoA".
      directions: those that the run was trained for.
      multiple: sides of the images that the network takes are multiples of it.
      bucket: sides are padded to multiples of it, each size of which is compiled once.
      channels_in: channels of the images that the network takes.
      channels_out: channels of the images that it gives.
    """

    def __init__(
        self,
        run: Run,
        *,
        direction: str | None = None,
        batch_size: int = 8,
        tile: int | None = None,
        overlap: int | None = None,
    ):
        """Make a translator of an opened run; see ``from_workdir`` for the other arguments."""
        self.run, self.config, self.step = run, run.config, run.step
        data, batch = run.config.data, run.batch
        fakes = jax.eval_shape(run.objective.translate, run.shapes, batch, run.rng)
        ways = {data.direction: ("real_a", "fake_b"), _OTHER[data.direction]: ("real_b", "fake_a")}
        self.directions = tuple(name for name, (_, fake) in ways.items() if fake in fakes)
        self.direction = direction or data.direction
        if self.direction not in self.directions:
            raise InputError(f"--direction {direction}: this run was trained for {' and '.join(self.directions)} alone")
        self._given, self._fake = ways[self.direction]
        self.channels_in, self.channels_out = batch[self._given].shape[-1], fakes[self._fake].shape[-1]
        self.multiple, self._smallest = self._find_sides()
        self.bucket = max(
            m for m in (self.multiple, 8, 16, 32, _COARSEST) if m % self.multiple == 0 and data.crop_size % m == 0
        )
        self._set_tiles(tile, overlap)

        self._mesh = Mesh(np.array(jax.local_devices()), (DEVICE_AXIS,))
        self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        kept, rebuild = run.restore(lambda state, images, rng: self._translate(state, images), batch=batch[self._given])
        self.checkpoint_id = digest(kept)
        self.num_parameters = sum(leaf.size for leaf in kept.values())
        self._kept = jax.device_put(kept, NamedSharding(self._mesh, PartitionSpec()))
        self._compiled = self._compile(rebuild)
        self._sizes: dict[Hashable, set[int]] = {}  # of the batches that are compiled, by bucket

    @classmethod
    def from_workdir(
        cls,
        workdir: str | Path,
        checkpoint: str | int = "latest",
        direction: str | None = None,
        norm: str | None = None,
        dropout: bool | None = None,
        *,
        batch_size: int = 8,
        tile: int | None = None,
        overlap: int | None = None,
        objective: Objective | None = None,
    ) -> "Translator":
        """Open a run.

        Args:
          workdir: the run's directory.
          checkpoint: "latest", "best" or a step.
          direction: "AtoB" or "BtoA", in the words of the folders that the run was trained on; by default the run's own
            ``config.data.direction``. Runs of CycleGAN know both.
          norm: "batch" normalises by the statistics of the translated image, "running" by those of training; by default
            as ``config.inference.norm`` says.
          dropout: keep the noise of training; by default as ``config.inference.dropout`` says.
          batch_size: images translated at a time, over all devices of this host.
          tile: images with a side longer than this are translated in tiles of this side, in pixels; None: never.
          overlap: pixels that neighbouring tiles share; a quarter of `tile` by default.
          objective: what was trained, if it was given to ``p2p_jax.train`` in place of ``config.objective``.

        Raises:
          InputError: no such run, checkpoint or direction, or a setting that does not fit.
        """
        run = open_run(workdir, checkpoint, norm, dropout, objective)
        return cls(run, direction=direction, batch_size=batch_size, tile=tile, overlap=overlap)

    @overload
    def __call__(self, images: np.ndarray) -> np.ndarray: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]: ...

    def __call__(self, images):
        """Translate images.

        Args:
          images: [N, H, W, C] of one size, or one [H, W, C], or a sequence of such with sizes of their own; uint8, or
            floats in [-1, 1]. H and W are at least 1; C is the network's, or 1 (repeated) for 3, or 3 (luma) for 1.

        Returns:
          The same kind as `images`, each of the size that it had: uint8 for uint8, rounded to the nearest, and float32
          for floats.

        Raises:
          InputError: another dtype, shape or range.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            found = dict(self.stream(enumerate(images)))
            if not found:
                raise InputError("there is no image to translate: the array is empty")
            return np.stack([found[i] for i in range(len(images))])
        if isinstance(images, np.ndarray):
            return next(self.stream([(0, images)]))[1]
        found = dict(self.stream(enumerate(images)))
        return [found[i] for i in range(len(found))]

    def stream(self, images: Iterable[tuple[Hashable, np.ndarray]]) -> Iterator[tuple[Any, np.ndarray]]:
        """Translate images as they come, several at a time, while earlier results are fetched.

        Args:
          images: pairs of a name and an image [H, W, C], as ``__call__`` takes them.

        Yields:
          Pairs of name and translation; images of one size leave in the order in which they came.
        """
        waiting: dict[Hashable, list[tuple[Any, np.ndarray, tuple]]] = {}  # by bucket, the longest waiting one first
        under_way: deque[tuple[list, jax.Array]] = deque()

        def start(bucket, rows):
            group = waiting.pop(bucket)
            under_way.append((group, self._run(np.stack([image for _, image, _ in group]), rows)))

        def finish(most):
            while len(under_way) > most:
                group, outputs = under_way.popleft()
                for (name, _, (height, width)), output in zip(group, np.asarray(outputs), strict=False):
                    yield name, output[:height, :width]

        for name, image in images:
            image = self._checked(image)
            if self.tile and max(image.shape[:2]) > self.tile:
                yield from finish(0)
                yield name, self._in_tiles(image)
                continue
            padded = self._padded(image)
            bucket = (padded.shape, padded.dtype)
            waiting.setdefault(bucket, []).append((name, padded, image.shape[:2]))
            if len(waiting[bucket]) == self.batch_size:
                start(bucket, self.batch_size)
                yield from finish(1)
            elif sum(map(len, waiting.values())) > _MOST_WAITING * self.batch_size:
                start(next(iter(waiting)), self.batch_size)
                yield from finish(1)
        for rest in list(waiting):
            start(rest, self._rows(rest, len(waiting[rest])))
            yield from finish(1)
        yield from finish(0)

    def _checked(self, image: np.ndarray) -> np.ndarray:
        if image.ndim != 3 or not image.size:
            raise InputError(f"an image must be [H, W, C] with at least one pixel, not {image.shape}")
        if image.dtype != np.uint8:
            if not np.issubdtype(image.dtype, np.floating) or not np.abs(image).max() <= 1:
                raise InputError(f"images must be uint8, or floats in [-1, 1]; one is {image.dtype} with other values")
            image = image.astype(np.float32)
        return with_channels(image, self.channels_in)

    def _padded(self, image: np.ndarray) -> np.ndarray:
        sides = [max(-(-n // self.bucket) * self.bucket, self._smallest) for n in image.shape[:2]]
        extra = [(0, side - n) for side, n in zip(sides, image.shape[:2], strict=True)]
        return np.pad(image, [*extra, (0, 0)], mode="reflect") if any(e != (0, 0) for e in extra) else image

    def _in_tiles(self, image: np.ndarray) -> np.ndarray:
        """Translate an image larger than a tile; a side that is shorter than a tile is covered whole."""
        _warn_of_tiles(self.config)
        floats = image.astype(np.float32) / 127.5 - 1 if image.dtype == np.uint8 else image
        size = tuple(min(n, self.tile) for n in image.shape[:2])
        tiles, corners = tiling.cut(floats, size, self.overlap)
        whole = tiling.blend(self(tiles), corners, image.shape[:2], self.overlap)
        return to_uint8(whole) if image.dtype == np.uint8 else whole

    def _translate(self, state: PyTree, images: Any) -> jax.Array:
        return self.run.objective.translate(state, {self._given: images}, self.run.rng)[self._fake]

    def _compile(self, rebuild: Callable[[dict], PyTree]) -> Callable:
        """Return ``(kept leaves, images [B, H, W, C]) -> images`` of that dtype, over all local devices."""

        def run(kept, images):
            state = rebuild(kept)
            if images.dtype != jnp.uint8:
                return self._translate(state, images)
            fakes = self._translate(state, images.astype(jnp.float32) / 127.5 - 1)
            return jnp.rint((jnp.clip(fakes.astype(jnp.float32), -1, 1) + 1) * 127.5).astype(jnp.uint8)

        split = PartitionSpec(DEVICE_AXIS)
        return jax.jit(
            jax.shard_map(run, mesh=self._mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False)
        )

    def _rows(self, bucket: Hashable, count: int) -> int:
        """Return the size of a batch for a remainder: the smallest that is compiled and holds it, else its own."""
        compiled = [rows for rows in self._sizes.get(bucket, ()) if rows >= count]
        return min(compiled, default=-(-count // self._mesh.size) * self._mesh.size)

    def _run(self, images: np.ndarray, rows: int) -> jax.Array:
        """Start the translation of images in a batch of `rows`, in which the last one is repeated."""
        self._sizes.setdefault((images.shape[1:], images.dtype), set()).add(rows)
        if len(images) < rows:
            images = images[np.minimum(np.arange(rows), len(images) - 1)]
        return self._compiled(self._kept, jax.device_put(images, NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS))))

    def _find_sides(self) -> tuple[int, int]:
        """Return of which power of two sides must be multiples, and the shortest side, by asking the network."""
        crop, shapes = self.config.data.crop_size, self.run.shapes

        def takes(side):
            images = jax.ShapeDtypeStruct((1, side, side, self.channels_in), jnp.float32)
            try:
                fakes = jax.eval_shape(self._translate, shapes, images)
            except (TypeError, ValueError):
                return False
            return fakes.shape == (1, side, side, self.channels_out)

        powers = [2**i for i in range(12)]
        multiple = next((m for m in powers if takes(crop + m)), crop)
        smallest = next(m for m in range(multiple, crop + multiple, multiple) if m == crop or takes(m))
        return multiple, smallest

    def _set_tiles(self, tile: int | None, overlap: int | None) -> None:
        self.tile, self.overlap = tile, 0
        if tile is None:
            if overlap is not None:
                raise InputError("--overlap is for tiles: give --tile too")
            return
        self.overlap = tile // 4 if overlap is None else overlap
        if tile % self.multiple or tile < self._smallest:
            raise InputError(f"--tile {tile} must be a multiple of {self.multiple}, which the network works in")
        if not 0 <= self.overlap < tile:
            raise InputError(f"--overlap {overlap} must be at least 0 and less than --tile {tile}")


def _warn_of_tiles(config: ConfigDict) -> None:
    """Warn where a tile is normalised by statistics of its own."""
    norm = getattr(make_network(config.generator), "norm", None)
    if norm == "instance" or (norm == "batch" and config.inference.norm == "batch"):
        warnings.warn(
            "tiles are normalised by their own statistics, not by those of the whole image, so that tones may differ "
            "from one to the next; larger tiles and more overlap soften it"
            + ("" if norm == "instance" else ", and --norm running avoids it"),
            stacklevel=4,
        )
