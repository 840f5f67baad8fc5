"""Colour histograms over whole sets of images."""

from collections.abc import Callable, Mapping

import numpy as np

from p2p_jax.errors import InputError

# Whole values of each Lab channel for 8-bit sRGB: the lowest, and the number of them.
_LAB_RANGES = {"L": (0, 101), "a": (-128, 256), "b": (-128, 256)}


class LabHistograms:
    """Marginal distributions of L, a and b over all pixels of a set of images (Isola et al. 2017, figure 7).

    Lab is CIE 1976 L*a*b* under D65. A bin is one unit wide and centred on a whole number, L in 0 to 100, a and b in
    -128 to 127, so gray (a = b = 0) is inside a bin and not on an edge, where rounding errors would divide it.

    Note: the paper does not say how wide its bins are; finer ones give a lower intersection. Compare only intersections
    made with the same bins.

    Attributes:
      counts: channel -> [bins] int64, the pixels counted so far; grayscale images fill only "L".

    Raises:
      InputError: scikit-image, needed for Lab, is not installed.
    """

    def __init__(self) -> None:
        self._rgb2lab = _import_rgb2lab()
        self.counts: dict[str, np.ndarray] = {}

    def add(self, images: np.ndarray) -> None:
        """Count the pixels of images.

        Args:
          images: [..., H, W, 3] uint8 sRGB, or [..., H, W, 1] grayscale.

        Raises:
          ValueError: another shape or dtype, or grayscale after colour.
        """
        channels = images.shape[-1]
        if images.dtype != np.uint8 or images.ndim < 3 or channels not in (1, 3):
            raise ValueError(f"expected [..., H, W, 1 or 3] uint8, not {images.shape} {images.dtype}")
        lab = np.rint(self._rgb2lab(np.repeat(images, 3, axis=-1) if channels == 1 else images)).astype(np.int64)
        found = {}
        for i, (name, (lowest, bins)) in enumerate(list(_LAB_RANGES.items())[:channels]):
            found[name] = np.bincount(lab[..., i].ravel() - lowest, minlength=bins)
        self.add_counts(found)

    def add_counts(self, counts: Mapping[str, np.ndarray]) -> None:
        """Add the counts of another histogram.

        Args:
          counts: counts of the other one, not empty.

        Raises:
          ValueError: one is of grayscale images and the other is not.
        """
        if self.counts and self.counts.keys() != counts.keys():
            raise ValueError("grayscale and colour images do not belong in one histogram")
        self.counts = {name: count + self.counts.get(name, 0) for name, count in counts.items()}

    def intersection(self, other: "LabHistograms") -> dict[str, float]:
        """Return the intersection of two distributions, ``sum(min(p, q))`` of each channel.

        Returns:
          channel -> 1 for the same distribution, 0 for disjoint ones; only "L" for grayscale.

        Raises:
          ValueError: a set is empty, or one is grayscale and the other is not.
        """
        if not self.counts or self.counts.keys() != other.counts.keys():
            raise ValueError("histograms of different channels have no intersection")
        shared = {}
        for name, count in self.counts.items():
            p, q = (c / c.sum() for c in (count, other.counts[name]))
            shared[name] = float(np.minimum(p, q).sum())
        return shared


def _import_rgb2lab() -> Callable[[np.ndarray], np.ndarray]:
    try:
        from skimage.color import rgb2lab
    except ImportError as error:
        raise InputError(
            f"Lab histograms need scikit-image, which cannot be imported ({error}): pip install 'p2p_jax[eval]'"
        ) from error
    return rgb2lab
