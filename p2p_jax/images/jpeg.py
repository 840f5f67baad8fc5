"""Whether a JPEG has all of its rows: libjpeg fills those that are missing with gray, and programs hide its warning."""

import io
import re
from typing import IO

import numpy as np
from PIL import Image

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # except those within a scan
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SCAN, _END, _RESTARTS = 0xDA, 0xD9, 0xDD
_STRAY = np.random.default_rng(0).integers(0, 255, 256, np.uint8).tobytes()  # no byte of it begins a marker
CORNER, FLAT = 4, 4
"""Pixels of the last corner that are compared, and by how many levels those that are flat differ."""
LUMA = (299, 587, 114)
"""Weights of red, green and blue: what has colours of the rows above has the same luma."""
_EIGHTH, _LAST = 3, 24  # pixels that the last block and its colours fill at most, at an eighth of the size and at all


def may_lack_rows(pixels: np.ndarray) -> bool:
    """Return whether the last corner of a decoded image is flat, as all rows are that are missing.

    Args:
      pixels: [H, W, 1 or 3] uint8.
    """
    height, width = (min((size - 1) % 8 + 1, CORNER) for size in pixels.shape[:2])  # of one block
    weights = np.array(LUMA[: pixels.shape[-1]])
    luma = pixels[-height:, -width:].astype(np.int32) @ weights
    return bool(luma.max() - luma.min() <= FLAT * weights.sum())


def check(file: IO[bytes], image: Image.Image) -> None:
    """Refuse a JPEG with an incomplete scan, even if the file ends properly.

    What follows a complete scan is never looked at by a decoder, and behind another it is taken for pixels. So
    stray bytes are put there, and the pixels compared.

    Args:
      file: of the image.
      image: the same, as Pillow has opened it.

    Raises:
      ValueError: it is so.
    """
    file.seek(0)
    contents = file.read()
    in_full = bool(image.info.get("progressive"))  # whose later scans make the details
    one, other = (_decoded(bytes_, in_full=in_full) for bytes_ in (contents, _with_stray_bytes(contents)))
    changed = (one != other).reshape(*one.shape[:2], -1).any(-1)
    last = _LAST if in_full else _EIGHTH
    if changed[:-last].any() or changed[:, :-last].any():
        raise ValueError("rows at its end are missing: it was cut short")


def _with_stray_bytes(contents: bytes) -> bytes:
    """Return a JPEG with bytes of no meaning behind each scan of its first image."""
    pieces, done, place, restarts = [], 0, 2, False
    while place + 4 <= len(contents):
        found = _MARKER.search(contents, place)
        if found is None or contents[found.start() + 1] == _END:
            break
        place = found.end() + int.from_bytes(contents[found.end() : found.end() + 2])
        restarts = restarts or contents[found.start() + 1] == _RESTARTS
        if contents[found.start() + 1] != _SCAN:
            continue
        following, first = _MARKER.search(contents, place), place
        place = following.start() if following else len(contents)
        pieces += [contents[done:place], _STRAY]
        if restarts:  # a scan may end where one was to follow
            numbers = _RESTART.findall(contents, first, place)
            number = (numbers[-1][1] + 1) % 8 if numbers else 0
            pieces += [bytes([0xFF, 0xD0 + number]), _STRAY]
        done = place
    return b"".join([*pieces, contents[done:]])


def _decoded(contents: bytes, *, in_full: bool) -> np.ndarray:
    with Image.open(io.BytesIO(contents), formats=("JPEG",)) as image:
        if not in_full:
            image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        return np.asarray(image)
