"""Sizes: how raw images become the size of the crop. Those that belong together share every draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.data.backend import tensorflow
from p2p_jax.images.domains import Domain
from p2p_jax.options import crop_shape, load_shape

if TYPE_CHECKING:
    import tensorflow as tf

    Size = tuple[int | tf.Tensor, int | tf.Tensor]


def fit(images: "Sequence[tf.Tensor]", domains: Sequence[Domain], data: ConfigDict) -> "tf.Tensor":
    """Bring images to the size of the crop without chance: resized, or cut out of the middle.

    Args:
      images: [H, W, raw_channels] each, of one size.
      domains: of the images.
      data: reads ``preprocess`` and the sizes.

    Returns:
      [crop_size, crop_width, sum of raw_channels] float32; whole numbers where the domains know no others.
    """
    crop = crop_shape(data)
    size = crop if data.preprocess == "resize_and_crop" else _loaded_size(images[0], data)
    stack = _resize(images, domains, size)
    if data.preprocess in ("crop", "scale_width_and_crop"):
        top, left = ((have - want) // 2 for have, want in zip(_size(stack), crop, strict=True))
        stack = stack[top : top + crop[0], left : left + crop[1]]
    return stack


def augment(
    images: "Sequence[tf.Tensor]", domains: Sequence[Domain], config: ConfigDict, seed: "tf.Tensor"
) -> "tf.Tensor":
    """Resize, crop, mirror and turn images at random, all alike; see ``fit``.

    Args:
      images: [H, W, raw_channels] each, of one size.
      domains: of the images.
      config: reads ``data`` and ``augment``.
      seed: [2] int64, of this example.
    """
    tf, data, options = tensorflow(), config.data, config.augment
    crop = crop_shape(data)
    y, x, mirror = tf.unstack(tf.random.stateless_uniform([3], seed))
    # Of a seed of their own, so that the draws of the papers stay what they are without these.
    more = tf.random.stateless_uniform([3], tf.random.experimental.stateless_fold_in(seed, 1))
    size = _loaded_size(images[0], data)
    if options.scale_jitter and data.preprocess not in ("scale_width", "none"):
        factor = 1 + options.scale_jitter * more[0]
        size = tuple(tf.cast(tf.round(tf.cast(n, tf.float32) * factor), tf.int32) for n in size)
    stack = _resize(images, domains, size)
    top, left = (
        tf.cast(draw * tf.cast(have - want + 1, tf.float32), tf.int32)
        for draw, have, want in zip((y, x), size, crop, strict=True)
    )
    stack = stack[top : top + crop[0], left : left + crop[1]]
    if data.flip:
        stack = tf.cond(mirror < 0.5, lambda: stack[:, ::-1], lambda: stack)
    if options.vflip:
        stack = tf.cond(more[1] < 0.5, lambda: stack[::-1], lambda: stack)
    if options.quarter_turns:
        stack = tf.image.rot90(stack, tf.cast(more[2] * 4, tf.int32))
    return stack


def _loaded_size(image: "tf.Tensor", data: ConfigDict) -> "Size":
    """Return height and width to which an image is resized before it is cropped."""
    tf = tensorflow()
    if data.preprocess == "resize_and_crop":
        return load_shape(data)
    height, width = _size(image)
    if data.preprocess in ("crop", "none"):
        return height, width
    crop = crop_shape(data)
    to_width = crop[1] if data.preprocess == "scale_width" else load_shape(data)[1]
    scaled = tf.cast(tf.round(tf.cast(height, tf.float32) * (to_width / tf.cast(width, tf.float32))), tf.int32)
    return tf.maximum(scaled, crop[0]), to_width


def _size(image: "tf.Tensor") -> "Size":
    shape = tensorflow().shape(image)
    return shape[0], shape[1]


def _resize(images: "Sequence[tf.Tensor]", domains: Sequence[Domain], size: "Size") -> "tf.Tensor":
    """Resize images and stack them on channels: numbers bicubic and antialiased, labels to the nearest pixel."""
    tf = tensorflow()
    if len({(domain.is_labels, domain.raw_dtype) for domain in domains}) == 1:  # as one, in a fraction of the time
        return _resize_one(tf.concat(images, axis=-1), domains[0], size)
    return tf.concat([_resize_one(x, domain, size) for x, domain in zip(images, domains, strict=True)], axis=-1)


def _resize_one(image: "tf.Tensor", domain: Domain, size: "Size") -> "tf.Tensor":
    tf = tensorflow()

    def resized():
        if domain.is_labels:
            return tf.cast(tf.image.resize(image, size, "nearest"), tf.float32)
        bicubic = tf.image.resize(image, size, "bicubic", antialias=True)
        if domain.raw_dtype.kind == "f":
            return bicubic
        # Rounded to whole numbers, as an 8-bit resize (Pillow's, the reference's) does; bicubic overshoots are cut.
        limits = np.iinfo(domain.raw_dtype)
        return tf.clip_by_value(tf.round(bicubic), limits.min, limits.max)

    return tf.cond(tf.reduce_all(tf.equal(tf.shape(image)[:2], size)), lambda: tf.cast(image, tf.float32), resized)
