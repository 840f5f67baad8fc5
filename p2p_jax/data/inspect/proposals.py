"""Which layout fits a folder that the config does not describe, found by the names of its files."""

import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from p2p_jax.config.paths import expanded
from p2p_jax.data import files, matching
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import formats

_TRAIN = ("train", "training", "trn", "train_set")
_VAL = ("val", "valid", "validation", "dev", "test", "testing", "eval")
_SPLITS = (*_TRAIN, *_VAL)
_OF_ALL, _OF_ALL_UNKNOWN = 0.25, 0.8  # share of all files in pairs whose names tell what they are, or do not
_ENOUGH = 0.9  # share of the files of either group that have a partner in the other
_FILES = 20_000  # that are looked at
_SHARE = "--config.data.val_fraction=0.1"
# Of several that fit, what is more likely the one and the other of a pair.
_OFTEN_A = (
    "image", "img", "photo", "input", "rgb", "color", "left", "source", "_a", "noisy", "blur", "low", "sat", "hazy",
)  # fmt: skip
_OFTEN_B = (
    "labelid", "label", "mask", "manual", "truth", "gt", "seg", "anno", "depth", "target", "sharp", "hr", "clean", "_b",
    "map", "high", "clear", "output",
)  # fmt: skip


class _Group(NamedTuple):
    """Files that may be one side of all pairs.

    Attributes:
      folders: the path from the data set's folder, with ``{split}`` and ``*`` in it.
      suffix: with what their names end.
      keys: of the files; see ``p2p_jax.data.matching``.
      files: the files.
    """

    folders: tuple[str, ...]
    suffix: str
    keys: frozenset[tuple[str, ...]]
    files: frozenset[tuple[str, ...]]


def propose(data: ConfigDict) -> list[str]:
    """Return a sentence with the options of the layout that fits the files of a folder, or nothing.

    Args:
      data: reads ``dir`` and ``source``.
    """
    root = expanded(data.dir)
    if not data.dir or not root.is_dir():
        return []
    try:
        paths = [path.relative_to(root).parts for path in files.look_below(root).images]
    except InputError:
        return []
    if not paths:
        return []
    if data.source == "photos":  # what is wanted is known; where they lie is not
        return [f"the folder holds {len(paths):,} images: {' '.join(_of_one(paths, data))}"]
    found = _pairs(evenly(paths, _FILES))
    if found is None:
        return [_without_pairs(root, paths, data)]
    a, b = found
    told = f"the names of the files make {len(a.keys & b.keys):,} pairs"
    if lonely := len(a.keys ^ b.keys):
        told += f" ({lonely:,} more have no partner, and have to go elsewhere)"
    return [f"{told}: {' '.join(_options(a, b, data))}"]


def _options(a: _Group, b: _Group, data: ConfigDict) -> Iterator[str]:
    one_folder = a.folders == b.folders
    if one_folder and a.folders in ((), ("{split}",)):
        yield "--config.data.source=suffixes"
    else:
        yield "--config.data.source=folders"
        for name, group in (("a", a), ("b", b)):
            yield f"--config.data.dir_{name}={shlex.quote('/'.join(group.folders) or '.')}"
    for name, group in (("a", a), ("b", b)):
        if group.suffix:
            yield f"--config.data.suffix_{name}={shlex.quote(group.suffix)}"
    of_both = {part for key in a.keys & b.keys for part in key[:1] if part.lower() in _SPLITS}
    yield from _splits(of_both if "{split}" in a.folders and "{split}" in b.folders else set(), data)


def _splits(names: Collection[str], data: ConfigDict) -> Iterator[str]:
    """Name the splits of which there are images, or the share that is to be one."""
    train = next((name for wanted in _TRAIN for name in names if name.lower() == wanted), None)
    val = next((name for wanted in _VAL for name in names if name.lower() == wanted), None)
    if train is None:
        yield _SHARE
        return
    if train != data.train_split:
        yield f"--config.data.train_split={train}"
    if val is None:
        yield _SHARE
    elif val != data.val_split:
        yield f"--config.data.val_split={val}"


def _of_one(paths: Sequence[tuple[str, ...]], data: ConfigDict) -> Iterator[str]:
    yield from _splits({parts[0] for parts in paths if len(parts) > 1 and parts[0].lower() in _SPLITS}, data)


def _pairs(paths: Sequence[tuple[str, ...]]) -> tuple[_Group, _Group] | None:
    """Return the two groups of files of which most have a partner in the other."""
    best, score = None, 0.0
    for one, other in combinations(_groups(paths), 2):
        shared = len(one.keys & other.keys)
        share = shared / max(*(len(keys) for keys in _in_splits_of_both(one, other)), 1)
        if shared < 2 or share < _ENOUGH or not one.files.isdisjoint(other.files) or _differ_by_number(one, other):
            continue
        a, b = sorted((one, other), key=_is_often_b)
        likely = _is_often_b(b) > _is_often_b(a)
        if 2 * shared < (_OF_ALL if likely else _OF_ALL_UNKNOWN) * len(paths):  # two scenes, say, of many
            continue
        found = (
            shared
            * share
            * (
                1
                + 0.01 * likely
                + 0.001 * (not a.suffix and not b.suffix)
                + 0.02 * (a.folders != b.folders)
                + 0.002 * _rank(b)
                - 1e-5 * len(a.suffix + b.suffix)
            )
        )
        if found > score:
            best, score = (a, b), found
    return best


def _in_splits_of_both(one: _Group, other: _Group) -> list[list[tuple[str, ...]]]:
    """Return the keys of two groups, without those of splits that one of them lacks: of a test set without answers."""
    splits = [{key[0] for key in group.keys if key[0].lower() in _SPLITS} for group in (one, other)]
    lacking = splits[0] ^ splits[1] if all(splits) else set()
    return [[key for key in group.keys if key[0] not in lacking] for group in (one, other)]


def _differ_by_number(one: _Group, other: _Group) -> bool:
    """Tell whether a number alone tells groups apart: frames and scenes do, and not the sides of pairs."""
    texts = ["/".join((*group.folders, group.suffix)).lower() for group in (one, other)]
    return re.sub(r"\d+", "0", texts[0]) == re.sub(r"\d+", "0", texts[1])


def _is_often_b(group: _Group) -> int:
    text = "/".join((*group.folders, group.suffix)).lower()
    return sum(word in text for word in _OFTEN_B) - sum(word in text for word in _OFTEN_A)


def _rank(group: _Group) -> float:
    """Return how likely a group is B, by the first of the words that it has: of Cityscapes' maps, that of labelIds."""
    text = "/".join((*group.folders, group.suffix)).lower()
    places = [i for i, word in enumerate(_OFTEN_B) if word in text]
    return 1 - min(places) / len(_OFTEN_B) if places else 0.0


def _groups(paths: Sequence[tuple[str, ...]]) -> Iterator[_Group]:
    """Yield the groups into which folders and ends of names divide the files."""
    in_folders: dict[tuple[str, ...], list[tuple[tuple[str, ...], tuple[str, ...]]]] = defaultdict(list)
    for parts in paths:
        for folders, rest in _divided(parts):
            in_folders[folders].append((rest, parts))
    for folders, members in in_folders.items():
        for suffix in _suffixes(rest[-1] for rest, _ in members):
            keyed = {
                parts: (*(part for part in parts[:-1] if part.lower() in _SPLITS), *key)
                for rest, parts in members
                if (key := matching.key_of(rest, suffix)) is not None
            }
            if len(set(keyed.values())) == len(keyed):  # each file has a key of its own
                yield _Group(folders, suffix, frozenset(keyed.values()), frozenset(keyed))


def _divided(parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the ways in which folders may tell A from B: ``(pattern of folders, the rest of the path)``.

    A folder that is named as a split is ``{split}``; one folder at most tells the side; those before it are stars,
    whose names tell partners, and those after it lie below.
    """
    *folders, name = ("{split}" if part.lower() in _SPLITS else part for part in parts)
    split = tuple(part for part in folders if part == "{split}")
    if not folders or folders == ["{split}"]:
        yield split, (name,)
        return
    places = [i for i, part in enumerate(folders) if part != "{split}"]
    for place in places:
        before = tuple("*" if part != "{split}" else part for part in folders[:place])
        after = folders[place + 1 :]
        if "{split}" in after:  # rgb/train: the split is part of the pattern
            last = len(after) - after[::-1].index("{split}")
            middle = tuple("*" if part != "{split}" else part for part in after[:last])
            pattern, below = (*before, folders[place], *middle), after[last:]
        else:
            pattern, below = (*before, folders[place]), after
        stars = [part for part, mark in zip(folders, pattern, strict=False) if mark == "*"]
        yield pattern, (*stars, *below, name)
    yield split, (*(part for part in folders if part != "{split}"), name)  # only the names tell


def _suffixes(names: Iterable[str]) -> list[str]:
    """Return the ends by which the names of a folder may be told apart: "", what follows a _ or -, and endings."""
    counts: Counter[str] = Counter()
    total = 0
    for name in names:
        total += 1
        stem, ending = os.path.splitext(name)
        counts[ending] += ending.lower() in formats.EXTENSIONS
        counts[stem] += not stem.isdecimal()  # scene1/input.png
        for i, letter in enumerate(stem):
            if i and letter in "_-" and not stem[i + 1 :].isdecimal():
                counts[stem[i:]] += 1
    common = [end for end, count in counts.most_common(40) if count >= max(2, 0.05 * total)]
    return ["", *common]


def _without_pairs(root: Path, paths: Sequence[tuple[str, ...]], data: ConfigDict) -> str:
    """Propose what has no pairs: files with two halves, two folders, or single photographs."""
    tops = Counter(parts[0] for parts in paths if len(parts) > 1 and parts[0].lower() not in _SPLITS)
    few = [formats.read_header(root.joinpath(*parts)) for parts in evenly(paths, 20) if _can_be_read(root, parts)]
    if few and all(1.9 < header.width / header.height < 2.1 for header in few):
        return "the files are twice as wide as high, as pairs side by side: " + " ".join(
            ["--config.data.source=side_by_side", *_of_one(paths, data)]
        )
    if len(tops) == 2 and not _differ_by_number(*(_Group((top,), "", frozenset(), frozenset()) for top in tops)):
        a, b = sorted(tops)
        return (
            f"the files of {a} and {b} have no partners by their names; without pairs, from configs/horse2zebra.py: "
            f"--config.data.source=unpaired --config.data.dir_a={shlex.quote(a)} "
            f"--config.data.dir_b={shlex.quote(b)} {_SHARE}"
        )
    return "no pairs are to be seen in the names of the files; single photographs: " + " ".join(
        ["--config.data.source=photos", *_of_one(paths, data)]
    )


def _can_be_read(root: Path, parts: tuple[str, ...]) -> bool:
    try:
        formats.read_header(root.joinpath(*parts))
    except InputError:
        return False
    return True
