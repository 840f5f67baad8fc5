"""Labels as files store them, numbers or indices of a palette, and their classes. Only NumPy.

Classes are numbered from 0; ``VOID`` is none of them. Files may count from 1, write masks of 0 and 255, number every
instance of an object (Cityscapes: 26001 is the second car, 26 the class), or keep the colours of classes in a palette.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images.palettes import VOID, Palette, palette_distances

INSTANCES = "instances"
"""In place of numbers: an id of 1000 or more is a class times 1000 and the number of an object."""
_FAR = 16  # from this distance on, two colours are different


def parse_numbers(text: str, channels: int, option: str) -> tuple[tuple[int, ...], bool]:
    """Return the numbers that files store for the classes, in their order, and whether they are ids of instances.

    Raises:
      InputError: the text has another form; names the option.
    """
    if text in ("", INSTANCES):
        return (), text == INSTANCES
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"{option} is {text!r}; write whole numbers with commas, such as 0,255, or {INSTANCES}"
        ) from None
    if len(numbers) != channels or len(set(numbers)) != channels:
        raise InputError(f"{option} has {len(set(numbers))} different numbers for {channels} classes (channels)")
    return numbers, False


def by_number(stored: np.ndarray, channels: int, numbers: Sequence[int] = (), *, instances: bool = False) -> np.ndarray:
    """Return the class of every pixel, uint8; pixels without a class are ``VOID``.

    Args:
      stored: [H, W, 1] whole numbers.
      channels: the number of classes.
      numbers: what files store for the classes, in their order; empty: 0, 1, ...
      instances: whether they are ids of instances.
    """
    if instances:
        stored = np.where(stored >= 1000, stored // 1000, stored)
    if not numbers:
        return np.where((stored < 0) | (stored >= channels), VOID, stored).astype(np.uint8)
    order = np.argsort(numbers)
    ascending = np.array(numbers)[order]
    places = np.minimum(np.searchsorted(ascending, stored), len(numbers) - 1)
    return np.where(ascending[places] == stored, order[places], VOID).astype(np.uint8)


def by_colour(indices: np.ndarray, colors: np.ndarray, palette: Palette) -> np.ndarray | None:
    """Return the class of every pixel of an image with a palette of its own, by the colours that classes have.

    Args:
      indices: [H, W, 1] of the colours.
      colors: [K, 3] uint8, the file's.
      palette: the classes'.

    Returns:
      uint8, ``VOID`` for a colour that no class has; None if most of the image has colours of no class.
    """
    classes, distances = palette_distances(colors, palette)
    known = distances <= _FAR
    pixels = np.bincount(indices.ravel(), minlength=len(colors))
    if len(pixels) > len(colors) or pixels[known].sum() < pixels.sum() / 2:
        return None
    if _is_gray(colors) and not _is_gray(palette.colors):
        return None  # the file stores numbers; few bits make a palette of grays
    return np.where(known & (classes < len(palette.colors)), classes, VOID).astype(np.uint8)[indices]


def _is_gray(colors: np.ndarray) -> bool:
    return bool((colors == colors[:, :1]).all())


def as_stored(classes: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Return what files store for classes, of ``dtype_of(numbers)``."""
    return np.array(numbers, dtype_of(numbers))[classes] if numbers else classes


def dtype_of(numbers: Sequence[int]) -> np.dtype:
    """Return the smallest dtype that has all numbers, uint8 for the classes themselves."""
    ends = (min(numbers), max(numbers)) if numbers else (0, VOID)
    return np.result_type(*map(np.min_scalar_type, ends))


def find_numbers(counts: Mapping[int, int], channels: int) -> str:
    """Return what the numbers in files mean, as a config says it; "" where they are classes, or not clear.

    Args:
      counts: every number that was found, and in how many pixels.
      channels: the number of classes.
    """
    found = sorted(counts)
    classes = set(range(channels))
    if channels == 2 and VOID in found:
        return "0,1" if set(found) == {0, 1, VOID} else f"0,{VOID}" if set(found) <= {0, VOID} else ""
    if set(found) <= classes | {VOID}:
        return ""
    for chosen in (found, [number for number in found if number != VOID]):
        if len(chosen) == channels:
            return ",".join(map(str, chosen))
    if set(found) <= set(range(1, channels + 1)) | {VOID}:
        return ",".join(map(str, range(1, channels + 1)))  # some class occurs in no image that was looked at
    derived = {number // 1000 if number >= 1000 else number for number in found}
    return INSTANCES if found[-1] >= 1000 and derived <= classes | {VOID} else ""


def describe(counts: Mapping[int, int], channels: int, numbers: str) -> str:
    """Say how many classes were seen, and which share of the pixels has a number of no class."""
    chosen, instances = parse_numbers(numbers, channels, "numbers")
    found = np.array(sorted(counts))
    classes = by_number(found, channels, chosen, instances=instances)
    pixels = np.array([counts[number] for number in found.tolist()])
    void, lost = (found == VOID) & (classes == VOID), (found != VOID) & (classes == VOID)
    told = f"{len(set(classes[classes != VOID].tolist()))} of {channels} classes seen"
    told += f", stored as {numbers}" if numbers else ""
    if void.any():
        told += f"; {pixels[void].sum() / pixels.sum():.2%} of the pixels are {VOID} (no class)"
    if lost.any():
        few = ", ".join(map(str, found[lost][:5])) + (", ..." if lost.sum() > 5 else "")
        told += f"; {pixels[lost].sum() / pixels.sum():.2%} of the pixels have no class ({few})"
    return told
