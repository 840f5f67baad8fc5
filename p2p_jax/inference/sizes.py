"""Sizes of images that a network takes, found by asking it, and the padding of all others (only NumPy)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Sizes(NamedTuple):
    """The sizes that a network takes.

    Attributes:
      multiple: sides are multiples of it; of a network that takes only one size its height.
      steps: height and width are padded to multiples of these: `multiple` for both, or the one size. No further: norms
        take the statistics of the whole picture, padding included.
      smallest: the shortest side.
    """

    multiple: int
    steps: tuple[int, int]
    smallest: int

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that is taken of an image of height and width."""
        needed = (max(-(-n // step) * step, self.smallest) for n, step in zip((height, width), self.steps, strict=True))
        return next(needed), next(needed)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """Pad an image [H, W, C] by reflection, at the right and at the bottom, to a size that is taken.

        Not further, to compile fewer sizes: statistics of norms, zeros beyond the border and the
        dropout noise (placed by the pixel's position in the whole array) all change with the padding.
        """
        extra = [(0, side - n) for side, n in zip(self.padded(*image.shape[:2]), image.shape, strict=False)]
        return np.pad(image, [*extra, (0, 0)], mode="reflect") if any(e != (0, 0) for e in extra) else image


def find_sizes(takes: Callable[[int, int], bool], crop: tuple[int, int]) -> Sizes:
    """Return the sizes that a network takes.

    Args:
      takes: (height, width) -> whether the network gives an image of the same size.
      crop: height and width of the images that it was trained on.
    """
    multiple = next((m for m in (2**i for i in range(12)) if takes(crop[0] + m, crop[1] + m)), 0)
    if not multiple:
        return Sizes(crop[0], crop, 1)
    smallest = next((m for m in range(multiple, max(crop), multiple) if takes(m, m)), max(crop))
    return Sizes(multiple, (multiple, multiple), smallest)
