"""EXIF orientation: how a camera was held. Images are turned as they are read, as every viewer shows them."""

import re

import numpy as np
from PIL import ExifTags, Image


def of_exif(contents: bytes) -> int:
    """Return the orientation that a block of EXIF says, 1 to 8; 0 if it says none, or cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(contents)
        return valid(exif.get(ExifTags.Base.Orientation, 0))
    except Exception:  # Pillow raises many kinds of errors for damaged files
        return 0


def of_text(text: bytes) -> int:
    """Return the orientation in a text of XMP; 1 if there is none."""
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", text)
    return int(found[1]) if found else 1


def of_image(image: Image.Image) -> int:
    """Return the orientation of an image that Pillow has opened, not of a PNG; see ``png.read_head``."""
    try:
        return valid(image.getexif().get(ExifTags.Base.Orientation, 1)) or 1
    except Exception:  # as above
        return 1


def valid(number: object) -> int:
    """Return a stored orientation, 0 if it is none."""
    return number if isinstance(number, int) and 1 <= number <= 8 else 0


def size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return width and height of an image after it was turned."""
    return (height, width) if orientation >= 5 else (width, height)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn or mirror an image [H, W, ...] upright."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    pixels = pixels[::-1] if upside_down else pixels
    pixels = pixels[:, ::-1] if mirrored else pixels
    return np.ascontiguousarray(pixels)
