"""How the images of a source are read for the stream: those that belong together are treated alike."""

from typing import TYPE_CHECKING, NamedTuple

from ml_collections import ConfigDict

from p2p_jax.data.backend import tensorflow
from p2p_jax.data.sources import Source, Unpaired
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class Side(NamedTuple):
    """A source as the stream reads it: what it reads together is one image of many channels, so treated alike.

    A paired data set has one side, an unpaired one two, which know nothing of each other.

    Attributes:
      number: 0, or 1 for the B of an unpaired source; its random numbers are its own.
      source: what is read.
      channels: of each image that belongs to one example.
    """

    number: int
    source: Source
    channels: tuple[int, ...]

    def seed(self, seed: int, n: "int | tf.Tensor") -> "tf.Tensor":
        """Return the seed [2] of the n-th draw: side 0 counts upwards from 0, side 1 downwards from -1."""
        return tensorflow().stack([tensorflow().constant(seed, "int64"), -1 - n if self.number else n])

    def index_of(self, position: "int | tf.Tensor", seed: int) -> "tf.Tensor":
        """Map a place in the endless stream to an example: every pass is a permutation of all of them."""
        count = len(self.source.names)
        passes, place = position // count, position % count
        return tensorflow().random.experimental.index_shuffle(place, self.seed(seed, passes), count - 1)

    def read(self, index: "tf.Tensor", size: int) -> "tf.Tensor":
        """Read an example as [size, size, sum of channels] of whole numbers in [0, 255]."""
        tf = tensorflow()
        images = zip(self.source.read(index), self.channels, strict=True)
        image = tf.concat([_with_channels(x, channels) for x, channels in images], axis=-1)
        # Rounded to whole numbers, as an 8-bit resize (Pillow's, the reference's) does; bicubic overshoots are cut.
        image = tf.cond(
            tf.reduce_all(tf.shape(image)[:2] == size),
            lambda: tf.cast(image, tf.float32),
            lambda: tf.clip_by_value(tf.round(tf.image.resize(image, [size, size], "bicubic", antialias=True)), 0, 255),
        )
        return tf.ensure_shape(image, [size, size, sum(self.channels)])

    def augmented(self, position: "tf.Tensor", config: ConfigDict) -> "tf.Tensor":
        """Read the example of a place in the stream, cropped and mirrored at random."""
        tf, data = tensorflow(), config.data
        image = self.read(self.index_of(position, config.seed), data.load_size)
        y, x, mirror = tf.unstack(tf.random.stateless_uniform([3], self.seed(config.seed, position)))
        room = data.load_size - data.crop_size + 1
        top, left = tf.cast(y * room, tf.int32), tf.cast(x * room, tf.int32)
        image = image[top : top + data.crop_size, left : left + data.crop_size]
        return tf.cond(mirror < 0.5, lambda: image[:, ::-1], lambda: image) if data.flip else image


def make_sides(source: Source | Unpaired, data: ConfigDict) -> list[Side]:
    """Return the sides in the order in which a batch has them: real_a, then real_b."""
    channels = (data.channels_a, data.channels_b)
    order = -1 if data.direction == "BtoA" else 1
    if isinstance(source, Unpaired):
        sides = [Side(n, source[n], (c,)) for n, c in zip((0, 1)[::order], channels, strict=True)]
    else:
        sides = [Side(0, source._replace(read=lambda index: source.read(index)[::order]), channels)]
    for side in sides:
        _check_read(side)
    return sides


def _check_read(side: Side) -> None:
    """Refuse a source, one from outside the library at that, that reads too many images or too few."""
    images = tensorflow().data.Dataset.range(1).map(side.source.read).element_spec  # traced, not run
    if not isinstance(images, tuple) or len(images) != len(side.channels):
        raise InputError(
            f"the source of {side.source.names[0]} has a read that returns {images}; it must be a tuple of two images "
            "in a Source of pairs, and of one in either side of an Unpaired one"
        )


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
