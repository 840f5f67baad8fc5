"""The directory at the end of a zip file, as arrays: five million members need no objects."""

import re
import struct
from array import array

import numpy as np

_END, _ENTRY = b"PK\5\6", b"PK\1\2"
_ENTRY_SIZE = 46  # bytes, without the name
_FIELDS = np.dtype(
    {
        "names": ["system", "flags", "method", "crc", "packed", "size", "name", "extra", "offset"],
        "formats": ["u1", "<u2", "<u2", "<u4", "<u4", "<u4", "<u2", "<u2", "<u4"],
        "offsets": [5, 8, 10, 16, 20, 24, 28, 30, 42],
        "itemsize": _ENTRY_SIZE,
    }
)
COLUMNS = ("flags", "method", "crc", "packed", "size", "offset")
"""What is kept of an entry; packed and unpacked size in bytes, and the place in the file."""
_AT_ONCE = 2**16  # entries
_FULL32 = 0xFFFFFFFF
_UTF8 = 0x800
_OF_WINDOWS = (0, 10, 11, 14)  # FAT, NTFS, another NTFS, VFAT


def parse(directory: bytes) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the names of all members but folders, and ``COLUMNS`` of them, [N] int64 each.

    Raises:
      ValueError, struct.error: it is damaged.
    """
    places = _places(directory)
    buffer = np.frombuffer(directory, np.uint8)
    all_names: list[str] = []
    columns: list[np.ndarray] = []
    for first in range(0, len(places), _AT_ONCE):
        here = places[first : first + _AT_ONCE]
        fields = _gather(buffer, here, _ENTRY_SIZE).view(_FIELDS)[:, 0]
        found = np.stack([fields[name].astype(np.int64) for name in COLUMNS])
        _widen(found, buffer, here + _ENTRY_SIZE + fields["name"], fields["extra"])
        names = _names(directory, here + _ENTRY_SIZE, fields)
        keep = [i for i, name in enumerate(names) if not name.endswith("/")]
        all_names += names if len(keep) == len(names) else [names[i] for i in keep]
        columns.append(found if len(keep) == len(names) else found[:, keep])
    together = np.concatenate(columns, axis=1) if columns else np.zeros((len(COLUMNS), 0), np.int64)
    return all_names, dict(zip(COLUMNS, together, strict=True))


def find_end(tail: bytes) -> int:
    """Return the position of the directory's end: the last mark whose comment ends with the file, else the last."""
    last = found = tail.rfind(_END, 0, max(len(tail) - 18, 0))
    while found >= 0:
        if found + 22 + struct.unpack_from("<H", tail, found + 20)[0] == len(tail):
            return found
        found = tail.rfind(_END, 0, found)
    return last


def _places(directory: bytes) -> np.ndarray:
    """Return where the entries of a directory begin, [N] int64.

    The count that the file gives is not asked: programs that know no Zip64 keep 16 bits of it.
    """
    marks = np.fromiter((mark.start() for mark in re.finditer(_ENTRY, directory)), np.int64)
    if len(marks) and not marks[0] and marks[-1] + _ENTRY_SIZE <= len(directory):
        lengths = _gather(np.frombuffer(directory, np.uint8), marks + 28, 6).view("<u2").astype(np.int64)
        if np.array_equal(marks + _ENTRY_SIZE + lengths.sum(1), np.append(marks[1:], len(directory))):
            return marks
    starts, at = array("q"), 0  # one by one: a name or a comment may look like the mark
    while at < len(directory):
        if directory[at : at + 4] != _ENTRY:
            raise ValueError("its directory is damaged")
        starts.append(at)
        at += _ENTRY_SIZE + sum(struct.unpack_from("<3H", directory, at + 28))
    if at > len(directory):
        raise ValueError("its directory is damaged")
    return np.frombuffer(starts, np.int64)


def _gather(buffer: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Return `count` bytes from each of some places on, [N, count] uint8."""
    return np.lib.stride_tricks.sliding_window_view(buffer, count)[places]


def _widen(found: np.ndarray, buffer: np.ndarray, extras: np.ndarray, lengths: np.ndarray) -> None:
    """Replace sizes and places that do not fit 32 bits by those in the extra fields of Zip64.

    Args:
      found: [6, n] int64, of ``COLUMNS``; is changed.
      buffer: the directory.
      extras: where the extra fields begin, [n].
      lengths: theirs, [n].
    """
    full = found[3:] == _FULL32
    easy = np.flatnonzero(full[2] & ~full[:2].any(0) & (lengths >= 12))  # only the place, as in most large files
    if len(easy):
        head = _gather(buffer, extras[easy], 12)
        easy = easy[(head[:, :4] == (1, 0, 8, 0)).all(1)]
        found[5, easy] = _gather(buffer, extras[easy] + 4, 8).copy().view("<i8")[:, 0]
    full[:, easy] = False
    for i in np.flatnonzero(full.any(0)).tolist():
        at = int(extras[i])
        found[3:, i] = _in_64_bits(buffer[at : at + int(lengths[i])].tobytes(), found[3:, i].tolist())


def _in_64_bits(extra: bytes, values: list[int]) -> list[int]:
    """Return sizes and place of a member, those that do not fit 32 bits out of its extra fields."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            # The order in the field is: unpacked, packed, place.
            order = [i for i in (1, 0, 2) if values[i] == _FULL32]
            numbers = struct.unpack_from(f"<{len(order)}Q", extra, at + 4)
            for i, number in zip(order, numbers, strict=True):
                values[i] = number
            return values
        at += 4 + length
    return values


def _names(directory: bytes, places: np.ndarray, fields: np.ndarray) -> list[str]:
    """Return the names that begin at some places."""
    first, ends = int(places[0]), places + fields["name"]
    text = directory[first : int(ends[-1])].decode("latin-1")
    names = [text[start:end] for start, end in zip((places - first).tolist(), (ends - first).tolist(), strict=True)]
    together = "".join(names)
    if together.isascii() and "\\" not in together:
        return names
    marks = zip(names, fields["flags"].tolist(), fields["system"].tolist(), strict=True)
    return [_decoded(name.encode("latin-1"), flags, system) for name, flags, system in marks]


def _decoded(name: bytes, flags: int, system: int) -> str:
    """Return a member's name. Macs write UTF-8 and do not say so; what is none is of DOS."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = name.decode("utf-8", "replace") if flags & _UTF8 else name.decode("cp437")
    of_windows = system in _OF_WINDOWS or "/" not in text  # not every program says on what it runs
    return text.replace("\\", "/") if of_windows else text
