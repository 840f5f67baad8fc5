"""A zip file whose members are read by number, from any thread.

Python's own ``zipfile`` makes an object of every member, which of five million takes a minute and gigabytes, and its
handles are not to be shared by threads. Here the directory becomes arrays, and members are read at their places.
"""

import bz2
import lzma
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from p2p_jax.data.containers import zip_directory
from p2p_jax.errors import InputError

_END64, _LOCATOR64, _LOCAL = b"PK\6\6", b"PK\6\7", b"PK\3\4"
_LOCAL_SIZE = 30  # bytes, without names
_SLACK = 512  # bytes beyond what the directory says of a member's own head
_ENCRYPTED = 1
_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES"}
_BOMB_SIZE, _BOMB_RATIO = 2**28, 100


class Archive:
    """The files in a zip file, in the order of its directory.

    Attributes:
      path: of the zip file.
      names: of its members but for folders, with "/" between folders.
      sizes: in bytes, unpacked, as the directory says; int64.
      crcs: the checksums of what is unpacked; uint32.

    Raises:
      InputError: it is not a zip file, is damaged, or of an unsupported kind; names it.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._open()
            directory, shift = self._directory()
            self._parse(directory, shift)
        except (OSError, ValueError, struct.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{path} cannot be read as a zip file ({reason}); make or download it again") from error

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, descriptor)
        self._length = os.fstat(descriptor).st_size
        if hasattr(os, "pread"):  # no position that threads or forked processes would share
            self._read_at: Callable[[int, int], bytes] = lambda count, at: os.pread(descriptor, count, at)
            return
        lock = threading.Lock()

        def read_at(count: int, at: int) -> bytes:
            with lock:
                os.lseek(descriptor, at, os.SEEK_SET)
                return os.read(descriptor, count)

        self._read_at = read_at

    def _bytes(self, count: int, at: int) -> bytes:
        """Read bytes that must be there; one call of the system gives at most 2 GiB."""
        parts = []
        while count > 0:
            part = self._read_at(min(count, 2**30), at)
            if not part:
                raise ValueError("it ends too early")
            parts.append(part)
            count, at = count - len(part), at + len(part)
        return b"".join(parts)

    def _directory(self) -> tuple[bytes, int]:
        """Return the directory, and by how many bytes all places in it are too low."""
        tail_at = max(self._length - 22 - 2**16, 0)
        tail = self._bytes(self._length - tail_at, tail_at)
        found = zip_directory.find_end(tail)
        if found < 0:
            raise ValueError("there is no directory at its end: it is not a zip file, or is cut short")
        disk, first_disk, _, _, size, offset = struct.unpack_from("<4H2L", tail, found + 4)
        end = tail_at + found
        if end >= 20 and self._bytes(4, end - 20) == _LOCATOR64:
            at = struct.unpack("<Q", self._bytes(8, end - 12))[0]
            head = self._bytes(56, at) if at + 56 <= self._length else b""
            if head[:4] != _END64:
                raise ValueError("its directory is not where it says")
            disk, first_disk = struct.unpack_from("<2L", head, 16)
            size, offset = struct.unpack_from("<2Q", head, 40)
            end = at
        if disk or first_disk:
            raise ValueError("it is one of several parts; put them together first: zip -s 0 parts.zip --out whole.zip")
        if size > end:
            raise ValueError("its directory is not where it says")
        return self._bytes(size, end - size), end - size - offset

    def _parse(self, directory: bytes, shift: int) -> None:
        self.names, found = zip_directory.parse(directory)
        if (total := int(found["packed"].sum())) > self._length:
            raise InputError(
                f"{self.path} is refused: its members are {total:,} bytes packed, more than the {self._length:,} of "
                "the file, so they overlap; make it again"
            )
        self._flags, self._methods, self.crcs = (found[name].astype(np.uint32) for name in ("flags", "method", "crc"))
        self._packed, self.sizes, self._offsets = found["packed"], found["size"], found["offset"] + shift

    def label(self, number: int) -> str:
        """Return what a member is called in messages."""
        return f"{self.path}!{self.names[number]}"

    def refuse(self, numbers: np.ndarray) -> None:
        """Refuse members that cannot be read, or would fill the memory.

        Raises:
          InputError: names the first one.
        """
        encrypted = (self._flags[numbers] & _ENCRYPTED).astype(bool)
        unknown = ~np.isin(self._methods[numbers], list(_UNPACK))
        sizes, packed = self.sizes[numbers], self._packed[numbers]
        bombs = (sizes > _BOMB_SIZE) & (sizes > _BOMB_RATIO * packed)
        for bad in np.flatnonzero(encrypted | unknown | bombs)[:1]:
            number = int(numbers[bad])
            method = int(self._methods[number])
            if encrypted[bad]:
                fault = "is encrypted; unpack it with its password and pack it without"
            elif unknown[bad]:
                how = _METHODS.get(method, f"method {method}")
                fault = f"is packed by {how}, which is not supported; pack it with Deflate, as the program zip does"
            else:
                fault = f"would become {sizes[bad]:,} bytes from {packed[bad]:,}, which no image does; remove it"
            raise InputError(f"{self.label(number)} {fault}")

    def read(self, number: int) -> bytes:
        """Return the contents of a member; threads call it.

        Raises:
          InputError: it is damaged; names it.
        """
        try:
            return self._unpacked(number)
        except (OSError, ValueError, EOFError, struct.error, zlib.error, lzma.LZMAError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{self.label(number)} cannot be unpacked ({reason}); make the zip file again") from error

    def _unpacked(self, number: int) -> bytes:
        at, packed, size = int(self._offsets[number]), int(self._packed[number]), int(self.sizes[number])
        if not 0 <= at <= self._length - _LOCAL_SIZE:
            raise ValueError("it does not lie where the directory says")
        head = self._bytes(min(_LOCAL_SIZE + _SLACK + packed, self._length - at), at)
        if head[:4] != _LOCAL:
            raise ValueError("it does not lie where the directory says")
        start = _LOCAL_SIZE + sum(struct.unpack_from("<2H", head, 26))
        data = head[start : start + packed]
        if len(data) < packed:
            data = self._bytes(packed, at + start)
        contents = _UNPACK[int(self._methods[number])](data, size)
        if len(contents) != size:
            raise ValueError(f"it does not have the {size:,} bytes that the directory says")
        if zlib.crc32(contents) != int(self.crcs[number]):
            raise ValueError("its checksum is wrong")
        return contents


def _stored(data: bytes, size: int) -> bytes:
    return data


def _inflated(data: bytes, size: int) -> bytes:
    # One byte more than is said would be seen, and no more is unpacked.
    return zlib.decompressobj(-15).decompress(data, size + 1)


def _bunzipped(data: bytes, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, size + 1)


def _of_lzma(data: bytes, size: int) -> bytes:
    length = struct.unpack_from("<H", data, 2)[0]
    # Its five bytes of properties are in the header of such a file too, before a length: unknown here.
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(
        data[4 : 4 + length] + b"\xff" * 8 + data[4 + length :], size + 1
    )


_UNPACK: dict[int, Callable[[bytes, int], bytes]] = {0: _stored, 8: _inflated, 12: _bunzipped, 14: _of_lzma}
