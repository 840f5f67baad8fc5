"""Image files as networks see them, and back (Pillow; no TensorFlow).

JPEGs are decoded with the accurate integer transform, as the data stream decodes them.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from p2p_jax.errors import InputError
from p2p_jax.images import formats, pillow_files, profiles, writing
from p2p_jax.images.stored import with_channel_axis

_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)  # ITU-R 601, to four digits as TensorFlow has them
_OPAQUE = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_TRANSPARENT = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}


class Picture(NamedTuple):
    """An image file, decoded.

    Attributes:
      pixels: [H, W, 1 or 3] uint8 in sRGB, upright; what is transparent lies on white.
      alpha: [H, W] uint8 opacity, None if the file has none.
      shown: what Pillow is told for a file that is to be shown as this one: the profile sRGB if it has one, and dpi.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    shown: Mapping[str, Any] = MappingProxyType({})


def read(path: Path, *, in_srgb: bool = True) -> Picture:
    """Read an image file: turned upright by its EXIF orientation, in sRGB, its transparent parts laid on white.

    Args:
      path: of the file.
      in_srgb: whether colours of another profile become sRGB; False where they are no colours.

    Raises:
      InputError: the file is damaged, no image, or has other than 8 bits per channel; names it.
    """
    try:
        with Image.open(path) as file:
            pillow_files.check_single(path, file)
            profile = profiles.foreign(file.info.get("icc_profile")) if in_srgb else None
            shown = _shown(file)
            image: Image.Image = ImageOps.exif_transpose(file)
            transparent = image.mode in _TRANSPARENT or "transparency" in image.info
            mode = _TRANSPARENT.get(image.mode) or _OPAQUE.get(image.mode)
            if mode is None:
                raise InputError(f"{path} has mode {image.mode}; convert it to grayscale or RGB with 8 bits")
            image = image.convert("RGBA" if transparent and mode in ("L", "RGB") else mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as an image ({error})") from error
    if not transparent:
        return Picture(_in_srgb(image, profile), None, shown)
    alpha = image.getchannel("A")
    white = Image.new(image.mode[:-1], image.size, "white")
    white.paste(image.convert(white.mode), mask=alpha)
    return Picture(_in_srgb(white, profile), np.asarray(alpha), shown)


def _in_srgb(image: Image.Image, profile: bytes | None) -> np.ndarray:
    pixels = with_channel_axis(np.asarray(image))
    return pixels if profile is None else profiles.to_srgb(pixels, profile)


def _shown(file: Image.Image) -> dict[str, Any]:
    """Return what of a file is kept in its translation: that it has a profile, and its dots an inch."""
    profile = {"icc_profile": profiles.srgb()} if file.info.get("icc_profile") else {}
    return profile | ({"dpi": file.info["dpi"]} if "dpi" in file.info else {})


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
        raise InputError(f"images have {given} channels, but the network takes {channels}")
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    # In TensorFlow's order: another one rounds 150 of the 16.8 million colours to the next gray.
    luma = (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2])[..., None]
    return np.rint(luma).astype(np.uint8) if pixels.dtype == np.uint8 else luma
