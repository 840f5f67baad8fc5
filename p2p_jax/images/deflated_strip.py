"""Strips of TIFFs that are inflated as they are read, because they are too long to be held."""

import zlib
from typing import Any

import numpy as np

_DEFLATE, _DIFFERENCES = (8, 32946), 2  # compressions, and the predictor of whole numbers
_PIECE = 2**18  # bytes that are read at a time


def can_inflate(page: Any) -> bool:
    """Return whether the strips of a page of tifffile's are such as ``DeflatedStrip`` takes."""
    key = page.keyframe
    is_plain = key.bitspersample == 8 * key.dtype.itemsize and key.fillorder == 1 and not key.is_subsampled
    return is_plain and key.compression in _DEFLATE and key.predictor in (1, _DIFFERENCES) and all(page.databytecounts)


class DeflatedStrip:
    """The rows of one deflated strip, inflated from top to bottom as they are asked for.

    Args:
      page: of the strip.
      index: of the strip in it.
      samples: of a pixel in the strip.
    """

    def __init__(self, page: Any, index: int, samples: int):
        key = page.keyframe
        self._file, self._start, self._count = (
            key.parent.filehandle,
            page.dataoffsets[index],
            page.databytecounts[index],
        )
        self._dtype, self._sums = key.dtype.newbyteorder(key.parent.byteorder), key.predictor == _DIFFERENCES
        self._shape = key.imagewidth, samples
        self._begin()

    def _begin(self) -> None:
        self._inflater, self._taken, self._row = zlib.decompressobj(), 0, 0

    def read(self, first: int, end: int) -> np.ndarray:
        """Return rows [n, W, samples]; those above the last ones need the strip from its beginning."""
        if first < self._row:
            self._begin()
        while self._row < first:
            self._next(min(64, first - self._row))
        return self._next(end - first)

    def _next(self, rows: int) -> np.ndarray:
        width, samples = self._shape
        wanted = rows * width * samples * self._dtype.itemsize
        found = bytearray()
        while len(found) < wanted:
            given = self._inflater.unconsumed_tail
            if not given:
                self._file.seek(self._start + self._taken)
                given = self._file.read(min(_PIECE, self._count - self._taken))
                self._taken += len(given)
            more = self._inflater.decompress(given, wanted - len(found))
            if not given and not more:
                raise ValueError("a strip ends too early")
            found += more
        self._row += rows
        pixels = np.frombuffer(found, self._dtype).reshape(rows, width, samples)
        if not self._sums:
            return pixels
        native = pixels.astype(self._dtype.newbyteorder("="), copy=False)
        return np.cumsum(native, axis=1, dtype=native.dtype)
