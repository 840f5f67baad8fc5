"""Checks the index of a TensorFlow checkpoint before TensorFlow reads it and aborts the process at a wrong shape.

The index is a sorted table (that of LevelDB, uncompressed): blocks of names and entries, a block with their positions,
and a footer with the position of that block. An entry is a message of Protocol Buffers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from p2p_jax.errors import InputError

_MOST_BYTES = 64 * 2**20  # an index of the release has 10 kB
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER, _TRAILER = 48, 5  # bytes
_MOST_DIMENSIONS = 8
_MOST_NUMBERS = 2**40
_DTYPES = range(1, 24)  # of variables, in TensorFlow's types.proto
_SIZES = {1: 4, 2: 8, 3: 4, 9: 8, 19: 2, 14: 2}  # bytes of a number, if not 1
_ENTRY = {1: int, 2: memoryview, 3: int, 4: int, 5: int, 6: memoryview}  # dtype, shape, shard, offset, size, checksum
_HEADER = {1: int, 2: int, 3: memoryview}  # shards, order of bytes, version
_SIDE = {1: int, 2: memoryview}  # size, name


def check(index: Path, data: Sequence[Path]) -> None:
    """Check shapes and types of every variable.

    Args:
      index: the file "model-200000.index".
      data: the files with the numbers.

    Raises:
      InputError: the index is not such a table, or has entries that the files cannot hold.
    """
    damaged = f"{index} cannot be read as a TensorFlow checkpoint: it is cut off or damaged; copy it again"
    if index.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{index} has more than {_MOST_BYTES:,} bytes: it is not the index of a checkpoint of the release"
        )
    try:
        content, claimed, before = memoryview(index.read_bytes()), 0, None
        for name, entry in _entries(content):
            if before is not None and name <= before:
                raise ValueError("names that are not sorted")
            before = name
            if name:
                claimed += _bytes_of(entry, len(data))
            elif _once(entry, _HEADER).get(1) != len(data):  # the entry without a name describes the whole
                raise ValueError("another number of files")
    except (IndexError, ValueError, OSError) as error:
        raise InputError(damaged) from error
    found = sum(file.stat().st_size for file in data)
    if claimed > found:
        raise InputError(
            f"{data[0]} is cut off, or from another checkpoint: {index.name} lists variables of {claimed:,} bytes, but "
            f"there are {found:,}; copy it again"
        )


def _entries(table: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over names and entries."""
    footer = table[-_FOOTER:]
    if len(table) < _FOOTER or footer[-8:] != _MAGIC:
        raise ValueError("no sorted table")
    at = 0
    for _ in range(2):  # position of the block about other things
        _, at = _varint(footer, at)
    seen = 0
    for _, handle in _block(table, *_handle(footer, at)):
        start, size = _handle(memoryview(handle), 0)
        seen += size
        if seen > len(table):
            raise ValueError("blocks that overlap")
        yield from _block(table, start, size)


def _handle(message: memoryview, at: int) -> tuple[int, int]:
    start, at = _varint(message, at)
    size, _ = _varint(message, at)
    return start, size


def _block(table: memoryview, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over keys and values; a key shares its beginning with the one before it."""
    if start + size + _TRAILER > len(table) or size < 4 or table[start + size] != 0:
        raise ValueError("a block that is cut off, or compressed")
    block = table[start : start + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end or shared + fresh > 4096:
            raise ValueError("an entry that does not fit into its block")
        key = key[:shared] + bytes(block[at : at + fresh])
        yield key, bytes(block[at + fresh : at + fresh + length])
        at += fresh + length


def _bytes_of(entry: bytes, shards: int) -> int:
    """Return the smallest possible size of a variable in bytes."""
    found = _once(entry, _ENTRY)
    sides = list(_fields(found.get(2, memoryview(b""))))
    if len(sides) > _MOST_DIMENSIONS or any(number != 2 or isinstance(side, int) for number, side in sides):
        raise ValueError("no shape")
    shape = [_once(side, _SIDE).get(1, 0) for _, side in sides if not isinstance(side, int)]
    # Negative numbers are read as the largest ones.
    if max(shape, default=0) > _MOST_NUMBERS or math.prod(shape) > _MOST_NUMBERS:
        raise ValueError("no shape")
    dtype, size, offset = found.get(1, 0), found.get(5, 0), found.get(4, 0)
    if dtype not in _DTYPES or found.get(3, 0) >= shards or max(size, offset) > 2**62:
        raise ValueError("no variable of these files")
    return max(math.prod(shape) * _SIZES.get(dtype, 1), size)


def _once(message: bytes | memoryview, kinds: Mapping[int, type]) -> dict[int, Any]:
    """Return the fields of a message; each one must occur once, with the right type."""
    found = dict[int, Any]()
    for number, value in _fields(memoryview(message)):
        if number in found or not isinstance(value, kinds.get(number, NoneType)):
            raise ValueError("an unknown field, or a field that occurs twice")
        found[number] = value
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Iterate over the fields of a message: ``(number, value)``."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 2:
            size, at = _varint(message, at)
        if not size and key & 7 != 2 or at + size > len(message):
            raise ValueError("no message")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")
