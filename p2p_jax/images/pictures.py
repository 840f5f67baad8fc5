"""Image files as networks see them, and back (Pillow; no TensorFlow).

Decoding and resizing give the pixels that the data stream gave in training: JPEGs are decoded with the accurate integer
transform, and sizes are changed by an antialiased bicubic filter that rounds once, at the end.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from p2p_jax.errors import InputError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_OPAQUE = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_TRANSPARENT = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".png": {"compress_level": 3},  # a third of the time of Pillow's own choice, for files a tenth larger
    ".webp": {"quality": 95},
}
"""What Pillow is told when it writes a file, by its ending."""


class Picture(NamedTuple):
    """An image file, decoded.

    Attributes:
      pixels: [H, W, 1 or 3] uint8, upright; what is transparent lies on white.
      alpha: [H, W] uint8 opacity, None if the file has none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None


def read(path: Path) -> Picture:
    """Read an image file: turned upright by its EXIF orientation, its transparent parts laid on white.

    Raises:
      InputError: the file is damaged, no image, or has other than 8 bits per channel; names it.
    """
    try:
        with Image.open(path) as file:
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
        return Picture(_with_channel_axis(np.asarray(image)), None)
    alpha = image.getchannel("A")
    white = Image.new(image.mode[:-1], image.size, "white")
    white.paste(image.convert(white.mode), mask=alpha)
    return Picture(_with_channel_axis(np.asarray(white)), np.asarray(alpha))


def _with_channel_axis(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def write(path: Path, pixels: np.ndarray, alpha: np.ndarray | None = None) -> None:
    """Write an image file in the format of its ending, in one step: a kill leaves the old file or the new one.

    Args:
      path: ends in one of ``EXTENSIONS``; its folder is made if missing.
      pixels: [H, W, 1 or 3] uint8.
      alpha: [H, W] uint8 opacity; left out where the format knows none (JPEG, BMP).

    Raises:
      InputError: the file cannot be written; names it.
    """
    image, ending = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), path.suffix.lower()
    if alpha is not None and ending not in (".bmp", ".jpeg", ".jpg"):
        image.putalpha(Image.fromarray(alpha))
    with in_one_step(path) as temporary:
        image.save(temporary, **SAVE_OPTIONS.get(ending, {}))


@contextlib.contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Give a file to write, which takes the place of `path` when it is whole; the folder is made if missing.

    Raises:
      InputError: the file cannot be written; names it.
    """
    make_folder(path)
    temporary = path.with_name(f".{path.name}.part{path.suffix.lower()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: the format has no room for so many pixels
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"{path} cannot be written ({getattr(error, 'strerror', None) or error})") from error


def make_folder(path: Path) -> None:
    """Make the folder that a file is to be written into.

    Raises:
      InputError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {path.parent} is no folder and cannot be made one") from error


def claim(source: Path, target: Path, *, overwrite: bool) -> Path:
    """Check that a file may be written, and make its folder.

    Returns:
      The file to write first, beside the target, which it is to replace when it is whole.

    Raises:
      InputError: the target is the source itself, exists and is not to be replaced, or its folder cannot be made.
    """
    if target.exists():
        if target.samefile(source):
            raise InputError(f"{source} would be replaced by its own translation; choose another `output`")
        if not overwrite:
            raise InputError(f"{target} exists; `overwrite` replaces it")
    make_folder(target)
    return target.with_name(f".{target.stem}.part{target.suffix}")


def resize(pixels: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize an image, bicubic and antialiased as the data stream does.

    Args:
      pixels: [H, W, C] of floats or of whole numbers of at most 16 bits. They are computed with in float32; whole ones
        are rounded once, at the end, and kept in the range of their dtype.
      size: height and width wanted.
      nearest: take the nearest pixel instead, for classes, which cannot be mixed; changes no value.

    Returns:
      [*size, C] of the same dtype.
    """
    if pixels.shape[:2] == size:
        return pixels
    if nearest:
        rows, columns = (
            (2 * np.arange(n) + 1) * have // (2 * n) for n, have in zip(size, pixels.shape[:2], strict=True)
        )
        return pixels[rows[:, None], columns]
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
        for plane in np.moveaxis(pixels, -1, 0)
    ]
    resized = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    if pixels.dtype.kind == "f":
        return resized.astype(pixels.dtype)
    limits = np.iinfo(pixels.dtype)
    return np.clip(np.rint(resized), limits.min, limits.max).astype(pixels.dtype)


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
    luma = pixels.astype(np.float32) @ np.array([[0.2989], [0.587], [0.114]], np.float32)
    return np.rint(luma).astype(np.uint8) if pixels.dtype == np.uint8 else luma
