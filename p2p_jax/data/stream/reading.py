"""How image files are read: by TensorFlow for the stream, and to the same pixels in NumPy, where there may be none."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.images import formats, jpeg, labels, raw
from p2p_jax.images.domains import NUMBERS, Domain
from p2p_jax.images.palettes import VOID, true_labels

if TYPE_CHECKING:
    import tensorflow as tf

_T = TypeVar("_T")
_ALIKE = ("JPEG", "PNG")  # what TensorFlow decodes to the same pixels, being quicker


def of_files(
    paths: Sequence[Path], kinds: Sequence[Domain], headers: Mapping[Path, formats.Header], halves: str = ""
) -> "tuple[Callable[[tf.Tensor], tuple[tf.Tensor, ...]], Callable[[int], tuple[np.ndarray, ...]]]":
    """Return the ``read`` and the ``load`` of a ``Source`` of files.

    Args:
      paths: of the files, which have no faults.
      kinds: the domains of the images of a file.
      headers: of the files.
      halves: "AB" or "BA" if a file holds two images in this order; "" if it is one. They are returned in the order
        A, B.
    """
    kinds = [_with_unknown(kind, paths, headers) for kind in kinds]
    names = once(lambda tf: tf.constant([os.fsencode(path) for path in paths]))
    alike = all(_is_alike(headers[path], kind) for path in paths for kind in kinds)
    order = -1 if halves == "BA" else 1

    def cut(image, width):
        return (image[:, : width // 2], image[:, width // 2 :])[::order] if halves else (image,)

    def load(path):
        stored = formats.read(path)
        width = stored.pixels.shape[1]
        if alike:  # as TensorFlow gives them: what becomes of gray and colour is for the stream to say
            parts = cut(stored.pixels, width)
            return tuple(part if stored.palette is None else stored.palette[part[..., 0]] for part in parts)
        pieces = [stored]
        if halves:
            pieces = [stored.columns(half) for half in (slice(0, width // 2), slice(width // 2, None))][::order]
        return tuple(as_raw(piece, kind, path) for piece, kind in zip(pieces, kinds, strict=True))

    def with_library(index):
        tf = tensorflow()
        images = tf.numpy_function(
            lambda path: load(
                Path(os.fsdecode(np.asarray(path).item()))
            ),  # bytes, or an array of them where it is eager
            [names()[index]],
            [tf.int32 if kind.kind == "labels" else tf.as_dtype(kind.raw_dtype) for kind in kinds],
        )
        images = images if isinstance(images, list | tuple) else [images]  # one, where it is eager
        channels = [None if kind.kind == "labels" else kind.raw_channels for kind in kinds]
        return tuple(tf.ensure_shape(x, [None, None, count]) for x, count in zip(images, channels, strict=True))

    whole: set[int] = set()

    def require_whole(index):
        if int(index) not in whole:
            load(paths[int(index)])  # of a file that was cut, it says so
            whole.add(int(index))
        return np.int32(0)

    def with_tensorflow(index):
        tf = tensorflow()
        contents = tf.io.read_file(names()[index])
        image = decode(contents)
        doubtful = tf.io.is_jpeg(contents) & _may_lack_rows(tf, image)
        zero = tf.cond(doubtful, lambda: tf.numpy_function(require_whole, [index], tf.int32), lambda: tf.constant(0))
        with tf.control_dependencies([tf.convert_to_tensor(zero)]):
            image = tf.identity(image)
        return cut(image, tf.shape(image)[1])

    return with_tensorflow if alike else with_library, lambda index: load(paths[index])


def as_raw(stored: formats.Stored, kind: Domain, name: Path | str) -> np.ndarray:
    """Return a raw image; for labels their numbers or colours, until the stream knows their classes."""
    if kind.kind != "labels":
        return raw.of_stored(stored, kind, name).astype(kind.raw_dtype, copy=False)
    found = raw.prepared(stored, kind, name)
    pixels, colors = found.pixels, found.palette
    by_colour = None if colors is None or kind.palette is None else labels.by_colour(pixels, colors, kind.palette)
    if kind.palette is not None and pixels.shape[-1] == 3:
        by_colour = true_labels(pixels.astype(np.uint8), kind.palette)[..., None]
    if by_colour is None:
        return pixels.astype(np.int32)
    is_class = by_colour != VOID
    numbers = labels.as_stored(np.where(is_class, by_colour, 0), kind.numbers).astype(np.int32)
    return np.where(is_class, numbers, np.int32(-1))  # no file has it, and it is not a class


def _with_unknown(kind: Domain, paths: Sequence[Path], headers: Mapping[Path, formats.Header]) -> Domain:
    """Return a domain that has unknown values if a file says that it has; of floats any may."""
    if kind.kind not in NUMBERS or not kind.asks_files:
        return kind
    told = kind.kind == "float" or any(headers[path].unknown for path in paths)
    return kind._replace(unknown=kind.unknown or told)


def _is_alike(header: formats.Header, kind: Domain) -> bool:
    """Return whether TensorFlow decodes a file to the pixels that our own reader finds in it."""
    if (kind.is_photograph and header.profile) or header.turned or header.opacity:
        return False
    indices = kind.kind == "labels" and header.mode in ("1", "P")
    modes = header.mode in ("1", "L", "P", "RGB") and header.dtype == np.uint8
    return header.form in _ALIKE and modes and kind.raw_dtype == np.uint8 and not indices


def _may_lack_rows(tf: ModuleType, image: "tf.Tensor") -> "tf.Tensor":
    """Return ``jpeg.may_lack_rows`` of a decoded image."""
    shape = tf.shape(image)
    height, width = (tf.minimum((shape[i] - 1) % 8 + 1, jpeg.CORNER) for i in (0, 1))
    weights = tf.constant(jpeg.LUMA)[: shape[2]]
    luma = tf.reduce_sum(tf.cast(image[-height:, -width:], tf.int32) * weights, axis=-1)
    return tf.reduce_max(luma) - tf.reduce_min(luma) <= jpeg.FLAT * tf.reduce_sum(weights)


def decode(contents: "tf.Tensor", channels: int = 0) -> "tf.Tensor":
    """Decode an image file to uint8 [H, W, channels], 0: as many as it has; to the pixels that Pillow finds in it.

    TensorFlow's own choice for JPEGs is the fast transform, which is off by up to 30 levels.
    """
    tf = tensorflow()
    image = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(contents, channels=channels, dtype="uint8", expand_animations=False),
    )
    image.set_shape([None, None, None])
    return image


def once(make: Callable[[ModuleType], _T]) -> Callable[[], _T]:
    """Return what gives the constants that `make` makes of the tensorflow module: at the first call, for all graphs."""

    @functools.cache
    def made():
        tf = tensorflow()
        with tf.init_scope():
            return make(tf)

    return made
