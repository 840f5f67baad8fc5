"""Arithmetic on feature maps, with gradients: moments, sums, shifts, reflected borders.

Some have forms of their own on GPUs, of which XLA makes better kernels. It sums up to 4,096 pixels for 32 channels in
one block of threads: over 64x64 pixels and 256 channels 8 blocks work, and because they are slow, what makes the map is
not computed in the same kernel, but written and read again. In two steps each row has its own blocks. A border of
``jnp.pad`` is two copies of the map, one for each direction; a gather is one, and what makes the map is part of it.
Figures in ``benchmarks/README.md``.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from p2p_jax.nets.convolution import backend

_ONE_BLOCK = 4096  # pixels; XLA splits longer sums itself
_LEAST = 1024  # pixels for which a second kernel pays


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def sum_over(maps: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Return the sums of maps of one shape, [B, H, W, C], over `axes`, which are kept and have H and W among them."""
    if not _in_steps(maps[0].shape, axes):
        return tuple(x.sum(axes, keepdims=True) for x in maps)
    rows = lax.optimization_barrier(tuple(x.sum(2, keepdims=True) for x in maps))  # else XLA makes one sum of both
    zeros = tuple(jnp.zeros((), x.dtype) for x in rows)
    sums = lax.reduce(rows, zeros, lambda first, second: tuple(map(jnp.add, first, second)), axes)  # one kernel
    return tuple(jnp.expand_dims(x, axes) for x in sums)


@sum_over.defjvp
def _sum_over_jvp(axes, primals, tangents):
    return sum_over(*primals, axes), tuple(x.sum(axes, keepdims=True) for x in tangents[0])


def _in_steps(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    sides = [shape[i] for i in axes]
    return backend() == "gpu" and all(isinstance(n, int) for n in sides) and _LEAST < math.prod(sides) <= _ONE_BLOCK


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance over some axes, which are kept, in one pass over the data.

    Both sums are of the differences to one of the values (Chan et al. 1983): so a mean that is large beside the
    deviation costs no digits.
    """
    pivot = lax.stop_gradient(x[tuple(slice(0, 1) if i in axes else slice(None) for i in range(x.ndim))])
    shifted, count = x - pivot, math.prod(x.shape[i] for i in axes)
    mean, square = (total / count for total in sum_over((shifted, jnp.square(shifted)), axes))
    return mean + pivot, jnp.maximum(square - jnp.square(mean), 0)


@moments.defjvp
def _moments_jvp(axes, primals, tangents):
    # Of 2 (x - mean) (dx - dmean) every product is averaged by itself: so gradients need `x` as it came in, where
    # autodiff (and XLA, which sees the same difference twice) would keep a centred map in float32 beside it.
    (x,), (dx,) = primals, tangents
    mean, var = moments(x, axes)
    dmean = dx.mean(axes, keepdims=True)
    return (mean, var), (dmean, 2 * ((x * dx).mean(axes, keepdims=True) - mean * dmean))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, factor: jax.Array, shift: jax.Array, dtype: Any) -> jax.Array:
    """Return ``x * factor + shift``, computed in the wider type and rounded once, to `dtype`.

    Factor and shift, [B or 1, 1, 1, C] of one type, are small. So gradients need `x` as it came in, and no map of the
    wider type is kept for them.
    """
    return (x * factor + shift).astype(dtype or x.dtype)


def _affine_fwd(x, factor, shift, dtype):
    return affine(x, factor, shift, dtype), (x, factor)


def _affine_bwd(dtype, residuals, y):
    x, factor = residuals
    axes = tuple(i for i, side in enumerate(factor.shape[:3]) if side == 1)
    wide = y.astype(jnp.promote_types(jnp.promote_types(x.dtype, y.dtype), factor.dtype))
    sums = sum_over((wide * x, wide), axes)
    return (wide * factor).astype(x.dtype), *(total.astype(factor.dtype) for total in sums)


affine.defvjp(_affine_fwd, _affine_bwd)


@jax.custom_vjp
def add(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Return ``x + bias``, [B, H, W, C] and [C], in the type of `x`."""
    return (x + bias.reshape(1, 1, 1, -1)).astype(x.dtype)


def _add_fwd(x, bias):
    return add(x, bias), bias


def _add_bwd(bias, y):
    return y, sum_over((y.astype(bias.dtype),), (0, 1, 2))[0].ravel()


add.defvjp(_add_fwd, _add_bwd)


def reflect(x: jax.Array, padding: int) -> jax.Array:
    """Add `padding` reflected pixels on each side of [B, H, W, C]."""
    if backend() == "gpu" and all(isinstance(n, int) for n in x.shape[1:3]):
        return _gather(x, padding)
    return _pad(x, padding)


def _pad(x, padding):
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x, padding):
    rows, columns = (np.pad(np.arange(n), padding, mode="reflect") for n in x.shape[1:3])
    return x.at[:, rows[:, None], columns].get(mode="promise_in_bounds")


def _gather_fwd(x, padding):
    return _gather(x, padding), None


def _gather_bwd(padding, _, y):
    """Add up what each pixel became; the transpose of a gather would do it one by one, in any order."""
    shape = (y.shape[0], *(n - 2 * padding for n in y.shape[1:3]), y.shape[3])
    return jax.linear_transpose(partial(_pad, padding=padding), jax.ShapeDtypeStruct(shape, y.dtype))(y)


_gather.defvjp(_gather_fwd, _gather_bwd)
