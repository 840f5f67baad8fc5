"""Image files as networks see them, and back (Pillow; no TensorFlow).

JPEGs are decoded with the accurate integer transform, as the data stream decodes them.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.images import formats, opacity, profiles
from p2p_jax.images.stored import Stored
from p2p_jax.storage import writing

_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)  # ITU-R 601, to four digits as TensorFlow has them


class Picture(NamedTuple):
    """An image file, decoded.

    Attributes:
      pixels: [H, W, 1 or 3] uint8 in sRGB, upright; what is transparent lies on white.
      alpha: [H, W] uint8 opacity, None if the file has none.
      shown: options for Pillow to write a file that looks like this one: the profile sRGB if it has one, and dpi.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    shown: Mapping[str, Any] = MappingProxyType({})


def read(path: Path) -> Picture:
    """Read an image file as it is to be looked at: upright, in sRGB, its transparent parts laid on white.

    Args:
      path: ends in one of ``formats.EXTENSIONS``.

    Raises:
      InputError: the file is damaged, no image, or has other than 8 bits per channel; names it.
    """
    stored = formats.read(path)
    if stored.pixels.dtype != np.uint8 or stored.pixels.shape[-1] > 4:
        channels, dtype = stored.pixels.shape[-1], stored.pixels.dtype
        raise InputError(f"{path} has {channels} channels of {dtype}; convert it to grayscale or RGB with 8 bits")
    seen = opacity.without(stored.in_srgb(), 3, opacity.WHITE, path)
    pixels = seen.pixels if seen.palette is None else seen.palette[seen.pixels[..., 0]]
    return Picture(pixels, stored.opacity, shown(stored))


def shown(stored: Stored) -> dict[str, Any]:
    """Return what of a file is kept in its translation: that it has a profile, and its dots an inch."""
    profile = {"icc_profile": profiles.srgb()} if stored.profile else {}
    return profile | ({"dpi": stored.dpi} if stored.dpi else {})


def write(
    path: Path, pixels: np.ndarray, alpha: np.ndarray | None = None, shown: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write an image file in the format of its ending, in one step: a kill leaves the old file or the new one.

    Args:
      path: ends in one of ``formats.OF_PICTURES``; its folder is made if missing.
      pixels: [H, W, 1 or 3] uint8.
      alpha: [H, W] uint8 opacity; left out where the format knows none (JPEG, BMP).
      shown: see ``Picture``; left out where the format knows no such thing.

    Raises:
      InputError: the file cannot be written; names it.
    """
    image, ending = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), path.suffix.lower()
    if alpha is not None and ending not in (".bmp", ".jpeg", ".jpg"):
        image.putalpha(Image.fromarray(alpha))
    with writing.in_one_step(path) as temporary:
        image.save(temporary, **formats.of_ending(ending).save_options, **shown)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Convert [..., 1 or 3] to `channels`: gray is repeated, colour becomes ITU-R 601 luma, rounded if uint8.

    Raises:
      InputError: another number of channels is there or asked for.
    """
    given = pixels.shape[-1]
    if given == channels:
        return pixels
    if (given, channels) == (1, 3):
        return np.repeat(pixels, 3, axis=-1)
    if (given, channels) != (3, 1):
        raise InputError(f"images have {given} channels, but the network takes {channels}; convert them")
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    # In TensorFlow's order: another one rounds 150 of the 16.8 million colours to the next gray.
    luma = (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2])[..., None]
    return np.rint(luma).astype(np.uint8) if pixels.dtype == np.uint8 else luma
