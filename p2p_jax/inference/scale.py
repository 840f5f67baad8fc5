"""The size at which images are translated, compared with that of training."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ml_collections import ConfigDict

from p2p_jax.config.options import crop_shape
from p2p_jax.images.domains import Domain
from p2p_jax.reporting import say

_MUCH = 2  # times the side of training; above it a note is printed
_OF_PIECES = ("crop", "none")  # training that resizes no image


@dataclass(frozen=True)
class Shorter:
    """A size in proportion: the shorter side has so many pixels."""

    pixels: int


Size = tuple[int, int] | float | Shorter | None
"""The size to resize images to before translation: (height, width), a factor, a shorter side, or None for none."""
Wanted = Size | Literal["training"]
"""The same, or "training": see ``of_training``."""


def sides(shape: tuple[int, ...], size: Size) -> tuple[int, int]:
    """Return height and width that an image of a shape [H, W, ...] is to have."""
    if isinstance(size, tuple):
        return size
    factor = size.pixels / min(shape[:2]) if isinstance(size, Shorter) else 1.0 if size is None else size
    return max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1)


def of_training(data: ConfigDict) -> Shorter | None:
    """Return the size that shows things about as large as training did, with the proportions of each image.

    Args:
      data: of the run's config; reads ``preprocess`` and the size of the crop.

    Returns:
      The shorter side of the training images; None if training cut pieces out of images without resizing them.
    """
    return None if data.preprocess in _OF_PIECES else Shorter(min(crop_shape(data)))


def found(size: Wanted, data: ConfigDict) -> Size:
    """Return a size with "training" replaced by what it is for a run."""
    return of_training(data) if size == "training" else size


def tell(shapes: Iterable[tuple[int, ...]], domain: Domain, data: ConfigDict) -> None:
    """Print a note if images are much larger than those of training.

    Args:
      shapes: [H, W, ...] of the images that are translated, after any resizing.
      domain: of the images; there is a note on photographs only.
      data: of the run's config.
    """
    largest = max(shapes, key=min, default=(0, 0))
    size = of_training(data)
    if size is None or not domain.is_photograph or min(largest[:2]) <= _MUCH * size.pixels:
        return
    crop = crop_shape(data)
    say(
        f"note: the network was trained on images of {crop[1]}x{crop[0]}, and these have up to "
        f"{largest[1]}x{largest[0]}: things look far larger to it than in training, so it may change little but the "
        "colours; size=training resizes them as in training"
    )
