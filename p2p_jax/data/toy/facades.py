"""Draw "toy facades": a procedural stand-in for the CMP facades (Tylecek and Sara, 2013) without a download.

Every picture is an illustrated house front with its exact label map in the twelve CMP colours. A house stands
on a grid of 64 x 64 modules, and nearly every edge in the label map lies on a whole module; so the same house
comes out crisp, and the same, at 64 and at 256 pixels. The material can always be read off the labels: brick
where windows have sills but no string course joins them, ochre plaster where there are shutters, limestone
where there are pillars, blue stucco where there are both sills and string courses. All that is left to chance
in a photograph is a few per cent of tone and grain, so a small network can learn the way from labels to
photograph.

Image contract: uint8, height x width x 3, RGB.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from p2p_jax.data.toy.canvas import MODULES, SHADE, Canvas, Spans, grow
from p2p_jax.errors import InputError
from p2p_jax.images.palettes import CMP_FACADES

CLASSES, PALETTE = CMP_FACADES.names, CMP_FACADES.colors
SPLIT_SIZES = {"train": 400, "val": 100, "test": 100}

_GROUND = 60  # the module row at the base of every house
_IRON, _LINE, _STONE = "#2d3440", "#5c5048", "#fffaf0"


class ToyFacade(NamedTuple):
    """One example: the photograph, its label map in CMP colours, and the same label map as class indices."""

    photo: np.ndarray
    labels: np.ndarray
    classes: np.ndarray


class _Style(NamedTuple):
    wall: str
    wall_low: str
    trim: str
    frame: str
    roof: str
    door: str
    accent: str  # shutters and awnings
    roof_rows: int


_STYLES = {
    "brick": _Style("#bd6a52", "#a95845", "#f0e4d0", "#f6f1e6", "#5d6775", "#2f5548", "#2f6b5e", 8),
    "ochre": _Style("#f0c885", "#e6b26a", "#f9ebcc", "#fbf6ea", "#c46f4d", "#7a4a35", "#4f8573", 4),
    "stone": _Style("#e0d3bb", "#d0c0a4", "#efe7d6", "#f3efe6", "#6d7c91", "#2e4868", "#3a5a80", 7),
    "stucco": _Style("#9fc2c6", "#89b0b6", "#f6f3ea", "#fbf9f2", "#f1ede3", "#c95f47", "#d2694f", 5),
}


@lru_cache(maxsize=4)
def _backdrop(size: int) -> Canvas:
    """Paint what never changes: sky, clouds, trees, pavement and road, all of them background."""
    c, every = Canvas(size, CLASSES), [(0.0, 64.0)]
    gleam = np.sin((c.mid + 0.7 * c.mid[:, None]) * 0.55) * 2 - 0.6
    c.gleam += 0.28 * np.clip(gleam, 0, 1)[..., None]  # bands of light that the sky throws on glass
    c.paint(every, [(0, _GROUND)], "#7db3e0", "#fbeed6")
    for x0, x1, y0, y1 in ((2, 13, 9, 11.5), (5, 10, 7, 11.5), (47, 62, 10, 12.5), (51, 57, 7.5, 12.5)):
        c.paint([(x0, x1)], [(y0, y1)], "#eef3f4", top="round", rise=y1 - y0)
    for x0, x1, y0 in ((-9, 9, 42), (54, 75, 40)):
        c.paint([(x0, x1)], [(y0, _GROUND)], "#bdd2b8", "#a3c09f", top="round", rise=9)
    for x0, x1, y0 in ((-4, 5, 47), (3, 12, 51), (52, 60, 50), (58, 69, 46)):
        c.paint([(x0, x1)], [(y0, _GROUND)], "#94b88d", "#719d74", top="round", rise=9)
    c.paint(every, [(_GROUND, 62)], "#ddd6ca", "#cdc5b8")
    c.paint(every, [(62, 62.6)], "#f0eadf")
    c.paint(every, [(62.6, 64)], "#95959c", "#84848d")
    return c


class _House(Canvas):
    """The plan of a house, drawn from `rng` in whole modules, with its canvas."""

    def __init__(self, rng: np.random.RandomState, size: int) -> None:
        super().__init__(size, CLASSES)
        backdrop = _backdrop(size)
        self.photo, self.gleam = backdrop.photo.copy(), backdrop.gleam
        self.rng = rng
        self.style = tuple(_STYLES)[self.pick(4)]
        self.s = _STYLES[self.style]
        self.bays = 3 + self.pick(3)
        self.bay = (13, 11, 10)[self.bays - 3] + self.pick((4, 3, 2)[self.bays - 3])
        self.edge = 2 if self.style == "stone" else 1 + self.pick(2)
        self.pane = self.bay - (6 if self.bay < 13 else 8)  # width of a window
        width = self.bays * self.bay + 2 * self.edge
        self.left = (MODULES - width) // 2 + (self.pick(3) - 1 if width <= 58 else 0)
        self.right = self.left + width
        self.wall = [(float(self.left), float(self.right))]
        self.ground = 12 + self.pick(3)  # height of the ground floor
        room = _GROUND - self.ground - self.s.roof_rows - 6
        count = 4 if room >= 36 and self.bays == 5 else 2 if self.bays == 3 and self.chance(0.4) else 3
        height = max(min(room // count, 13) - self.chance(0.3), 9)
        self.floors = [max(height - self.chance(0.5), 9)] + [height] * (count - 1)  # from the top
        self.top = _GROUND - self.ground - sum(self.floors) - 3

    def pick(self, count: int) -> int:
        """Return one of 0 ... count - 1; by random_sample, the stream that numpy keeps fixed everywhere."""
        return int(self.rng.random_sample() * count)

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return bool(self.rng.random_sample() < probability)

    def columns(self, width: float, bays: Sequence[int] | None = None) -> list[tuple[float, float]]:
        """Return spans of a width, centred in the bays."""
        middle = self.left + self.edge + self.bay / 2
        at = [middle + i * self.bay for i in (range(self.bays) if bays is None else bays)]
        return [(x - width / 2, x + width / 2) for x in at]


def _wall(h: _House) -> None:
    h.paint(h.wall, [(h.top, _GROUND)], h.s.wall, h.s.wall_low, "facade")
    bonds = {"brick": (0.75, "#e8cbb4", 0.33), "stone": (2.0, "#8d806c", 0.25)}
    if h.style in bonds:  # the bond starts at the picture's corner, not the house's: it can be foreseen
        course, ink, alpha = bonds[h.style]
        thin, block = 0.22 * course, 2 * course
        rows = [(k * course, (k + 1) * course) for k in range(int(h.top / course) + 1, int(_GROUND / course))]
        h.paint(h.wall, [(a, a + thin) for a, _ in rows], ink, alpha=alpha)
        for odd in (0, 1):
            joints = block * (np.arange(np.ceil(h.left / block), h.right / block - 0.6) + odd / 2)
            every_other = [row for row in rows if round(row[0] / course) % 2 == odd]
            h.paint([(x, x + thin) for x in joints], every_other, ink, alpha=0.8 * alpha)
    h.paint(h.wall, [(h.top, _GROUND)], SHADE, alpha=0.0, fade=0.12, sideways=True)
    if h.style == "stone":
        at = [h.left + h.edge + i * h.bay for i in range(h.bays + 1)]
        y0, y1 = h.top + 2, _GROUND - h.ground
        h.paint([(x + 1, x + 1.8) for x in at[:-1]], [(y0, y1)], SHADE, alpha=0.25)
        h.paint([(x - 1, x + 1) for x in at], [(y0, y1)], "#fdf6e8", "#c2b39b", "pillar", sideways=True)
        h.paint([(x - 0.15, x + 0.15) for x in at], [(y0 + 2, y1 - 2)], "#8d806c", alpha=0.3)
        h.paint([(x - 1, x + 1) for x in at], [(y0, y0 + 1.2), (y1 - 1.2, y1)], h.s.trim)
        h.paint([(x - 1, x + 1) for x in at], [(y0 + 1.2, y0 + 1.5), (y1 - 1.5, y1 - 1.2)], _LINE, alpha=0.45)


def _roof(h: _House) -> None:
    s, top = h.s, h.top
    ridge = top - (s.roof_rows if h.style in ("ochre", "stone") else 4)
    chimneys = [(float(x), x + 3.0) for x in (h.left + 4 + h.pick(4), h.right - 7 - h.pick(4))]
    if h.chance(0.7):
        chimneys = chimneys if h.chance(0.5) else chimneys[:1]
        h.paint(chimneys, [(ridge - 2, top)], s.wall, s.wall_low, "facade")
        h.paint(chimneys, [(ridge - 2, top)], SHADE, alpha=0.0, fade=0.35, sideways=True)
        h.paint(chimneys, [(ridge - 2, ridge - 1.3)], s.trim)
    if h.style in ("ochre", "stone"):
        low = "#53607a" if h.style == "stone" else "#a85839"
        h.paint(grow(h.wall, 1), [(ridge, top)], s.roof, low, "background", top="hip", rise=s.roof_rows)
        h.paint(grow(h.wall, -2), [(y + 0.7, y + 0.95) for y in range(ridge, top)], "#2c3440", alpha=0.22)
    if h.style == "stone":
        h.paint(h.columns(h.pane), [(top - 6, top)], s.trim, "#d8ccb8", "molding", top="gable", rise=3)
        _window(h, h.columns(h.pane - 2), (top - 4, top), trim=False)
    half = 8 + 2 * h.pick(3) + h.bay * h.bays % 2 / 2
    middle = [((h.left + h.right) / 2 - half, (h.left + h.right) / 2 + half)]
    if h.style == "brick" and h.chance(0.6):
        h.paint(grow(middle, 0.5), [(top - 8, top)], s.trim, None, "facade", top="steps", rise=8)
        h.paint(middle, [(top - 7.4, top)], s.wall, None, "facade", top="steps", rise=8)
        _window(h, grow(middle, 2 - half), (top - 5, top), arch=2)
    elif h.style == "stucco":
        h.paint(h.wall, [(top - 2, top)], s.wall, None, "facade")
        h.paint(h.wall, [(top - 2, top - 1.4)], s.trim)
        h.paint(middle, [(top - 5, top)], s.trim, "#e2ddd0", "deco", top="arch", rise=4)
        h.paint(grow(middle, -2), [(top - 3.8, top - 0.6)], s.wall, s.wall_low, top="arch", rise=3)


def _window(h: _House, xs: Spans, y: tuple[float, float], *, arch: float = 0.0, trim: bool = True) -> None:
    """Paint windows: surround, frame, panes that mirror the sky, curtains, bars, shadow of the reveal."""
    (y0, y1), top, inner = y, "arch" if arch else "", grow(xs, -0.5)
    panes = [(y0 + arch + 0.5, y1 - 0.5)]
    if trim:
        h.paint(grow(xs, 0.7), [(y0 - 0.7, y1)], h.s.trim, top=top, rise=arch)
    h.paint(xs, [y], h.s.frame, None, "window", top=top, rise=arch)
    h.paint(inner, [(y0 + 0.5, y1 - 0.5)], "#9ac2df", "#385577", gleam=True, top=top, rise=arch)
    curtains = [side for a, b in inner for side in ((a, a + 0.2 * (b - a)), (b - 0.2 * (b - a), b))]
    h.paint(curtains, panes, "#fff6e4", alpha=0.45, fade=0.12)
    h.shadow(inner, [(y0 + arch + 0.5, y0 + arch + 1.7)], 0.45)
    h.paint([(a, a + 0.5) for a, _ in inner], panes, SHADE, alpha=0.25)
    h.paint([((a + b) / 2 - 0.22, (a + b) / 2 + 0.22) for a, b in xs], panes, h.s.frame)
    if y1 - y0 > 4:
        bar = y0 + 0.36 * (y1 - y0)
        h.paint(inner, [(bar - 0.2, bar + 0.2)], h.s.frame)


def _ledge(h: _House, xs: Spans, y: float, name: str, rows: int = 1) -> None:
    """Paint a sill, string course or cornice, with its lit face, its dark lower edge and its shadow."""
    h.shadow(xs, [(y + rows, y + 2.3 * rows)], 0.3 + 0.1 * rows)
    h.paint(xs, [(y, y + rows)], _STONE, h.s.trim, name)
    h.paint(xs, [(y + rows - 0.28, y + rows)], _LINE, alpha=0.4)


def _balcony(h: _House, xs: Spans, y: float) -> None:
    """Paint iron railings, three modules high, over a slab of one; the ochre house has geraniums."""
    h.shadow(xs, [(y + 4, y + 6)], 0.45)
    h.paint(xs, [(y, y + 3)], _IRON, None, "balcony", alpha=0.12)
    starts = [x for a, b in xs for x in np.arange(a, b - 0.2, 0.8)]
    h.paint([(x + 0.25, x + 0.55) for x in starts], [(y, y + 3)], _IRON, alpha=0.9)
    h.paint(xs, [(y, y + 0.5), (y + 1, y + 1.25)], _IRON, alpha=0.95)
    _ledge(h, xs, y + 3, "balcony")
    if h.style == "ochre":
        h.paint(grow(xs, -0.5), [(y + 0.1, y + 1.1)], "#6f9a5c", "#4c7a4a")
        h.paint([(x + 0.7, x + 1.2) for x in starts[:-1:2]], [(y, y + 0.6)], "#e2574a")
        h.paint([(x + 0.7, x + 1.2) for x in starts[1:-1:2]], [(y + 0.4, y + 1)], "#f08a7c")


def _shutters(h: _House, xs: Spans, y: tuple[float, float]) -> None:
    h.paint(xs, [y], h.s.accent, None, "blind")
    h.paint(xs, [y], "#ffffff", alpha=0.16, fade=0.0, sideways=True)
    slats = [(k, k + 0.28) for k in np.arange(y[0] + 0.5, y[1] - 0.5, 0.7)]
    h.paint(grow(xs, -0.35), slats, "#1f3d3a", alpha=0.5)


def _storey(h: _House, y0: int, y1: int, *, noble: bool) -> None:
    """Paint one upper storey; `noble` is the lowest one, which has the richest dress."""
    xs, wide, middle = h.columns(h.pane), h.columns(h.pane + 2), (y0 + 2, y1 - 2)
    if h.style == "brick":
        arch = float(h.chance(0.5))
        top = "arch" if arch else ""
        h.paint(wide, [(y0 + 1, y0 + 2 + arch)], h.s.trim, "#dccbb1", "deco", top=top, rise=arch)
        _window(h, xs, middle, arch=arch, trim=False)
        _ledge(h, wide, y1 - 2, "sill")
    elif h.style == "ochre":
        _window(h, xs, middle)
        _shutters(h, [s for a, b in xs for s in ((a - 2, a), (b, b + 2))], middle)
        shut = [half for a, b in xs if h.chance(0.15) for half in ((a, (a + b) / 2), ((a + b) / 2, b))]
        if shut:
            _shutters(h, shut, middle)
        if noble or h.chance(0.35):
            _balcony(h, grow(xs, 2), y1 - 4)
        else:
            _ledge(h, wide, y1 - 2, "sill")
    elif h.style == "stone":
        _ledge(h, h.wall, y1 - 1, "molding")
        if noble:
            h.paint(wide, [(y0, y0 + 2)], _STONE, h.s.trim, "molding", top="gable", rise=1.6)
        _window(h, xs, middle)
        if noble or h.chance(0.3):
            _balcony(h, h.wall if h.chance(0.5) else wide, y1 - 4)
    else:
        _ledge(h, h.wall, y1 - 1, "molding")
        crown = ("", "gable", "arch")[h.pick(3)]
        h.paint(wide, [(y0 + 0.4, y0 + 2)], _STONE, h.s.trim, "deco", top=crown, rise=1.3)
        _window(h, xs, (y0 + 2, y1 - 3))
        _ledge(h, wide, y1 - 3, "sill")
        if noble and h.chance(0.5):
            _balcony(h, wide, y1 - 4)


def _door(h: _House, xs: Spans, y0: int, arch: float) -> None:
    (x0, x1), top, light = xs[0], "arch" if arch else "", y0 + 3.2
    middle, half = (x0 + x1) / 2, (light + 59.4) / 2
    h.paint(grow(xs, 0.9), [(y0 - 0.9, _GROUND)], h.s.trim, top=top, rise=arch)
    h.paint(xs, [(y0, _GROUND)], h.s.door, None, "door", top=top, rise=arch)
    h.paint(grow(xs, -0.6), [(y0 + 0.6, light)], "#a9cbe2", "#5f7f9c", gleam=True, top=top, rise=arch)
    h.paint([(middle - 0.2, middle + 0.2)], [(y0 + 0.6, light)], h.s.door)
    h.shadow(xs, [(light, light + 1.5)], 0.3)
    leaves = [(x0 + 0.7, middle - 0.5), (middle + 0.5, x1 - 0.7)]
    panels = [(light + 0.8, half - 0.3), (half + 0.3, 59.4)]
    h.paint(leaves, panels, "#101820", alpha=0.28, fade=0.12)
    h.paint(leaves, [(b - 0.25, b) for _, b in panels], "#ffffff", alpha=0.28)
    h.paint([(middle - 0.12, middle + 0.12)], [(light, _GROUND)], "#101820", alpha=0.5)
    h.paint([(middle + 0.3, middle + 0.75)], [(56, 56.5)], "#f0c65a")
    h.paint(grow(xs, 1.2), [(_GROUND - 0.6, _GROUND)], "#f1ebdf", "#c6bdaf")


def _shop(h: _House, x0: int, x1: int, y0: int) -> None:
    """Paint a shop front: sign, lit display windows and striped awning."""
    xs, sign = [(float(x0), float(x1))], (x0 + x1) / 2 - 3.2
    h.paint(xs, [(y0, _GROUND)], h.s.accent, None, "shop")
    h.paint(xs, [(y0, y0 + 2)], "#ffffff", alpha=0.14, fade=0.0)
    h.paint([(sign + k, sign + k + 0.6) for k in range(6)], [(y0 + 0.6, y0 + 1.4)], "#fff3d6", alpha=0.9)
    panes = [(x + 0.3, min(x + 4.7, x1 - 0.5)) for x in np.arange(x0 + 0.4, x1 - 2, 5)]
    h.paint(panes, [(y0 + 2, 58.4)], "#6d8aa3", "#f7dfae", gleam=True)
    h.paint(panes, [(57.2, 58.4)], "#8c6239", alpha=0.55)
    h.shadow(xs, [(y0 + 5, y0 + 7)], 0.5)
    h.paint(xs, [(y0 + 2, y0 + 5)], "#fff7e6")
    h.paint([(x, x + 1) for x in range(x0, x1, 2)], [(y0 + 2, y0 + 5)], h.s.accent)
    h.shadow(xs, [(y0 + 2, y0 + 4.2)], 0.22)
    h.paint(xs, [(y0 + 4.2, y0 + 5)], SHADE, alpha=0.16)


def _ground_floor(h: _House) -> None:
    y0, plain = _GROUND - h.ground, h.style in ("brick", "ochre")
    if h.style == "stone":
        h.paint(h.wall, [(y + 0.6, y + 1) for y in range(y0 + 1, _GROUND - 1, 2)], "#7d705f", alpha=0.4)
    else:
        h.paint(h.wall, [(_GROUND - 2, _GROUND)], "#b9b0a4", "#9d948a")
    if not plain:
        _ledge(h, h.wall, y0, "molding")
    entrance = h.pick(h.bays) if h.chance(0.4) else h.bays // 2
    arch = 1.5 if h.style in ("brick", "stone") else 0.0
    if h.chance(0.55):
        start = h.left + h.edge
        for first, last in ((0, entrance), (entrance + 1, h.bays)):
            if last > first:
                _shop(h, start + first * h.bay + 1, start + last * h.bay - 1, y0 + 2)
    else:
        xs, y = h.columns(h.pane, [i for i in range(h.bays) if i != entrance]), (y0 + 3, _GROUND - 4)
        _window(h, xs, y, arch=arch, trim=h.style != "brick")
        if h.style == "ochre":
            _shutters(h, [s for a, b in xs for s in ((a - 2, a), (b, b + 2))], y)
        if h.style != "stone":
            _ledge(h, grow(xs, 1), _GROUND - 4, "sill")
    _door(h, h.columns(h.pane if h.pane > 4 else 6, [entrance]), y0 + 3, arch)


def _develop(h: _House) -> np.ndarray:
    """Give the picture the tone, mottling and grain of a photograph; all that labels do not show."""
    tone = 1 + 0.012 * (2 * h.rng.random_sample(3) - 1) + 0.04 * (2 * h.rng.random_sample() - 1)
    weight = np.maximum(1 - np.abs(h.mid[:, None] / 8 - np.arange(9)), 0)  # bilinear, from a grid of 9 x 9
    rows = 0.06 * np.einsum("ik,kl->il", weight, h.rng.random_sample((9, 9)) - 0.5)
    grain = 1 + np.einsum("il,jl->ij", rows, weight)  # not @: BLAS threads cost more than the sum
    grain += 0.03 * (h.rng.random_sample(grain.shape) - 0.5)
    h.photo *= grain.astype(np.float32)[..., None]
    h.photo *= tone.astype(np.float32)
    h.photo += 0.5
    return np.clip(h.photo, 0, 255, out=h.photo).astype(np.uint8)


def render(index: int, split: str = "train", size: int = 256) -> ToyFacade:
    """Draw one example of the toy facades.

    Args:
        index: Number of the example, 0 <= index < SPLIT_SIZES[split].
        split: "train", "val" or "test".
        size: Height and width in pixels, 16 to 1024; multiples of 64 are crisp.

    Returns:
        photo: [size, size, 3] uint8; labels: [size, size, 3] uint8, equal to PALETTE[classes];
        classes: [size, size] uint8, indices into CLASSES.

    Raises:
        InputError: The split is unknown, the index lies outside it, or the size is not in range.
    """
    if split not in SPLIT_SIZES:
        raise InputError(f"toy facades have the splits {', '.join(SPLIT_SIZES)}, not {split!r}")
    if not 0 <= index < SPLIT_SIZES[split]:
        raise InputError(f"toy facades {split!r} has indices 0 to {SPLIT_SIZES[split] - 1}, not {index}")
    if not 16 <= size <= 1024:
        raise InputError(f"size of a toy facade must be 16 to 1024 pixels, not {size}")
    h = _House(np.random.RandomState([zlib.crc32(split.encode()), index]), size)
    h.shadow(grow(h.wall, 1), [(_GROUND, _GROUND + 1.8)], 0.35)
    _roof(h)
    _wall(h)
    y = h.top + 3
    for i, height in enumerate(h.floors):
        _storey(h, y, y + height, noble=i == len(h.floors) - 1)
        y += height
    _ledge(h, grow(h.wall, 1), h.top, "cornice", rows=2)
    dentils = [(x, x + 0.5) for x in np.arange(h.left - 0.75, h.right + 0.8)]
    h.paint(dentils, [(h.top + 1, h.top + 1.7)], _LINE, alpha=0.4)
    _ground_floor(h)
    photo = _develop(h)
    return ToyFacade(photo, PALETTE[h.classes], h.classes)
