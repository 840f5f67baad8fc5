"""Arrays in .npy and .npz files as images."""

import contextlib
import math
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import limits
from p2p_jax.images.stored import Header, Stored, with_channel_axis

_LONGEST_HEAD = 2**16  # bytes; NumPy takes no longer ones
_PIECE = 2**18  # bytes that an archive unpacks at a time
# NumPy has Python parse the head of an array. Before Python 3.11.8 threads that do so at once can disturb each other,
# which is a SystemError (CPython issue 106905).
_one_parses = threading.Lock()


class _Head(NamedTuple):
    shape: tuple[int, ...]
    in_columns: bool
    dtype: np.dtype


def read_header(path: Path, file: IO[bytes]) -> Header:
    """Read the head of the array in a .npy or .npz file."""
    with _opened(path, file) as (_, head):
        height, width, channels = (*head.shape, 1)[:3]
        return Header(width, height, channels, _dtype_read(head))


def read(path: Path, file: IO[bytes]) -> Stored:
    """Read the one array of a .npy or .npz file."""
    with _opened(path, file) as (stream, head):
        height, width, *channels = head.shape
        limits.check(path, width, height, math.prod(channels) * _dtype_read(head).itemsize)
        array = np.empty(head.shape, head.dtype, order="F" if head.in_columns else "C")
        view, found = array.ravel(order="K").view(np.uint8), 0
        while count := stream.readinto(view[found : found + _PIECE]):
            found += count
        if found != array.nbytes:
            raise ValueError(f"{array.nbytes - found} bytes are missing at its end")
        if stream.read(1):  # at its end an archive also looks whether the bytes are those that were written
            raise ValueError("there are more bytes at its end")
    array = array * np.uint8(255) if array.dtype.kind == "b" else array
    pixels = array.astype(_dtype_read(head), "C", copy=False)
    return Stored(with_channel_axis(pixels))


@contextlib.contextmanager
def _opened(path: Path, file: IO[bytes]) -> Iterator[tuple[Any, _Head]]:
    """Open the array in a .npy or .npz file: what gives its bytes, and its head, which is checked."""
    if path.suffix.lower() != ".npz":
        head = _read_head(file)
        missing = file.tell() + math.prod(head.shape) * head.dtype.itemsize - path.stat().st_size
        if missing and head.dtype.kind != "O":  # which is refused below
            fault = "are missing" if missing > 0 else "too many are"
            raise ValueError(f"{abs(missing)} bytes {fault} at its end")
        _check(path, head)
        yield file, head
        return
    with zipfile.ZipFile(file) as archive:
        if len(archive.namelist()) != 1:
            names = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
            raise InputError(f"{path} holds {len(archive.namelist())} arrays ({names}); an image must be one array")
        with archive.open(archive.namelist()[0]) as member:
            head = _read_head(member)
            _check(path, head)
            yield member, head


def _check(path: Path, head: _Head) -> None:
    if head.dtype.kind not in "bfiu":
        raise InputError(f"{path} holds an array of {head.dtype}; an image holds whole numbers, floats or bools")
    if len(head.shape) not in (2, 3) or min(head.shape) < 1:
        raise InputError(f"{path} holds an array of shape {list(head.shape)}; an image is [H, W] or [H, W, C]")


def _dtype_read(head: _Head) -> np.dtype:
    """Return the dtype as ``read`` gives it."""
    return np.dtype(np.uint8) if head.dtype.kind == "b" else head.dtype.newbyteorder("=")


def _read_head(file: IO[bytes]) -> _Head:
    start: Any = _Start(file)
    version = np.lib.format.read_magic(start)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with _one_parses:
        return _Head(*read(start))


class _Start:
    """The first bytes of a file: a head may say that it is of gigabytes, which a few bytes of a .npz can unfold to."""

    def __init__(self, file: IO[bytes]):
        self._file, self._left = file, _LONGEST_HEAD

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise ValueError("its header is too long")
        self._left -= size
        return self._file.read(size)
