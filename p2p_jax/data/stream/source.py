"""What gives the images of a split one by one, however they are kept: the types, and both ways of reading them."""

import os
import stat
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from p2p_jax.data.containers.opening import Told
from p2p_jax.data.layouts import Layout
from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class Source(NamedTuple):
    """One split of a paired data set, or one side of an unpaired one.

    Attributes:
      names: one name per example (a path, where it has one), for messages and to recognise the data set on a resume.
      read: ``index -> images`` in TensorFlow operations: scalar int64 to the tuple of the images that belong together,
        ``(a, b)`` in a paired data set and ``(image,)`` in a side, each [H, W, C], of the dtype of its domain; the two
        of a pair show the same, at one resolution or at two. uint8 images of 1 channel do for 3, and of 3 for 1. None:
        the stream calls `load`.
      mark: differs between data with the same names; "" where the files' sizes do.
      layout: the files, where the examples are files.
      load: ``index -> images``, the same in NumPy, for which TensorFlow need not be installed; see ``loader``. Threads
        call it.
      identity: what the data set is recognised by on a resume, in place of `names` and `mark`; "" if it is by these.
      digest: returns a digest of the contents, which differs between images of the same names and sizes, see
        ``p2p_jax.data.identity``; None where `mark` or `identity` does, or nothing.
      told: for images in containers, what they declare, in the order of `read`.
    """

    names: Sequence[str]
    read: "Callable[[tf.Tensor], tuple[tf.Tensor, ...]] | None" = None
    mark: str = ""
    layout: Layout | None = None
    load: Callable[[int], tuple[np.ndarray, ...]] | None = None
    identity: str = ""
    told: tuple[Told, ...] = ()
    digest: Callable[[], str] | None = None

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with names and sizes of the files, not with the folder they lie in."""
        if self.identity:
            return self.identity
        marks = [f"{os.path.basename(name)} {_size(name)}" for name in self.names]
        return f"{zlib.crc32(os.fsencode('|'.join(marks) + self.mark)):08x}"

    def in_order(self, order: int) -> "Source":
        """Return the source that gives the images of an example in their own order, 1, or the other way round, -1."""

        def read(index):  # not a lambda: TensorFlow reads its source, and confuses two on one line
            return reader(self)(index)[::order]

        def load(index):
            return loader(self)(index)[::order]

        return self._replace(read=read if self.read else None, load=load, told=self.told[::order])


def _size(name: str) -> int | str:
    """Return the size of a file, "" where there is none."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):  # a name may be any text
        return ""
    return found.st_size if stat.S_ISREG(found.st_mode) else ""


class Unpaired(NamedTuple):
    """One split of an unpaired data set: two sides of any sizes, whose ``read`` gives one image."""

    a: Source
    b: Source

    @property
    def layout(self) -> Layout | None:
        """The files, where the examples are files."""
        return self.a.layout

    @property
    def fingerprint(self) -> str:
        """The fingerprints of both sides."""
        return f"{self.a.fingerprint}+{self.b.fingerprint}"


def reader(source: Source) -> "Callable[[tf.Tensor], tuple[tf.Tensor, ...]]":
    """Return ``index -> images`` in TensorFlow: the ``read`` of a source, or its ``load``; the first example is tried.

    Raises:
      InputError: there is neither.
    """
    if source.read is not None:
        return source.read
    if source.load is None:
        raise InputError(f"the source of {source.names[0]} has neither read nor load; give one")
    tf, load = tensorflow(), source.load
    try:
        first = [np.asarray(image) for image in load(0)]
    except Exception as error:  # of a function of one's own, anything
        raise InputError(f"{source.names[0]} cannot be loaded ({error})") from error
    dtypes = [image.dtype for image in first]

    def images(index):
        found = [np.asarray(image) for image in load(int(index))]
        if [image.dtype for image in found] != dtypes:
            told = ", ".join(str(image.dtype) for image in found)
            raise ValueError(f"it is {told}, and the first example is {', '.join(map(str, dtypes))}")
        return found

    def read(index):
        found = tf.numpy_function(images, [index], [tf.as_dtype(dtype) for dtype in dtypes])
        return tuple(tf.ensure_shape(x, [None, None, *one.shape[2:]]) for x, one in zip(found, first, strict=True))

    return read


def loader(source: Source) -> Callable[[int], tuple[np.ndarray, ...]]:
    """Return ``index -> images`` in NumPy: the ``load`` of a source, or its ``read``, which needs TensorFlow.

    Either raises InputError where an example cannot be read, and names it.
    """
    if source.load is not None:
        return source.load
    tf, read = tensorflow(), reader(source)

    def load(index):
        try:
            return tuple(np.asarray(image) for image in read(tf.constant(index, tf.int64)))
        except (tf.errors.OpError, ValueError) as error:
            message = getattr(error, "message", str(error)).splitlines()[0]
            raise InputError(f"{source.names[index]} cannot be read ({message}); replace or remove it") from error

    return load
