"""Unknown pixels: in files GDAL's tag 42113, masks and NaN, inside the library NaN."""

import math

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images.stored import Stored

NONE, MASK = "none", "mask"
"""Of ``config.data.*.nodata``: every pixel is known; masks and NaN say which are not, and no number."""


def parse(text: str, option: str) -> tuple[bool, float | None]:
    """Return whether there are unknown pixels, and the number that marks them, NaN for none that is finite.

    Raises:
      InputError: the text has another form; names the option.
    """
    if text in ("", NONE):
        return False, None
    if text == MASK:
        return True, None
    try:
        return True, float(text)
    except ValueError:
        raise InputError(f"{option} is {text!r}; write a number such as -9999 or 0, nan, {MASK} or {NONE}") from None


def marked(stored: Stored, number: float | None = None) -> Stored:
    """Return what a file stores as float32, with NaN where nothing is known.

    Args:
      stored: no indices of a palette.
      number: marks unknown values, besides the file's own.
    """
    pixels = stored.pixels.astype(np.float32)
    unknown = np.isnan(pixels)
    for one in (stored.nodata, number):
        if is_number(one):
            unknown |= pixels == np.float32(one)
    if stored.valid is not None:
        unknown |= ~stored.valid[..., None]
    return stored._replace(pixels=np.where(unknown, np.float32(np.nan), pixels), nodata=None, valid=None)


def is_number(number: float | None) -> bool:
    """Return whether a number marks unknown values."""
    return number is not None and not math.isnan(number)


def written(pixels: np.ndarray, unknown: np.ndarray, number: float | None) -> tuple[np.ndarray, float | None]:
    """Return the values to store for pixels, some unknown, and the number that marks these.

    Args:
      pixels: [H, W, C] of any numbers.
      unknown: [H, W].
      number: of the domain; where its dtype cannot hold it, there is none, and a mask is needed.
    """
    if pixels.dtype.kind == "f" and number is None:
        number = math.nan
    if number is None or not holds(pixels.dtype, number):
        return np.where(unknown[..., None], np.zeros_like(pixels), pixels), None
    number_there = np.array(number).astype(pixels.dtype)
    pixels = np.where(pixels == number_there, beside(number_there), pixels)  # a known value is not taken for it
    return np.where(unknown[..., None], number_there, pixels), number


def beside(number: np.ndarray) -> np.ndarray:
    """Return the value of the same dtype next to a number, towards 0 if it is not 0."""
    if number.dtype.kind == "f":
        return np.nextafter(number, np.zeros_like(number) if number else np.ones_like(number))
    return number - 1 if number > 0 else number + 1


def without(pixels: np.ndarray, unknown: np.ndarray, number: float | None) -> np.ndarray:
    """Return an array without what is unknown: NaN there, of whole numbers `number`, or 0."""
    return written(pixels, unknown, None if pixels.dtype.kind == "f" else number)[0] if unknown.any() else pixels


def holds(dtype: np.dtype, number: float) -> bool:
    """Return whether a number is one of a dtype."""
    if dtype.kind == "f":
        return True
    return math.isfinite(number) and number == int(number) and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max
