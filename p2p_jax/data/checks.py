"""What is wrong with image files, given what they are meant to be. No TensorFlow."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import ExifTags, Image

from p2p_jax.config.options import crop_shape
from p2p_jax.data import files
from p2p_jax.data.layouts import Layout
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.domains import Domain
from p2p_jax.images.formats import Header


class Examined(NamedTuple):
    """What was found in files: the headers of those that can be read, and ``(file, what is wrong with it)``."""

    headers: dict[Path, Header]
    faults: list[tuple[Path, str]]


def require(layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict) -> dict[Path, Header]:
    """Return the header of every file, none of which has a fault; see ``examine``.

    Raises:
      InputError: a file has one; names the first and counts the others.
    """
    headers, faults = examine(layout, domains, data)
    if faults:
        path, fault = faults[0]
        others = len({other for other, _ in faults} - {path})
        more = f" (and {others:,} more file{'s' * (others > 1)}: run python -m p2p_jax inspect)" if others else ""
        raise InputError(f"{path} {fault}{more}")
    return headers


def examine(layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict) -> Examined:
    """Look for every fault of every file; up to ``files.DECODE_AT_MOST`` of them are read whole, else their headers.

    Args:
      layout: the files.
      domains: of A and B as the files have them (``p2p_jax.images.domains.of_files``).
      data: reads ``source``, ``preprocess`` and the sizes.
    """
    kinds = _kinds(layout, domains, data)
    whole = len(kinds) <= files.DECODE_AT_MOST

    def look(path: Path) -> tuple[Header | None, list[str]]:
        try:
            header = formats.read_header(path)
            found = list(dict.fromkeys(fault for kind in kinds[path] if (fault := _fault(path, header, kind))))
            if whole:
                pixels = formats.read(path).pixels
                bad = np.isinf if all(kind.asks_files for kind in kinds[path]) else lambda x: ~np.isfinite(x)
                if pixels.dtype.kind == "f" and bad(pixels).any():
                    found.append("holds numbers that are not finite (NaN or infinite); replace them or remove it")
            return header, found
        except InputError as error:
            return None, [str(error).removeprefix(str(path)).strip()]

    with ThreadPoolExecutor() as pool:
        looks = dict(zip(kinds, pool.map(look, kinds), strict=True))
    headers = {path: header for path, (header, _) in looks.items() if header}
    faults = [(path, fault) for path, (_, found) in looks.items() for fault in found]
    return Examined(headers, faults + list(_size_faults(layout, headers, data)))


def _kinds(layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict) -> Mapping[Path, list[Domain]]:
    """Return of what domains the images of every file must be: one for a file of its own, both for one of halves."""
    kinds: dict[Path, list[Domain]] = defaultdict(list)
    made = data.source == "photos"  # A, of B
    for paths, domain in zip((() if made else layout.a, layout.b), domains, strict=True):
        for path in paths:
            kinds[path].append(domain)
    return kinds


def _fault(path: Path, header: Header, domain: Domain) -> str | None:
    """Return what is wrong with a file that can be read, as the end of a sentence."""
    convert = "convert it to grayscale or RGB with 8 bits"
    if header.mode == "CMYK" or (header.mode in ("LA", "PA", "RGBA") and header.channels != domain.raw_channels):
        return f"has {header.channels} channels (mode {header.mode}); {convert}"
    if domain.kind != "labels" and domain.raw_dtype == np.uint8 and _is_misread(path, header):
        return f"has a palette that would not be read rightly (mode {header.mode}); {convert}"
    if not header.upright:
        return f"has EXIF orientation{_orientation(path)}, which is not applied; save it already rotated"
    return domain.fault(header.dtype, header.channels, header.palette)


def _is_misread(path: Path, header: Header) -> bool:
    """Tell whether the colours of a palette would come out wrong: TensorFlow knows no palette of BMP files."""
    if path.suffix.lower() == ".bmp":
        return header.mode in ("1", "P")
    if not header.palette or path.suffix.lower() != ".png":
        return False
    with Image.open(path) as image:
        return "transparency" in image.info


def _orientation(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return f" {image.getexif().get(ExifTags.Base.Orientation, 1)}"
    except OSError:  # a TIFF of a kind that Pillow does not know
        return ""


def _size_faults(layout: Layout, headers: Mapping[Path, Header], data: ConfigDict) -> Iterator[tuple[Path, str]]:
    """Find the images that do not have the size of their partner, or none from which the crop can be cut."""
    own_files = layout.paired and layout.a is not layout.b
    for a, b in zip(layout.a, layout.b, strict=True) if own_files else ():
        if a in headers and b in headers and _size(headers[a]) != _size(headers[b]):
            sizes = ["x".join(map(str, _size(headers[path]))) for path in (a, b)]
            yield (
                a,
                f"is {sizes[0]} pixels but its partner {b} is {sizes[1]}; the two images of a pair must have one size",
            )
    for path, header in headers.items():
        if layout.halves and header.width % 2:
            yield (
                path,
                f"is {header.width} pixels wide: it cannot be halved into A and B of one size; "
                "for A and B in two folders use --config.data.source=folders",
            )
        elif fault := crop_fault(header.height, header.width // (2 if layout.halves else 1), data):
            yield path, fault


def _size(header: Header) -> tuple[int, int]:
    return header.width, header.height


def crop_fault(height: int, width: int, data: ConfigDict) -> str | None:
    """Return why no crop can be cut from an image; where images are resized to a size, each can be."""
    crop_height, crop_width = crop_shape(data)
    crop = f"{crop_width}x{crop_height} (config.data.crop_size and crop_width)"
    resize = "or use --config.data.preprocess=resize_and_crop"
    size = f"has an image of {width}x{height} pixels"
    if data.preprocess == "crop" and (height < crop_height or width < crop_width):
        return f"{size}, smaller than the crop of {crop}; take a smaller crop, {resize}"
    if data.preprocess == "none" and (height, width) != (crop_height, crop_width):
        return f"{size}; config.data.preprocess=none needs {crop}; set these to the images' size, {resize}"
    scaled = int(np.round(np.float32(height) * np.float32(crop_width / np.float32(width))))
    if data.preprocess == "scale_width" and scaled > crop_height:
        return (
            f"{size}: scaled to the width of the crop it is {scaled} high, more than the crop of {crop}; "
            "use --config.data.preprocess=scale_width_and_crop"
        )
    return None
