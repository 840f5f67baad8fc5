"""Which files belong together: by their names, however programs and systems write these."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from p2p_jax.errors import InputError


class Named(NamedTuple):
    """A file, and by what it is recognised.

    Attributes:
      path: of the file.
      key: the folders below where it was looked for, and its name without what tells A from B.
    """

    path: Path
    key: tuple[str, ...]


def key_of(parts: Sequence[str], suffix: str) -> tuple[str, ...] | None:
    """Return by what a file is recognised, None if its name does not end as it should.

    Args:
      parts: the folders below where it was looked for, and its name.
      suffix: with a dot, what the name ends with; else what it ends with before its own ending; "" for every name.
    """
    *folders, name = (_composed(part) for part in parts)
    suffix = _composed(suffix)
    whole = name if "." in suffix else os.path.splitext(name)[0]
    ends = whole.lower().endswith(suffix.lower()) if "." in suffix else whole.endswith(suffix)
    if not ends:
        return None
    key = whole[: len(whole) - len(suffix)]
    return (*folders, key)


def _composed(text: str) -> str:
    """Return a name as Linux and Windows write it: a Mac writes an ö as two characters."""
    return unicodedata.normalize("NFC", text)


_WAYS: tuple[Callable[[tuple[str, ...]], tuple[str, ...]], ...] = (
    lambda key: key,
    lambda key: tuple(part.casefold() for part in key),
    lambda key: (key[-1].casefold(),),  # whatever the folders
)


def pair(a: Sequence[Named], b: Sequence[Named]) -> tuple[list[Path], list[Path], list[Path]]:
    """Pair files: by their whole keys, or in small letters; where that pairs none, by names whatever their folders.

    Returns:
      The files of A, those of B that belong to them, and those without a partner.

    Raises:
      InputError: two files of a side have one key.
    """
    best: tuple[list[Path], list[Path], list[Path]] | None = None
    for way in _WAYS:
        sides, double = [], None
        for files in (a, b):
            by_key: dict[tuple[str, ...], Path] = {}
            for path, key in files:
                if way(key) in by_key:
                    double = by_key[way(key)], path
                by_key[way(key)] = path
            sides.append(by_key)
        if double and way is _WAYS[0]:
            raise InputError(
                f"{double[0]} and {double[1]} have the same stem; remove or rename one of them, or say how the names "
                "of a side end: --config.data.suffix_a and suffix_b (such as .jpg)"
            )
        if double:  # names that only capital letters or folders tell apart
            continue
        if way is _WAYS[-1] and best and best[0]:  # folders do tell partners here
            continue
        both = sorted(sides[0].keys() & sides[1].keys())
        lonely = [sides[0].get(key) or sides[1][key] for key in sorted(sides[0].keys() ^ sides[1].keys())]
        if best is None or len(lonely) < len(best[2]):
            best = [sides[0][key] for key in both], [sides[1][key] for key in both], lonely
    assert best is not None  # the first way has found something
    return best
