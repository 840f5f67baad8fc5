"""Convolution and its transpose, with gradients that are fast everywhere.

Everything comes down to the trilinear form <conv(x, k), y> of input, kernel and output, and to its three derivatives:
``_correlate(x, k)`` is the convolution, ``_spread(y, k)`` its transpose, ``_kernel_grad(x, y)`` what trains the kernel.
The gradients of each are the other two, to any order. Accelerators have a routine for every one of them. XLA's CPU back
end makes some of them of convolutions over dilated, reversed and transposed arrays. So on CPUs all are matrix products
where the layers are wide: over patches where there are more channels than pixels, and over transformed tiles, which
saves half of the multiplications, where there are fewer. On GPUs the smallest maps are products over patches too: their
kernels, the largest of a U-Net, are read as stored, where cuDNN wants them transposed (figures in
``benchmarks/README.md``). In the context ``in_plain_form()`` each is one operation on every platform: for
counting what is computed, not how.
"""

import contextlib
import math
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from p2p_jax.nets import winograd

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_LEAST_FOR_TILES = 2**28  # multiplications of the plain form
_MOST_STEPS_ON_GPUS = 64
_PLAIN = jax.make_user_context(default_value=False)  # programs that were traced in it are used nowhere else


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Cross-correlate with zero padding, as ``torch.nn.functional.conv2d`` does.

    Args:
      x: [B, H, W, I].
      kernel: [k, k, I, O], of the same dtype.
      stride: step in pixels, the same in both directions.
      padding: zeros added on each of the four sides, in pixels.

    Returns:
      [B, (H + 2 padding - k) // stride + 1, likewise W, O].
    """
    size, _, channels, features = kernel.shape
    if stride == 1 and features < channels and padding < size and detours(x.shape[:3]):
        # Seen from the other side, so that patches are taken of the array with fewer channels.
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        sides = tuple(n + 2 * padding - size + 1 for n in x.shape[1:3])
        return _spread(x, turned, 1, size - 1 - padding, sides)
    return _correlate(x, kernel, stride, padding)


def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Apply the transpose of ``conv``: the map from its output space to its input space.

    The output padding is chosen so that sides grow by exactly `stride` (0 for a 4x4 kernel with stride 2 and padding 1,
    1 for a 3x3 one).

    Args:
      x: [B, H, W, I].
      kernel: [k, k, O, I], of the same dtype.
      stride: growth of the sides.
      padding: padding of the convolution that this transposes.

    Returns:
      [B, stride H, stride W, O].
    """
    return _spread(x, kernel, stride, padding, (stride * x.shape[1], stride * x.shape[2]))


def in_plain_form() -> contextlib.AbstractContextManager[None]:
    """Return a context that traces every convolution as one operation."""
    return _PLAIN(True)


def is_plain() -> bool:
    """Return whether convolutions are traced in their plain form."""
    return _PLAIN.value


def backend() -> str:
    """Return the platform that forms may suit; "" where they are plain."""
    return "" if is_plain() else jax.default_backend()


def _as_product(steps: tuple, most: float) -> bool:
    """Return whether to use a matrix product over patches: ``prod(steps)`` of them, at most `most`."""
    if backend() == "gpu" and _known(steps):
        return math.prod(steps) <= min(most, _MOST_STEPS_ON_GPUS)
    return detours(steps) and math.prod(steps) <= most


def _as_tiles(steps: tuple, kernel: tuple, stride: int, dtype: jax.typing.DTypeLike) -> bool:
    """Return whether Winograd's method pays for a kernel of that shape, given the number of its steps.

    The tiles must outweigh the transformed kernel, and the gain must outweigh compiling more operations.
    """
    size, _, channels, features = kernel
    if not (winograd.has_transform(size, stride) and jnp.dtype(dtype).itemsize >= 4 and detours(steps)):
        return False
    wide, count = min(channels * stride, features) >= 64, math.prod(steps)
    return wide and count >= max(channels, features) and count * math.prod(kernel) >= _LEAST_FOR_TILES


def detours(steps: tuple) -> bool:
    """Return whether layers with these sizes may take other forms than the plain one that suit XLA's CPU back end."""
    return backend() == "cpu" and _known(steps)


def _known(steps: tuple) -> bool:
    """What is exported for any size or platform keeps the plain form."""
    return all(isinstance(number, int) for number in steps)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(x, kernel, stride, padding):
    """Return y[h, w, o] = sum of x[stride h + i - padding, stride w + j - padding, c] kernel[i, j, c, o]."""
    size, *_, features = kernel.shape
    steps = (x.shape[0], *(_steps(side, size, stride, padding) for side in x.shape[1:3]))
    if _as_tiles(steps, kernel.shape, stride, x.dtype):
        return winograd.correlate(_pad(x, padding), kernel, stride)
    if not _as_product(steps, most=features):
        return _plain_correlate(x, kernel, stride, padding)
    patches = _patches(x, size, stride, padding).reshape(-1, kernel.size // features)
    return (patches @ kernel.reshape(-1, features)).reshape(*steps, features)


def _plain_correlate(x, kernel, stride, padding):
    pads = [(padding, padding), (padding, padding)]
    # XLA's CPU back end takes convolutions without any padding another way, three times slower: pad one row, and cut
    # what it adds.
    detour = stride == 1 and padding == 0 and len(kernel) > 1 and backend() == "cpu"
    if detour:
        pads[0] = (0, 1)
    y = lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS)
    return y[:, :-1] if detour else y


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _spread(y, kernel, stride, padding, sides):
    """Return the transpose of ``x -> _correlate(x, kernel)``, for x of the given sides, at y."""
    size, _, channels, features = kernel.shape
    steps = y.shape[:3]
    if padding < size and _as_tiles(steps, kernel.shape, stride, y.dtype):
        # In blocks of stride x stride pixels: those that hold nothing but padding are not computed.
        blocks, rest = divmod(padding, stride)
        low = size // stride - 1 - blocks
        pads = [(low, -(-(n + rest) // stride) - m + blocks) for n, m in zip(sides, steps[1:], strict=True)]
        x = winograd.spread(jnp.pad(y, [(0, 0), *pads, (0, 0)]), kernel, stride)
        return x[:, rest : rest + sides[0], rest : rest + sides[1]]
    if size % stride or not _as_product(steps, most=features if channels >= 8 else math.inf):
        low = size - 1 - padding
        pads = [(low, n + padding - stride * (m - 1) - 1) for n, m in zip(sides, steps[1:], strict=True)]
        return lax.conv_transpose(
            y, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS, transpose_kernel=True
        )
    patches = lax.dot_general(y.reshape(-1, features), kernel.reshape(-1, features), (((1,), (1,)), ((), ())))
    return _add_patches(patches.reshape(*steps, size, size, channels), stride, padding, sides)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _kernel_grad(x, y, size, stride, padding):
    """Return the transpose of ``kernel -> _correlate(x, kernel)``, for kernels of the given side, at y."""
    shape = (size, size, x.shape[-1], y.shape[-1])
    if _as_tiles(y.shape[:3], shape, stride, x.dtype):
        return winograd.kernel_grad(_pad(x, padding), y, size, stride)
    if not _as_product(y.shape[:3], most=math.inf):
        transpose = jax.linear_transpose(
            lambda kernel: _plain_correlate(x, kernel, stride, padding), jax.ShapeDtypeStruct(shape, x.dtype)
        )
        return transpose(y)[0]
    y = y.reshape(-1, shape[3])
    if stride == 1 and min(shape[2:]) >= 64 and len(y) > shape[3]:
        # Wide enough for a product per tap, which saves the patches' memory; y is turned once for all of them.
        turned = lax.optimization_barrier(y.T)
        taps = [turned @ tap.reshape(-1, shape[2]) for tap in _taps(x, size, stride, padding)]
        return lax.optimization_barrier(jnp.stack(taps)).swapaxes(1, 2).reshape(shape)
    patches = _patches(x, size, stride, padding).reshape(-1, math.prod(shape[:3]))
    if len(y) <= shape[3]:
        return (patches.T @ y).reshape(shape)
    # Twice as fast for long columns, if XLA is kept from turning it into the product above.
    return lax.optimization_barrier(y.T @ patches).T.reshape(shape)


def _correlate_bwd(stride, padding, residuals, y):
    x, kernel = residuals
    return _spread(y, kernel, stride, padding, x.shape[1:3]), _kernel_grad(x, y, len(kernel), stride, padding)


def _spread_bwd(stride, padding, sides, residuals, x):
    y, kernel = residuals
    return _correlate(x, kernel, stride, padding), _kernel_grad(x, y, len(kernel), stride, padding)


def _kernel_grad_bwd(size, stride, padding, residuals, kernel):
    x, y = residuals
    return _spread(y, kernel, stride, padding, x.shape[1:3]), _correlate(x, kernel, stride, padding)


def _with_residuals(form):
    return lambda first, second, *static: (form(first, second, *static), (first, second))


_correlate.defvjp(_with_residuals(_correlate), _correlate_bwd)
_spread.defvjp(_with_residuals(_spread), _spread_bwd)
_kernel_grad.defvjp(_with_residuals(_kernel_grad), _kernel_grad_bwd)


def _steps(side, size, stride, padding):
    return (side + 2 * padding - size) // stride + 1


def _pad(x, padding):
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _taps(x, size, stride, padding):
    """Return what each place of the kernel meets at its steps, row by row: size * size arrays [B, h, w, C]."""
    height, width = (_steps(side, size, stride, padding) for side in x.shape[1:3])
    padded = _pad(x, padding)
    return [
        padded[:, i : i + stride * height : stride, j : j + stride * width : stride]
        for i in range(size)
        for j in range(size)
    ]


def _patches(x, size, stride, padding):
    """Return what the kernel meets at each of its steps: [B, h, w, size, size, C]."""
    taps = jnp.stack(_taps(x, size, stride, padding), axis=3)
    return taps.reshape(*taps.shape[:3], size, size, x.shape[3])


def _add_patches(patches, stride, padding, sides):
    """Return the transpose of ``_patches``, for arrays of the given sides; `stride` divides the patches' side."""
    batch, height, width, size, _, channels = patches.shape
    # Patches are made of blocks of stride x stride pixels, and patches next to each other are one block apart: so
    # whole blocks are added up, and put in their places once.
    blocks = size // stride
    patches = patches.reshape(batch, height, width, blocks, stride, blocks, stride, channels)
    zero, keep = jnp.zeros((), patches.dtype), (0, 0, 0)
    shifts = [(i, blocks - 1 - i, 0) for i in range(blocks)]
    shifted = [
        lax.pad(patches[:, :, :, i, :, j], zero, (keep, shifts[i], shifts[j], keep, keep, keep))
        for i in range(blocks)
        for j in range(blocks)
    ]
    total = reduce(jnp.add, shifted)
    height, width = stride * total.shape[1], stride * total.shape[2]
    image = total.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)
    crops = [(-padding, padding + new - old, 0) for new, old in zip(sides, (height, width), strict=True)]
    return lax.pad(image, zero, (keep, *crops, keep))
