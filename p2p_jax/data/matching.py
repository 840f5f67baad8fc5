"""Which files belong together: by their names, however programs and systems write these."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.images import formats


class Named(NamedTuple):
    """A file, and by what it is recognised.

    Attributes:
      path: of the file.
      key: the folders below the one that was searched, and its name without the part that separates A from B.
    """

    path: Path
    key: tuple[str, ...]


def key_of(parts: Sequence[str], suffix: str) -> tuple[str, ...] | None:
    """Return by what a file is recognised, None if its name does not end as it should.

    Args:
      parts: the folders below where it was looked for, and its name.
      suffix: with the ending of an image, what the name ends with; else what it ends with before its own ending; "" for
        every name. Capital letters do not count.
    """
    *folders, name = (composed(part) for part in parts)
    suffix = composed(suffix)
    has_ending = os.path.splitext(f"x{suffix}")[1].lower() in formats.EXTENSIONS
    whole = name if has_ending else os.path.splitext(name)[0]
    if not whole.lower().endswith(suffix.lower()):
        return None
    key = whole[: len(whole) - len(suffix)]
    return (*folders, key)


def alike(name: str) -> str:
    """Return a name without differences of case and of composed letters."""
    return composed(name).casefold()


def composed(text: str) -> str:
    """Return a name as Linux and Windows write it: a Mac writes an ö as two characters."""
    return unicodedata.normalize("NFC", text)


_WAYS: tuple[Callable[[tuple[str, ...]], tuple[str, ...]], ...] = (
    lambda key: key,
    lambda key: tuple(part.casefold() for part in key),
    lambda key: (key[-1].casefold(),),  # in any folders
)


def pair(a: Sequence[Named], b: Sequence[Named]) -> tuple[list[Path], list[Path], list[Path]]:
    """Pair files by their whole keys, the others in small letters; where that pairs none, by names in any folders.

    Returns:
      The files of A, those of B that belong to them, and those without a partner.

    Raises:
      InputError: two files of a side have one key.
    """
    for side in (a, b):
        if double := _double(side):
            raise InputError(
                f"{double[0]} and {double[1]} have the same stem; remove or rename one of them, or set the "
                "endings of the names: --config.data.suffix_a and suffix_b (such as .jpg)"
            )
    pairs: list[tuple[Named, Named]] = []
    left = list(a), list(b)
    for way in _WAYS:
        if pairs and way is _WAYS[-1]:  # folders do identify partners here
            break
        known = [_alone(side, way) for side in left]
        found = [(known[0][key], known[1][key]) for key in known[0].keys() & known[1].keys()]
        pairs += found
        taken = {one.path for both in found for one in both}
        left = [one for one in left[0] if one.path not in taken], [one for one in left[1] if one.path not in taken]
    pairs.sort(key=lambda both: both[0].key)
    lonely = sorted((*left[0], *left[1]), key=lambda one: one.key)
    return [one.path for one, _ in pairs], [other.path for _, other in pairs], [one.path for one in lonely]


def describe_lonely(names: Sequence[str], counts: tuple[int, int], where: str, fix: str, unpaired: str = "") -> str:
    """Return the sentence on images without partners, with some names and the ways out.

    Args:
      names: of those images.
      counts: of all images of A and of B.
      where: where partners were looked for, as in "in the other folder".
      fix: what to do.
      unpaired: how to train without pairs, which is said only if most images have no partner.
    """
    examples = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    is_most = 2 * len(names) > sum(counts)
    advice = f"; or, if the images have no partners at all, {unpaired}" if is_most and unpaired else ""
    count = f"{len(names):,} of {counts[0]:,} + {counts[1]:,} images have no partner {where}"
    return f"{count}: {examples}; {fix}{advice}"


def partner_of(lonely: Named, other: Named) -> Path | None:
    """Return the path that the partner of a file would have, given any file of the other side; None if it is unclear.

    In the path of `other`, each part of its key is replaced by that of `lonely`.
    """
    *folders, name = other.path.parts
    if len(lonely.key) != len(other.key) or other.key[-1] not in composed(name):
        return None
    name, end = composed(name).replace(other.key[-1], lonely.key[-1], 1), len(folders)
    for wanted, there in reversed(list(zip(lonely.key[:-1], other.key[:-1], strict=True))):
        places = [i for i in range(end) if composed(folders[i]) == there]
        if not places:
            return None
        end = places[-1]
        folders[end] = wanted
    return Path(*folders, name)


def _double(side: Sequence[Named]) -> tuple[Path, Path] | None:
    """Return two files of one key."""
    first: dict[tuple[str, ...], Path] = {}
    for path, key in side:
        if first.setdefault(key, path) != path:
            return first[key], path
    return None


def _alone(side: Sequence[Named], way: Callable[[tuple[str, ...]], tuple[str, ...]]) -> dict[tuple[str, ...], Named]:
    """Return files by their keys, as a way has them, without those that share theirs."""
    counts = Counter(way(one.key) for one in side)
    return {way(one.key): one for one in side if counts[way(one.key)] == 1}
