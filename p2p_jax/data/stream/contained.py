"""Reading images in containers, by the stream and in NumPy, to the same pixels as from files."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from p2p_jax.data.stream import reading
from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.images.domains import Domain
from p2p_jax.images.stored import Stored

if TYPE_CHECKING:
    import tensorflow as tf


def of_stored(
    read: Callable[[int], Sequence[Stored]], kinds: Sequence[Domain], names: Sequence[str]
) -> "tuple[Callable[[tf.Tensor], tuple[tf.Tensor, ...]], Callable[[int], tuple[np.ndarray, ...]]]":
    """Return the ``read`` and the ``load`` of a ``Source``.

    Args:
      read: ``index -> images`` as they are stored, one of each kind. Threads call it.
      kinds: the domains of the images of an example.
      names: of the examples, for messages.
    """

    def load(index):
        pairs = zip(read(index), kinds, strict=True)
        return tuple(reading.as_raw(stored, kind, names[index]) for stored, kind in pairs)

    def in_stream(index):
        tf = tensorflow()
        images = tf.numpy_function(
            lambda number: load(int(number)),
            [index],
            [tf.int32 if kind.kind == "labels" else tf.as_dtype(kind.raw_dtype) for kind in kinds],
        )
        images = images if isinstance(images, list | tuple) else [images]  # one, where it is eager
        channels = [None if kind.kind == "labels" else kind.raw_channels for kind in kinds]
        return tuple(tf.ensure_shape(x, [None, None, count]) for x, count in zip(images, channels, strict=True))

    return in_stream, load
