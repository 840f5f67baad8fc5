"""Between values and networks, and between image files and values: one image at a time, of any domain."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import resolve
from p2p_jax.errors import InputError
from p2p_jax.images import formats, lab, labels, pictures, raw, tasks, unknown
from p2p_jax.images.domains import Domain, of_config
from p2p_jax.images.opacity import WHITE
from p2p_jax.images.palettes import VOID
from p2p_jax.images.pictures import with_channels
from p2p_jax.images.resize import resize
from p2p_jax.inference.scale import Size, sides

_LAB = {"lab_l", "lab_ab"}
_TIFF = (".tif", ".tiff")


def encode(image: np.ndarray, domain: Domain) -> np.ndarray:
    """Return what of a domain's image goes to the device: its bytes, or else normalized images.

    Args:
      image: [H, W, C]; see ``Translator.__call__``.
      domain: with its range.

    Raises:
      InputError: it is not an image of the domain.
    """
    if domain.kind == "uint8":
        image = with_channels(image, domain.channels)
    elif image.dtype == np.uint8 and (
        domain.kind in _LAB or (domain.kind == "labels" and domain.palette is not None and image.shape[-1] == 3)
    ):
        image = domain.values(domain.raw(image))
    elif domain.is_labels and image.dtype == np.uint8 and image.shape[-1] == domain.value_channels:
        image = image if domain.kind == "labels" else domain.raw(image)  # classes already
    elif image.dtype.kind == domain.raw_dtype.kind == "f":
        image = image.astype(np.float32)
    if domain.unknown and image.dtype == domain.dtype:
        marked = unknown.marked(formats.Stored(image), domain.nodata).pixels
        image = marked if np.isnan(marked).any() else image
    if image.dtype.kind == "f" and domain.dtype.kind != "f" and not np.isnan(image).any():
        domain._replace(unknown=False).check(image)  # floats are only for what is unknown
    domain.check(image)
    return image if domain.is_bytes else domain.encode(image)


class Task(NamedTuple):
    """How a run's inputs are made of photographs.

    Attributes:
      photographs: what they are; the domain of B.
      make: what makes them.
      rng: makes its source of chance, the same for every image.
    """

    photographs: Domain
    make: tasks.Task
    rng: Callable[[], np.random.Generator]

    def values(self, raw: np.ndarray, domain: Domain) -> np.ndarray:
        """Make an input of a raw photograph, as values of the input's domain."""
        return tasks.make_values(self.make, raw, self.rng(), domain)


def find_task(config: ConfigDict) -> Task | None:
    """Return how the inputs of a run were made, None if they were files; what is random is the same for every image.

    Raises:
      InputError: the options do not fit.
    """
    options = dict(config.task)
    if not (name := options.pop("input", "")):
        return None
    make, seed = tasks.bind(resolve(name), options), config.seed
    return Task(of_config(config.data)[1], make, lambda: np.random.default_rng(seed))


class Given(NamedTuple):
    """An image file, read to be translated.

    Attributes:
      values: [H, W, C] of the domain that is translated.
      alpha: [H, W] uint8 opacity of a picture that has one.
      tags: of a TIFF, see ``formats.Stored``; none if the size is no longer the file's.
      is_moved: whether tags had to go.
      shown: of a picture, see ``pictures.Picture``.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    tags: tuple[Any, ...] = ()
    is_moved: bool = False
    shown: Mapping[str, Any] = MappingProxyType({})


def read(path: Path, domain: Domain, *, size: Size = None, task: Task | None = None) -> Given:
    """Read an image file as values of a domain, resized as training does.

    Args:
      path: ends in one of ``formats.EXTENSIONS``.
      domain: what is translated.
      size: wanted.
      task: makes the image from the file, which is then a photograph.

    Raises:
      InputError: it cannot be read or is not an image of the domain; names it.
    """
    stored_as = task.photographs if task else domain
    image, alpha, tags, shown = _read_raw(path, stored_as)
    wanted = sides(image.shape[:2], size)
    is_moved = bool(tags) and wanted != image.shape[:2]
    image = resize(image, wanted, nearest=stored_as.is_labels)
    if alpha is not None:
        alpha = resize(alpha[..., None], wanted)[..., 0]
    values = task.values(image, domain) if task else domain.values(image)
    check_finite(path, values, domain)
    return Given(values, alpha, () if is_moved else tags, is_moved, shown)


def check_finite(path: Path, values: np.ndarray, domain: Domain) -> None:
    """Refuse numbers that are not finite; NaN is allowed where it marks unknown values."""
    if values.dtype.kind == "f" and (np.isinf(values) if domain.unknown else ~np.isfinite(values)).any():
        raise InputError(f"{path} holds numbers that are not finite (NaN or infinite)")


def lost(image: np.ndarray) -> np.ndarray:
    """Return the unknown pixels of an image [H, W, C] as [H, W] booleans; for whole numbers this takes no memory."""
    return np.isnan(image).any(-1) if image.dtype.kind == "f" else np.broadcast_to(False, image.shape[:2])


def is_picture(domain: Domain) -> bool:
    """Return whether raw images of a domain are read as pictures of 8 bits, gray or RGB."""
    return domain.kind in _LAB or (domain.kind == "uint8" and domain.channels in (1, 3))


def _read_raw(path: Path, domain: Domain) -> tuple[np.ndarray, np.ndarray | None, tuple[Any, ...], Mapping[str, Any]]:
    """Return a raw image, its opacity, its tags, and how it is shown."""
    stored = formats.read(path)
    dtype = stored.pixels.dtype
    if is_picture(domain) and dtype != np.uint8:
        raise InputError(f"{path} has {8 * dtype.itemsize} bits ({dtype}); this run takes 8 bits: convert it")
    as_known = domain._replace(unknown=False, background=domain.background or WHITE)
    seen = raw.prepared(stored, as_known, path, of_run=True)
    if domain.unknown and seen.palette is None:
        marked = unknown.marked(seen, domain.nodata)
        seen = marked if np.isnan(marked.pixels).any() else seen
    has_opacity = is_picture(domain) and stored.opacity is not None and stored.opacity.dtype == np.uint8
    shown = pictures.shown(stored) if domain.is_photograph else {}
    return domain.raw(seen.pixels, seen.palette), stored.opacity if has_opacity else None, stored.tags, shown


def nodata_of(domain: Domain) -> float | None:
    """Return the number that is written for unknown values of a domain, None where there is none."""
    return VOID if domain.kind == "labels" and VOID not in domain.numbers else domain.nodata


def file_palette(domain: Domain, dtype: np.dtype, ending: str) -> np.ndarray | None:
    """Return the colours of all numbers that files of an ending store, up to the last class; black for no class."""
    has_one = domain.kind == "labels" and domain.palette is not None and ending in formats.WITH_PALETTE
    if not has_one or dtype != np.uint8:
        return None
    assert domain.palette is not None
    numbers = np.array(domain.numbers or range(domain.channels))
    colors = np.zeros((numbers.max() + 1, 3), np.uint8)
    colors[numbers] = domain.palette.colors
    return colors


def recombined(output: np.ndarray, given: np.ndarray, domain_in: Domain, domain_out: Domain) -> np.ndarray:
    """Return what is stored of a translation: values, but of Lab the picture where there is one, of labels numbers.

    Args:
      output: [..., H, W, C] values of `domain_out`.
      given: values of `domain_in`, from which it was translated. Between L and ab both make one picture, which keeps
        L; an L alone is a gray one, an ab alone stays what it is.
      domain_in: of what was translated.
      domain_out: of the translation.

    Returns:
      [..., H, W, C] of the dtype and the channels that ``stored_form`` says.
    """
    kinds = domain_in.kind, domain_out.kind
    if kinds == ("lab_l", "lab_ab"):
        return lab.to_rgb(np.concatenate([given, output], axis=-1))
    if kinds == ("lab_ab", "lab_l"):
        return lab.to_rgb(np.concatenate([output, given], axis=-1))
    if domain_out.kind == "lab_l":
        gray = np.zeros_like(output)
        return lab.to_rgb(np.concatenate([output, gray, gray], axis=-1))[..., :1]
    return labels.as_stored(output, domain_out.numbers)


def stored_form(domain_in: Domain, domain_out: Domain) -> tuple[np.dtype, int]:
    """Return dtype and channels of what ``recombined`` returns."""
    if {domain_in.kind, domain_out.kind} == _LAB:
        return np.dtype(np.uint8), 3
    if domain_out.numbers:
        return labels.dtype_of(domain_out.numbers), 1
    return (np.dtype(np.uint8), 1) if domain_out.kind == "lab_l" else (domain_out.dtype, domain_out.value_channels)


def is_fit(ending: str, domain_in: Domain, domain_out: Domain) -> bool:
    """Return whether translations keep their depth in a format; labels, which cannot be mixed, also their values."""
    lossless_enough = formats.is_lossless(ending) or not domain_out.is_labels
    return lossless_enough and formats.holds(ending, *stored_form(domain_in, domain_out))


def write(path: Path, output: np.ndarray, given: Given, domain_in: Domain, domain_out: Domain) -> None:
    """Write a translation in its own depth; see ``recombined`` for the arguments.

    Labels of known colours get these as a palette where the format has one. Opacity, if `given` has one, goes into
    pictures; into others, and where the format knows none, it does not. A TIFF gets the tags.

    Raises:
      InputError: the format does not hold it, or the file cannot be written; names it.
    """
    pixels, ending = recombined(output, given.values, domain_in, domain_out), path.suffix.lower()
    unknown_there = lost(given.values)
    nodata, valid = None, None
    if unknown_there.any() or domain_out.unknown:
        pixels, nodata = unknown.written(pixels, unknown_there, nodata_of(domain_out))
        valid = ~unknown_there if nodata is None and unknown_there.any() else None
    palette = file_palette(domain_out, pixels.dtype, ending)
    is_plain = palette is None and pixels.dtype == np.uint8 and pixels.shape[-1] in (1, 3)
    says_more = ending in _TIFF and (given.tags or nodata is not None or valid is not None)
    if is_plain and ending in formats.OF_PICTURES and not says_more:
        pictures.write(path, pixels, given.alpha, given.shown if domain_out.is_photograph else {})
    else:
        profile = given.shown.get("icc_profile") if domain_out.is_photograph else None
        formats.write(path, pixels, palette=palette, tags=given.tags, profile=profile, nodata=nodata, valid=valid)
