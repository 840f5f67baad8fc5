"""A share of files that is kept for validation; only their names decide which."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from p2p_jax.data import matching
from p2p_jax.errors import InputError


def chosen(files: Sequence[Path], fraction: float, *, is_held_out: bool) -> list[int]:
    """Return the indices of the files for validation, or of the rest.

    Args:
      files: all of them.
      fraction: share of them for validation; at least one file.
      is_held_out: True returns those for validation, False the rest.

    Raises:
      InputError: there would be none to train on.
    """
    count = max(round(len(files) * fraction), 1)
    if count >= len(files):
        raise InputError(f"config.data.val_fraction={fraction:g} of {len(files)} images leaves none to train on")
    order = sorted(range(len(files)), key=lambda i: hashlib.sha256(_bytes(files[i].stem)).digest())
    held_out = set(order[:count])
    return [i for i in range(len(files)) if (i in held_out) == is_held_out]


def _bytes(name: str) -> bytes:
    (key,) = matching.key_of([name], "") or ("",)
    return key.encode("utf-8", "surrogateescape")
