"""A trained run as a function on arrays of any size."""

import functools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from p2p_jax.config.options import crop_shape
from p2p_jax.errors import InputError
from p2p_jax.images import unknown
from p2p_jax.images.domains import of_config
from p2p_jax.images.palettes import VOID
from p2p_jax.images.pictures import with_channels
from p2p_jax.inference import tiling, values
from p2p_jax.inference.run import Run, digest, open_run, warn_of_tiles
from p2p_jax.inference.sizes import find_sizes
from p2p_jax.objectives import DEVICE_AXIS, Objective

PyTree = Any
_MOST_WAITING = 4  # batches of images of sizes of which there is no full batch yet
_OTHER = {"AtoB": "BtoA", "BtoA": "AtoB"}


class _Bucket(NamedTuple):
    """What images have in common that can be translated in one batch."""

    shape: tuple[int, ...]
    dtype: np.dtype
    normalized: bool


class Translator:
    """A trained run as a function on images, under the switches with which it was trained.

    Images are values of the domains that the run's config describes, in their own units and dtypes. Every image is
    translated alone, whatever else is in its batch, and with the same noise each time: the one that the run's
    validation and sample grids have. Sides are padded by reflection to what the network takes, at the right and at the
    bottom, and cut back.

    Attributes:
      run: the run, opened.
      config: the run's config, with the switches in force under ``inference``.
      step: the step of the checkpoint.
      checkpoint_id: 12 hexadecimal digits that tell the weights in use.
      num_parameters: how many they are.
      direction: "AtoB" or "BtoA".
      directions: those that the run was trained for.
      multiple: sides of the images that the network takes are multiples of it; each size is compiled once.
      domain_in: what the images that are given are.
      domain_out: what their translations are.
      channels_in: channels of the normalized images that the network takes.
      channels_out: channels of those that it gives.
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
            raise InputError(f"direction={direction}: this run was trained for {' and '.join(self.directions)} alone")
        self._given, self._fake = ways[self.direction]
        self.channels_in, self.channels_out = batch[self._given].shape[-1], fakes[self._fake].shape[-1]
        domains = of_config(data)
        self.domain_in, self.domain_out = domains if self._given == "real_a" else domains[::-1]
        if self.domain_in.kind in ("uint16", "int16", "float") and self.domain_in.asks_files:
            self.domain_in = self.domain_in._replace(unknown=True)  # images to come may have unknown values
        self._lost = VOID if self.domain_out.kind == "labels" else self.domain_out.nodata
        self._sizes = find_sizes(self._takes, crop_shape(data))
        self.multiple = self._sizes.multiple
        self.tile = tile
        self.overlap = tiling.find_overlap(tile, overlap, self.multiple, self._sizes.smallest)

        self._mesh = Mesh(np.array(jax.local_devices()), (DEVICE_AXIS,))
        self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        kept, rebuild = run.restore(lambda state, images, rng: self._translate(state, images), batch=batch[self._given])
        self.checkpoint_id = digest(kept)
        self.num_parameters = sum(leaf.size for leaf in kept)
        self._kept = jax.device_put(kept, NamedSharding(self._mesh, PartitionSpec()))
        self._compiled = self._compile(rebuild)
        self._batch_sizes: dict[_Bucket, set[int]] = {}  # of the batches that are compiled

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
    def __call__(self, images: np.ndarray, *, normalized: bool = False) -> np.ndarray: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray], *, normalized: bool = False) -> list[np.ndarray]: ...

    def __call__(
        self, images: np.ndarray | Sequence[np.ndarray], *, normalized: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """Translate images.

        Args:
          images: [N, H, W, C] of one size, or one [H, W, C], or a sequence of such with sizes of their own: values of
            ``domain_in``, of its dtype and ``value_channels``. H and W are at least 1. Numbers beyond the range are cut
            off. Also taken are uint8 pictures of 1 channel (repeated) for 3, or 3 (luma) for 1; for Lab, pictures; for
            labels with a palette, their colours. Floats in [-1, 1] for a domain of uint8 with the range 0:255 are
            normalized ones.
          normalized: images are floats in [-1, 1], [..., channels_in], whatever the domain, and so are the results.

        Returns:
          As many images, each of the size that it had: values of ``domain_out``, of its dtype and ``value_channels``,
          rounded to the nearest; for normalized images normalized ones, float32 [..., channels_out].

        Raises:
          InputError: another dtype, shape or range, or numbers that are not finite.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            found = dict(self.stream(enumerate(images), normalized))
            if not found:
                raise InputError("there is no image to translate: the array is empty")
            return np.stack([found[i] for i in range(len(images))])
        if isinstance(images, np.ndarray):
            return next(self.stream([(0, images)], normalized))[1]
        found = dict(self.stream(enumerate(images), normalized))
        return [found[i] for i in range(len(found))]

    def stream(
        self, images: Iterable[tuple[Hashable, np.ndarray]], normalized: bool = False
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Translate images as they come, several at a time, while earlier results are fetched.

        Args:
          images: pairs of a name and an image [H, W, C], as ``__call__`` takes them.
          normalized: as for ``__call__``.

        Yields:
          Pairs of name and translation; images of one size leave in the order in which they came.
        """
        waiting: dict[_Bucket, list[tuple[Any, np.ndarray, np.ndarray]]] = {}  # the longest waiting one first
        under_way: deque[tuple[_Bucket, list, jax.Array]] = deque()

        def start(bucket, rows):
            group = waiting.pop(bucket)
            under_way.append((bucket, group, self._run(bucket, np.stack([image for _, image, _ in group]), rows)))

        def finish(most):
            while len(under_way) > most:
                bucket, group, outputs = under_way.popleft()
                for (name, _, lost), output in zip(group, np.asarray(outputs), strict=False):
                    yield name, self._decoded(output[: lost.shape[0], : lost.shape[1]], bucket.normalized, lost)

        for name, given in images:
            image, keep = self._encoded(given, normalized)
            lost = np.isnan(image).any(-1)  # of what is unknown, nothing comes
            image = np.nan_to_num(image, copy=False) if lost.any() else image
            if self.tile and max(image.shape[:2]) > self.tile:
                yield from finish(0)
                yield name, self._in_tiles(image, keep, lost)
                continue
            padded = self._sizes.pad(image)
            bucket = _Bucket(padded.shape, padded.dtype, keep)
            waiting.setdefault(bucket, []).append((name, padded, lost))
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

    def _encoded(self, image: np.ndarray, normalized: bool) -> tuple[np.ndarray, bool]:
        """Check an image; return what goes to the device, bytes or normalized, and whether the result stays so."""
        if image.ndim != 3 or not image.size:
            raise InputError(f"an image must be [H, W, C] with at least one pixel, not {image.shape}")
        if normalized or (self.domain_in.is_bytes and image.dtype != np.uint8):
            known = image[~np.isnan(image)] if self.domain_in.unknown else image
            if not np.issubdtype(image.dtype, np.floating) or not np.abs(known).max(initial=0) <= 1:
                expected = "floats in [-1, 1]" if normalized else "uint8, or floats in [-1, 1]"
                raise InputError(f"images must be {expected}; one is {image.dtype} with other values")
            if self.domain_in.kind == "uint8":
                image = with_channels(image, self.channels_in)
            if image.shape[-1] != self.channels_in:
                raise InputError(f"images have {image.shape[-1]} channels, but the network takes {self.channels_in}")
            return image.astype(np.float32), True
        if not (self.domain_in.is_measured and self.domain_out.is_measured):
            raise InputError(
                "the ranges of this run's images are not known: set config.data.input.range and output.range"
            )
        return values.encode(image, self.domain_in), False

    def _decoded(self, output: np.ndarray, normalized: bool, lost: np.ndarray) -> np.ndarray:
        """Return the values that a network's output stands for; bytes are rounded on the device.

        Where nothing is known of the input it is NaN, of whole numbers the one that stands for unknown values, or 0.
        """
        if not (normalized or self.domain_out.is_bytes):
            output = self.domain_out.decode(output)
        return unknown.without(output, lost, self._lost)

    def _in_tiles(self, image: np.ndarray, normalized: bool, lost: np.ndarray) -> np.ndarray:
        """Translate an image larger than a tile; a side that is shorter than a tile is covered whole."""
        warn_of_tiles(self.config)
        floats = image.astype(np.float32) / 127.5 - 1 if image.dtype == np.uint8 else image
        size = tuple(min(n, self.tile) for n in image.shape[:2])
        tiles, corners = tiling.cut(floats, size, self.overlap)
        whole = tiling.blend(self(tiles, normalized=True), corners, image.shape[:2], self.overlap)
        if not normalized:
            whole = self.domain_out.decode(whole)
        return unknown.without(whole, lost, self._lost)

    def _translate(self, state: PyTree, images: Any) -> jax.Array:
        return self.run.objective.translate(state, {self._given: images}, self.run.rng)[self._fake]

    def _compile(self, rebuild: Callable[[list], PyTree]) -> Callable:
        """Return ``(kept leaves, images [B, H, W, C], to_bytes) -> images``, over all local devices."""

        def run(kept, images, to_bytes):
            if images.dtype == jnp.uint8:
                images = images.astype(jnp.float32) / 127.5 - 1
            fakes = self._translate(rebuild(kept), images)
            if not to_bytes:
                return fakes
            return jnp.rint((jnp.clip(fakes.astype(jnp.float32), -1, 1) + 1) * 127.5).astype(jnp.uint8)

        def over_devices(kept, images, to_bytes):
            split, function = PartitionSpec(DEVICE_AXIS), functools.partial(run, to_bytes=to_bytes)
            return jax.shard_map(
                function, mesh=self._mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False
            )(kept, images)

        return jax.jit(over_devices, static_argnums=2)

    def _rows(self, bucket: _Bucket, count: int) -> int:
        """Return the size of a batch for a remainder: the smallest that is compiled and holds it, else its own."""
        compiled = [rows for rows in self._batch_sizes.get(bucket, ()) if rows >= count]
        return min(compiled, default=-(-count // self._mesh.size) * self._mesh.size)

    def _run(self, bucket: _Bucket, images: np.ndarray, rows: int) -> jax.Array:
        """Start the translation of images in a batch of `rows`, in which the last one is repeated."""
        self._batch_sizes.setdefault(bucket, set()).add(rows)
        if len(images) < rows:
            images = images[np.minimum(np.arange(rows), len(images) - 1)]
        images = jax.device_put(images, NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS)))
        return self._compiled(self._kept, images, self.domain_out.is_bytes and not bucket.normalized)

    def _takes(self, height: int, width: int) -> bool:
        """Tell whether the network gives an image of the size that it is given."""
        images = jax.ShapeDtypeStruct((1, height, width, self.channels_in), jnp.float32)
        try:
            fakes = jax.eval_shape(self._translate, self.run.shapes, images)
        except (TypeError, ValueError):
            return False
        return fakes.shape == (1, height, width, self.channels_out)
