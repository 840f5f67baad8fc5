"""Winograd's minimal filtering: convolutions with fewer multiplications (Lavin and Gray 2016, F(2x2, r x r)).

A convolution makes tiles of 2x2 outputs out of overlapping tiles of t x t inputs, t = r + 1. In one dimension
``A' ((G k) * (B' d))`` are the 2 outputs of a kernel k of r taps on t inputs d, by t multiplications where there would
be 2 r. In two dimensions the three transforms apply to rows and to columns, and the values at one place of the
transformed tiles is multiplied over all tiles and channels at once: t * t matrix products. A kernel with stride 2 is
four kernels of half the taps, each on every other row and column.

Images are processed one by one where their tiles outweigh the kernel, to stay in the processor's cache.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

# r -> A' [2, t], G [t, r], B' [t, t], from the points 0, 1, -1, 2 (as many as it takes) and infinity.
_TRANSFORMS = {
    2: (
        ((1, 1, 0), (0, 1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((1, -1, 0), (0, 1, 0), (0, -1, 1)),
    ),
    3: (
        ((1, 1, 1, 0), (0, 1, -1, 1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
    ),
    4: (
        ((1, 1, 1, 1, 0), (0, 1, -1, 2, 1)),
        (
            (1 / 2, 0, 0, 0),
            (1 / 2, 1 / 2, 1 / 2, 1 / 2),
            (1 / 6, -1 / 6, 1 / 6, -1 / 6),
            (1 / 6, 1 / 3, 2 / 3, 4 / 3),
            (0, 0, 0, 1),
        ),
        ((2, -1, -2, 1, 0), (0, 2, 1, -1, 0), (0, -2, 3, -1, 0), (0, -1, 0, 1, 0), (0, 2, -1, -2, 1)),
    ),
}

Matrix = Sequence[Sequence[float]]
Grid = list[list[jax.Array]]  # arrays by row and column of a tile


def has_transform(size: int, stride: int) -> bool:
    """Return whether convolutions with kernels of this side and stride are supported."""
    return size % stride == 0 and size // stride in _TRANSFORMS


def correlate(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Cross-correlate without padding.

    Args:
      x: [B, H, W, I].
      kernel: [k, k, I, O]; ``has_transform(k, stride)``.
      stride: of the kernel.

    Returns:
      [B, (H - k) // stride + 1, likewise W, O].
    """
    size, taps = len(kernel), len(kernel) // stride
    sides = [(side - size) // stride + 1 for side in x.shape[1:3]]
    inverse, forward, _ = _TRANSFORMS[taps]
    parts = [_both(forward, _taps(kernel, i, j, stride)) for i, j in _phases(stride)]
    kernels = _zip_grids(lambda *same: jnp.concatenate(same), *parts)

    def apply(x: jax.Array) -> jax.Array:
        products = _zip_grids(jnp.matmul, _input_tiles(x, taps, stride, sides), kernels)
        return _from_tiles(_both(inverse, products), sides)

    return lax.map(lambda x: apply(x[None])[0], x) if _singly(x, sides, kernel.shape) else apply(x)


def spread(y: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Correlate with the kernel turned around: the transpose of ``correlate``, where all of a kernel is on `y`.

    With ``k / stride - 1`` rows and columns of zeros around `y` it is the whole transpose.

    Args:
      y: [B, h, w, O].
      kernel: [k, k, I, O]; ``has_transform(k, stride)``.
      stride: of the kernel.

    Returns:
      [B, stride (h - k / stride + 1), likewise w, I].
    """
    taps = len(kernel) // stride
    sides = [side - taps + 1 for side in y.shape[1:3]]
    inverse, forward, _ = _TRANSFORMS[taps]
    kernels = [_both(forward, [row[::-1] for row in _taps(kernel, i, j, stride)[::-1]]) for i, j in _phases(stride)]

    def apply(y: jax.Array) -> jax.Array:
        tiles = _input_tiles(y, taps, 1, sides)
        phases = [_both(inverse, _zip_grids(lambda a, b: a @ b.T, tiles, part)) for part in kernels]
        whole = [
            [phases[i % stride * stride + j % stride][i // stride][j // stride] for j in range(2 * stride)]
            for i in range(2 * stride)
        ]
        return _from_tiles(whole, [stride * side for side in sides])

    return lax.map(lambda y: apply(y[None])[0], y) if _singly(y, sides, kernel.shape) else apply(y)


def kernel_grad(x: jax.Array, y: jax.Array, size: int, stride: int) -> jax.Array:
    """Apply the transpose of ``kernel -> correlate(x, kernel)``.

    Args:
      x: [B, H, W, I].
      y: [B, h, w, O], as ``correlate`` returns it.
      size: side of the kernels; ``has_transform(size, stride)``.
      stride: of the kernels.

    Returns:
      [size, size, I, O].
    """
    taps, sides, channels = size // stride, y.shape[1:3], x.shape[3]
    inverse, forward, _ = _TRANSFORMS[taps]

    def apply(x: jax.Array, y: jax.Array) -> jax.Array:
        y = jnp.pad(y, ((0, 0), (0, sides[0] % 2), (0, sides[1] % 2), (0, 0)))
        outputs = _both(_transposed(inverse), [[y[:, i::2, j::2] for j in range(2)] for i in range(2)])
        tiles = _input_tiles(x, taps, stride, sides)
        products = _zip_grids(lambda a, b: a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]), tiles, outputs)
        return jnp.stack([product for row in products for product in row])

    if _singly(x, sides, (size, size, channels, y.shape[3])):
        total = apply(x[:1], y[:1])
        total, _ = lax.scan(lambda total, pair: (total + apply(*pair), None), total, (x[1:, None], y[1:, None]))
    else:
        total = apply(x, y)
    products = total.reshape(taps + 1, taps + 1, stride, stride, channels, -1)
    phases = [
        [
            _both(_transposed(forward), [[products[a, b, i, j] for b in range(taps + 1)] for a in range(taps + 1)])
            for j in range(stride)
        ]
        for i in range(stride)
    ]
    rows = [
        jnp.stack([phases[i % stride][j % stride][i // stride][j // stride] for j in range(size)]) for i in range(size)
    ]
    return jnp.stack(rows)


def _singly(images: jax.Array, sides: Sequence[int], kernel: Sequence[int]) -> bool:
    """Return whether to process images one by one, given the sides of the outputs and the shape of the kernel."""
    return len(images) > 1 and math.prod(sides) >= max(kernel[2:])


def _phases(stride: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(stride) for j in range(stride)]


def _taps(kernel: jax.Array, i: int, j: int, stride: int) -> Grid:
    """Return the taps [I, O] of one of the kernels that make up a kernel with a stride."""
    size = len(kernel)
    return [[kernel[a, b] for b in range(j, size, stride)] for a in range(i, size, stride)]


def _input_tiles(x: jax.Array, taps: int, stride: int, sides: Sequence[int]) -> Grid:
    """Return the transformed tiles of [B, H, W, C] by place: [B, tiles down, tiles across, stride * stride * C]."""
    transform = _TRANSFORMS[taps][2]
    length, step = len(transform), 2 * stride
    counts = [-(-side // 2) for side in sides]
    lacking = [
        max(0, stride * (2 * (count - 1) + length) - side) for count, side in zip(counts, x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), (0, lacking[0]), (0, lacking[1]), (0, 0)))

    def at(row: int, column: int) -> jax.Array:
        rows, columns = (
            slice(first, first + step * (n - 1) + 1, step) for first, n in zip((row, column), counts, strict=True)
        )
        return x[:, rows, columns]

    phases = [
        _both(transform, [[at(i + stride * a, j + stride * b) for b in range(length)] for a in range(length)])
        for i, j in _phases(stride)
    ]
    return _zip_grids(lambda *same: jnp.stack(same, axis=3).reshape(-1, *counts, stride * stride * x.shape[3]), *phases)


def _from_tiles(tiles: Grid, sides: Sequence[int]) -> jax.Array:
    """Lay tiles, given by place, side by side and cut off what is too much: [B, *sides, C]."""
    whole = jnp.stack([jnp.stack(row, axis=3) for row in tiles], axis=2)  # [B, tiles, rows, tiles, columns, C]
    batch, down, rows, across, columns, channels = whole.shape
    return whole.reshape(batch, down * rows, across * columns, channels)[:, : sides[0], : sides[1]]


def _both(matrix: Matrix, grid: Grid) -> Grid:
    """Apply a matrix to the rows of a grid and to its columns."""
    return _transposed(_down(matrix, _transposed(_down(matrix, grid))))


def _down(matrix: Matrix, grid: Grid) -> Grid:
    return [[_combine(weights, column) for column in zip(*grid, strict=True)] for weights in matrix]


def _transposed(grid: Sequence[Sequence]) -> list[list]:
    return [list(column) for column in zip(*grid, strict=True)]


def _zip_grids(function: Callable[..., jax.Array], *grids: Grid) -> Grid:
    return [[function(*places) for places in zip(*rows, strict=True)] for rows in zip(*grids, strict=True)]


def _combine(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    """Return the weighted sum, without what multiplies by nought or one."""
    terms = [(weight, array) for weight, array in zip(weights, arrays, strict=True) if weight]
    terms.sort(key=lambda term: term[0] < 0)  # a positive one first; the others are subtracted from it
    total = None
    for weight, array in terms:
        term = array if abs(weight) == 1 else abs(weight) * array
        total = term if total is None else (total + term if weight > 0 else total - term)
    assert total is not None
    return total
