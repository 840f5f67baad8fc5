"""Settings of a demo."""

from typing import NamedTuple

from p2p_jax.config.stored import Trust

MAX_PIXELS = 16_000_000
"""Default limit of a picture in pixels; a published U-Net needs 7 GB for that many."""


class Settings(NamedTuple):
    """How a demo shows a run.

    Attributes:
      checkpoint, direction, norm, dropout, tile, overlap, trust, raw: see ``Translator.from_workdir``; `direction` is
        the one selected first.
      palette: colours to draw with in the direction selected first, for runs that do not know them: see
        ``palettes.find_palette``; or "lines".
      max_pixels: largest accepted picture in pixels.
      title: title of the page; the run's name by default.
    """

    checkpoint: str | int = "latest"
    direction: str | None = None
    norm: str | None = None
    dropout: bool | None = None
    tile: int | None = None
    overlap: int | None = None
    trust: Trust = ()
    raw: bool = False
    palette: str = ""
    max_pixels: int = MAX_PIXELS
    title: str = ""
