"""Read and write TIFF files a few rows at a time, so they need not fit into memory."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import tiff
from p2p_jax.images.deflated_strip import DeflatedStrip, can_inflate
from p2p_jax.images.stored import Header, Stored
from p2p_jax.storage import writing

if TYPE_CHECKING:
    import tifffile

_TILE = (512, 512)  # of files whose tags name none
_LONG_STRIP = 2**24  # bytes of pixels in one strip that is not decoded whole if it need not be


class Rows:
    """The rows of an opened TIFF.

    It decodes the strips or tiles that hold the rows; those of the last row asked for are kept, so that
    going down the image decodes each once. An image in one compressed strip is so decoded, and held, whole, unless it
    is deflated, which is undone as it is read.

    Attributes:
      size: height and width.
      tags: see ``p2p_jax.images.tiff``.
      profile: the ICC profile of the colours, if there is one.
    """

    def __init__(self, path: Path, parts: tiff.Parts, bands: "_Bands"):
        self._path, self._parts, self._bands = path, parts, bands
        self._mask = _Bands([parts.mask]) if parts.mask is not None else None
        self.size = parts.shape[0], parts.shape[1]
        self.tags, self.profile = parts.tags, parts.profile

    def read(self, first: int, end: int) -> Stored:
        """Return the rows from `first` to before `end`, as ``formats.read`` returns all.

        Raises:
          InputError: they are damaged; names the file.
        """
        parts = self._parts
        with _named(self._path):
            pixels = tiff.as_numbers(self._bands.read(first, end), parts.series.keyframe)
            valid = None if self._mask is None else self._mask.read(first, end)[..., 0] != 0
        return Stored(pixels, None, parts.tags, parts.profile, parts.nodata, valid)


def read_header(path: Path) -> Header:
    """Read the header of a TIFF, as ``formats.read_header`` does, for images of any size.

    Raises:
      InputError: it cannot be read, holds no image or several, or tifffile is not installed; names it.
    """
    with _named(path), path.open("rb") as file:
        return tiff.read_header(path, file)


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[Rows | None]:
    """Open a TIFF whose header can be read; None if the layout of its pixels requires reading it whole.

    Raises:
      InputError: as ``read_header``.
    """
    with contextlib.ExitStack() as opened:
        with _named(path):
            file = opened.enter_context(path.open("rb"))
            tif = opened.enter_context(tiff.opened(path, file))
            parts = tiff.parts(path, tif)
            pages, (height, width, channels) = [page for page in parts.series.pages if page is not None], parts.shape
            page = parts.series.keyframe
            known = page.imagedepth == 1 and (page.imagelength, page.imagewidth) == (height, width)
            known = known and len(pages) * page.samplesperpixel == channels and 1 in (len(pages), page.samplesperpixel)
        yield Rows(path, parts, _Bands(pages)) if known else None


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in all errors that tifffile raises for a damaged one."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # which depends on its bytes
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error


class _Bands:
    """Reads rows of the pages of one image: one page of all bands, or one for each.

    Args:
      pages: of one size and layout.
    """

    def __init__(self, pages: list[Any]):
        self._pages, self._page = pages, pages[0].keyframe
        page = self._page
        self._separate = page.planarconfig == 2 and page.samplesperpixel > 1
        self._high = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        self._across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
        self._plain = page.is_final and all(map(_is_one_piece, pages))
        planes = page.samplesperpixel if self._separate else 1
        self._streams = []
        if self._is_streamed():
            strips = ((one, plane) for one in pages for plane in range(planes))
            self._streams = [DeflatedStrip(*strip, page.samplesperpixel // planes) for strip in strips]
        self._last: tuple[int, np.ndarray] | None = None  # the row of strips or tiles that was decoded last

    def read(self, first: int, end: int) -> np.ndarray:
        """Return rows [n, W, C] as they are stored."""
        if self._plain:
            return np.concatenate([self._stored(page, first, end) for page in self._pages], axis=-1)
        if self._streams:
            return np.concatenate([stream.read(first, end) for stream in self._streams], axis=-1)
        found = []
        for place in range(first // self._high, (end - 1) // self._high + 1):
            if self._last is None or self._last[0] != place:
                self._last = None  # its memory goes first
                self._last = place, self._decoded(place)
            top = place * self._high
            found.append(self._last[1][max(first - top, 0) : end - top])
        return np.concatenate(found)

    def _is_streamed(self) -> bool:
        """Return whether each band, or all together, are one long strip that can be inflated from top to bottom."""
        page = self._page
        is_long = page.imagelength * page.imagewidth * page.samplesperpixel * page.dtype.itemsize > _LONG_STRIP
        is_one = not page.is_tiled and self._high == page.imagelength
        return is_long and is_one and all(map(can_inflate, self._pages))

    def _stored(self, page: Any, first: int, end: int) -> np.ndarray:
        """Read rows that lie in the file as they lie in memory."""
        key, file = self._page, self._page.parent.filehandle
        planes, samples = (key.samplesperpixel, 1) if self._separate else (1, key.samplesperpixel)
        dtype, shape = key.dtype.newbyteorder(key.parent.byteorder), (end - first, key.imagewidth, samples)
        row = key.imagewidth * samples * dtype.itemsize
        found = []
        for plane in range(planes):
            file.seek(page.dataoffsets[0] + (plane * key.imagelength + first) * row)
            found.append(np.frombuffer(file.read((end - first) * row), dtype).reshape(shape))
        return np.concatenate(found, axis=-1)

    def _decoded(self, place: int) -> np.ndarray:
        """Decode all strips or tiles in a row of them, of all bands."""
        key, file = self._page, self._page.parent.filehandle
        bands, down = len(self._pages) * key.samplesperpixel, -(-key.imagelength // self._high)
        rows, alone = min(self._high, key.imagelength - place * self._high), self._separate or len(self._pages) > 1
        found = np.empty((rows, key.imagewidth, bands), key.dtype)
        for number, page in enumerate(self._pages):
            tables = {}
            if key.compression in tiff.JPEG:
                tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
            for plane in range(key.samplesperpixel if self._separate else 1):
                for across in range(self._across):
                    index = (plane * down + place) * self._across + across
                    data = None
                    if page.databytecounts[index]:
                        file.seek(page.dataoffsets[index])
                        data = file.read(page.databytecounts[index])
                    part, (*_, left, _), _ = key.decode(data, index, **tables)
                    if part is not None and bands == part.shape[-1] and self._across == 1:
                        return part[0, :rows, : key.imagewidth]  # a strip is all there is
                    there = found[:, left:, slice(number + plane, number + plane + 1) if alone else slice(None)]
                    if part is None:  # what a sparse file leaves out
                        there[:, : key.tilewidth] = key.nodata
                    else:
                        part = part[0, :rows, : key.imagewidth - left]
                        there[:, : part.shape[1]] = part
        return found


def _is_one_piece(page: "tifffile.TiffPage") -> bool:
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return tuple(ends[:-1]) == tuple(page.dataoffsets[1:])


def write(
    path: Path,
    rows: Iterable[np.ndarray],
    size: tuple[int, int],
    dtype: np.dtype,
    channels: int,
    *,
    palette: np.ndarray | None = None,
    tags: tiff.Tags = (),
    profile: bytes | None = None,
    nodata: float | None = None,
    valid: Callable[[], Iterable[np.ndarray]] | None = None,
) -> None:
    """Write a TIFF in one step, of rows as they come: in tiles, of the size that its tags say or of 512x512.

    Args:
      path: of the file; its folder is made if missing.
      rows: [n, W, channels] of `dtype` each, from top to bottom, of any n.
      size: height and width.
      dtype: of the pixels.
      channels: of the pixels.
      palette: as for ``formats.write``, and all below.
      tags: also say how the file is compressed.
      profile: of the colours.
      nodata: the number that marks unknown values.
      valid: gives, once all rows are written, where something is known: [n, W] bool each.

    Raises:
      InputError: the file cannot be written; names it.
    """
    height, width = size
    options = {"tile": _TILE} | tiff.settings(dtype, channels, palette, tags, profile, nodata)
    # One thread: several would hold half a gigabyte of tiles between them.
    shape = (height, width, channels) if channels > 1 else (height, width)
    is_big = height * width * channels * dtype.itemsize > tiff.MOST_BYTES
    with writing.in_one_step(path) as temporary, tiff.library().TiffWriter(temporary, bigtiff=is_big) as tif:
        tif.write(_tiles(rows, options["tile"]), shape=shape, dtype=dtype, maxworkers=1, **options)
        if valid is not None:
            known = (part[..., None] for part in valid())
            mask = tiff.OF_MASK | {"tile": options["tile"], "shape": size, "dtype": bool, "maxworkers": 1}
            tif.write(_tiles(known, options["tile"]), **mask)


def _tiles(rows: Iterable[np.ndarray], tile: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the tiles of an image, to be used before the next; those at its right and bottom are smaller.

    tifffile fills these up.
    """
    band, filled = np.zeros((0, 0, 0)), 0  # a row of tiles, and how much of it is there

    def cut():
        for left in range(0, band.shape[1], tile[1]):
            yield band[:filled, left : left + tile[1]]

    for some in rows:
        if not band.size:
            band = np.empty((tile[0], *some.shape[1:]), some.dtype)
        while len(some):
            fitting = some[: tile[0] - filled]
            band[filled : filled + len(fitting)] = fitting
            filled, some = filled + len(fitting), some[len(fitting) :]
            if filled == tile[0]:
                yield from cut()
                filled = 0
    if filled:
        yield from cut()
