"""What an image file says of itself, and what it holds."""

from typing import NamedTuple

import numpy as np

from p2p_jax.images import profiles, tiff


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
      width: in pixels.
      height: in pixels.
      channels: as they are stored, 1 where they are indices of a palette.
      dtype: of what ``read`` returns.
      palette: whether pixels are indices of a palette.
      mode: Pillow's ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", ...); "" of 16-bit PNG, of arrays, and of TIFF but for
        "CMYK".
      upright: whether no EXIF orientation says that the image is to be turned or mirrored.
      profile: whether colours are those of a profile other than sRGB.
      unknown: whether the file says of which pixels nothing is known, by a number or a mask.
    """

    width: int
    height: int
    channels: int
    dtype: np.dtype
    palette: bool = False
    mode: str = ""
    upright: bool = True
    profile: bool = False
    unknown: bool = False


class Stored(NamedTuple):
    """The content of an image file.

    Attributes:
      pixels: [H, W, C] as they are stored, in the byte order of the machine; single bits are uint8, 0 and 255, and a
        PNG of 4 or 16 grays is one of indices of these.
      palette: [K, 3] uint8, RGB, if `pixels` are indices of it.
      tags: where a TIFF lies on the earth, and its resolution, for ``write``; see ``p2p_jax.images.tiff``.
      profile: the ICC profile of its colours, if there is one.
      nodata: the number that stands for unknown values (GDAL's tag 42113).
      valid: [H, W] bool, False where a mask says that nothing is known.
    """

    pixels: np.ndarray
    palette: np.ndarray | None = None
    tags: tiff.Tags = ()
    profile: bytes | None = None
    nodata: float | None = None
    valid: np.ndarray | None = None

    def in_srgb(self) -> "Stored":
        """Return the same with the colours of sRGB: what photographs are for networks. Deeper ones are left alone."""
        if (profile := profiles.foreign(self.profile)) is None or self.pixels.dtype != np.uint8:
            return self
        if self.palette is not None:
            return self._replace(palette=profiles.to_srgb(self.palette[None], profile)[0], profile=None)
        if self.pixels.shape[-1] not in (1, 3):
            return self
        return self._replace(pixels=profiles.to_srgb(self.pixels, profile), profile=None)


def with_channel_axis(pixels: np.ndarray) -> np.ndarray:
    """Return [H, W, C] of [H, W] or [H, W, C]."""
    return pixels[..., None] if pixels.ndim == 2 else pixels
