"""What Pillow does not tell of a PNG, or not in time."""

from typing import IO

from PIL import Image
from PIL.PngImagePlugin import PngImageFile


def deep_channels(image: Image.Image) -> int:
    """Return how many channels a PNG of 16 bits has, of which Pillow gives 8 where there is colour; else 0."""
    raw_mode = str(image.tile[0][3]) if isinstance(image, PngImageFile) else ""
    return {"I;16B": 1, "LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}.get(raw_mode, 0)


def few_grays(image: Image.Image) -> int:
    """Return how many grays a PNG of 2 or 4 bits has, whose numbers Pillow stretches to 255; else 0."""
    raw_mode = str(image.tile[0][3]) if isinstance(image, PngImageFile) else ""
    return {"L;2": 4, "L;4": 16}.get(raw_mode, 0)


def has_exif(file: IO[bytes]) -> bool:
    """Tell whether a PNG has an eXIf chunk or one of text, before or after the pixels, by a walk along its chunks."""
    back, found = file.tell(), False
    file.seek(8)
    while not found and len(head := file.read(8)) == 8:
        found = head[4:] in (b"eXIf", b"zTXt", b"tEXt", b"iTXt")  # ImageMagick keeps EXIF in text
        file.seek(int.from_bytes(head[:4]) + 4, 1)
    file.seek(back)
    return found
