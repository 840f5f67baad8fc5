"""Normalized images of any domain as pictures to look at."""

from typing import TYPE_CHECKING

import numpy as np

from p2p_jax.images import lab

if TYPE_CHECKING:
    from p2p_jax.images.domains import Domain

_MEDIUM = 60  # the L of colours without one


def has_colours(domain: "Domain") -> bool:
    """Return whether a picture shows more than which numbers differ: classes without colours have none of their own."""
    return domain.kind != "labels" or domain.palette is not None


def picture(domain: "Domain", normalized: np.ndarray, lightness: np.ndarray | None) -> np.ndarray:
    """Turn normalized images into pictures; see ``Domain.picture``."""
    normalized = np.nan_to_num(np.asarray(normalized, np.float32), nan=-1.0)
    if domain.kind == "labels":
        classes = domain.decode(normalized)[..., 0]
        if domain.palette is not None:
            return domain.palette.colors[classes]
        return (classes.astype(np.uint16) * 255 // max(domain.channels - 1, 1)).astype(np.uint8)[..., None]
    if domain.kind == "lab_ab":
        ab = domain.decode(normalized)
        medium = np.full_like(ab[..., :1], _MEDIUM)
        found = medium if lightness is None else (np.asarray(lightness, np.float32) + 1) * 50
        return lab.to_rgb(np.concatenate([found, ab], axis=-1))
    colours = normalized[..., : 3 if domain.channels >= 3 else 1]
    return np.rint((np.clip(colours, -1, 1) + 1) * 127.5).astype(np.uint8)
