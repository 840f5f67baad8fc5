"""Drawing tools, and the conversion of a drawing to an image file of the input domain."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p_jax.images import drawings, formats, labels, palettes
from p2p_jax.images.domains import Domain
from p2p_jax.images.palettes import Palette

LINES = "lines"
"""Word that selects lines on paper instead of a palette."""
_FREE = {
    "black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128), "red": (200, 40, 40),
    "orange": (230, 140, 40), "yellow": (235, 210, 60), "green": (60, 140, 60), "blue": (50, 90, 180),
    "sky": (140, 190, 230), "brown": (120, 80, 50),
}  # fmt: skip


class Pad(NamedTuple):
    """The tools to draw with.

    Attributes:
      colors: RGB colours by name.
      background: RGB colour of an empty drawing.
      size: height and width of a drawing, those of the training images.
      brush: initial width of a stroke in pixels.
      exact: whether a drawing has only these colours, because they are classes.
      domain: domain of a drawing.
    """

    colors: dict[str, tuple[int, int, int]]
    background: tuple[int, int, int]
    size: tuple[int, int]
    brush: int
    exact: bool
    domain: Domain

    @property
    def blank(self) -> np.ndarray:
        """An empty drawing, [H, W, 3] uint8."""
        return np.full((*self.size, 3), self.background, np.uint8)

    def write(self, path: Path, drawn: np.ndarray) -> None:
        """Write a drawing as an image file that is translated like any other.

        Args:
          path: ends in .png.
          drawn: [H, W, 3 or 4] uint8; transparent pixels show the background.

        Raises:
          InputError: the file cannot be written.
        """
        pixels = drawn[..., :3]
        if drawn.shape[-1] == 4:
            weight = drawn[..., 3:] / np.float32(255)
            pixels = np.rint(pixels * weight + np.array(self.background) * (1 - weight)).astype(np.uint8)
        if self.exact:
            found = classes(pixels, np.array(list(self.colors.values()), np.uint8))
            pixels = np.array(list(self.colors.values()), np.uint8)[found]
            if self.domain.kind == "labels" and self.domain.palette is None:  # the colours are our own choice
                pixels = labels.as_stored(found[..., None].astype(np.uint8), self.domain.numbers)
        formats.write(path, pixels)


def find(
    domain: Domain,
    size: tuple[int, int],
    examples: Sequence[np.ndarray] = (),
    task: str = "",
    palette: str = "",
) -> Pad | None:
    """Return the tools to draw images of a domain; None if they cannot be drawn.

    Args:
      domain: domain of the inputs.
      size: height and width of drawings.
      examples: pictures of it, [H, W, 1 or 3] uint8; they give colours and background if nothing else does.
      task: ``config.task.input``, if inputs are made from photographs; for edges, lines are drawn.
      palette: colours of the classes, as ``find_palette`` takes them, or ``LINES``, for runs that do not know them.

    Raises:
      InputError: the palette does not exist.
    """
    is_picture = domain.is_photograph and domain.kind != "lab_ab"
    if not (is_picture or domain.is_labels):
        return None
    brush = max(2, round(min(size) / 20))
    named = palettes.find_palette(palette) if palette not in ("", LINES) else None
    known = named or domain.palette or (None if palette else drawings.palette_of(examples))
    if domain.kind == "labels" and known is None:
        known = _invented(domain.channels)
    if known is not None:
        colors = {name: _rgb(color) for name, color in zip(known.names, known.colors, strict=True)}
        return Pad(colors, _commonest(examples, known), size, brush, True, domain)
    found = drawings.paper_of(examples)
    if palette == LINES or drawings.makes_lines(task) or found is not None:
        line, paper = ((255,) * 3, (0,) * 3) if found == 0 else ((0,) * 3, (255,) * 3)
        return Pad({"line": line, "paper": paper}, paper, size, max(1, round(min(size) / 128)), False, domain)
    return Pad(dict(_FREE), (255, 255, 255), size, brush, False, domain)


def classes(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Assign a class to every pixel of a drawing.

    The edge of a stroke may be smoothed, and a mixture of two colours is often nearest to a third. So a pixel with a
    colour that is not in the palette gets the nearest of the palette colours next to it.

    Args:
      pixels: [H, W, 3] uint8.
      colors: [K, 3] uint8.

    Returns:
      [H, W] int32 in 0 ... K - 1.
    """
    palette = Palette(tuple(map(str, range(len(colors)))), colors)
    nearest = palettes.nearest_labels(pixels, palette)
    is_mixed = (colors[nearest] != pixels).any(-1)
    if not is_mixed.any():
        return nearest
    height, width = nearest.shape
    padded = np.pad(np.where(is_mixed, -1, nearest), 2, constant_values=-1)
    best, found = np.full(nearest.shape, np.inf, np.float32), nearest.copy()
    for down in range(5):
        for right in range(5):
            beside = padded[down : down + height, right : right + width]
            distance = np.square(colors[beside].astype(np.float32) - pixels).sum(-1)
            better = is_mixed & (beside >= 0) & (distance < best)
            best, found = np.where(better, distance, best), np.where(better, beside, found)
    return found


def _commonest(examples: Sequence[np.ndarray], known: Palette) -> tuple[int, int, int]:
    """Return the most frequent colour; the first one if there are no examples."""
    coloured = [image for image in examples if image.shape[-1] == 3]
    if not coloured:
        return _rgb(known.colors[0])
    counts = sum(np.bincount(palettes.nearest_labels(x, known).ravel(), minlength=len(known.colors)) for x in coloured)
    return _rgb(known.colors[int(np.argmax(counts))])


def _invented(count: int) -> Palette:
    """Return colours for classes without any: hues far apart, bright and dark in turn."""
    colors = [colorsys.hsv_to_rgb(i / count, 1, (1, 0.6)[i % 2]) for i in range(count)]
    return Palette(tuple(f"class {i}" for i in range(count)), np.rint(np.array(colors) * 255).astype(np.uint8))


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = color.tolist()
    return red, green, blue
