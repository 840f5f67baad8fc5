"""Smaller and larger maps without aliasing: fixed filters before pixels are left out and after pixels are put in.

Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", as the networks of CUT have it (Park et al. 2020).
Filters are separable, so each is a sum of shifted maps along the rows and then along the columns.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from p2p_jax.errors import InputError

DOWNSAMPLINGS = ("strided", "antialiased")


def check_downsampling(kind: str) -> None:
    """Refuse what is not one of DOWNSAMPLINGS.

    Raises:
      InputError: it is not.
    """
    if kind not in DOWNSAMPLINGS:
        raise InputError(f"unknown downsampling {kind!r}: choose one of {', '.join(DOWNSAMPLINGS)}")


def blur_downsample(x: jax.Array) -> jax.Array:
    """Take every second pixel of each row and column of a map blurred by [1, 2, 1] / 4 both ways.

    Args:
      x: [B, H, W, C], sides of at least 2 pixels; the border is reflected.

    Returns:
      [B, ceil(H / 2), ceil(W / 2), C] in the dtype of `x`, summed in at least float32.
    """
    y = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    for axis in (1, 2):
        y = _halve(y, axis)
    return y.astype(x.dtype)


def blur_upsample(x: jax.Array) -> jax.Array:
    """Put a pixel between all pixels and blur by [1, 3, 3, 1] / 4 both ways: bilinear resizing to twice the sides.

    Args:
      x: [B, H, W, C]; the pixels of the border are repeated.

    Returns:
      [B, 2 H, 2 W, C] in the dtype of `x`, summed in at least float32.
    """
    y = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    for axis in (1, 2):
        y = _double(y, axis)
    return y.astype(x.dtype)


def halve(images: jax.Array) -> jax.Array:
    """Return images [B, H, W, C] at half their size, as pix2pixHD makes the input of its coarser discriminators.

    Every pixel is the mean of 3x3, those of a border of as many as there are.

    Returns:
      [B, ceil(H / 2), ceil(W / 2), C].
    """
    return nn.avg_pool(images, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)), count_include_pad=False)


def _halve(x: jax.Array, axis: int) -> jax.Array:
    if x.shape[axis] % 2:
        x = jnp.concatenate([x, _cut(x, axis, -2, -1)], axis)  # what the reflection puts behind the last pixel
    # In pairs: on CPUs their gradient is ten times as fast as that of steps of 2.
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    at, after = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    before = jnp.concatenate([_cut(after, axis, 0, 1), _cut(after, axis, 0, -1)], axis)
    return 0.5 * at + 0.25 * (before + after)


def _double(x: jax.Array, axis: int) -> jax.Array:
    before = jnp.concatenate([_cut(x, axis, 0, 1), _cut(x, axis, 0, -1)], axis)
    after = jnp.concatenate([_cut(x, axis, 1, None), _cut(x, axis, -1, None)], axis)
    pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
    return pairs.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


def _cut(x: jax.Array, axis: int, start: int, stop: int | None) -> jax.Array:
    """Return ``x[start:stop]`` of an axis, in the plain form that can be exported for any size."""
    side = x.shape[axis]
    first = side + start if start < 0 else start
    last = side if stop is None else side + stop if stop < 0 else stop
    return lax.slice_in_dim(x, first, last, axis=axis)
