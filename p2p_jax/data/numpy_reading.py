"""Images decoded in NumPy and in threads, equal to the bit to what the stream reads and resizes.

For ``data.resident``, evaluation and translation. What the stream keeps in memory (``data.cache_mb``) is
``stream/image_cache.py``.
Nothing here needs TensorFlow, unless a source from outside the library has only a ``read``.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape, load_shape
from p2p_jax.data import checks
from p2p_jax.data.stream.sides import Side, arrange
from p2p_jax.data.stream.sources import Source, Unpaired, loader
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.domains import Domain
from p2p_jax.images.pictures import with_channels
from p2p_jax.images.resize import resize
from p2p_jax.images.unknown import is_number


def make_sides(source: Source | Unpaired, config: ConfigDict, domains: tuple[Domain, Domain]) -> list[Side]:
    """Return the sides in the order of a batch, as ``p2p_jax.data.stream.sides.make_sides``.

    Raises:
      InputError: the images of the source are not those of the domains.
    """
    sides = arrange(source, config.data.direction, domains)
    for side in sides:
        _check_first(side)
    return sides


def _check_first(side: Side) -> None:
    """Refuse a source, one from outside the library at that, that reads too many images or too few, or other ones."""
    name, images = side.source.names[0], loader(side.source)(0)
    if len(images) != len(side.domains):
        raise InputError(
            f"the source of {name} gives {len(images)} images per example; it must give a tuple of two images "
            "(paired), or of one (each side of an Unpaired)"
        )
    for image, domain in zip(images, side.domains, strict=True):
        dtype = domain.file_dtype if domain.unknown and image.dtype == np.float32 else image.dtype
        if fault := domain.fault(dtype, image.shape[-1], has_palette=False):
            raise InputError(f"the source of {name} {fault}")


def extremes(side: Side, place: int, indices: np.ndarray) -> np.ndarray:
    """Return the lowest and the highest value of every channel of images; see ``find_facts``."""

    def found(index):
        image = _raw(side, index)[place].astype(np.float32)
        pixels = image.reshape(-1, image.shape[-1])
        return np.stack([np.fmin.reduce(pixels), np.fmax.reduce(pixels)])

    return np.stack(_in_threads(found, indices))


def load_sizes(side: Side, data: ConfigDict) -> np.ndarray:
    """Return height and width of every resized image, before the crop, [N, 2] int32.

    Raises:
      InputError: the crop cannot be cut out of an image.
    """
    names, layout = side.source.names, side.source.layout
    if data.preprocess == "resize_and_crop":
        return np.tile(np.array(load_shape(data), np.int32), (len(names), 1))

    def size(index):
        if layout is None:
            height, width = _largest(loader(side.source)(index))
            _check_size(side, index, height, width, data)
            return checks.load_size(height, width, data)
        own_files = layout.paired and layout.a is not layout.b
        paths = (layout.a[index], layout.b[index]) if own_files else (Path(names[index]),)
        headers = [formats.read_header(path) for path in paths]
        width = max(header.width for header in headers) // (2 if layout.halves else 1)
        return checks.load_size(max(header.height for header in headers), width, data)

    return np.array(_in_threads(size, range(len(names))), np.int32)


def _largest(images: Iterable[np.ndarray]) -> tuple[int, int]:
    """Return the size of the larger of the images of an example, which may be of two resolutions."""
    heights, widths = zip(*(image.shape[:2] for image in images), strict=True)
    return max(heights), max(widths)


def _check_size(side: Side, index: int, height: int, width: int, data: ConfigDict) -> None:
    if fault := checks.crop_fault(height, width, data):
        raise InputError(f"the source of {side.source.names[index]} {fault}")


def for_training(side: Side, sizes: np.ndarray) -> list[np.ndarray]:
    """Return all the images of a side at load size; smaller ones are in the upper left corner of the largest.

    Args:
      side: what is read.
      sizes: of ``load_sizes``.

    Returns:
      For every domain [N, H, W, C] as ``stored`` has them.
    """
    arrays = [np.zeros((len(sizes), *sizes.max(0), channels), dtype) for channels, dtype in map(stored, side.domains)]

    def fill(index):
        height, width = size = tuple(sizes[index].tolist())
        for array, image, domain in zip(arrays, _raw(side, index), side.domains, strict=True):
            image = resize(image, size, nearest=domain.is_labels)
            array[index, :height, :width] = _encode(image, domain) if _is_encoded(domain) else image

    _in_threads(fill, range(len(sizes)))
    return arrays


def stored(domain: Domain) -> tuple[int, np.dtype]:
    """Return channels and dtype of decoded images: as the files have them, but Lab as networks see it."""
    return (domain.channels, np.dtype(np.float32)) if _is_encoded(domain) else (domain.raw_channels, domain.raw_dtype)


def bytes_per_pixel(domains: Iterable[Domain]) -> int:
    """Return how many bytes a pixel of images of these domains takes together."""
    return sum(channels * dtype.itemsize for channels, dtype in map(stored, domains))


def _is_encoded(domain: Domain) -> bool:
    return domain.kind.startswith("lab_")  # a device would compute its roots to other bits


def for_validation(side: Side, indices: Iterable[int], data: ConfigDict) -> Callable[[slice], list[np.ndarray]]:
    """Decode images at the size of the crop, without chance; see ``p2p_jax.data.stream.cropping.fit``.

    Returns:
      What gives a part of them, for every domain [N, crop_size, crop_width, channels] float32 in [-1, 1].
    """
    crop = crop_shape(data)

    def fit(index):
        images = _raw(side, index)
        height, width = _largest(images)
        _check_size(side, index, height, width, data)
        size = crop if data.preprocess == "resize_and_crop" else checks.load_size(height, width, data)
        top, left = ((have - want) // 2 for have, want in zip(size, crop, strict=True))
        return [
            np.ascontiguousarray(resize(x, size, nearest=d.is_labels)[top : top + crop[0], left : left + crop[1]])
            for x, d in zip(images, side.domains, strict=True)
        ]

    kept = _in_threads(fit, indices)

    def part(rows):
        columns = zip(*kept[rows], strict=True)
        return [_encode(np.stack(x), domain) for x, domain in zip(columns, side.domains, strict=True)]

    return part


def whole(side: Side, index: int, data: ConfigDict) -> list[np.ndarray]:
    """Decode an example for validation without cutting a crop out of it.

    Returns:
      For every domain [H, W, channels] float32 in [-1, 1], of the size that training resizes to.
    """
    images = _raw(side, index)
    height, width = _largest(images)
    _check_size(side, index, height, width, data)
    size = checks.load_size(height, width, data)
    resized = [resize(x, size, nearest=d.is_labels) for x, d in zip(images, side.domains, strict=True)]
    return [_encode(x, domain) for x, domain in zip(resized, side.domains, strict=True)]


def _raw(side: Side, index: int) -> list[np.ndarray]:
    """Read the images of an example, [H, W, raw_channels] of ``raw_dtype``."""
    return [_to_raw(x, domain) for x, domain in zip(loader(side.source)(index), side.domains, strict=True)]


def _to_raw(image: np.ndarray, domain: Domain) -> np.ndarray:
    """Convert what a source reads to a raw image of its domain."""
    if domain.is_labels:
        return domain.raw(image)
    image = image.astype(domain.raw_dtype, copy=False)
    if domain.unknown and is_number(domain.nodata):
        image = np.where(image == np.float32(domain.nodata), np.float32(np.nan), image)
    return image if image.shape[-1] == domain.raw_channels else with_channels(image, domain.raw_channels)


def _encode(raw: np.ndarray, domain: Domain) -> np.ndarray:
    return domain.encode(domain.values(raw))


def _in_threads(function: Callable[[int], Any], indices: Iterable[int]) -> list:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, indices))
