"""Transparent images: what can be seen through is laid on a colour, which a data set has to say."""

from pathlib import Path

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images.stored import Stored

WHITE = (255, 255, 255)
_COLORS = {"white": WHITE, "black": (0, 0, 0)}


def parse(text: str, option: str) -> tuple[int, int, int] | None:
    """Return the colour that a config names: white, black or #rrggbb; None of "".

    Raises:
      InputError: the text has another form; names the option.
    """
    if text in _COLORS or not text:
        return _COLORS.get(text)
    try:
        if len(text) != 7 or text[0] != "#":
            raise ValueError
        red, green, blue = bytes.fromhex(text[1:])
    except ValueError:
        raise InputError(f"{option} is {text!r}; write white, black or a colour such as #ff8000") from None
    return red, green, blue


def without(stored: Stored, channels: int, background: tuple[int, int, int] | None, name: Path | str) -> Stored:
    """Return an image without its opacity, where a side takes other channels than the file has.

    Args:
      stored: the image.
      channels: that the side takes; where the file has as many, opacity is one of them.
      background: what is transparent lies on, RGB in 0 to 255; None: nothing may be transparent.
      name: of the file, for messages.

    Raises:
      InputError: it has transparent parts, and there is no background.
    """
    if stored.opacity is None or (
        stored.palette is None and stored.pixels.shape[-1] == channels and channels in (2, 4)
    ):
        return stored
    opaque = np.iinfo(stored.opacity.dtype).max
    is_channel = stored.pixels.shape[-1] in (2, 4)
    pixels = stored.pixels[..., :-1] if is_channel else stored.pixels
    if (stored.opacity == opaque).all():
        return stored._replace(pixels=pixels, opacity=None)
    if background is None:
        share = (stored.opacity < opaque).mean()
        labels = "; or config.data.input.kind=labels (output.kind), if its indices are classes"
        raise InputError(
            f"{name} has transparent parts ({share:.1%} of its pixels), and the colour behind them is not known: set "
            "config.data.background=white, or black, or another colour" + (labels if stored.palette is not None else "")
        )
    if stored.palette is not None:
        pixels = stored.palette[pixels[..., 0]]
    laid = _on(pixels, stored.opacity[..., None], np.array(background), opaque, premultiplied=stored.premultiplied)
    return stored._replace(pixels=laid, palette=None, opacity=None)


def _on(pixels: np.ndarray, opacity: np.ndarray, colour: np.ndarray, opaque: int, *, premultiplied: bool) -> np.ndarray:
    """Lay pixels on a colour, rounded to the nearest, as Pillow does; gray ones on its mean."""
    below = (
        colour * opaque // 255 if pixels.shape[-1] == 3 else colour.mean(keepdims=True).astype(np.int64) * opaque // 255
    )
    weight = np.int64(opaque) if premultiplied else opacity.astype(np.int64)
    total = pixels * weight + below * (opaque - opacity.astype(np.int64))
    return np.minimum((total + opaque // 2) // opaque, opaque).astype(pixels.dtype)
