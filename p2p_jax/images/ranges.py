"""Ranges of values as a config writes them: LOW:HIGH, one or with commas one a channel."""

from collections.abc import Sequence

import numpy as np

from p2p_jax.errors import InputError


def parse_range(text: str, option: str) -> list[tuple[float, float]]:
    """Return the lowest and the highest value of every channel that an option says, or of all.

    Raises:
      InputError: the text has another form; names the option.
    """
    pairs = []
    for part in text.split(","):
        try:
            low, high = map(float, part.split(":"))
        except ValueError:
            raise InputError(
                f"{option} is {text!r}; write LOW:HIGH, such as 0:4095, one per channel separated by commas, "
                "or measured"
            ) from None
        if not low < high or not np.isfinite([low, high]).all():
            raise InputError(f"{option} is {text!r}: {low:g} is not less than {high:g}, or one is not finite")
        pairs.append((low, high))
    return pairs


def format_range(low: Sequence[float], high: Sequence[float]) -> str:
    """Return what a side's ``range`` in a config says for these, exactly."""
    return ",".join(f"{float(a)!r}:{float(b)!r}" for a, b in zip(low, high, strict=True))
