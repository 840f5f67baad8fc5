"""What is wrong with image files, given the declared kind. No TensorFlow."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape, load_shape
from p2p_jax.data.layouts import Layout
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import formats, limits, raw
from p2p_jax.images.domains import Domain
from p2p_jax.images.formats import Header

PIXELS_READ = 150_000_000
"""Of files that are read whole before a training starts: some seconds."""


class Examined(NamedTuple):
    """What was found in files: the headers of those that can be read, and ``(file, what is wrong with it)``."""

    headers: dict[Path, Header]
    faults: list[tuple[Path, str]]


def require(layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict) -> dict[Path, Header]:
    """Return the header of every file that has no known fault; see ``examine``.

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


def examine(layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict, *, pixels: int | None = None) -> Examined:
    """Look for every fault in the headers of files, and for faults of the contents in as many as time allows.

    Files that seem to end too early are read whole, and besides so many that their pixels reach a limit, evenly over
    all of them. In the others, damaged contents stop the run by name when they are met.

    Args:
      layout: the files.
      domains: of A and B as the files have them (``p2p_jax.images.domains.of_files``).
      data: reads ``source``, ``preprocess``, ``max_pixels`` and the sizes.
      pixels: of files that are read whole; ``PIXELS_READ`` by default.
    """
    limits.allow(data.max_pixels)
    kinds = _kinds(layout, domains, data)

    def look(path: Path) -> tuple[Header | None, list[str]]:
        try:
            header = formats.read_header(path)
            limits.check(path, header.width, header.height, header.channels * header.dtype.itemsize)
            found = list(dict.fromkeys(fault for kind in kinds[path] if (fault := raw.fault(header, kind))))
            return header, found or ([] if formats.seems_whole(path) else _faults_inside(path, kinds[path]))
        except InputError as error:
            return None, [_without_name(error, path)]

    with ThreadPoolExecutor() as pool:
        looks = dict(zip(kinds, pool.map(look, kinds), strict=True))
        headers = {path: header for path, (header, _) in looks.items() if header}
        faults = [(path, fault) for path, (_, found) in looks.items() for fault in found]
        chosen = within_budget(
            [path for path in headers if not looks[path][1]], headers, PIXELS_READ if pixels is None else pixels
        )
        for path, found in zip(chosen, pool.map(lambda path: _faults_inside(path, kinds[path]), chosen), strict=True):
            faults.extend((path, fault) for fault in found)
    return Examined(headers, faults + list(_size_faults(layout, headers, data)))


def _faults_inside(path: Path, kinds: Sequence[Domain]) -> list[str]:
    """Return what is wrong with the contents of a file."""
    try:
        stored = formats.read(path)
        for kind in kinds:
            raw.prepared(stored, kind, path)
    except InputError as error:
        return [_without_name(error, path)]
    return list({fault for kind in kinds if (fault := raw.numbers_fault(stored, kind))})


def _without_name(error: InputError, path: Path) -> str:
    return str(error).removeprefix(str(path)).removeprefix(":").strip()


def within_budget(paths: Sequence[Path], headers: Mapping[Path, Header], pixels: int) -> list[Path]:
    """Return files, evenly over all of them, whose pixels together stay near a limit; one at least, of 0 none."""
    total = sum(headers[path].width * headers[path].height for path in paths)
    return evenly(paths, max(len(paths) * pixels // total, 1)) if total and pixels else []


def _kinds(layout: Layout, domains: tuple[Domain, Domain], data: ConfigDict) -> Mapping[Path, list[Domain]]:
    """Return of what domains the images of every file must be: one for a file of its own, both for one of halves."""
    kinds: dict[Path, list[Domain]] = defaultdict(list)
    made = data.source == "photos"  # A, of B
    for paths, domain in zip((() if made else layout.a, layout.b), domains, strict=True):
        for path in paths:
            kinds[path].append(domain)
    return kinds


def _size_faults(layout: Layout, headers: Mapping[Path, Header], data: ConfigDict) -> Iterator[tuple[Path, str]]:
    """Find the images that do not have the size of their partner, or are too small for the crop."""
    for a, b in unlike_pairs(layout, headers):
        if not have_one_shape(headers[a], headers[b]) or data.preprocess == "none":
            sizes = [f"{headers[path].width}x{headers[path].height}" for path in (a, b)]
            wanted = "size" if data.preprocess == "none" else "shape"
            yield (
                a,
                f"is {sizes[0]} pixels but its partner {b} is {sizes[1]}; both images must have the same {wanted}",
            )
    for path, header in headers.items():
        if layout.halves and header.width % 2:
            yield (
                path,
                f"is {header.width} pixels wide: it cannot be cut into A and B of equal width; "
                "for A and B in two folders use --config.data.source=folders",
            )
        elif fault := crop_fault(header.height, header.width // (2 if layout.halves else 1), data):
            yield path, fault


def unlike_pairs(layout: Layout, headers: Mapping[Path, Header]) -> list[tuple[Path, Path]]:
    """Return the pairs whose two images have two sizes."""
    if not layout.paired or layout.a is layout.b:
        return []
    pairs = [(a, b) for a, b in zip(layout.a, layout.b, strict=True) if a in headers and b in headers]
    return [(a, b) for a, b in pairs if headers[a][:2] != headers[b][:2]]


def have_one_shape(one: Header, other: Header) -> bool:
    """Return whether one image is the other at another resolution, but for a pixel."""
    return abs(one.width * other.height - other.width * one.height) <= max(*one[:2], *other[:2])


def crop_fault(height: int, width: int, data: ConfigDict) -> str | None:
    """Return why no crop can be cut from an image; where images are resized to a size, each can be."""
    crop_height, crop_width = crop_shape(data)
    crop = f"{crop_width}x{crop_height} (config.data.crop_size and crop_width)"
    resize = "or use --config.data.preprocess=resize_and_crop"
    size = f"has an image of {width}x{height} pixels"
    if data.preprocess == "crop" and (height < crop_height or width < crop_width):
        return f"{size}, smaller than the crop of {crop}; take a smaller crop, {resize}"
    if data.preprocess == "none" and (height, width) != (crop_height, crop_width):
        return f"{size}; config.data.preprocess=none needs {crop}; set both to the size of the images, {resize}"
    scaled = int(np.round(np.float32(height) * np.float32(crop_width / np.float32(width))))
    if data.preprocess == "scale_width" and scaled > crop_height:
        return (
            f"{size}: scaled to the width of the crop it is {scaled} high, more than the crop of {crop}; "
            "use --config.data.preprocess=scale_width_and_crop"
        )
    return None


def load_size(height: int, width: int, data: ConfigDict) -> tuple[int, int]:
    """Return height and width of an image that is resized in proportion, before the crop; else its own.

    ``stream.cropping`` computes the same in TensorFlow.
    """
    if data.preprocess in ("crop", "none"):
        return height, width
    load = load_shape(data)
    if data.preprocess == "scale_shortside_and_crop":
        sides = np.array((height, width), np.float32)
        scaled = np.round(sides * (np.array(load, np.float32) / sides).max())
        return max(int(scaled[0]), load[0]), max(int(scaled[1]), load[1])
    scaled_height, to_width = _to_width(height, width, data)
    return max(scaled_height, crop_shape(data)[0]), to_width


def _to_width(height: int, width: int, data: ConfigDict) -> tuple[int, int]:
    """Return height and width of an image that is scaled to the width that an option names, however flat."""
    to_width = crop_shape(data)[1] if data.preprocess == "scale_width" else load_shape(data)[1]
    return int(np.round(np.float32(height) * (np.float32(to_width) / np.float32(width)))), to_width


def is_squeezed(height: int, width: int, data: ConfigDict) -> bool:
    """Return whether an image scaled to a width is lower than the crop, and so is stretched to the crop's height."""
    scales = data.preprocess in ("scale_width", "scale_width_and_crop")
    return scales and _to_width(height, width, data)[0] < crop_shape(data)[0]
