"""TIFF files as tifffile opens them, once it is known that their pages have an end: not each circle is seen by it."""

import logging
import struct
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tifffile

_LOG = logging.getLogger("tifffile")
_MOST_PAGES, _MOST_ENTRIES = 2**20, 4_096  # entries of a page; tifffile takes no more
_CLASSIC, _BIG = (42, "H", 12, "I", 4), (43, "Q", 20, "Q", 8)  # number; of entries, and size of one; of an offset


def library() -> ModuleType:
    """Return tifffile; raises InputError where it is not installed.

    What it finds odd in a file is not logged, unless its logger is given a level: here that is one sentence.
    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError("TIFF needs tifffile: pip install 'p2p_jax[images]'") from error
    if _LOG.level == logging.NOTSET:
        _LOG.setLevel(logging.CRITICAL + 1)
    return tifffile


def opened(path: Path, file: IO[bytes]) -> "tifffile.TiffFile":
    """Open a TIFF, a context.

    Raises:
      InputError: tifffile is not installed.
      ValueError: its pages have no end. Other damage raises the errors of tifffile.
    """
    check(file)
    return library().TiffFile(file, name=path.name)


def check(file: IO[bytes]) -> None:
    """Refuse a file whose pages have no end; the place in the file stays what it is.

    Raises:
      ValueError: says what is wrong.
    """
    back = file.tell()
    try:
        _follow(file)
    finally:
        file.seek(back)


def _follow(file: IO[bytes]) -> None:
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    number = struct.unpack(f"{order}H", head[2:4])[0] if len(head) >= 8 else 0
    found = next((known for known in (_CLASSIC, _BIG) if known[0] == number), None)
    if found is None:
        return  # tifffile says what it is
    _, count_of, entry_size, offset_of, first = found
    offset = _number(file, first, order + offset_of) or 0
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= _MOST_PAGES:
            raise ValueError("its pages form an endless loop")
        seen.add(offset)
        count = _number(file, offset, order + count_of)
        if count is None or count > _MOST_ENTRIES:
            return
        following = offset + struct.calcsize(f"={count_of}") + count * entry_size
        offset = _number(file, following, order + offset_of) or 0


def _number(file: IO[bytes], offset: int, kind: str) -> int | None:
    """Return the number at a place of a file, None where it has ended."""
    if offset >= 2**63:
        return None
    file.seek(offset)
    found = file.read(struct.calcsize(kind))
    return struct.unpack(kind, found)[0] if len(found) == struct.calcsize(kind) else None
