"""Large images in overlapping tiles: the places of the tiles, and how their outputs are blended (only NumPy)."""

from collections.abc import Iterable, Iterator

import numpy as np

from p2p_jax.errors import InputError

_ROWS = 64  # of an image, blended at a time


def find_overlap(tile: int | None, overlap: int | None, multiple: int, smallest: int) -> int:
    """Return how many pixels neighbouring tiles share, a quarter of `tile` by default; 0 without tiles.

    Args:
      tile: pixels of a side; None: images are never cut into tiles.
      overlap: what was asked for.
      multiple: sides of images that the network takes are multiples of it.
      smallest: the shortest side that it takes.

    Raises:
      InputError: tiles that the network does not take, or an overlap that does not fit.
    """
    if tile is None:
        if overlap is not None:
            raise InputError("`overlap` is for tiles: give `tile` too")
        return 0
    overlap = tile // 4 if overlap is None else overlap
    if tile % multiple or tile < smallest:
        raise InputError(f"tile={tile} must be a multiple of {multiple}, as the network needs")
    if not 0 <= overlap < tile:
        raise InputError(f"overlap={overlap} must be at least 0 and less than tile={tile}")
    return overlap


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles that cover a side, evenly spread; the last tile ends where the side ends.

    Args:
      length: pixels of the side, at least `tile`.
      tile: pixels of a tile.
      overlap: pixels that neighbours share at least, less than `tile`.
    """
    count = 1 if length <= tile else -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / max(count - 1, 1)) for i in range(count)]


def cut(image: np.ndarray, tile: tuple[int, int], overlap: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Cut an image [H, W, C] into tiles [N, *tile, C]; returns them and their upper left corners."""
    (height, width), (rows, columns) = image.shape[:2], tile
    corners = [(y, x) for y in starts(height, rows, overlap) for x in starts(width, columns, overlap)]
    return np.stack([image[y : y + rows, x : x + columns] for y, x in corners]), corners


def blend(
    tiles: Iterable[np.ndarray], size: tuple[int, int], tile: tuple[int, int], overlap: int
) -> Iterator[np.ndarray]:
    """Put tiles together; each fades out towards its edges where others overlap.

    The weight of a pixel grows linearly with its distance from either edge over `overlap` pixels; all weights at a
    place are scaled to add up to one. So tiles that agree give back what they show.

    Args:
      tiles: [*tile, C], row by row from the upper left, at the places that ``cut`` returns. No more than one row of
        tiles is held, for any size of image.
      size: height and width of the image.
      tile: height and width of a tile, no larger.
      overlap: pixels that neighbours share at least.

    Yields:
      Rows of the image from top to bottom, float32 [at most 64, width, C].
    """
    (height, width), (rows, columns) = size, tile
    weight = np.multiply.outer(_ramp(rows, overlap), _ramp(columns, overlap))[..., None]
    tiles, total = iter(tiles), np.zeros((0, 0, 0), np.float32)
    weights = np.zeros((rows, width, 1), np.float32)
    tops, lefts = starts(height, rows, overlap), starts(width, columns, overlap)
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            one = next(tiles)
            if not total.size:
                total = np.zeros((rows, width, one.shape[-1]), np.float32)
            total[:, left : left + columns] += weight * one
            weights[:, left : left + columns] += weight
        done = below - top
        for first in range(0, done, _ROWS):
            part = slice(first, min(first + _ROWS, done))
            yield total[part] / weights[part]
        for sums in (total, weights):  # what reaches into the next row of tiles moves up
            for first in range(0, rows - done, done):
                sums[first : first + done][: rows - done - first] = sums[first + done : first + 2 * done]
            sums[max(rows - done, 0) :] = 0


def _ramp(length: int, overlap: int) -> np.ndarray:
    distance = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
    return np.minimum(distance / (overlap + 1), 1)
