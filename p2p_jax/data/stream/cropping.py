"""Resizing, random crops, mirroring and turns of the stream. Images that belong together share every draw.

The device has its own: ``p2p_jax.data.on_device.choose`` and ``_cut``.
"""

import functools
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

    def one_by_one():
        return [_resize_one(x, domain, size) for x, domain in zip(images, domains, strict=True)]

    def together():  # in a fraction of the time
        stack = _resize_one(tf.concat(images, axis=-1), domains[0], size)
        return tf.split(stack, [domain.raw_channels for domain in domains], axis=-1)

    sizes = [tf.stack(_size(image)) for image in images]
    is_alike = len({(d.is_labels, d.raw_dtype) for d in domains}) == 1 and not any(d.unknown for d in domains)
    resized = one_by_one
    if is_alike and len(images) > 1:
        have_one_size = tf.reduce_all(tf.equal(sizes[0], sizes))
        resized = functools.partial(tf.cond, have_one_size, together, one_by_one)
    return tf.cond(tf.reduce_all(tf.equal(sizes, tf.stack(size))), lambda: list(images), resized)


def _resize_one(image: "tf.Tensor", domain: Domain, size: "Size") -> "tf.Tensor":
    tf = tensorflow()
    if domain.is_labels:
        return tf.image.resize(image, size, "nearest")
    if domain.unknown:
        height, width = size
        known = tf.numpy_function(lambda x, h, w: resize(x, (int(h), int(w))), [image, height, width], tf.float32)
        return tf.ensure_shape(known, [None, None, domain.raw_channels])
    bicubic = tf.image.resize(image, size, "bicubic", antialias=True)
    if domain.raw_dtype.kind == "f":
        return bicubic
    # Rounded to whole numbers once, at the end (Pillow rounds twice); bicubic overshoots are cut.
    limits = np.iinfo(domain.raw_dtype)
    return tf.cast(tf.clip_by_value(tf.math.rint(bicubic), limits.min, limits.max), image.dtype)
