"""Image files that Pillow reads and writes, and PNGs of 16 bits, which imagecodecs does."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image

from p2p_jax.errors import InputError
from p2p_jax.images import png, profiles
from p2p_jax.images.stored import Header, Stored, with_channel_axis


def read_header(path: Path, file: IO[bytes]) -> Header:
    """Read what an image file that Pillow knows says of itself."""
    with Image.open(file) as image:
        # PNG's own getexif decodes the image first, to look behind it.
        exif = image.getexif() if image.format != "PNG" or png.has_exif(file) else {}
        upright = exif.get(ExifTags.Base.Orientation, 1) <= 1
        check_single(path, image)
        profile = profiles.foreign(image.info.get("icc_profile")) is not None
        if channels := png.deep_channels(image):
            return Header(*image.size, channels, np.dtype(np.uint16), upright=upright)
        mode = "P" if png.few_grays(image) else image.mode
        return Header(*image.size, len(image.getbands()), np.dtype(np.uint8), mode == "P", mode, upright, profile)


def read(path: Path, file: IO[bytes]) -> Stored:
    """Read an image file that Pillow knows, and PNGs of 16 bits."""
    with Image.open(file) as image:
        check_single(path, image)
        profile = image.info.get("icc_profile")
        if channels := png.deep_channels(image):
            file.seek(0)
            pixels = with_channel_axis(_imagecodecs().png_decode(file.read()))
            return Stored(np.ascontiguousarray(pixels[..., :channels]))  # it makes opacity of a transparent colour
        if grays := png.few_grays(image):
            ramp = np.linspace(0, 255, grays).astype(np.uint8)
            return Stored(np.asarray(image)[..., None] // ramp[1], np.repeat(ramp[:, None], 3, axis=1))
        image.load()
        if image.mode == "1":
            return Stored(np.asarray(image, np.uint8)[..., None] * np.uint8(255))
        pixels = with_channel_axis(np.asarray(image))
        if image.mode != "P":
            return Stored(pixels, profile=profile)
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    if pixels.max() >= len(palette):
        raise ValueError(f"it has an index {pixels.max()}, but a palette of {len(palette)} colours")
    return Stored(pixels, palette, profile=profile)


def check_single(path: Path, image: Image.Image) -> None:
    """Refuse moving pictures and damaged files, of which Pillow would give a part."""
    if image.format in ("PNG", "WEBP") and (count := getattr(image, "n_frames", 1)) > 1:
        raise InputError(f"{path} is a moving picture of {count} frames; save each as a file of its own")
    if image.format == "BMP" and (missing := _bytes_missing(path)) > 0:
        raise ValueError(f"{missing} bytes are missing at its end")


def _bytes_missing(path: Path) -> int:
    """Return how many bytes a BMP lacks by its own head; it says its size, and plain pixels have another."""
    with path.open("rb") as file:
        head = file.read(54)
    size, offset, width, height = (int.from_bytes(head[i : i + 4], "little", signed=i > 14) for i in (2, 10, 18, 22))
    bits, compression = int.from_bytes(head[28:30], "little"), int.from_bytes(head[30:34], "little")
    plain = offset + (width * bits + 31) // 32 * 4 * abs(height) if compression in (0, 3) else 0
    return max(size, plain) - path.stat().st_size


def write(path: Path, stored: Stored, options: Mapping[str, Any]) -> None:
    """Write an image file, in the format of its ending; see ``formats.write``."""
    pixels = stored.pixels[..., 0] if stored.pixels.shape[2] == 1 else stored.pixels
    if pixels.dtype == np.uint16:
        path.write_bytes(_imagecodecs().png_encode(pixels, 3))
        return
    image = Image.fromarray(pixels)
    if stored.palette is not None:
        image.putpalette(np.ascontiguousarray(stored.palette).tobytes())
    profile: dict[str, Any] = {"icc_profile": stored.profile} if stored.profile else {}
    image.save(path, **options, **profile)


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise InputError("PNG of 16 bits needs imagecodecs: pip install 'p2p_jax[images]'") from error
    return imagecodecs
