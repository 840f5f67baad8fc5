"""A trained run as a function on arrays of any size."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

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
from p2p_jax.inference.batches import Batches, Limits
from p2p_jax.inference.opened import Opened
from p2p_jax.inference.programs import Programs
from p2p_jax.inference.run import Run, warn_of_tiles
from p2p_jax.inference.sizes import find_sizes
from p2p_jax.nets.weights import digest
from p2p_jax.objectives import DEVICE_AXIS

PyTree = Any
_SIDE = 256  # of a square: as many such images as `batch_size` says are a batch whatever training saw
_OTHER = {"AtoB": "BtoA", "BtoA": "AtoB"}


class Translator(Opened):
    """A trained run as a function on images, with the switches that it was trained with.

    ``from_workdir`` opens a run's directory, ``from_file`` a model file, ``from_pretrained`` one of a hub.

    Images are values of the domains that the run's config describes, in their own units and dtypes. Every image is
    translated independently of the others in its batch, with the same noise each time: that of the run's
    validation and sample grids have. Sides are padded by reflection to what the network takes, at the right and at the
    bottom, and cut back.

    Attributes:
      run: the run, opened.
      config: the run's config, with the switches in force under ``inference``.
      step: the step of the checkpoint.
      weights: "average" of the run's steps (``config.ema``), or "raw", those of the step itself.
      checkpoint_id: 12 hexadecimal digits that identify the weights in use.
      num_parameters: how many they are.
      direction: "AtoB" or "BtoA".
      directions: those that the run was trained for.
      multiple: sides of the images that the network takes are multiples of it; each size is compiled, and the programs
        of the last eight are kept.
      domain_in: what the images that are given are.
      domain_out: what their translations are.
      lost_number: what whole numbers are where nothing is known of what was given; None: 0.
      channels_in, channels_out: of the normalized images that the network takes, and of those that it gives.
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
        self.run, self.config, self.step, self.weights = run, run.config, run.step, run.weights
        data, batch = run.config.data, run.batch
        fakes = jax.eval_shape(run.objective.translate, run.shapes, batch, run.rng)
        ways = {data.direction: ("real_a", "fake_b"), _OTHER[data.direction]: ("real_b", "fake_a")}
        self.directions = tuple(name for name, (_, fake) in ways.items() if fake in fakes and run.holds(name))
        own = [name for name in (data.direction, *self.directions) if name in self.directions]
        self.direction = direction or (own or [data.direction])[0]
        if self.direction not in self.directions:
            holder = "file holds" if run.file else "run was trained for"
            raise InputError(f"direction={self.direction}: this {holder} only {' and '.join(self.directions)}")
        self._given, self._fake = ways[self.direction]
        self.channels_in, self.channels_out = batch[self._given].shape[-1], fakes[self._fake].shape[-1]
        domains = of_config(data)
        self.domain_in, self.domain_out = domains if self._given == "real_a" else domains[::-1]
        if self.domain_in.kind in ("uint16", "int16", "float") and self.domain_in.asks_files:
            self.domain_in = self.domain_in._replace(unknown=True)  # images to come may have unknown values
        self.lost_number = VOID if self.domain_out.kind == "labels" else self.domain_out.nodata
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
        self._programs = Programs(lambda kept, images: self._translate(rebuild(kept), images), self._kept, self._mesh)
        crop = crop_shape(data)
        pixels = self.batch_size * max(crop[0] * crop[1], _SIDE * _SIDE)
        self._limits = Limits(self.batch_size, pixels, self._mesh.size)

    @overload
    def __call__(self, images: np.ndarray, *, normalized: bool = False) -> np.ndarray: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray], *, normalized: bool = False) -> list[np.ndarray]: ...

    def __call__(
        self, images: np.ndarray | Sequence[np.ndarray], *, normalized: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """Translate images.

        Args:
          images: [N, H, W, C] of one size, or one [H, W, C], or a sequence of these with different sizes: values of
            ``domain_in``, of its dtype and ``value_channels``. H and W are at least 1. Numbers beyond the range are cut
            off. Also taken are uint8 pictures of 1 channel (repeated) for 3, or 3 (luma) for 1; for Lab, pictures; for
            labels with a palette, their colours. Floats in [-1, 1] for a domain of uint8 with the range 0:255 are
            normalized ones.
          normalized: images are floats in [-1, 1], [..., channels_in], in any domain; the results too.

        Returns:
          As many images, each of the size that it had: values of ``domain_out``, of its dtype and ``value_channels``,
          rounded to the nearest; for normalized images normalized ones, float32 [..., channels_out].

        Raises:
          InputError: another dtype, shape or range, or numbers that are not finite.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            found = dict(self.stream(enumerate(images), normalized))
            if not found:
                raise InputError("no image to translate: the array is empty")
            return np.stack([found[i] for i in range(len(images))])
        if isinstance(images, np.ndarray):
            return next(self.stream([(0, images)], normalized))[1]
        found = dict(self.stream(enumerate(images), normalized))
        return [found[i] for i in range(len(found))]

    def stream(
        self,
        images: Iterable[tuple[Hashable, np.ndarray]],
        normalized: bool = False,
        counts: Mapping[tuple[int, int], int] | None = None,
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Translate images as they come, several at a time, while earlier results are fetched.

        A batch is of one size, and holds `batch_size` images, or fewer large ones: at most the pixels of that many
        images of the training size, or of 256x256.

        Args:
          images: pairs of a name and an image [H, W, C], as ``__call__`` takes them.
          normalized: as for ``__call__``.
          counts: how many images of each size there are, by what ``padded_size`` returns, if images of one size come
            one after the other: each size is then compiled once.

        Yields:
          Pairs of name and translation; images of one size leave in the order they came.
        """
        batches = Batches(self._programs, self._limits, counts)

        def finished(outputs):
            for (name, keep, lost), output in outputs:
                yield name, self._decoded(output[: lost.shape[0], : lost.shape[1]], keep, lost)

        for name, given in images:
            image, keep = self.encoded(given, normalized)
            lost = values.lost(image)  # of what is unknown, nothing comes
            if self.tile and max(image.shape[:2]) > self.tile:
                yield from finished(batches.fetch())
                yield name, self._in_tiles(image, keep, lost)
                continue
            image = np.nan_to_num(image, copy=False) if lost.any() else image
            to_bytes = self.domain_out.is_bytes and not keep
            yield from finished(batches.add((name, keep, lost), self._sizes.pad(image), to_bytes))
        yield from finished(batches.end())

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which an image, or each of its tiles, is padded."""
        return self._sizes.padded(*self._tile_size(height, width))

    def in_tiles(self, read: Callable[[int, int], np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Translate an image that need not be in memory, in tiles, with one row of tiles in memory at a time.

        Args:
          read: ``(first row, row behind the last) -> rows`` as ``encoded`` returns them; called from top to bottom,
            for rows that overlap. NaN is unknown.
          size: height and width of the image; a side that is shorter than a tile is covered whole.

        Yields:
          Rows of the translation from top to bottom, float32 [at most 64, W, C] in [-1, 1], not decoded; of unknown
          pixels anything.
        """
        warn_of_tiles(self.config)
        rows, columns = tile = self._tile_size(*size)

        tops, lefts = (tiling.starts(*sides, self.overlap) for sides in zip(size, tile, strict=True))

        def tiles():
            batches = Batches(self._programs, self._limits)
            for top in tops:
                band = read(top, top + rows)
                for left in lefts:
                    image = band[:, left : left + columns]
                    floats = image.astype(np.float32) / 127.5 - 1 if image.dtype == np.uint8 else np.nan_to_num(image)
                    yield from batches.add(None, self._sizes.pad(floats), to_bytes=False)
            yield from batches.end()

        yield from tiling.blend((tile[:rows, :columns] for _, tile in tiles()), size, tile, self.overlap)

    def _tile_size(self, height: int, width: int) -> tuple[int, int]:
        return (min(height, self.tile), min(width, self.tile)) if self.tile else (height, width)

    def encoded(self, image: np.ndarray, normalized: bool = False) -> tuple[np.ndarray, bool]:
        """Check an image; return what goes to the device, bytes or normalized, and whether the result stays so."""
        if image.ndim != 3 or not image.size:
            raise InputError(f"an image must be [H, W, C] with at least one pixel, not {image.shape}")
        self.refuse_channels_first(image.shape)
        if normalized or (self.domain_in.is_bytes and image.dtype != np.uint8):
            known = image[~np.isnan(image)] if self.domain_in.unknown else image
            if not np.issubdtype(image.dtype, np.floating) or not np.abs(known).max(initial=0) <= 1:
                expected = "floats in [-1, 1]" if normalized else "uint8, or floats in [-1, 1]"
                raise InputError(f"images must be {expected}; one is {image.dtype} with values outside that range")
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

    def refuse_channels_first(self, shape: tuple[int, ...]) -> None:
        """Refuse an image of this shape if its channels come first, as PyTorch has them.

        Raises:
          InputError: the first axis may be channels, and the last one may not.
        """
        possible = {1, 3, self.channels_in, self.domain_in.value_channels}
        if shape[0] in possible and shape[-1] not in possible:
            raise InputError(
                f"images have {shape[-1]} channels, but the network takes {self.channels_in}; "
                f"arrays are [N, H, W, C], and an image here is {list(shape)}"
            )

    def _decoded(self, output: np.ndarray, normalized: bool, lost: np.ndarray) -> np.ndarray:
        """Return the values of a network's output; bytes are rounded on the device.

        Where nothing is known of the input it is NaN, in whole numbers the one for unknown values, or 0.
        """
        if not (normalized or self.domain_out.is_bytes):
            output = self.domain_out.decode(output)
        return unknown.without(output, lost, self.lost_number)

    def _in_tiles(self, image: np.ndarray, normalized: bool, lost: np.ndarray) -> np.ndarray:
        """Translate an image larger than a tile."""
        whole, done = None, 0
        for rows in self.in_tiles(lambda first, end: image[first:end], image.shape[:2]):
            found = rows if normalized else self.domain_out.decode(rows)
            if whole is None:
                whole = np.empty((*image.shape[:2], found.shape[-1]), found.dtype)
            whole[done : done + len(found)] = found
            done += len(found)
        assert whole is not None  # an image has a row at least
        return unknown.without(whole, lost, self.lost_number)

    def _translate(self, state: PyTree, images: Any) -> jax.Array:
        return self.run.objective.translate(state, {self._given: images}, self.run.rng)[self._fake]

    def _takes(self, height: int, width: int) -> bool:
        """Return whether the network keeps the size of its input."""
        images = jax.ShapeDtypeStruct((1, height, width, self.channels_in), jnp.float32)
        try:
            fakes = jax.eval_shape(self._translate, self.run.shapes, images)
        except (TypeError, ValueError):
            return False
        return fakes.shape == (1, height, width, self.channels_out)
