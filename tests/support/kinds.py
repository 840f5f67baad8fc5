"""What values there are of each kind of image, and what networks see of them, written out without the library."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_RNG = np.random.RandomState(0)
COUNT, SIDE = 6, 20
PHOTOS = _RNG.randint(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
RED_BLUE = np.array([(255, 0, 0), (0, 0, 255)], np.uint8)


class Kind(NamedTuple):
    """Images of a kind.

    Attributes:
      kind: ``config.data.input.kind``.
      raw: [COUNT, SIDE, SIDE, C], as files store them.
      options: of ``config.data``, for a side A of this kind.
      seen: [COUNT, SIDE, SIDE, channels] of [-1, 1], what networks see of `raw` where nothing is resized: a function
        without arguments, as Lab needs scikit-image.
      ending: of files that store it.
    """

    kind: str
    raw: np.ndarray
    options: dict
    seen: Callable[[], np.ndarray]
    ending: str = ".npy"


def _line(raw: np.ndarray, low, high) -> np.ndarray:
    low, high = np.float64(low), np.float64(high)
    return np.clip((raw - low) / (high - low) * 2 - 1, -1, 1)


def _measured(raw: np.ndarray) -> np.ndarray:
    return _line(raw, raw.min((0, 1, 2)), raw.max((0, 1, 2)))


def _lab(channels: slice, low: float, high: float) -> np.ndarray:
    from skimage.color import rgb2lab

    return _line(rgb2lab(PHOTOS)[..., channels], low, high)


def _numbers(low: int, high: int, channels: int, dtype) -> np.ndarray:
    return _RNG.randint(low, high, (COUNT, SIDE, SIDE, channels)).astype(dtype)


def _make(kind: str, raw: np.ndarray, options: dict, seen: Callable[[np.ndarray], np.ndarray], **more) -> Kind:
    return Kind(kind, raw, options, lambda: seen(raw), **more)


def _one_hot(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda raw: 2.0 * (raw == np.arange(classes)) - 1


KINDS = {
    "uint8": _make(
        "uint8", _numbers(0, 256, 4, np.uint8), {"input__channels": 4}, lambda raw: raw / 127.5 - 1, ending=".png"
    ),
    "uint8 in a range": _make(
        "uint8",
        _numbers(0, 256, 3, np.uint8),
        {"input__range": "10:200"},
        lambda raw: _line(raw, 10, 200),
        ending=".png",
    ),
    "uint16": _make(
        "uint16", _numbers(0, 65536, 2, np.uint16), {"input__channels": 2}, lambda raw: raw / 32767.5 - 1, ending=".tif"
    ),
    "uint16 of 12 bits": _make(
        "uint16",
        _numbers(0, 4096, 1, np.uint16),
        {"input__channels": 1, "input__range": "0:4095"},
        lambda raw: _line(raw, 0, 4095),
        ending=".png",
    ),
    "int16": _make("int16", _numbers(-900, 3000, 1, np.int16), {"input__channels": 1}, _measured, ending=".tif"),
    "float": _make(
        "float", _RNG.normal(5, 3, (COUNT, SIDE, SIDE, 5)).astype(np.float32), {"input__channels": 5}, _measured
    ),
    # 7 is no class
    "labels": _make("labels", _numbers(0, 8, 1, np.uint8), {"input__channels": 7}, _one_hot(7), ending=".png"),
    "label_colors": _make(
        "label_colors",
        RED_BLUE[_RNG.randint(0, 2, (COUNT, SIDE, SIDE))],
        {"input__palette": "#ff0000,#0000ff"},
        lambda raw: raw / 127.5 - 1,
        ending=".png",
    ),
    "lab_l": Kind("lab_l", PHOTOS, {"input__channels": 1}, lambda: _lab(slice(1), 0, 100), ".png"),
    "lab_ab": Kind("lab_ab", PHOTOS, {"input__channels": 2}, lambda: _lab(slice(1, 3), -110, 110), ".png"),
}
