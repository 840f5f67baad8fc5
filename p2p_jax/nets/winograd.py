"""Winograd's minimal filtering: convolutions with fewer multiplications (Lavin and Gray 2016, F(m x m, r x r)).

A convolution makes tiles of m x m outputs out of overlapping tiles of t x t inputs, t = m + r - 1. In one dimension
``A' ((G k) * (B' d))`` are the m outputs of a kernel k of r taps on t inputs d, by t multiplications where there would
be m r. In two dimensions the three transforms apply to rows and to columns, and the values at one place of the
transformed tiles are multiplied over all tiles and channels at once: t * t matrix products. A kernel with stride 2 is
four kernels of half the taps, each on every other row and column.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Where polynomials are evaluated, beside infinity: as many as it takes. More of them, and larger ones, round more.
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))
_OUTPUTS = (2, 3)  # m: with 4 the products save less time than the transforms take

Matrix = Sequence[Sequence[float]]
Grid = list[list[jax.Array]]  # arrays by row and column of a tile


class Transforms(NamedTuple):
    """The matrices of F(m, r)."""

    inverse: Matrix  # A' [m, t]
    kernel: Matrix  # G [t, r]
    inputs: Matrix  # B' [t, t]


def has_transform(size: int, stride: int) -> bool:
    """Return whether convolutions with kernels of this side and stride are supported."""
    return size % stride == 0 and 2 <= size // stride <= len(_POINTS) + 2 - max(_OUTPUTS)


@functools.cache
def transforms(outputs: int, taps: int) -> Transforms:
    """Return the matrices of F(outputs, taps), by the method of Toom and Cook.

    With the points p, a row of B' has the coefficients of the product of all (x - q) with q != p; that product at p
    divides the row of G, whose entries are powers of p. The last rows, of infinity, have the product of all (x - p),
    and the last tap.
    """
    points = _POINTS[: outputs + taps - 2]
    inverse = [[point**i for point in points] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    kernel, inputs = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = math.prod((point - other for other in others), start=Fraction(1))
        kernel.append([point**i / abs(scale) for i in range(taps)])
        sign = 1 if scale > 0 else -1  # so that every row has a positive entry
        inputs.append([*(sign * coefficient for coefficient in _coefficients(others)), Fraction(0)])
    kernel.append([Fraction(i == taps - 1) for i in range(taps)])
    inputs.append(_coefficients(points))
    return Transforms(*([[float(value) for value in row] for row in rows] for rows in (inverse, kernel, inputs)))


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of the product of all (x - root), the constant one first."""
    coefficients = [Fraction(1)]
    for root in roots:
        by_x, by_root = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [a - root * b for a, b in zip(by_x, by_root, strict=True)]
    return coefficients


def _outputs(sides: Sequence[int], taps: int) -> int:
    """Return the m that needs the fewest multiplications for outputs of these sides."""
    return min(_OUTPUTS, key=lambda outputs: math.prod(-(-side // outputs) * (outputs + taps - 1) for side in sides))


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
    outputs = _outputs(sides, taps)
    inverse, forward, _ = transforms(outputs, taps)
    parts = [_both(forward, _taps(kernel, i, j, stride)) for i, j in _phases(stride)]
    kernels = _zip_grids(lambda *same: jnp.concatenate(same), *parts)
    products = _zip_grids(jnp.matmul, _input_tiles(x, outputs, taps, stride, sides), kernels)
    return _from_tiles(_both(inverse, products), sides)


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
    outputs = _outputs(sides, taps)
    inverse, forward, _ = transforms(outputs, taps)
    kernels = [_both(forward, [row[::-1] for row in _taps(kernel, i, j, stride)[::-1]]) for i, j in _phases(stride)]
    tiles = _input_tiles(y, outputs, taps, 1, sides)
    phases = [_both(inverse, _zip_grids(lambda a, b: a @ b.T, tiles, part)) for part in kernels]
    return _from_tiles(_interlaced(phases, stride), [stride * side for side in sides])


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
    taps, sides = size // stride, y.shape[1:3]
    outputs = _outputs(sides, taps)
    inverse, forward, _ = transforms(outputs, taps)
    y = jnp.pad(y, ((0, 0), (0, -sides[0] % outputs), (0, -sides[1] % outputs), (0, 0)))
    tiled = [[y[:, i::outputs, j::outputs] for j in range(outputs)] for i in range(outputs)]
    products = _zip_grids(
        lambda a, b: a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]),
        _input_tiles(x, outputs, taps, stride, sides),
        _both(_transposed(inverse), tiled),
    )
    channels = x.shape[3]
    phases = []
    for first in range(0, stride * stride * channels, channels):
        part = _zip_grids(lambda product, first=first: product[first : first + channels], products)
        phases.append(_both(_transposed(forward), part))
    return jnp.stack([jnp.stack(row) for row in _interlaced(phases, stride)])


def _phases(stride: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(stride) for j in range(stride)]


def _interlaced(phases: Sequence[Grid], stride: int) -> Grid:
    """Return a grid; each phase is every `stride`-th row and column of it."""
    rows, columns = len(phases[0]), len(phases[0][0])
    return [
        [phases[i % stride * stride + j % stride][i // stride][j // stride] for j in range(columns * stride)]
        for i in range(rows * stride)
    ]


def _taps(kernel: jax.Array, i: int, j: int, stride: int) -> Grid:
    """Return the taps [I, O] of one of the kernels that make up a kernel with a stride."""
    size = len(kernel)
    return [[kernel[a, b] for b in range(j, size, stride)] for a in range(i, size, stride)]


def _input_tiles(x: jax.Array, outputs: int, taps: int, stride: int, sides: Sequence[int]) -> Grid:
    """Return the transformed tiles of [B, H, W, C] by place: [B, tiles down, tiles across, stride * stride * C]."""
    transform = transforms(outputs, taps).inputs
    length, step = len(transform), outputs * stride
    counts = [-(-side // outputs) for side in sides]
    lacking = [
        max(0, step * (count - 1) + stride * length - side) for count, side in zip(counts, x.shape[1:3], strict=True)
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
    # In a row of channels: XLA would compute stacked pixels again, one by one, in what it fuses them with.
    whole = jnp.stack([jnp.concatenate(row, axis=3) for row in tiles], axis=2)  # [B, tiles, rows, tiles, columns * C]
    batch, down, rows, across, _ = whole.shape
    columns = len(tiles[0])
    return whole.reshape(batch, down * rows, across * columns, -1)[:, : sides[0], : sides[1]]


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
