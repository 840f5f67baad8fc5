"""Arrays in .npy and .npz files as images."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import limits
from p2p_jax.images.stored import Header, Stored, with_channel_axis

_LONGEST_HEAD = 2**16  # bytes; NumPy takes no longer ones


def read_header(path: Path, file: IO[bytes]) -> Header:
    """Read the head of the array in a .npy or .npz file."""
    shape, dtype = _of_array(path, file)
    height, width, channels = (*shape, 1)[:3]
    return Header(width, height, channels, dtype)


def _of_array(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype, as ``read`` gives it, of the array in a .npy or .npz file; it reads only the header."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(file) as archive:
            if len(archive.namelist()) != 1:
                names = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
                raise InputError(f"{path} holds {len(archive.namelist())} arrays ({names}); an image must be one array")
            with archive.open(archive.namelist()[0]) as member:
                shape, dtype = _npy_head(member)
    else:
        shape, dtype = _npy_head(file)
        missing = file.tell() + math.prod(shape) * dtype.itemsize - path.stat().st_size
        if missing and dtype.kind != "O":  # which is refused below
            fault = "are missing" if missing > 0 else "too many are"
            raise ValueError(f"{abs(missing)} bytes {fault} at its end")
    if dtype.kind not in "bfiu":
        raise InputError(f"{path} holds an array of {dtype}; an image holds whole numbers, floats or bools")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"{path} holds an array of shape {list(shape)}; an image is [H, W] or [H, W, C]")
    return shape, np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _npy_head(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    start: Any = _Start(file)
    version = np.lib.format.read_magic(start)
    read_head: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_head(start)
    return shape, dtype


class _Start:
    """The first bytes of a file: a head may say that it is of gigabytes, which a few bytes of a .npz can unfold to."""

    def __init__(self, file: IO[bytes]):
        self._file, self._left = file, _LONGEST_HEAD

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise ValueError("its header is too long")
        self._left -= size
        return self._file.read(size)


def read(path: Path, file: IO[bytes]) -> Stored:
    """Read the one array of a .npy or .npz file."""
    (height, width, *channels), dtype = _of_array(path, file)
    limits.check(path, width, height, math.prod(channels) * dtype.itemsize)
    file.seek(0)
    loaded = np.load(file, allow_pickle=False)
    array = loaded[loaded.files[0]] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    pixels = array * np.uint8(255) if array.dtype.kind == "b" else array.astype(dtype, "C", copy=False)
    return Stored(with_channel_axis(pixels))
