"""What pictures were drawn with: the colours of label maps, or lines on paper."""

from collections.abc import Sequence

import numpy as np

from p2p_jax.images import palettes
from p2p_jax.images.palettes import Palette

_EDGES = ("canny_edges", "hed_edges")
_NEAR = 24  # levels that colours may change by when a picture is resized and stored as a JPEG
_LABELLED = 0.5  # of the pixels of label maps have a class's colour; the rest are borders that a JPEG blurred
_GRAY, _PAPER = 0.98, 0.7  # of the pixels of line drawings are without colour, and of the paper's tone
_TWO_TONES = 0.9  # of those on black are black or white


def makes_lines(task: str) -> bool:
    """Return whether ``config.task.input`` makes line drawings of photographs."""
    return task.rpartition(":")[2] in _EDGES


def palette_of(pictures: Sequence[np.ndarray]) -> Palette | None:
    """Return the palette of the library that pictures have, if they are label maps; None if they are not.

    A dark photograph is near to a black that is not a class: most pixels must have colours of classes, of several.

    Args:
      pictures: [H, W, 1 or 3] uint8 each.
    """
    if not len(pictures) or any(picture.shape[-1] != 3 for picture in pictures):
        return None
    if (name := palettes.recognise(pictures)) is None:
        return None
    palette = palettes.BUILT_IN[name]
    colors = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    nearest, far = palettes.palette_distances(colors, palette)
    is_class = (far <= _NEAR) & (nearest < len(palette.colors))
    return palette if is_class.mean() >= _LABELLED and len(np.unique(nearest[is_class])) > 1 else None


def paper_of(pictures: Sequence[np.ndarray]) -> int | None:
    """Return the level of the paper, 255 or 0, if pictures are lines on white or on black; None if they are not.

    Args:
      pictures: [H, W, 1 or 3] uint8 each.
    """
    if not len(pictures):
        return None
    colors = np.concatenate([picture.reshape(-1, picture.shape[-1]) for picture in pictures]).astype(np.int16)
    if (np.ptp(colors, axis=-1) <= _NEAR).mean() < _GRAY:
        return None
    white, black = (colors >= 255 - _NEAR).all(-1).mean(), (colors <= _NEAR).all(-1).mean()
    if white >= _PAPER:
        return 255
    return 0 if black >= _PAPER and black + white >= _TWO_TONES else None  # grays on black are scans, not lines
