"""From what a file stores to a raw image of a domain: the same way for training, translation and inspection."""

from pathlib import Path

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images import opacity, unknown
from p2p_jax.images.domains import Domain
from p2p_jax.images.stored import Header, Stored


def fault(header: Header, domain: Domain) -> str | None:
    """Return why a file cannot be an image of a domain, as the end of a sentence, by its header."""
    if header.mode == "CMYK" and domain.kind != "uint8" and not domain.kind.startswith("lab_"):
        return "has colours for print (CMYK); convert it to RGB"
    return domain.fault(header.dtype, header.channels_for(domain.raw_channels), header.palette)


def numbers_fault(stored: Stored, domain: Domain) -> str | None:
    """Return what is wrong with the numbers in a file, as the end of a sentence; NaN may be unknown values."""
    pixels = stored.pixels
    if pixels.dtype.kind != "f" or not (np.isinf(pixels) if domain.asks_files else ~np.isfinite(pixels)).any():
        return None
    return "holds numbers that are not finite (NaN or infinite); replace them or remove it"


def not_of_run(dtype: np.dtype, channels: int, domain: Domain) -> str:
    """Return that a file is not what a trained run takes, as the end of a sentence: no option can change that."""
    kind = "numbers of any kind" if domain.kind == "float" else domain.file_dtype
    wanted = "one channel of labels" if domain.kind == "labels" else f"{_bands(domain.raw_channels)} of {kind}"
    return f"has {_bands(channels)} of {dtype}; this run takes {wanted}"


def _bands(count: int) -> str:
    return f"{count} band{'s' * (count > 1)}"


def prepared(stored: Stored, domain: Domain, name: Path | str, *, of_run: bool = False) -> Stored:
    """Return what a file stores as an image of a domain: without opacity, in sRGB, with NaN where nothing is known.

    Args:
      stored: the content of a file.
      domain: what it is to be.
      name: of the file, for messages.
      of_run: the domain is that of a trained run, which no option can change.

    Raises:
      InputError: it has transparent parts and the domain has no background, or it is not an image of the domain.
    """
    if domain.is_photograph:
        stored = stored.in_srgb()
    if stored.opacity is not None and not (domain.kind == "labels" and stored.palette is not None):
        stored = opacity.without(stored, domain.raw_channels, domain.background, name)
    if told := domain.fault(stored.pixels.dtype, stored.pixels.shape[-1], stored.palette is not None):
        raise InputError(
            f"{name} {not_of_run(stored.pixels.dtype, stored.pixels.shape[-1], domain) if of_run else told}"
        )
    if domain.unknown and stored.palette is None:
        stored = unknown.marked(stored, domain.nodata)
    return stored


def of_stored(stored: Stored, domain: Domain, name: Path | str) -> np.ndarray:
    """Return the raw image [H, W, raw_channels] of a domain; see ``prepared``, and ``Domain.raw``."""
    found = prepared(stored, domain, name)
    return domain.raw(found.pixels, found.palette)
