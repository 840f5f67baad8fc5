"""A sheet of training images exactly as the network gets them, augmented and in the order of the first steps."""

import itertools
from collections.abc import Collection, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from p2p_jax.config import complete, with_facts
from p2p_jax.data import layouts
from p2p_jax.data.stream.pipeline import load
from p2p_jax.data.stream.sources import Source, Unpaired, of_layout
from p2p_jax.images.domains import Domain, of_config
from p2p_jax.images.pictures import with_channels
from p2p_jax.reporting import quiet

_PAIRS, _PAIRS_A_ROW = 8, 2
_GAP, _TITLE, _HISTOGRAM = 4, 16, 100  # pixels
_LEAST = 160  # pixels that an image is wide at least, to have room for its title
_COLORS = ("#c22", "#292", "#22c", "#777", "#b5b", "#b80")


def draw(config: ConfigDict, without: Collection[str] | None = None) -> np.ndarray:
    """Draw pairs of the first training steps, and histograms of what the network sees of them.

    Args:
      config: complete; as for ``p2p_jax.data.load``.
      without: names of files that cannot be used, as an inspection has them. If they are given, the sheet leaves them
        out, and files without a partner.

    Returns:
      [height, width, 3] uint8.

    Raises:
      InputError: the data cannot be used.
    """
    config = complete({**config.to_dict(), "data": {**config.data.to_dict(), "val_split": ""}})
    with quiet():  # it was printed already
        data = load(config, train=_of_the_rest(config.data, set(without)) if without is not None else None)
    domains = of_config(with_facts(config, data.facts).data)
    batches = list(itertools.islice(data.train(0), -(-_PAIRS // config.batch_size)))
    real_a, real_b = (np.concatenate([batch[key] for batch in batches])[:_PAIRS] for key in ("real_a", "real_b"))
    pictures = [_picture(real_a, domains[0], real_b, domains[1]), _picture(real_b, domains[1], real_a, domains[0])]
    order = "AB" if config.data.direction == "AtoB" else "BA"
    made = config.task.get("input") or config.data.source == "photos"
    origins = ["computed from B" if made else f"{order[0]} of the files", f"{order[1]} of the files"]
    titles = [f"real_a (in), {origins[0]}", f"real_b (out), {origins[1]}"]

    larger = -(-_LEAST // pictures[0].shape[2])  # times, pixel by pixel
    pictures = [picture.repeat(larger, axis=1).repeat(larger, axis=2) for picture in pictures]
    height, width = pictures[0].shape[1:3]
    rows = -(-len(real_a) // _PAIRS_A_ROW)
    total = (width + _GAP) * 2 * _PAIRS_A_ROW - _GAP, _TITLE + rows * (height + _GAP) + _TITLE + _HISTOGRAM
    sheet = Image.new("RGB", total, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for n, side in itertools.product(range(len(real_a)), (0, 1)):
        row, column = divmod(n, _PAIRS_A_ROW)
        left = (2 * column + side) * (width + _GAP)
        if not row:
            pen.text((left + 2, 2), titles[side], fill="black", font=font)
        sheet.paste(Image.fromarray(pictures[side][n]), (left, _TITLE + row * (height + _GAP)))
    for side, images in enumerate((real_a, real_b)):
        box = (side * _PAIRS_A_ROW * (width + _GAP), total[1] - _HISTOGRAM, _PAIRS_A_ROW * (width + _GAP) - _GAP)
        name = f"{titles[side].split()[0]}: values from -1 to 1, by channel"
        pen.text((box[0] + 2, box[1] - _TITLE + 2), name, fill="black", font=font)
        _draw_histograms(pen, images, *box)
    return np.asarray(sheet)


def _of_the_rest(data: ConfigDict, without: set[str]) -> Source | Unpaired:
    """Return the training images but for some files."""
    layout = layouts.find(data, data.train_split, lenient=True)

    def usable(paths: Sequence[Path]) -> list[bool]:
        return [without.isdisjoint((str(path), f"{path}, A")) for path in paths]

    good_a, good_b = map(usable, layout.sides)
    if layout.paired:
        good_a = good_b = [a and b for a, b in zip(good_a, good_b, strict=True)]
    a, b = list(compress(layout.a, good_a)), list(compress(layout.b, good_b))
    return of_layout(layout._replace(a=a, b=a if layout.a is layout.b else b), data)


def _picture(images: np.ndarray, domain: Domain, others: np.ndarray, other: Domain) -> np.ndarray:
    """Return [N, H, W, 3] uint8; colours are shown with the lightness of the other image, if that is what it is."""
    lightness = others if domain.kind == "lab_ab" and other.kind == "lab_l" else None
    return with_channels(domain.picture(images, lightness), 3)


def _draw_histograms(pen: ImageDraw.ImageDraw, images: np.ndarray, left: int, top: int, width: int) -> None:
    """Draw a line a channel: how many values lie where from -1 to 1; heights are square roots, to show the rare."""
    for channel, color in zip(range(images.shape[-1]), itertools.cycle(_COLORS), strict=False):
        counts = np.sqrt(np.histogram(images[..., channel], min(64, width), (-1, 1))[0])
        x = left + np.linspace(1, width - 2, len(counts))
        y = top + (_HISTOGRAM - 4) * (1 - counts / counts.max())
        pen.line(np.stack([x, y], axis=-1).ravel().tolist(), fill=color, width=2)
