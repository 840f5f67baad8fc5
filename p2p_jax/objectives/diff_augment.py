"""Differentiable augmentation of all that a discriminator sees (DiffAugment, Zhao et al. 2020, section 3).

Every image is changed by itself. Input and output of a conditional discriminator are shifted and cut out alike; colours
are only those of the picture.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from p2p_jax.errors import InputError

_SHIFT, _CUTOUT = 1 / 8, 1 / 2  # of the sides, as published


def translation(images: jax.Array, rng: jax.Array) -> jax.Array:
    """Shift images [B, H, W, C] by up to an eighth of each side; zeros come in."""
    for axis, key in zip((1, 2), jax.random.split(rng), strict=True):
        side = images.shape[axis]
        most = int(side * _SHIFT + 0.5)
        first = jax.random.randint(key, (len(images),), 0, 2 * most + 1)
        padded = jnp.pad(images, [(most, most) if i == axis else (0, 0) for i in range(4)])
        images = jax.vmap(partial(lax.dynamic_slice_in_dim, slice_size=side, axis=axis - 1))(padded, first)
    return images


def cutout(images: jax.Array, rng: jax.Array) -> jax.Array:
    """Put zeros in a rectangle of half of each side, centred anywhere in the image."""
    inside = jnp.ones((len(images), 1, 1, 1), bool)
    for axis, key in zip((1, 2), jax.random.split(rng), strict=True):
        side = images.shape[axis]
        size = int(side * _CUTOUT + 0.5)
        centre = jax.random.randint(key, (len(images), 1), 0, side + 1 - size % 2)
        first = centre - size // 2
        places = jnp.arange(side)[None]
        hit = (places >= first) & (places < first + size)
        inside &= jnp.expand_dims(hit, [i for i in (1, 2, 3) if i != axis])
    return jnp.where(inside, jnp.zeros_like(images), images)


def color(images: jax.Array, rng: jax.Array) -> jax.Array:
    """Change brightness by up to half of a half range, saturation by a factor in [0, 2), contrast in [0.5, 1.5)."""
    brightness, saturation, contrast = (
        jax.random.uniform(key, (len(images), 1, 1, 1), images.dtype) for key in jax.random.split(rng, 3)
    )
    images = images + (brightness - 0.5)
    gray = images.mean(3, keepdims=True)
    images = (images - gray) * (2 * saturation) + gray
    mean = images.mean((1, 2, 3), keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


_OF_PLACES = {"translation": translation, "cutout": cutout}
NAMES = ("color", *_OF_PLACES)
"""What ``config.loss.diff_augment`` may name; they are applied in this order."""


def find_augmentation(names: str) -> Callable[[jax.Array, jax.Array | None, jax.Array], tuple]:
    """Return ``(images, condition, rng) -> (images, condition)``, changed at random.

    Args:
      names: some of ``NAMES``, with commas; "" changes nothing.

    Raises:
      InputError: a name is unknown.
    """
    asked = [name.strip() for name in names.split(",")] if names else []
    for name in asked:
        if name not in NAMES:
            raise InputError(f"loss.diff_augment={names!r}: {name!r} is not one of {', '.join(NAMES)}")

    def augment(images, condition, rng):
        keys = dict(zip(NAMES, jax.random.split(rng, len(NAMES)), strict=True))
        if "color" in asked:
            images = color(images, keys["color"])
        for name, change in _OF_PLACES.items():
            if name in asked:
                images = change(images, keys[name])  # with the same key, so both move alike
                condition = None if condition is None else change(condition, keys[name])
        return images, condition

    return augment if asked else lambda images, condition, rng: (images, condition)
