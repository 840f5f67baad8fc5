"""What the images of a data set hold, measured image by image. No TensorFlow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.images import raw, unknown
from p2p_jax.images.domains import NUMBERS, Domain
from p2p_jax.images.formats import Stored
from p2p_jax.images.palettes import VOID

BINS = 24
_SAMPLE = 256  # pixels of an image that represent all in histograms
_PIXELS = 500_000  # about so many of an image, in whole rows, represent all in means and features
_NUMBERS = 64  # that an image of labels has at most


class Look(NamedTuple):
    """What one image holds.

    Attributes:
      name: of its file, or of its example.
      size: width and height.
      low: [C], the lowest value of every channel of the raw image.
      high: [C], the highest.
      mean: [C].
      beyond: share of the values that are outside the declared range, or not a class.
      sample: [N, C] float32, pixels drawn at random.
      features: [F], simple properties of the stored values that separate two kinds of images.
      numbers: of an image of one channel of 8 bits, or of indices of a palette, the different numbers; none if they are
        more than labels have.
    """

    name: str
    size: tuple[int, int]
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    beyond: float
    sample: np.ndarray
    features: np.ndarray
    numbers: tuple[int, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether all pixels are the same."""
        return bool((self.low == self.high).all())


def look(stored: Stored, domain: Domain, name: str) -> Look:
    """Measure an image of a domain; a file holds `stored`.

    Raises:
      InputError: it is not an image of the domain.
    """
    stored = raw.prepared(stored, domain._replace(unknown=False), name)
    stored, known = _without_unknown(stored, domain)
    ends = _rows(domain.raw(stored.pixels, stored.palette), known)
    channels = range(ends.shape[1])
    step = max(stored.pixels.shape[0] * stored.pixels.shape[1] // _PIXELS, 1)
    few, known = stored._replace(pixels=stored.pixels[::step]), known[::step]
    pixels = _rows(domain.raw(few.pixels, few.palette), known)
    chosen = np.random.default_rng(0).integers(len(pixels), size=min(_SAMPLE, len(pixels)))
    return Look(
        name=name,
        size=(stored.pixels.shape[1], stored.pixels.shape[0]),
        low=np.array([ends[:, i].min() for i in channels]),  # ten times as fast as all channels at once
        high=np.array([ends[:, i].max() for i in channels]),
        mean=pixels.mean(0, dtype=np.float64),
        beyond=_share_beyond(pixels, _rows(few.pixels, known), domain),
        sample=pixels[chosen].astype(np.float32),
        features=_features(few),
        numbers=_numbers(stored),
    )


def _rows(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the known pixels of an image, [N, C]."""
    return image.reshape(-1, image.shape[-1]) if known.all() else image[known]


def _numbers(stored: Stored) -> tuple[int, ...]:
    if stored.pixels.dtype != np.uint8 or stored.pixels.shape[-1] != 1:
        return ()
    found = np.flatnonzero(np.bincount(stored.pixels.ravel(), minlength=256))
    return tuple(found.tolist()) if len(found) <= _NUMBERS else ()


def _without_unknown(stored: Stored, domain: Domain) -> tuple[Stored, np.ndarray]:
    """Return an image with a typical value in place of unknown ones, and [H, W] which pixels are known."""
    known = np.ones(stored.pixels.shape[:2], bool)
    if domain.kind not in NUMBERS or stored.palette is not None or not domain.asks_files:
        return stored, known
    told = stored.valid is not None or any(map(unknown.is_number, (stored.nodata, domain.nodata)))
    if stored.pixels.dtype.kind != "f" and not told:
        return stored, known
    marked = unknown.marked(stored, domain.nodata).pixels
    lost = np.isnan(marked).any(-1)
    if not lost.any():
        return stored, known
    if lost.all():
        return stored._replace(pixels=np.zeros_like(stored.pixels)), known
    typical = np.median(marked[~lost], axis=0).astype(stored.pixels.dtype)
    return stored._replace(pixels=np.where(lost[..., None], typical, stored.pixels)), ~lost


class StoredAs(NamedTuple):
    """How an image is stored."""

    dtype: np.dtype
    channels: int
    palette: bool
    opacity: bool = False

    def __str__(self) -> str:
        plural = "s" * (self.channels > 1)
        more = ", indices of a palette" if self.palette else ", one for opacity" if self.opacity else ""
        return f"{self.channels} channel{plural} of {self.dtype}{more}"

    def fits(self, domain: Domain) -> bool:
        """Return whether it may be an image of a domain; one channel of opacity counts only where it is wanted."""
        is_left_out = self.opacity and self.channels in (2, 4) and self.channels != domain.raw_channels
        return domain.fault(self.dtype, self.channels - is_left_out, has_palette=self.palette) is None


def _share_beyond(pixels: np.ndarray, stored: np.ndarray, domain: Domain) -> float:
    if domain.kind == "labels":
        said_to_be_void = stored[:, :1] == VOID
        return float(((pixels == VOID) & ~said_to_be_void).mean())
    if domain.raw_dtype == np.uint8 and domain.kind != "uint8" or not domain.low:
        return 0.0
    low, high = np.array([domain.low, domain.high], np.float32)
    return float(((pixels < low) | (pixels > high)).mean())


def _features(stored: Stored) -> np.ndarray:
    """Return [5]: the share of pixels like their right neighbour, mean, spread, saturation, and size of the steps.

    Label maps and drawings differ from photographs in the first, day from night in the second, and so on.
    """
    pixels = stored.pixels if stored.palette is None else stored.palette[stored.pixels[..., 0]]
    pixels = pixels.astype(np.float32)
    scale = float(pixels.max() - pixels.min()) or 1.0
    steps = np.abs(np.diff(pixels, axis=1)).max(-1) / scale
    return np.array(
        [
            (steps <= 0.012).mean() if steps.size else 1.0,  # 3 of 255 levels, for what JPEG does to flat areas
            pixels.mean(),
            pixels.std(),
            (pixels.max(-1) - pixels.min(-1)).mean(),
            steps.mean() if steps.size else 0.0,
        ]
    )


def summarise(looks: Sequence[Look], domain: Domain) -> dict[str, Any]:
    """Describe the values of the images of a side, in numbers that JSON knows.

    Returns:
      "channels": per channel min, max, mean and a "histogram" of counts from the low end of "range" to the high end,
      which are the declared values or else the lowest and the highest; "percentiles": the 0.1th and 99.9th of all;
      "beyond": the share of values outside the declared range, or of pixels without a class.
    """
    sample = np.concatenate([one.sample for one in looks])
    low, high, mean = (np.stack([getattr(one, name) for one in looks]) for name in ("low", "high", "mean"))
    declared = domain.low and domain.kind not in ("lab_l", "lab_ab")
    ends = (min(domain.low), max(domain.high)) if declared else (float(low.min()), float(high.max()))
    if domain.kind == "labels":
        ends = (0.0, float(domain.channels))
    return {
        "range": list(ends),
        "percentiles": np.percentile(sample, [0.1, 99.9]).tolist(),
        "beyond": float(np.mean([one.beyond for one in looks])),
        "channels": [
            {
                "min": float(low[:, i].min()),
                "max": float(high[:, i].max()),
                "mean": float(mean[:, i].mean()),
                "histogram": np.histogram(np.clip(sample[:, i], *ends), BINS, ends)[0].tolist(),
            }
            for i in range(sample.shape[1])
        ],
    }


def flatness(looks: Sequence[Look]) -> float:
    """Return the share of pixels like their right neighbour in the typical image."""
    return float(np.median([one.features[0] for one in looks]))


def has_many_grays(looks: Sequence[Look]) -> bool:
    """Return whether images are gray with many shades, as depths are; drawings have few, label maps colours."""
    sample = np.concatenate([one.sample for one in looks])
    if np.median(sample.max(-1) - sample.min(-1)) > 3:
        return False
    counts = np.histogram(sample[:, 0], 16, (0, 256))[0]
    return int((counts > 0.01 * counts.sum()).sum()) >= 8


def find_swapped(a: Sequence[Look], b: Sequence[Look]) -> list[int]:
    """Return the pairs whose A looks like the B of the others, and whose B looks like their A.

    Every feature is judged by its distance from the median of A and of B, in units of the typical distance there. The
    all features decide where few images of A look like one of B; without such a feature nothing is found.
    """
    if len(a) < 4:
        return []
    values = np.stack([[one.features for one in side] for side in (a, b)])  # [2, N, F]
    center = np.median(values, axis=1, keepdims=True)
    spread = np.median(np.abs(values - center), axis=1, keepdims=True)
    spread = np.maximum(spread, 0.01 * np.abs(center).max(0) + 1e-6)  # of images that are all alike it is nothing
    telling = (np.abs(center[0] - center[1]) > 3 * (spread[0] + spread[1]))[0]
    if not telling.any():
        return []
    straight = (np.abs(values - center) / spread).sum(0)[:, telling]  # [N, F]
    swapped = (np.abs(values - center[::-1]) / spread[::-1]).sum(0)[:, telling]
    return np.flatnonzero((swapped < straight / 2).all(1)).tolist()
