"""How large an image may be. A small file can ask for more memory than there is (a decompression bomb)."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from p2p_jax.errors import InputError

MAX_PIXELS = 89_478_485
"""Pillow's limit: 9,459 x 9,459."""
_BYTES_OF_A_PIXEL = 4
_OPTION = "config.data.max_pixels"
_allowed, _option = MAX_PIXELS, _OPTION
_AT_ONCE = 120_000_000  # pixels that are decoded at the same time, in all threads
_in_decoders, _left = 0, threading.Condition()


def allow(pixels: int, option: str = _OPTION) -> None:
    """Set how many pixels an image may have, for all that this process reads from now on.

    Args:
      pixels: of one image, of up to 4 bytes each.
      option: that sets it, for messages.
    """
    global _allowed, _option
    _allowed, _option = pixels, option
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels  # some of Pillow's readers ask for it as well


def check(path: Path, width: int, height: int, bytes_of_a_pixel: int) -> None:
    """Refuse an image that is too large, before it is decoded.

    Args:
      path: of its file.
      width: in pixels.
      height: in pixels.
      bytes_of_a_pixel: of all channels together; more than 4 count as more pixels.

    Raises:
      InputError: it has no pixel, or more than are allowed; names the file and the option.
    """
    if min(width, height) < 1:
        raise InputError(f"{path} has {width}x{height} pixels, so no image; replace or remove it")
    share = max(bytes_of_a_pixel / _BYTES_OF_A_PIXEL, 1.0)
    if width * height * share <= _allowed:
        return
    size = f"{width}x{height} pixels" + (f" of {bytes_of_a_pixel} bytes" if share > 1 else "")
    raise InputError(
        f"{path} is {size}, {width * height * bytes_of_a_pixel / 1e9:.3g} GB in memory; {_option}={_allowed} allows "
        f"{_allowed * _BYTES_OF_A_PIXEL / 1e9:.3g} GB. If the image should be that large, raise the limit: "
        f"{_option}={int(-(-width * height * share // 1))}"
    )


@contextlib.contextmanager
def turn(width: int, height: int, bytes_of_a_pixel: int) -> Iterator[None]:
    """Wait until there is room to decode another image: threads read many at once, of any size.

    One is always let through, however large it is.

    Args:
      width: in pixels.
      height: in pixels.
      bytes_of_a_pixel: of all channels together.
    """
    global _in_decoders
    share = int(width * height * max(bytes_of_a_pixel / _BYTES_OF_A_PIXEL, 1.0))
    with _left:
        _left.wait_for(lambda: not _in_decoders or _in_decoders + share <= _AT_ONCE)
        _in_decoders += share
    try:
        yield
    finally:
        with _left:
            _in_decoders -= share
            _left.notify_all()
