"""Images kept in memory once they have been read and resized, for later passes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.images.domains import Domain

if TYPE_CHECKING:
    import tensorflow as tf


class ImageCache(NamedTuple):
    """The images of one side of one split, as many as there is room for; shared by all iterators over it.

    Attributes:
      limit: bytes that all memories of one ``make_memories`` may take together.
      used: the bytes that they take, int64.
      table: from the index of an example to its images, which are handed out without a copy.
    """

    limit: int
    used: "tf.Variable"
    table: "tf.lookup.experimental.MutableHashTable"

    def recall(
        self, index: "tf.Tensor", domains: Sequence[Domain], make: "Callable[[], list[tf.Tensor]]"
    ) -> "list[tf.Tensor]":
        """Return the images of an example: those that are kept, else new ones, which are kept if there is room.

        Args:
          index: of the example, scalar int64.
          domains: of its images.
          make: makes the images, [H, W, raw_channels] of ``raw_dtype`` each, the same ones at every call.
        """
        tf, kept = tensorflow(), self.table.lookup(index)
        shapes = [[None, None, domain.raw_channels] for domain in domains]

        def new():
            images = make()
            size = tf.add_n([tf.size(x, tf.int64) * x.dtype.size for x in images])
            # Reserved before it is filled: threads side by side never exceed the limit together. Two that read the same
            # image at once reserve it twice, which costs room only in sets of a few images.
            tf.cond(self.used.assign_add(size) <= self.limit, lambda: keep(images), lambda: release(size))
            return images

        def keep(images):
            copies = [tf.raw_ops.DeepCopy(x=x) for x in images]  # one may be a part of a larger one
            self.table.insert(index, tf.raw_ops.OptionalFromValue(components=copies))
            return True

        def release(size):
            self.used.assign_sub(size)
            return False

        def old():
            dtypes = [tf.as_dtype(domain.raw_dtype) for domain in domains]
            return tf.raw_ops.OptionalGetValue(optional=kept, output_types=dtypes, output_shapes=shapes)

        images = tf.cond(tf.raw_ops.OptionalHasValue(optional=kept), old, new)
        return [tf.ensure_shape(x, shape) for x, shape in zip(images, shapes, strict=True)]


def make_memories(megabytes: int, count: int) -> list[ImageCache]:
    """Return memories that share one limit.

    Args:
      megabytes: the limit, in MiB.
      count: how many memories.
    """
    tf = tensorflow()
    used = tf.Variable(0, dtype=tf.int64)

    def table():
        return tf.lookup.experimental.MutableHashTable(
            tf.int64,
            tf.variant,
            default_value=tf.raw_ops.OptionalNone(),
            experimental_is_anonymous=True,  # else it would outlive its last user
        )

    return [ImageCache(megabytes * 2**20, used, table()) for _ in range(count)]
