"""Images out of a container, decoded and looked at as files are: by the readers of ``p2p_jax.images.formats``."""

import io
import os
import re
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.stored import Header, Stored, with_channel_axis


class Encoded(NamedTuple):
    """An image as a container holds it.

    Attributes:
      name: for messages. Where it ends as names of image files do, it must be such a file, as on disk.
      contents: of an image file; or the numbers themselves, [H, W] or [H, W, C].
    """

    name: str
    contents: bytes | np.ndarray


def read_header(image: Encoded) -> Header:
    """Return what an image says of itself.

    Raises:
      InputError: it cannot be read; names it.
    """
    if isinstance(image.contents, bytes):
        return formats.read_header(as_file(image))
    height, width, channels = _checked(image).shape
    return Header(width, height, channels, np.dtype(image.contents.dtype.newbyteorder("=")))


def read(image: Encoded) -> Stored:
    """Decode an image.

    Raises:
      InputError: it is damaged; names it.
    """
    if isinstance(image.contents, bytes):
        return formats.read(as_file(image))
    return Stored(np.ascontiguousarray(_checked(image), image.contents.dtype.newbyteorder("=")))


def is_image(contents: Any) -> bool:
    """Return whether bytes begin as image files do."""
    return isinstance(contents, bytes) and _ending_of(contents) is not None


class _File(io.BytesIO):
    """A file in memory that answers what readers of image files ask of a path."""

    def __init__(self, name: str, suffix: str, contents: bytes):
        super().__init__(contents)
        self.name, self.suffix, self._contents = name, suffix, contents

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self._contents)

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> Any:
        return _Size(len(self._contents))


class _Size(NamedTuple):
    st_size: int


def as_file(image: Encoded) -> Any:
    """Return what functions of ``formats`` take in place of a path, a file in memory: the one place where they meet.

    Raises:
      InputError: it is not an image file; names it.
    """
    suffix = os.path.splitext(image.name)[1].lower()  # pathlib takes longer than the rest of this
    if not isinstance(image.contents, bytes):
        return _File(image.name, suffix, b"")
    if suffix not in formats.EXTENSIONS:
        found = _ending_of(image.contents)
        if found is None:
            told = f"it begins with {image.contents[:8]!r}" if image.contents else "it is empty"
            raise InputError(f"{image.name} cannot be read as an image ({told}); replace or remove it")
        suffix = found
    return _File(image.name, suffix, image.contents)


def _ending_of(contents: bytes) -> str | None:
    """Return the ending that files of such contents have."""
    start = contents[:12]
    return next((known.endings[-1] for known in formats.FORMATS if re.match(known.start, start, re.DOTALL)), None)


def _checked(image: Encoded) -> np.ndarray:
    array = image.contents
    assert isinstance(array, np.ndarray)
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or not array.size:
        raise InputError(
            f"{image.name} holds an array of {array.dtype} {list(array.shape)}; an image holds numbers, [H, W] or "
            "[H, W, C]"
        )
    return with_channel_axis(array * np.uint8(255) if array.dtype.kind == "b" else array)
