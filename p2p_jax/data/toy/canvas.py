"""A canvas to paint a photograph and its label map at once, in modules rather than in pixels."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

MODULES = 64  # of a picture's side
SHADE = "#2b2440"  # shadows are tinted, because the sky lights what the sun does not

Spans = Sequence[tuple[float, float]]  # intervals along one axis, in modules; those of one call are disjoint
_Reach = tuple[slice, np.ndarray, np.ndarray, np.ndarray]
TOPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # upper edges over u in [-1, 1]: 0 highest, 1 lowest
    "round": lambda u: 1 - np.sqrt(np.maximum(1 - u * u, 0)),
    "arch": lambda u: u * u,
    "gable": lambda u: np.abs(u),
    "steps": lambda u: np.floor(np.abs(u) * 4) / 4,
    "hip": lambda u: np.maximum((np.abs(u) - 0.88) / 0.12, 0),
}


@lru_cache(maxsize=64)
def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


@lru_cache(maxsize=8192)
def _cover(size: int, spans: tuple[tuple[float, float], ...]) -> _Reach:
    """Return the pixels reached along one axis, their coverage, place in the span, and label; houses share many."""
    px = MODULES / size
    ends = np.asarray(spans, float)
    first, last = np.clip((ends[:, 0].min() / px, ends[:, 1].max() / px), 0, size)
    part = slice(int(first), int(np.ceil(last)))
    low = np.arange(part.start, part.stop) * px
    mid, start, end = low + px / 2, ends[:, :1], ends[:, 1:]
    cover = np.maximum(np.minimum(low + px, end) - np.maximum(low, start), 0) / px
    nearest = ends[np.abs(2 * mid - start - end).argmin(0)] if len(ends) > 1 else ends
    along = np.clip((mid - nearest[:, 0]) / (nearest[:, 1] - nearest[:, 0]), 0, 1).astype(np.float32)
    inside = np.any((mid >= start) & (mid < end), axis=0)
    return part, cover.sum(0, np.float32), along, np.asarray(inside)


class Canvas:
    """A photograph and its label map under one brush, which paints both."""

    def __init__(self, size: int, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self.size, self.px = size, MODULES / size
        self.low = np.arange(size) * self.px
        self.mid = self.low + self.px / 2
        self.photo = np.zeros((size, size, 3), np.float32)
        self.classes = np.zeros((size, size), np.uint8)
        self.gleam = np.zeros((size, size, 1), np.float32)

    def paint(
        self, xs: Spans, ys: Spans, colour: str, to: str | None = None, name: str | None = None, *,
        alpha: float = 1.0, fade: float | None = None, sideways: bool = False, gleam: bool = False,
        top: str = "", rise: float = 0.0,
    ) -> None:  # fmt: skip
        """Paint all rectangles of xs x ys: the photograph by pixel coverage, the labels by pixel centres.

        Args:
            xs: Columns, in modules.
            ys: Rows, in modules.
            colour: "#rrggbb", which runs into the colour `to` from top to bottom.
            to: See `colour`; None for an even colour.
            name: The class that the rectangles get in the label map; None leaves the label map unchanged.
            alpha: Opacity, which runs into `fade` from top to bottom.
            fade: See `alpha`; None for an even opacity.
            sideways: Let both run from left to right instead.
            gleam: Mirror the sky.
            top: Profile of the upper edge, from TOPS; asks for one row only.
            rise: Height of that profile, in modules.
        """
        rows, down, along_y, in_y = _cover(self.size, tuple(ys))
        cols, across, along_x, in_x = _cover(self.size, tuple(xs))
        inside = in_y[:, None] & in_x
        down = down[:, None]
        if top:
            edge = ys[0][0] + rise * TOPS[top](2 * along_x - 1)
            low = self.low[rows, None]
            down = np.maximum(np.minimum(low + self.px, ys[0][1]) - np.maximum(low, edge), 0) / self.px
            inside &= self.mid[rows, None] >= edge
        along = along_x[None, :] if sideways else along_y[:, None]
        opacity = alpha if fade is None else alpha + (fade - alpha) * along
        cover = (down * opacity * across if not sideways else down * (opacity * across))[..., None]
        ink = _rgb(colour)
        if to is not None:
            ink = ink + along[..., None] * (_rgb(to) - ink)
        if gleam:
            ink = ink + self.gleam[rows, cols] * (255 - ink)
        patch = self.photo[rows, cols]
        patch += cover * (ink - patch)
        if name is not None:
            self.classes[rows, cols][inside] = self.class_names.index(name)

    def shadow(self, xs: Spans, ys: Spans, alpha: float = 0.4) -> None:
        """Cast a shadow that is darkest at the top."""
        self.paint(xs, ys, SHADE, alpha=alpha, fade=0.0)


def grow(spans: Spans, by: float) -> list[tuple[float, float]]:
    """Return the spans, longer by `by` modules at either end."""
    return [(a - by, b + by) for a, b in spans]
