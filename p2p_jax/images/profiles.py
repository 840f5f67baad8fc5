"""Colour profiles (ICC): photographs become sRGB, which networks see and every program takes for granted."""

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION


def foreign(profile: bytes | None) -> bytes | None:
    """Return a profile of other colours than sRGB; None if there is none, or none that can be read."""
    return profile if profile and _open(profile) is not None else None


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert [H, W, 1 or 3] uint8 from a ``foreign`` profile to sRGB, unless the profile is of other channels."""
    given, gray = _open(profile), pixels.shape[-1] == 1
    if given is None or given.profile.xcolor_space.strip() != ("GRAY" if gray else "RGB"):
        return pixels
    image = Image.fromarray(pixels[..., 0] if gray else pixels)
    found = ImageCms.profileToProfile(image, given, _srgb(), _INTENT, "RGB", flags=_FLAGS)
    return np.asarray(found)[..., :1] if gray else np.asarray(found)


def from_cmyk(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Convert [H, W, 4] uint8 of printing inks, 0 is none, to sRGB: by their profile, or as simple programs do.

    Raises:
      ValueError: they have other than 8 bits.
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"it has colours in CMYK of {8 * pixels.dtype.itemsize} bits; convert it to RGB")
    image = Image.fromarray(pixels, "CMYK")
    given = _open(profile) if profile else None
    if given is None or given.profile.xcolor_space.strip() != "CMYK":
        return np.asarray(image.convert("RGB"))
    return np.asarray(ImageCms.profileToProfile(image, given, _srgb(), _INTENT, "RGB", flags=_FLAGS))


def from_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """Convert [H, W, 3] uint8 of luma and colour differences, as JPEG has them, to RGB.

    Raises:
      ValueError: they have other than 8 bits.
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"it has colours in YCbCr of {8 * pixels.dtype.itemsize} bits; convert it to RGB")
    return np.asarray(Image.fromarray(pixels, "YCbCr").convert("RGB"))


@functools.cache
def srgb() -> bytes:
    """Return the profile that says sRGB."""
    return ImageCms.ImageCmsProfile(_srgb()).tobytes()


def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")


@functools.lru_cache(maxsize=64)
def _open(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return None if "srgb" in ImageCms.getProfileDescription(found).lower() else found
    except (OSError, ImageCms.PyCMSError):
        return None
