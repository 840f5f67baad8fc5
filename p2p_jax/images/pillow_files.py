"""Image files that Pillow reads and writes, and PNGs of 16 bits, which imagecodecs does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.images import jpeg, limits, orientation, png, profiles
from p2p_jax.images.stored import Header, Stored, with_channel_axis

_STARTS = {b"BM": "BMP", b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP"}
_OPACITY = ("LA", "La", "PA", "RGBA", "RGBa")  # modes


def read_header(path: Path, file: IO[bytes]) -> Header:
    """Read what an image file that Pillow knows says of itself."""
    with _opened(path, file) as image:
        head = _head(file, image)
        width, height = orientation.size(*image.size, head.orientation)
        opacity, is_turned = _has_opacity(image), head.orientation > 1
        if channels := head.deep_channels:
            dtype = np.dtype(np.uint16)
            return Header(width, height, channels, dtype, turned=is_turned, opacity=opacity, form="PNG").checked()
        mode = "P" if head.few_grays else image.mode
        channels = 3 if mode == "CMYK" else len(image.getbands())
        profile = profiles.foreign(image.info.get("icc_profile")) is not None
        return Header(
            width,
            height,
            channels,
            np.dtype(np.uint8),
            palette=mode == "P",
            mode=mode,
            turned=is_turned,
            profile=profile,
            opacity=opacity,
            form=_form(image),
        ).checked()


def read(path: Path, file: IO[bytes]) -> Stored:
    """Read an image file that Pillow knows, and PNGs of 16 bits.

    Raises:
      InputError: it is a moving picture, or too large.
      ValueError: it is damaged, or rows are missing.
    """
    with _opened(path, file) as image:
        head = _head(file, image)
        size = *image.size, head.deep_channels * 2 or len(image.getbands())
        limits.check(path, *size)
        if image.format == "PNG":
            png.check(file)
        with limits.turn(*size):
            stored = _read(file, image, head)
            _check_rows(file, image, head, stored.pixels)
            return stored.turned(head.orientation)


def _check_rows(file: IO[bytes], image: Image.Image, head: png.Head, pixels: np.ndarray) -> None:
    """Refuse an image without its last rows; Pillow would fill them with zeros or gray."""
    if image.format == "PNG" and not head.deep_channels and (head.interlaced or not pixels[-1].any()):
        png.check_rows(file, *image.size)
    elif _form(image) == "JPEG" and (image.mode == "CMYK" or "progressive" in image.info or jpeg.may_lack_rows(pixels)):
        jpeg.check(file, image)


def _read(file: IO[bytes], image: Image.Image, head: png.Head) -> Stored:
    if channels := head.deep_channels:
        png.check_length(file, image.width * channels * 2, image.height)
        file.seek(0)
        pixels = with_channel_axis(_imagecodecs().png_decode(file.read()))
        opacity = pixels[..., -1] if image.mode in _OPACITY or pixels.shape[-1] > channels else None
        return Stored(np.ascontiguousarray(pixels[..., :channels]), opacity=opacity)
    profile, dpi = image.info.get("icc_profile"), image.info.get("dpi")
    image.load()
    if head.few_grays:
        ramp = np.linspace(0, 255, head.few_grays).astype(np.uint8)
        pixels = np.asarray(image)[..., None] // ramp[1]
        return Stored(pixels, np.repeat(ramp[:, None], 3, axis=1), opacity=_opacity(image, pixels), dpi=dpi)
    if image.mode == "1":
        pixels = np.asarray(image, np.uint8)[..., None]
        return Stored(pixels * np.uint8(255), opacity=_opacity(image, pixels), dpi=dpi)
    pixels = with_channel_axis(np.asarray(image))
    if image.mode == "CMYK":
        return Stored(profiles.from_cmyk(pixels, profile), profile=profile and profiles.srgb(), dpi=dpi)
    stored = Stored(pixels, profile=profile, opacity=_opacity(image, pixels), dpi=dpi)
    if image.mode != "P":
        return stored
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    if pixels.max() >= len(palette):
        raise ValueError(f"it has an index {pixels.max()}, but a palette of {len(palette)} colours")
    return stored._replace(palette=palette)


def _opened(path: Path, file: IO[bytes]) -> Image.Image:
    """Open an image by its first bytes, as Pillow does, but for its limit of size: ours is checked later.

    Raises:
      InputError: it is a moving picture, or needs another library.
      ValueError: it is damaged.
    """
    start = file.read(12)
    file.seek(0)
    kind = next((kind for first, kind in _STARTS.items() if start.startswith(first)), "")
    if start[4:8] == b"ftyp":
        kind = _registered_heif(path, start[8:12])
    Image.init()
    if kind not in Image.OPEN:
        raise ValueError("not a known image format")
    open_as = Image.OPEN[kind][0]
    try:
        image = open_as(file, path.name)
    except (ValueError, SyntaxError):
        if kind != "PNG":
            raise
        plain, profile = png.without_extras(file)
        image = open_as(plain, path.name)
        image.info |= {"icc_profile": profile} if profile else {}
    _check_single(path, image)
    if image.format in ("JPEG", "MPO"):
        _check_length(file, image)
    return image


def _registered_heif(path: Path, brand: bytes) -> str:
    """Return the name of what reads a file of a phone, HEIC or AVIF."""
    if brand in (b"avif", b"avis"):
        from PIL import features

        if not features.check("avif"):
            raise InputError(f"{path}: AVIF needs a newer Pillow: pip install -U 'pillow>=11.3'")
        return "AVIF"
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{path}: HEIC needs pillow-heif: pip install 'p2p_jax[images]'") from error
    pillow_heif.register_heif_opener()
    return "HEIF"


def _form(image: Image.Image) -> str:
    return {"MPO": "JPEG", "DIB": "BMP"}.get(image.format or "", image.format or "")


def _head(file: IO[bytes], image: Image.Image) -> png.Head:
    """Return what Pillow does not report for a PNG; for other files the orientation."""
    if image.format == "PNG":
        return png.read_head(file)
    return png.Head(8, -1, orientation.of_image(image))


def _has_opacity(image: Image.Image) -> bool:
    return image.mode in _OPACITY or "transparency" in image.info


def _opacity(image: Image.Image, pixels: np.ndarray) -> np.ndarray | None:
    """Return [H, W] uint8 of an image that says how opaque it is: in a channel, a palette, or by one colour."""
    if image.mode in _OPACITY:
        return pixels[..., -1]
    key = image.info.get("transparency")
    if key is None:
        return None
    if isinstance(key, bytes):  # of the first colours of a palette
        return np.frombuffer(key.ljust(256, b"\xff"), np.uint8)[pixels[..., 0]]
    return np.where((pixels == np.array(key)).all(-1), np.uint8(0), np.uint8(255))


def _check_single(path: Path, image: Image.Image) -> None:
    """Refuse animations and damaged files; Pillow would return a part of them."""
    if image.format in ("PNG", "WEBP", "AVIF") and (count := getattr(image, "n_frames", 1)) > 1:
        raise InputError(f"{path} is an animation of {count} frames; save each as a separate file")
    if image.format == "BMP" and (missing := _bytes_missing(path)) > 0:
        raise ValueError(f"{missing} bytes are missing at its end")


def _check_length(file: IO[bytes], image: Image.Image) -> None:
    """Refuse a JPEG of fewer bits than it has blocks of 8x8 pixels: the others would be gray, and take as much memory.

    Each takes one bit at least; its decoder does not mind.
    """
    back = file.tell()
    length = file.seek(0, os.SEEK_END)
    file.seek(back)
    if length * 8 < image.width * image.height // 64:
        raise ValueError(f"its {length} bytes cannot hold {image.width}x{image.height} pixels")


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
