"""How the images of a source are read for the stream: those that belong together are treated alike."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import resolve
from p2p_jax.config.options import are_photos, crop_shape
from p2p_jax.data import checks
from p2p_jax.data.stream import cropping
from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.data.stream.image_cache import ImageCache
from p2p_jax.data.stream.sources import Source, Unpaired, reader
from p2p_jax.errors import InputError
from p2p_jax.images import tasks
from p2p_jax.images.domains import NUMBERS, Domain
from p2p_jax.images.unknown import is_number

if TYPE_CHECKING:
    import tensorflow as tf


class Side(NamedTuple):
    """A source as the stream reads it: what it reads together is cropped and turned together.

    A paired data set has one side, an unpaired one two, which know nothing of each other.

    Attributes:
      number: 0, or 1 for the B of an unpaired source; its random numbers are its own.
      source: what is read, in the order of `domains`.
      domains: of each image that belongs to one example.
      has_input: whether the first of its images is ``real_a``.
      make_input: ``(photograph, rng) -> image``; given, the first image is made of the last one, and only that is read.
      memory: keeps the images that are read, after resizing; None keeps none.
    """

    number: int
    source: Source
    domains: tuple[Domain, ...]
    has_input: bool = True
    make_input: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    memory: ImageCache | None = None

    @property
    def read_domains(self) -> tuple[Domain, ...]:
        """The domains of what is read."""
        return self.domains[-1:] if self.make_input else self.domains

    def seed(self, seed: int, n: "int | tf.Tensor") -> "tf.Tensor":
        """Return the seed [2] of the n-th draw: side 0 counts upwards from 0, side 1 downwards from -1."""
        return tensorflow().stack([tensorflow().constant(seed, "int64"), -1 - n if self.number else n])

    def shuffled(self, position: "int | tf.Tensor", seed: int) -> "tf.Tensor":
        """Map a place in the endless stream to an example: every pass is a permutation of all of them."""
        count = len(self.source.names)
        passes, place = position // count, position % count
        return tensorflow().random.experimental.index_shuffle(place, self.seed(seed, passes), count - 1)

    def raw(self, index: "tf.Tensor") -> "list[tf.Tensor]":
        """Read the images of an example, [H, W, raw_channels] of ``raw_dtype``."""
        images = reader(self.source)(index)[-len(self.read_domains) :]
        return [_to_raw(x, domain) for x, domain in zip(images, self.read_domains, strict=True)]

    def validated(self, index: "tf.Tensor", config: ConfigDict) -> "list[tf.Tensor]":
        """Read an example for validation: nothing is random. Returns normalized images."""
        images = self._recalled(index, lambda: cropping.fit(self.raw(index), self.read_domains, config.data))
        return self._normalized(images, config, self.seed(config.seed, index))

    def augmented(self, position: "tf.Tensor", config: ConfigDict) -> "list[tf.Tensor]":
        """Read the example of a place in the stream, cropped, mirrored and so on at random, normalized."""
        tf, strength = tensorflow(), config.augment.photometric
        seed = self.seed(config.seed, position)
        index = self.shuffled(position, config.seed)

        def enlarged():
            return cropping.enlarge(self.raw(index), self.read_domains, config, seed)

        large = enlarged() if cropping.is_jittered(config) else self._recalled(index, enlarged)
        images = self._normalized(cropping.augment(large, config, seed), config, seed)
        if strength and self.has_input:
            draw = tf.random.stateless_uniform([2], _fold_in(seed, 2), -strength, strength)
            images[0] = tf.clip_by_value(images[0] * (1 + draw[0]) + draw[1], -1, 1)
        return images

    def _recalled(self, index: "tf.Tensor", make: "Callable[[], list[tf.Tensor]]") -> "list[tf.Tensor]":
        return self.memory.recall(index, self.read_domains, make) if self.memory else make()

    def _normalized(self, raw: "list[tf.Tensor]", config: ConfigDict, seed: "tf.Tensor") -> "list[tf.Tensor]":
        """Map raw images of the size of the crop to [-1, 1]; make the input, if it is made."""
        tf, shape = tensorflow(), crop_shape(config.data)
        images = [_encode(x, domain) for x, domain in zip(raw, self.read_domains, strict=True)]
        if self.make_input:
            images = [_make_input(raw[-1], self, seed), *images]
        return [tf.ensure_shape(x, [*shape, d.channels]) for x, d in zip(images, self.domains, strict=True)]


def make_sides(source: Source | Unpaired, config: ConfigDict, domains: tuple[Domain, Domain]) -> list[Side]:
    """Return the sides in the order of a batch: real_a, then real_b.

    Args:
      source: what is read.
      config: reads ``data.direction``, ``data.source`` and ``task``.
      domains: of real_a and real_b, with their ranges.

    Raises:
      InputError: the source or the task does not fit the rest.
    """
    if makes_input(config):
        if isinstance(source, Unpaired):
            raise InputError("config.task.input makes pairs, but config.data.source is unpaired: use photos")
        if config.data.direction == "BtoA":
            raise InputError("the input is computed from the photographs, which are B: set config.data.direction=AtoB")
        sides = [Side(0, source, domains, make_input=_task(config))]
    else:
        sides = arrange(source, config.data.direction, domains)
    sides = [side._replace(source=side.source._replace(read=reader(side.source))) for side in sides]
    for side in sides:
        _check_read(side, config.data)
    return sides


def makes_input(config: ConfigDict) -> bool:
    """Return whether the input is made of photographs by a function of Python, which only the stream runs."""
    return bool(config.task.get("input")) or are_photos(config.data.source)


def check_task(source: Source | Unpaired, config: ConfigDict) -> None:
    """Refuse images in a container that are single, where nothing says what is made of them.

    Raises:
      InputError: names the options.
    """
    if isinstance(source, Source) and len(source.told) == 1 and not makes_input(config):
        raise InputError(
            f"{source.names[0]} holds one image: set config.task.input to compute the input from it (as "
            "configs/colorization.py does), read it as A and B side by side (--config.data.source="
            f"{config.data.source}/side_by_side), or name A and B with config.data.columns"
        )


def arrange(source: Source | Unpaired, direction: str, domains: tuple[Domain, Domain]) -> list[Side]:
    """Return the sides of images that are all read, as ``data.direction`` orders them; nothing is checked."""
    order = -1 if direction == "BtoA" else 1
    if isinstance(source, Unpaired):
        numbers = zip((0, 1)[::order], domains, (True, False), strict=True)
        return [Side(n, source[n], (domain,), has_input) for n, domain, has_input in numbers]
    return [Side(0, source.in_order(order), domains)]


def try_task(side: Side, config: ConfigDict) -> None:
    """Make the input of the first example, so a faulty task is reported clearly before training.

    Raises:
      InputError: the function, its options or what it makes cannot be used.
    """
    if side.make_input is None:
        return
    tf = tensorflow()
    image = cropping.fit(side.raw(tf.constant(0, tf.int64)), side.read_domains, config.data)[-1]
    try:
        _run_task(image.numpy(), side, np.zeros(2, np.int64))
    except (TypeError, ValueError) as error:  # InputError is one
        if isinstance(error, InputError):
            raise
        raise InputError(f"config.task.input={config.task.input} does not run with its options: {error}") from error


def _task(config: ConfigDict) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Return what makes the input; without a function named it is the photograph itself."""
    options = dict(config.task)
    name = options.pop("input", "")
    return tasks.bind(resolve(name), options) if name else lambda photograph, rng: photograph


def _check_read(side: Side, data: ConfigDict) -> None:
    """Refuse a source, one from outside the library at that, that reads too many images or too few, or other ones."""
    images = tensorflow().data.Dataset.range(1).map(reader(side.source)).element_spec  # traced, not run
    if not isinstance(images, tuple) or len(images) not in {len(side.domains), len(side.read_domains)}:
        raise InputError(
            f"the source of {side.source.names[0]}: read() must return a tuple of two images (paired), or of one "
            f"(each side of an Unpaired); it returned {images}"
        )
    for image, domain in zip(images[-len(side.read_domains) :], side.read_domains, strict=True):
        height, width, channels = image.shape
        dtype = np.dtype(image.dtype.as_numpy_dtype)
        dtype = domain.file_dtype if domain.unknown and dtype == np.float32 else dtype
        fault = domain.fault(dtype, channels or domain.raw_channels, has_palette=False)
        if fault is None and height and width:
            fault = checks.crop_fault(height, width, data)
        if fault:
            raise InputError(f"the source of {side.source.names[0]} {fault}")


def _to_raw(image: "tf.Tensor", domain: Domain) -> "tf.Tensor":
    """Convert what a source reads to a raw image of its domain."""
    tf = tensorflow()
    if domain.is_labels:
        raw = tf.numpy_function(domain.raw, [image], tf.as_dtype(domain.raw_dtype), stateful=False)
        return tf.ensure_shape(raw, [None, None, domain.raw_channels])
    image = tf.cast(image, tf.as_dtype(domain.raw_dtype))
    if domain.unknown and is_number(domain.nodata):
        image = tf.where(image == np.float32(domain.nodata), np.float32(np.nan), image)
    if domain.raw_channels in (1, 3) and domain.raw_dtype == np.uint8:
        return _with_channels(image, domain.raw_channels)
    return tf.ensure_shape(image, [None, None, domain.raw_channels])


def _encode(raw: "tf.Tensor", domain: Domain) -> "tf.Tensor":
    """Map a raw image to [-1, 1]: as ``Domain.encode``, in TensorFlow where it is simple."""
    tf = tensorflow()
    if domain.kind == "labels":
        return tf.one_hot(tf.cast(raw[..., 0], tf.int32), domain.channels, 1.0, -1.0)
    if domain.kind in (*NUMBERS, "label_colors"):
        low, half = (x[0] if (x == x[0]).all() else x for x in domain.line)  # scalars are much faster
        numbers = tf.cast(raw, tf.float32)
        scaled = (numbers - low if np.any(low) else numbers) / half - 1
        # Of 8 bits, the most common by far, no value can lie beyond the whole range.
        return scaled if domain.is_bytes else tf.clip_by_value(scaled, -1, 1)

    def encode(raw):
        return domain.encode(domain.values(raw.astype(domain.raw_dtype)))

    return tf.numpy_function(encode, [raw], tf.float32, stateful=False)


def _make_input(photograph: "tf.Tensor", side: Side, seed: "tf.Tensor") -> "tf.Tensor":
    """Make a normalized input of a raw photograph, with random numbers of its own."""
    tf = tensorflow()
    return tf.numpy_function(
        lambda image, key: _run_task(image, side, key), [photograph, _fold_in(seed, 3)], tf.float32, stateful=False
    )


def _run_task(photograph: np.ndarray, side: Side, seed: np.ndarray) -> np.ndarray:
    source, target = side.domains[-1], side.domains[0]
    assert side.make_input is not None
    rng = np.random.default_rng(seed.astype(np.uint64))
    return target.encode(tasks.make_values(side.make_input, photograph.astype(source.raw_dtype), rng, target))


def _fold_in(seed: "tf.Tensor", number: int) -> "tf.Tensor":
    return tensorflow().random.experimental.stateless_fold_in(seed, number)


def _with_channels(image: "tf.Tensor", channels: int) -> "tf.Tensor":
    """Convert uint8 [H, W, 1 or 3] to [H, W, channels]: gray is repeated, colour becomes ITU-R 601 luma."""
    tf = tensorflow()

    def convert(image):
        if channels == 3:
            return tf.image.grayscale_to_rgb(image)
        return tf.cast(tf.round(tf.image.rgb_to_grayscale(tf.cast(image, tf.float32))), tf.uint8)  # not truncated

    if image.shape[-1] is not None:
        return image if image.shape[-1] == channels else convert(image)
    image = tf.cond(
        tf.shape(image)[-1] == channels,
        lambda: tf.identity(image),
        lambda: convert(tf.ensure_shape(image, [None, None, 4 - channels])),
    )
    return tf.ensure_shape(image, [None, None, channels])
