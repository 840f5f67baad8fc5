"""Resizing, random crops, mirroring and turns of the stream. Images that belong together share every draw.

The device has its own: ``p2p_jax.data.on_device.choose`` and ``_cut``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import CROPPED, crop_shape, load_shape
from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.images.domains import Domain
from p2p_jax.images.resize import resize

if TYPE_CHECKING:
    import tensorflow as tf

    Size = tuple[int | tf.Tensor, int | tf.Tensor]


def fit(images: "Sequence[tf.Tensor]", domains: Sequence[Domain], data: ConfigDict) -> "list[tf.Tensor]":
    """Bring images to the size of the crop without chance: resized, or cut out of the middle.

    Args:
      images: [H, W, raw_channels] of ``raw_dtype`` each, of one shape, which may be of two resolutions.
      domains: of the images.
      data: reads ``preprocess`` and the sizes.

    Returns:
      [crop_size, crop_width, raw_channels] of ``raw_dtype`` each.
    """
    crop = crop_shape(data)
    size = crop if data.preprocess == "resize_and_crop" else _loaded_size(images, data)
    images = _resize(images, domains, size)
    if data.preprocess not in CROPPED:
        return images
    top, left = ((have - want) // 2 for have, want in zip(_size(images[0]), crop, strict=True))
    return _cut(images, top, left, crop)


def is_jittered(config: ConfigDict) -> bool:
    """Return whether training resizes images to a random size."""
    return bool(config.augment.scale_jitter) and config.data.preprocess not in ("scale_width", "none")


def enlarge(
    images: "Sequence[tf.Tensor]", domains: Sequence[Domain], config: ConfigDict, seed: "tf.Tensor"
) -> "list[tf.Tensor]":
    """Resize images to the size that ``augment`` crops from, random only if ``is_jittered``.

    Args:
      images: [H, W, raw_channels] of ``raw_dtype`` each, of one shape, which may be of two resolutions.
      domains: of the images.
      config: reads ``data`` and ``augment``.
      seed: [2] int64, of this example.
    """
    tf, size = tensorflow(), _loaded_size(images, config.data)
    if is_jittered(config):
        factor = 1 + config.augment.scale_jitter * _more_draws(seed)[0]
        size = tuple(tf.cast(tf.round(tf.cast(n, tf.float32) * factor), tf.int32) for n in size)
    return _resize(images, domains, size)


def augment(images: "list[tf.Tensor]", config: ConfigDict, seed: "tf.Tensor") -> "list[tf.Tensor]":
    """Crop, mirror and turn images at random, all alike.

    Args:
      images: what ``enlarge`` returns.
      config: reads ``data`` and ``augment``.
      seed: [2] int64, of this example.

    Returns:
      [crop_size, crop_width, raw_channels] of ``raw_dtype`` each.
    """
    tf, data, options = tensorflow(), config.data, config.augment
    crop = crop_shape(data)
    y, x, mirror = tf.unstack(tf.random.stateless_uniform([3], seed))
    top, left = (
        tf.cast(draw * tf.cast(have - want + 1, tf.float32), tf.int32)
        for draw, have, want in zip((y, x), _size(images[0]), crop, strict=True)
    )
    images = _cut(images, top, left, crop)
    if data.flip:
        images = tf.cond(mirror < 0.5, lambda: [tf.reverse(x, [1]) for x in images], lambda: images)
    if not (options.vflip or options.quarter_turns):
        return images
    _, vertical, turns = _more_draws(seed)
    if options.vflip:
        images = tf.cond(vertical < 0.5, lambda: [tf.reverse(x, [0]) for x in images], lambda: images)
    if options.quarter_turns:
        images = [tf.image.rot90(x, tf.cast(turns * 4, tf.int32)) for x in images]
    return images


def _more_draws(seed: "tf.Tensor") -> "list[tf.Tensor]":
    """Return the draws beyond the papers' augmentation, which stays what it is without them: jitter, vflip, turns."""
    tf = tensorflow()
    return tf.unstack(tf.random.stateless_uniform([3], tf.random.experimental.stateless_fold_in(seed, 1)))


def _cut(images: "Sequence[tf.Tensor]", top: "tf.Tensor", left: "tf.Tensor", size: "Size") -> "list[tf.Tensor]":
    return [image[top : top + size[0], left : left + size[1]] for image in images]


def _loaded_size(images: "Sequence[tf.Tensor]", data: ConfigDict) -> "Size":
    """Return height and width of resized images, before the crop."""
    tf = tensorflow()
    if data.preprocess == "resize_and_crop":
        return load_shape(data)
    height, width = _largest(images)
    if data.preprocess in ("crop", "none"):
        return height, width
    if data.preprocess == "scale_shortside_and_crop":
        load, floats = load_shape(data), [tf.cast(n, tf.float32) for n in (height, width)]
        factor = tf.reduce_max([want / have for want, have in zip(load, floats, strict=True)])
        sides = [tf.cast(tf.round(have * factor), tf.int32) for have in floats]
        return tf.maximum(sides[0], load[0]), tf.maximum(sides[1], load[1])
    crop = crop_shape(data)
    to_width = crop[1] if data.preprocess == "scale_width" else load_shape(data)[1]
    scaled = tf.cast(tf.round(tf.cast(height, tf.float32) * (to_width / tf.cast(width, tf.float32))), tf.int32)
    return tf.maximum(scaled, crop[0]), to_width


def _size(image: "tf.Tensor") -> "Size":
    shape = tensorflow().shape(image)
    return shape[0], shape[1]


def _largest(images: "Sequence[tf.Tensor]") -> "Size":
    """Return the size of the larger of the images of an example, which may be of two resolutions."""
    tf = tensorflow()
    sizes = tf.stack([tf.shape(image)[:2] for image in images])
    return tuple(tf.unstack(tf.reduce_max(sizes, axis=0)))


def _resize(images: "Sequence[tf.Tensor]", domains: Sequence[Domain], size: "Size") -> "list[tf.Tensor]":
    """Resize images, where they have another size: numbers bicubic and antialiased, labels to the nearest pixel."""
    tf = tensorflow()

    def resized():
        return [_resize_one(x, domain, size) for x, domain in zip(images, domains, strict=True)]

    sizes = [tf.stack(_size(image)) for image in images]
    return tf.cond(tf.reduce_all(tf.equal(sizes, tf.stack(size))), lambda: list(images), resized)


def _resize_one(image: "tf.Tensor", domain: Domain, size: "Size") -> "tf.Tensor":
    tf = tensorflow()
    if domain.is_labels:
        return tf.image.resize(image, size, "nearest")
    if domain.unknown:
        height, width = size
        known = tf.numpy_function(lambda x, h, w: resize(x, (int(h), int(w))), [image, height, width], tf.float32)
        return tf.ensure_shape(known, [None, None, domain.raw_channels])
    return resize_bicubic(image, size, domain.raw_dtype)


def resize_bicubic(image: "tf.Tensor", size: "Size", dtype: np.dtype) -> "tf.Tensor":
    """Resize as ``tf.image.resize(image, size, "bicubic", antialias=True)``, to the bit, in half of its time.

    That too resizes rows first, then columns, but its inner loop is over the channels. Here it is over a whole row, and
    rows and columns change places as those of a matrix, which is several times faster than pixel by pixel.

    Args:
      image: [H, W, C] of any dtype but complex numbers.
      size: height and width wanted.
      dtype: of the result. Whole numbers are rounded once, at the end (Pillow rounds twice), and overshoots are cut.

    Returns:
      [*size, C].
    """
    tf = tensorflow()
    height, width, channels = tf.unstack(tf.shape(image))
    rows = _resize_rows(tf.reshape(image, [height, width * channels]), size[0])
    columns = tf.reshape(tf.transpose(rows), [width, channels * size[0]])
    resized = _resize_rows(columns, size[1])
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        resized = tf.clip_by_value(tf.math.rint(resized), limits.min, limits.max)
    resized = tf.reshape(tf.cast(resized, tf.as_dtype(dtype)), [size[1] * channels, size[0]])
    return tf.ensure_shape(tf.reshape(tf.transpose(resized), [*size, channels]), [None, None, image.shape[-1]])


def _resize_rows(rows: "tf.Tensor", want: "int | tf.Tensor") -> "tf.Tensor":
    """Return `want` rows float32 of so many others [H, N]."""
    tf = tensorflow()
    have, length = tf.unstack(tf.shape(rows))
    scale = tf.stack([tf.cast(want, tf.float32) / tf.cast(have, tf.float32), 1.0])
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(rows, [1, have, 1, length]),
        size=tf.stack([want, 1]),
        scale=scale,
        translation=[0.0, 0.0],
        kernel_type="keyscubic",
    )
    return tf.reshape(resized, [want, length])
