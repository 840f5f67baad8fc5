"""Sample grids: the same images in named columns, as pictures, with what step they are of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from p2p_jax.images.domains import Domain
from p2p_jax.storage.writing import unfinished

_TITLE = 16  # pixels of a line of text
_GAP = 4
_SIDE = 256  # pixels, to about which the longer side of smaller images is enlarged in a file
_PLACES = "p2p_jax_grid"  # name of the text in a file that says where its images are


def pictures(columns: Mapping[str, np.ndarray], domains: tuple[Domain, Domain]) -> dict[str, np.ndarray]:
    """Turn the images of a grid's columns into pictures to look at; see ``Domain.picture``.

    Args:
      columns: name -> [N, H, W, C] in [-1, 1].
      domains: a and b. A column is of the only one with its number of channels; if both have it, "input" and names
        that end in " A" are of a and all others of b; if neither, its first channels are shown. An ab of Lab is shown
        with the first L in its row.

    Returns:
      name -> [N, H, W, 1 or 3] uint8.
    """
    kinds = {name: _domain_of(name, images.shape[-1], domains) for name, images in columns.items()}
    lightness = next((np.asarray(columns[name]) for name, domain in kinds.items() if domain.kind == "lab_l"), None)
    return {name: domain.picture(columns[name], lightness) for name, domain in kinds.items()}


def _domain_of(name: str, channels: int, domains: tuple[Domain, Domain]) -> Domain:
    fitting = [domain for domain in domains if domain.channels == channels]
    if not fitting:
        return Domain("float", channels)
    return fitting[0 if name == "input" or name.endswith(" A") else -1]


def make_grid(columns: Mapping[str, np.ndarray], caption: str = "") -> np.ndarray:
    """Lay images out in named columns, one row per example.

    Args:
      columns: name -> [N, H, W, 1 or 3] uint8; N, H and W are the same for all.
      caption: a line above all.

    Returns:
      [height, width, 3] uint8.
    """
    font = ImageFont.load_default(13)
    num_rows, height, width = next(iter(columns.values())).shape[:3]
    top = _top(caption)
    size = (len(columns) * (width + _GAP) - _GAP, top + num_rows * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    if caption:
        draw.text((2, 0), caption, fill="black", font=font)
    for i, (name, images) in enumerate(columns.items()):
        left = i * (width + _GAP)
        draw.text((left + 2, top - _TITLE), name, fill="black", font=font)
        for row, image in enumerate(images):
            image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
            sheet.paste(Image.fromarray(image), (left, top + row * (height + _GAP)))
    return np.asarray(sheet)


def _top(caption: str) -> int:
    return 2 * _TITLE if caption else _TITLE


def write_grid(path: Path, columns: Mapping[str, np.ndarray], step: int, caption: str) -> np.ndarray:
    """Write a grid as a PNG file that knows where its images are; small images are enlarged by a whole factor.

    Args:
      path: of the file, which is there whole or not at all.
      columns: see ``make_grid``.
      step: that the images are of.
      caption: see ``make_grid``.

    Returns:
      The grid, see ``make_grid``.
    """
    height, width = next(iter(columns.values())).shape[1:3]
    factor = max(1, round(_SIDE / max(height, width)))
    grid = make_grid({name: x.repeat(factor, 1).repeat(factor, 2) for name, x in columns.items()}, caption)
    places = {
        "step": step,
        "caption": caption,
        "columns": list(columns),
        "rows": len(next(iter(columns.values()))),
        "width": width * factor,
        "height": height * factor,
        "top": _top(caption),
        "gap": _GAP,
    }
    info = PngImagePlugin.PngInfo()
    info.add_text(_PLACES, json.dumps(places))
    with unfinished(path) as partial:  # readers see a whole file or none
        Image.fromarray(grid).save(partial, "PNG", pnginfo=info)
    return grid


def read_places(path: Path) -> dict[str, Any] | None:
    """Return where the images of a grid's file are; None if it does not say."""
    try:
        with Image.open(path) as image:
            found = json.loads(image.info[_PLACES])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None
