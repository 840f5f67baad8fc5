"""Changes of size to the bit as the data stream makes them, in NumPy: float32 and TensorFlow's order of operations.

TensorFlow's own are ``tf.image.resize(image, size, "bicubic", antialias=True)`` and ``(image, size, "nearest")``. Bits
agree where its kernels do not fuse multiplication and addition, as its releases for x86 do not; elsewhere the last bit
of a float may differ, and very rarely a whole number by one.
"""

import functools

import numpy as np

_RADIUS = np.float32(2)  # of the kernel, in pixels


def resize(image: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize an image, bicubic and antialiased.

    Args:
      image: [H, W, C] of floats, or of whole numbers of at most 16 bits. They are computed with in float32; whole ones
        are rounded once, at the end, and kept in the range of their dtype. NaN is unknown, and stays so where half of
        what a pixel is made of is.
      size: height and width wanted.
      nearest: take the nearest pixel instead, for classes, which cannot be mixed; changes no value.

    Returns:
      [*size, C] of the same dtype.
    """
    if image.shape[:2] == tuple(size):
        return image
    if nearest:
        rows, columns = (_nearest(have, want) for have, want in zip(image.shape, size, strict=False))
        return image[rows[:, None], columns]
    if image.dtype.kind == "f" and (lost := np.isnan(image)).any():
        return _resize_known(image, lost, size)
    resized = _resize_rows(_resize_rows(image, size[0]).swapaxes(0, 1), size[1])  # [width, height, C]
    if image.dtype.kind != "f":
        limits = np.iinfo(image.dtype)
        resized = np.clip(np.rint(resized, out=resized), limits.min, limits.max, out=resized)
    return np.ascontiguousarray(resized.astype(image.dtype, copy=False).swapaxes(0, 1))


def _resize_known(image: np.ndarray, lost: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image by what is known of it: a pixel is unknown (NaN) where less than half of its weight is known."""
    weight = resize((~lost).astype(np.float32), size)
    total = resize(np.where(lost, np.float32(0), image), size)
    ends = (reduce(image, (0, 1)) for reduce in (np.fmin.reduce, np.fmax.reduce))
    known = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight >= np.float32(0.5))
    return np.clip(known, *ends)


def _nearest(have: int, want: int) -> np.ndarray:
    """Return the source pixel, one of `have`, for each of `want`."""
    middles = (np.arange(want, dtype=np.float32) + np.float32(0.5)) * (np.float32(have) / np.float32(want))
    return np.minimum(np.floor(middles).astype(np.int64), have - 1)


def _resize_rows(image: np.ndarray, want: int) -> np.ndarray:
    """Return [want, W, C] float32: sums of weighted rows of `image` [H, W, C], added in their order."""
    first, weights = _spans(len(image), want)
    rows = np.ascontiguousarray(image, np.float32).reshape(len(image), -1)
    total = np.zeros((want, rows.shape[1]), np.float32)
    part = np.empty_like(total)  # memory that is used again: a third of the time
    for k, weight in enumerate(weights.T):
        np.take(rows, first + k, axis=0, out=part, mode="clip")  # beyond the last row weights are 0
        total += np.multiply(part, weight[:, None], out=part)
    return total.reshape(want, *image.shape[1:])


@functools.lru_cache(maxsize=256)
def _spans(have: int, want: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of the `have` pixels for each of `want`, [want], and the weights, [want, K] float32."""
    shrunk = np.float32(1) / (np.float32(want) / np.float32(have))  # pixels of the image to one of the new one
    stretch = np.maximum(shrunk, np.float32(1))
    middles = (np.arange(want, dtype=np.float32) + np.float32(0.5)) * shrunk
    reach = _RADIUS * stretch
    first = np.clip(np.ceil(middles - reach - np.float32(0.5)).astype(np.int64), 0, have - 1)
    last = np.clip(np.floor(middles + reach - np.float32(0.5)).astype(np.int64), 0, have - 1)
    places = first[:, None] + np.arange((last - first).max() + 1)
    distances = np.abs((places.astype(np.float32) + np.float32(0.5) - middles[:, None]) * (np.float32(1) / stretch))
    weights = np.where(places <= last[:, None], _keys_cubic(distances), np.float32(0))
    total = np.zeros(want, np.float32)
    for column in weights.T:  # in order, and not in pairs as NumPy's own sum
        total += column
    return first, weights * (np.float32(1) / total)[:, None]


def _keys_cubic(x: np.ndarray) -> np.ndarray:
    """Return R. G. Keys's kernel (Cubic convolution interpolation, 1981) at distances of at least 0, float32."""
    half, coefficients = np.float32(0.5), [np.float32(c) for c in (1.5, 2.5, 4, 2, 1)]
    near = (coefficients[0] * x - coefficients[1]) * x * x + coefficients[4]
    far = ((-half * x + coefficients[1]) * x - coefficients[2]) * x + coefficients[3]
    return np.where(x >= 2, np.float32(0), np.where(x >= 1, far, near))
