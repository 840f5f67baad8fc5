"""The toy facades at night: a picture that a small network can learn to make from the one by day, and to undo.

It is a function of the picture by day, pixel by pixel but for the glow: sky, walls and pavement keep their drawing in
blue darkness, and what is glass is lit from within. A pane is the brighter the darker it was by day, so that bars and
curtains cover the light, and every tone of the day differs from that of the night.

Image contract: uint8, height x width x 3, RGB.
"""

from functools import lru_cache

import numpy as np

from p2p_jax.data.toy.canvas import MODULES
from p2p_jax.data.toy.facades import CLASSES, ToyFacade

_GROUND = 60 / MODULES  # where the pavement begins
_FANLIGHT = 3.2 / MODULES  # height of the panes over a door
# What white by day is at night. All that is background, the sky first, gains contrast on the way.
_WHITE = np.array([{"background": (68, 56, 116), "shop": (290, 230, 128)}.get(name, (92, 95, 156)) for name in CLASSES])
_LIT = np.array([(74, 42, 34), (232, 142, 52), (255, 214, 112), (255, 240, 178)], np.float32)  # bright to dark by day
_GLOW = np.array((1.0, 0.62, 0.22), np.float32)  # colour of the light that windows and lamps shed


def at_night(facade: ToyFacade) -> np.ndarray:
    """Return the photograph of a toy facade as it looks at night: [size, size, 3] uint8."""
    day, classes = facade.photo.astype(np.float32) / 255, facade.classes
    size = len(day)
    ground, door, window, shop = (classes == CLASSES.index(name) for name in ("background", "door", "window", "shop"))
    glass = window | (door & (door.cumsum(axis=0) <= _FANLIGHT * size))
    night = _WHITE.astype(np.float32)[classes] * day
    night[ground] *= np.sqrt(day[ground])
    # Light spreads: a narrow halo round every pane, and a wide one, which the street lamps join near the ground.
    y = (np.arange(size, dtype=np.float32) + 0.5)[:, None] / size
    light = 0.26 * np.exp(-np.square((y - _GROUND) * 10))
    for strength, kernel in ((0.2, _kernel(size, 0.8)), (0.3, _kernel(size, 2.5))):
        light = light + strength * (kernel @ (glass + np.float32(0.8) * shop) @ kernel)
    light[shop] = 0
    night += light[..., None] * _GLOW * (210 * day + 20)
    night[glass] = _lit(day[glass])
    return np.clip(night + 0.5, 0, 255).astype(np.uint8)


def _lit(day: np.ndarray) -> np.ndarray:
    """Colour panes by how dark they are by day."""
    dark = 1 - day @ np.array((0.3, 0.59, 0.11), np.float32)
    stops = (0.05, 0.25, 0.5, 0.75)
    return np.stack([np.interp(dark, stops, _LIT[:, c]) for c in range(3)], axis=-1).astype(np.float32)


@lru_cache(maxsize=8)
def _kernel(size: int, radius: float) -> np.ndarray:
    """Return [size, size], which blurs by a Gaussian whose radius is in modules."""
    at = np.arange(size, dtype=np.float32) * MODULES / size
    weight = np.exp(-np.square((at[:, None] - at) / radius) / 2)
    weight[weight < 1e-6] = 0  # else denormal numbers make the product slow
    return weight / weight[size // 2].sum()  # it darkens towards the edges of the picture, which shed no light
