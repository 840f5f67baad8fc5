"""TIFF files larger than memory, translated in tiles: read, computed and written a few rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from p2p_jax.images import formats, profiles, unknown, windows
from p2p_jax.images.pictures import with_channels
from p2p_jax.images.stored import Header, Stored
from p2p_jax.inference import values
from p2p_jax.inference.translator import Translator

_TIFF = (".tif", ".tiff")
_LAB = {"lab_l", "lab_ab"}


def may_fit(translator: Translator, source: Path, target: Path) -> bool:
    """Return whether a file may be translated this way, judged by its names only: from TIFF to TIFF, in tiles."""
    return bool(translator.tile) and {source.suffix.lower(), target.suffix.lower()} <= set(_TIFF)


def fits(translator: Translator, source: Path, header: Header) -> bool:
    """Return whether a file that ``may_fit`` does fit: longer than a tile, upright and valid input for the run.

    All others are read whole, by ``values.read``, which says what is wrong with those that cannot be used.

    Args:
      translator: of the run.
      source: to be translated as it is: neither resized nor made an input of.
      header: of `source`.
    """
    domain = translator.domain_in
    if not translator.tile or max(header.height, header.width) <= translator.tile:
        return False
    is_laid_on = header.channels_for(domain.raw_channels) != header.channels  # its opacity is needed for that
    if header.turned or is_laid_on or header.palette or header.mode:
        return False
    if _is_picture(translator):
        if header.dtype != np.uint8 or header.channels not in (1, 3):
            return False
    elif domain.fault(header.dtype, header.channels, has_palette=False):
        return False
    with windows.open_rows(source) as file:
        return file is not None


def translate(translator: Translator, source: Path, target: Path) -> None:
    """Translate a file that ``fits``; what is written is what ``values.write`` writes, in tiles.

    Raises:
      InputError: it is damaged, or no image of the run, or its translation cannot be written; names it.
    """
    with windows.open_rows(source) as file:
        assert file is not None  # it fits
        domain_in, domain_out = translator.domain_in, translator.domain_out
        given = _Given(translator, source, file)
        # The head of the file, written first, says whether anything is unknown.
        has_unknown = domain_in.unknown and given.find_unknown()
        dtype, channels = values.stored_form(domain_in, domain_out)
        marks, number = has_unknown or domain_out.unknown, values.nodata_of(domain_out)
        blank = np.zeros((0, 0, channels), dtype), np.zeros((0, 0), bool)
        nodata = unknown.written(*blank, number)[1] if marks else None
        known: list[np.ndarray] | None = [] if has_unknown and nodata is None else None  # a bit for each pixel

        def rows() -> Iterator[np.ndarray]:
            first = 0
            for found in translator.in_tiles(given.read, file.size):
                end = first + len(found)
                lost = values.lost(given.read(first, end))
                output = domain_out.decode(found)
                if has_unknown:  # somewhere in the image: what the number means must not change on the way down
                    stands_for = None if output.dtype.kind == "f" else translator.lost_number
                    output = unknown.written(output, lost, stands_for)[0]
                pixels = values.recombined(output, given.read_values(first, end), domain_in, domain_out)
                if marks:
                    pixels = unknown.written(pixels, lost, number)[0]
                if known is not None:
                    known.append(np.packbits(~lost, axis=1))
                yield pixels
                given.forget(end)
                first = end

        def valid() -> Iterator[np.ndarray]:
            for bits in known or ():
                yield np.unpackbits(bits, axis=1, count=file.size[1]).astype(bool)

        shows = _is_picture(translator) and domain_out.is_photograph and file.profile
        windows.write(
            target,
            rows(),
            file.size,
            dtype,
            channels,
            palette=values.file_palette(domain_out, dtype, target.suffix.lower()),
            tags=file.tags,
            profile=profiles.srgb() if shows else None,
            nodata=nodata,
            valid=None if known is None else valid,
        )


def _is_picture(translator: Translator) -> bool:
    """Return whether files are read as pictures; see ``values.read``."""
    return values.is_picture(translator.domain_in) and not translator.domain_in.unknown


class _Given:
    """The rows of a file as a translator takes them, from the first one that is still needed to the last one read."""

    def __init__(self, translator: Translator, path: Path, file: windows.Rows):
        self._translator, self._path, self._file = translator, path, file
        self._first, self._end = 0, 0  # of the rows that are held, and behind them
        self._encoded: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        # Of Lab, the half that is given becomes a part of what is written.
        self._keeps_values = {translator.domain_in.kind, translator.domain_out.kind} == _LAB

    def find_unknown(self) -> bool:
        """Return whether any value is unknown; reads the file, and starts again."""
        height, step = self._file.size[0], self._translator.tile or 1
        ends = ((first, min(first + step, height)) for first in range(0, height, step))
        return any(values.lost(self._load(*rows)).any() for rows in ends)

    def read(self, first: int, end: int) -> np.ndarray:
        """Return rows as ``Translator.encoded`` does."""
        if end > self._end:
            found = self._load(self._end, end)
            self._encoded.append(self._translator.encoded(found)[0])
            if self._keeps_values:
                self._values.append(found)
            self._end = end
        return self._between(self._encoded, first, end)

    def read_values(self, first: int, end: int) -> np.ndarray:
        """Return rows that have been read as values, where they are needed."""
        return self._between(self._values if self._keeps_values else self._encoded, first, end)

    def forget(self, before: int) -> None:
        """Drop the pieces that end before a row."""
        while self._encoded and self._first + len(self._encoded[0]) <= before:
            self._first += len(self._encoded.pop(0))
            if self._keeps_values:
                self._values.pop(0)

    def _between(self, pieces: list[np.ndarray], first: int, end: int) -> np.ndarray:
        found, top = [], self._first
        for piece in pieces:
            if top < end and top + len(piece) > first:
                found.append(piece[max(first - top, 0) : end - top])
            top += len(piece)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _load(self, first: int, end: int) -> np.ndarray:
        """Return rows as values of the domain; see ``values.read``."""
        domain, stored = self._translator.domain_in, self._file.read(first, end)
        if _is_picture(self._translator):
            raw = with_channels((stored.in_srgb() if domain.is_photograph else stored).pixels, domain.raw_channels)
        else:
            raw = domain.raw(self._marked(stored).pixels)
        found = domain.values(raw)
        values.check_finite(self._path, found, domain)
        return found

    def _marked(self, stored: Stored) -> Stored:
        if not self._translator.domain_in.unknown:
            return stored
        marked = unknown.marked(formats.Stored(*stored), self._translator.domain_in.nodata)
        return marked if np.isnan(marked.pixels).any() else stored
