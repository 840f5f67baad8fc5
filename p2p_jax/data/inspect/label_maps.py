"""Whether files hold labels, regardless of the config: class numbers, masks, indices of a palette."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p_jax.data.inspect.measures import StoredAs
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.labels import INSTANCES
from p2p_jax.images.palettes import VOID

_FILES = 8  # that are looked at
_MOST = 64  # classes
_FLAT = 0.5  # share of pixels like their right neighbour, of what may be ids of instances and not depths
_BLACK_AND_WHITE = "#000000,#ffffff"


class Labels(NamedTuple):
    """What is labels: values, indices or colours; what they are, in words; and the options of a side of the config."""

    what: str
    told: str
    options: dict[str, str]


class _Looked(NamedTuple):
    numbers: frozenset[int]
    flatness: float
    is_palette: bool


def find(paths: Sequence[Path], stored: Mapping[StoredAs, int]) -> Labels | None:
    """Return what labels some files hold, None if they hold none.

    Args:
      paths: of one side.
      stored: how images are stored, and how many are.
    """
    if not stored:
        return None
    most = max(stored, key=lambda form: stored[form])
    if most.dtype.kind not in "iu" or (not most.palette and most.channels not in (1, 3)):
        return None
    looked = []
    for path in evenly(paths, _FILES):
        try:
            pixels = formats.read(path)
        except InputError:
            continue
        found = _look(pixels)
        if found is None:
            return None
        looked.append(found)
    if not looked:
        return None
    numbers = sorted(frozenset().union(*(one.numbers for one in looked)))
    if most.channels == 3 and not most.palette:
        black_and_white = set(numbers) == {0, VOID}
        options = {"kind": "labels", "channels": "2", "palette": _BLACK_AND_WHITE}
        return Labels("colours", "black and white, like a mask", options) if black_and_white else None
    flat = float(np.median([one.flatness for one in looked]))
    return _of_numbers(numbers, flat, is_palette=all(one.is_palette for one in looked))


def _look(stored: formats.Stored) -> _Looked | None:
    """Return the numbers in an image, None if they are more than labels have, or are colours."""
    pixels = stored.pixels
    if pixels.dtype.kind not in "iu" or (pixels.shape[-1] != 1 and (pixels != pixels[..., :1]).any()):
        return None
    numbers = np.unique(pixels[..., 0])
    if len(numbers) > _MOST:
        return None
    alike = float((pixels[:, 1:, 0] == pixels[:, :-1, 0]).mean()) if pixels.shape[1] > 1 else 1.0
    return _Looked(frozenset(numbers.tolist()), alike, stored.palette is not None)


def _of_numbers(numbers: Sequence[int], flat: float, *, is_palette: bool) -> Labels | None:
    """Return what labels some numbers are."""
    whose = "indices" if is_palette else "values"
    if len(numbers) == 2 and numbers[0] == 0 and numbers[1] > 1 and not is_palette:
        options = {"kind": "labels", "channels": "2"}
        if numbers[1] != VOID:
            options["numbers"] = f"0,{numbers[1]}"
        return Labels(whose, f"0 and {numbers[1]}, like a mask", options)
    classes = [number for number in numbers if number != VOID]
    if len(classes) < 2 or classes[0] < 0:
        return None
    if classes[-1] < _MOST or (is_palette and len(classes) <= _MOST):
        count = classes[-1] + (classes[0] == 0) if classes[-1] < _MOST else len(classes)
        told = f"{classes[0]} to {classes[-1]}, which look like class numbers"
        return Labels(whose, told, {"kind": "labels", "channels": f"{count}"})
    derived = [number // 1000 if number >= 1000 else number for number in classes]
    if flat >= _FLAT and max(derived) < _MOST and any(number >= 1000 for number in classes):
        options = {"kind": "labels", "channels": f"{max(derived) + 1}", "numbers": INSTANCES}
        return Labels(whose, f"{classes[0]} to {classes[-1]}, which look like instance numbers", options)
    return None
