"""What an image file says of itself, and what it holds."""

from typing import Any, NamedTuple

import numpy as np

from p2p_jax.images import orientation, profiles

Tags = tuple[tuple[int, int, int, Any], ...]
"""``(code, type, count, value)`` of the tags of a TIFF that are kept."""


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
      width: in pixels, of the upright image.
      height: in pixels.
      channels: as ``read`` returns them, 1 where they are indices of a palette.
      dtype: of what ``read`` returns.
      palette: whether pixels are indices of a palette.
      mode: Pillow's ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", ...); "" of 16-bit PNG, of arrays, and of TIFF but for
        "CMYK" and "YCbCr".
      turned: whether EXIF says that the image is to be turned or mirrored, as ``read`` does.
      profile: whether colours are those of a profile other than sRGB.
      unknown: whether the file marks unknown pixels, by a number or a mask.
      opacity: whether the file says how opaque its pixels are.
      form: the name of its format, which its ending may not show: "JPEG".
    """

    width: int
    height: int
    channels: int
    dtype: np.dtype
    palette: bool = False
    mode: str = ""
    turned: bool = False
    profile: bool = False
    unknown: bool = False
    opacity: bool = False
    form: str = ""

    def checked(self) -> "Header":
        """Return it; raises ValueError if there is not one pixel: some formats can say so, and no program means it."""
        if min(self.width, self.height, self.channels) < 1:
            raise ValueError(f"it has {self.width}x{self.height} pixels")
        return self

    def channels_for(self, channels: int) -> int:
        """Return how many channels there are for a side that takes so many; one of opacity does not count there."""
        is_left_out = self.opacity and self.channels in (2, 4) and self.channels != channels
        return self.channels - is_left_out


class Stored(NamedTuple):
    """The content of an image file, upright.

    Attributes:
      pixels: [H, W, C] as they are stored, in the byte order of the machine; single bits are uint8, 0 and 255, and a
        PNG of 4 or 16 grays is one of indices of these. CMYK is RGB.
      palette: [K, 3] uint8, RGB, if `pixels` are indices of it.
      tags: where a TIFF lies on the earth, and its resolution, for ``write``; see ``p2p_jax.images.tiff``.
      profile: the ICC profile of its colours, if there is one.
      nodata: the number that marks unknown values (GDAL's tag 42113).
      valid: [H, W] bool, False where a mask says that nothing is known.
      opacity: [H, W] of the dtype of `pixels`, 0 where nothing is seen; the last channel, where there are 2 or 4.
      premultiplied: colours are already weighted with their opacity.
      dpi: dots an inch along x and y, of pictures but TIFF.
    """

    pixels: np.ndarray
    palette: np.ndarray | None = None
    tags: Tags = ()
    profile: bytes | None = None
    nodata: float | None = None
    valid: np.ndarray | None = None
    opacity: np.ndarray | None = None
    premultiplied: bool = False
    dpi: tuple[float, float] | None = None

    def in_srgb(self) -> "Stored":
        """Return the same with the colours of sRGB: as networks take photographs. Deeper ones stay unchanged."""
        if (profile := profiles.foreign(self.profile)) is None or self.pixels.dtype != np.uint8:
            return self
        if self.palette is not None:
            return self._replace(palette=profiles.to_srgb(self.palette[None], profile)[0], profile=None)
        count = self.pixels.shape[-1]
        colours, rest = np.split(self.pixels, [count - (count in (2, 4))], axis=-1)
        if colours.shape[-1] not in (1, 3):
            return self
        return self._replace(pixels=np.concatenate([profiles.to_srgb(colours, profile), rest], axis=-1), profile=None)

    def columns(self, chosen: slice) -> "Stored":
        """Return some columns of the image, such as the left half."""
        valid, opacity = (None if x is None else x[:, chosen] for x in (self.valid, self.opacity))
        return self._replace(pixels=self.pixels[:, chosen], valid=valid, opacity=opacity)

    def turned(self, number: int) -> "Stored":
        """Return the image turned by an EXIF orientation. The georeference tags of a TIFF are dropped."""
        if number <= 1:
            return self
        valid, opacity = (None if x is None else orientation.turned(x, number) for x in (self.valid, self.opacity))
        dpi = self.dpi[::-1] if self.dpi and number >= 5 else self.dpi
        pixels = orientation.turned(self.pixels, number)
        return self._replace(pixels=pixels, valid=valid, opacity=opacity, dpi=dpi, tags=())


def with_channel_axis(pixels: np.ndarray) -> np.ndarray:
    """Return [H, W, C] of [H, W] or [H, W, C]."""
    return pixels[..., None] if pixels.ndim == 2 else pixels
