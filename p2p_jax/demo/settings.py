"""How a run is shown."""

from typing import NamedTuple

from p2p_jax.config.stored import Trust

MAX_PIXELS = 16_000_000
"""Of a picture that is given, unless the caller says otherwise; a published U-Net takes 7 GB for as many."""


class Settings(NamedTuple):
    """How a run is shown.

    Attributes:
      checkpoint, direction, norm, dropout, tile, overlap, trust, raw: see ``Translator.from_workdir``; `direction` is
        the one that is chosen at first.
      palette: the colours that are drawn with in the direction that is chosen at first, for runs that do not know them:
        see ``palettes.find_palette``; or "lines".
      max_pixels: of a picture that is given.
      title: of the page; the name of the run by default.
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
