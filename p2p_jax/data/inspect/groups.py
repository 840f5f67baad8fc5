"""Into which groups the folders and the names of files divide them: each may be one side of all pairs."""

import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from p2p_jax.data import matching
from p2p_jax.data.inspect import words
from p2p_jax.data.inspect.words import SPLIT
from p2p_jax.images import formats

_FILES = 5_000  # that are looked at
_FEW = 16  # files of a group that show which folders all of them are in
_CUTS = 40  # beginnings and ends of names that are tried in a folder
_SHARE, _OF_NUMBERS = 0.01, 0.9  # of the files of a folder, that have one of them at least: numbers alone tell frames

Cut = tuple[str, str]
"""The beginning of a name, or its end; the other is empty."""
Parts = tuple[str, ...]
"""The folders below that of the data set, and the name of a file."""
Kind = tuple[Parts, str, str, bool]
"""Folders, prefix and suffix of a group, and whether it is the rest."""


class File(NamedTuple):
    """A file, and what its path says.

    Attributes:
      parts: where it lies.
      marked: the same with ``{split}`` where the name of its split is in folders, and in the file's own name too
        where that repeats the folders'.
      split: the name of its split, "" if it has none.
      in_name: the split is only in the name of the file.
    """

    parts: Parts
    marked: Parts
    split: str = ""
    in_name: bool = False


class Group(NamedTuple):
    """Files that may be one side of all pairs.

    Attributes:
      folders: the path from the data set's folder, with ``{split}`` and ``*`` in it.
      prefix: with what their names begin.
      suffix: with what they end.
      files: by their keys: the split, folders, and the rest of the name, in small letters.
      rest: they are all that do not end with `suffix`, and not those that do.
      text: what the names of all folders and files have in common.
    """

    folders: Parts
    prefix: str
    suffix: str
    files: Mapping[Parts, File]
    rest: bool = False
    text: str = ""

    @property
    def kind(self) -> Kind:
        """By what its files are chosen."""
        return self.folders, self.prefix, self.suffix, self.rest

    @property
    def label(self) -> str:
        """What it is called in messages."""
        name = "others" if self.rest else f"{self.prefix}*{self.suffix}" if self.prefix or self.suffix else ""
        if self.suffix and not os.path.splitext(f"x{self.suffix}")[1] and not self.rest:
            name += ".*"
        return "/".join((*self.folders, name) if name or not self.folders else self.folders) or "*"

    @property
    def splits(self) -> set[str]:
        """The splits of its files."""
        return {file.split for file in self.files.values()}


def common_folders(paths: Sequence[Parts]) -> Parts:
    """Return the folders that all files are in, down to one that names a split."""
    first = paths[0]
    for place, name in enumerate(first[:-1]):
        if words.find_split(name) or any(len(parts) < place + 2 or parts[place] != name for parts in paths):
            return first[:place]
    return first[:-1]


def look(paths: Sequence[Parts]) -> list[File]:
    """Return what the paths of files say of splits: nothing, unless one of them is for training."""
    files = [_with_split(parts) for parts in paths]
    named = {file.split for file in files if file.split}
    if not any(map(words.is_train, named)):
        odd = _odd_train(paths) if named else None
        if odd is None:
            return [File(parts, parts) for parts in paths]
        place, name = odd
        for i, file in enumerate(files):
            if not file.split and len(file.parts) > place + 1 and file.parts[place] == name:
                files[i] = File(file.parts, (*file.parts[:place], SPLIT, *file.parts[place + 1 :]), name)
    if any(file.in_name for file in files) and not any(map(words.is_val, named)):  # a word of all names
        return [file if not file.in_name else File(file.parts, file.parts) for file in files]
    return files


def _with_split(parts: Parts) -> File:
    marked, split = list(parts), ""
    found = [words.find_split(part) for part in parts[:-1]]
    for i, one in sorted(enumerate(found), key=lambda item: item[1] is None or item[1][0] != SPLIT):
        if one and (not split or one[1].lower() == split.lower()):
            marked[i], split = one[0], split or one[1]
    stem, ending = os.path.splitext(parts[-1])
    own = words.find_split(stem)
    if split and own and own[0] != SPLIT and own[1] == split:
        marked[-1] = own[0] + ending
    in_name = bool(own) and not split and own is not None and own[0] != SPLIT
    return File(parts, tuple(marked), own[1] if in_name and own else split, in_name)


def _odd_train(paths: Sequence[Parts]) -> tuple[int, str] | None:
    """Return the one folder without the name of a split, next to others with one: our485 and eval15."""
    for place in range(max(map(len, paths)) - 1):
        names = {parts[place] for parts in paths if len(parts) > place + 1}
        plain = [name for name in names if words.find_split(name) is None]
        if len(plain) == 1 and len(names) > 1:
            return place, plain[0]
        if len(names) > 1:
            return None
    return None


def some(paths: Sequence[Parts]) -> list[Parts]:
    """Return all files, or some of very many: those with certain numbers, so pairs stay complete."""
    if len(paths) <= _FILES:
        return list(paths)
    every = -(-len(paths) // _FILES)

    def bucket(parts: Parts) -> int:
        tokens = [token for token in re.split(r"[_\-. ]", parts[-1])[:-1] if re.fullmatch(r"[A-Za-z]*\d+", token)]
        numbers = [re.sub(r"[A-Za-z]*0*(?=\d)", "", token) for token in tokens]
        return zlib.crc32(" ".join(numbers or [re.split(r"[_\-. ]", parts[-1])[0]]).encode("utf-8", "replace")) % every

    return [parts for parts in paths if bucket(parts) == 0]


def divide(
    files: Sequence[File], common: Parts = (), *, loosely: bool = False, only: Collection[Kind] = ()
) -> Iterator[Group]:
    """Yield the groups into which folders, and the beginnings and ends of names, divide files.

    Args:
      files: of ``look``.
      common: of ``common_folders``.
      only: kinds of groups that are wanted; none are all.
      loosely: names match in any folders below, and numbers match regardless of leading zeros.
    """
    in_folders: dict[Parts, list[tuple[Parts, _Cut]]] = defaultdict(list)
    for one in map(_cut, files):
        for folders, below in _ways(one.file.marked[len(common) :]):
            if not only or any(common + folders == kind[0] for kind in only):
                in_folders[common + folders].append((below, one))
    for folders, members in in_folders.items():
        if only:
            kept = {(matching.alike(kind[1]), matching.alike(kind[2])): (kind[1], kind[2]) for kind in only}
        else:
            kept = _common_cuts([one for _, one in members])
        found: dict[Cut, list[tuple[Parts, File]]] = defaultdict(list)
        for below, (file, stem, cuts) in members:
            start = (file.split.casefold(), *(() if loosely else map(matching.alike, below)))
            found["", ""].append(((*start, _without_zeros(stem) if loosely else stem), file))
            for folded, (_, key) in cuts.items():
                if folded in kept:
                    found[folded].append(((*start, _without_zeros(key) if loosely else key), file))
        whole = found["", ""]
        for folded, keyed in found.items():
            prefix, suffix = kept.get(folded, folded)
            yield from _group(folders, prefix, suffix, keyed)
            if suffix and 0.2 * len(whole) <= len(keyed) <= 0.8 * len(whole):
                inside = {file.parts for _, file in keyed}
                yield from _group(folders, "", suffix, [x for x in whole if x[1].parts not in inside], rest=True)


class _Cut(NamedTuple):
    """A file, its name without ending in small letters, and by each cut how it is written, and what is left."""

    file: File
    stem: str
    cuts: dict[Cut, tuple[Cut, str]]


def _cut(file: File) -> _Cut:
    stem, ending = os.path.splitext(file.marked[-1])
    cuts = {}
    for cut in words.cuts(stem):
        key = stem[len(cut[0]) : len(stem) - len(cut[1])]
        cuts[matching.alike(cut[0]), matching.alike(cut[1])] = cut, matching.alike(key)
    folded = matching.alike(stem)
    cuts["", ending.lower()] = ("", ending), folded
    return _Cut(file, folded, cuts)


def _group(
    folders: Parts, prefix: str, suffix: str, keyed: Sequence[tuple[Parts, File]], *, rest: bool = False
) -> Iterator[Group]:
    by_key = dict(keyed)
    if len(by_key) == len(keyed) and keyed:  # each file has a key of its own
        few = [file.marked[:-1] for _, file in keyed[:: max(len(keyed) // _FEW, 1)]]
        shared = [names[0] for names in zip(*few, strict=False) if len(set(names)) == 1]
        names = (*folders, *shared, prefix, "" if rest else suffix)
        yield Group(folders, prefix, suffix, by_key, rest, " ".join(dict.fromkeys(names)).replace(SPLIT, " "))


def _common_cuts(members: Sequence[_Cut]) -> dict[Cut, Cut]:
    """Return the beginnings and ends that many names have, in small letters, and how most of them write each."""
    counts = Counter(folded for one in members for folded in one.cuts)
    least = max(2, _SHARE * len(members))
    kept: list[Cut] = []
    for side in (0, 1):
        many = [
            cut
            for cut, count in counts.most_common()
            if cut[side] and count >= (_OF_NUMBERS * len(members) if _is_number(cut[side]) else least)
        ]
        kept += many[:_CUTS]
    endings = [cut for cut in kept if cut[1] in formats.EXTENSIONS]
    kept = [cut for cut in kept if cut not in endings or len(endings) > 1]  # a single one says nothing
    spelled = {cut: Counter(one.cuts[cut][0] for one in members if cut in one.cuts) for cut in kept}
    return {cut: written.most_common(1)[0][0] for cut, written in spelled.items()}


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _is_number(cut: str) -> bool:
    return cut.strip("_-. ").isdecimal()


def _ways(marked: Parts) -> Iterator[tuple[Parts, Parts]]:
    """Yield the ways that folders may separate A from B: ``(pattern of folders, what else identifies partners)``.

    One folder at most tells the side; those before it are stars, whose names tell partners, and those after it lie
    below. The placeholder of the split is always part of the pattern.
    """
    folders = marked[:-1]
    split = tuple(part for part in folders if part == SPLIT)
    places = [i for i, part in enumerate(folders) if part != SPLIT]
    for place in places:
        before = tuple(part if SPLIT in part else "*" for part in folders[:place])
        after = folders[place + 1 :]
        last = max((i + 1 for i, part in enumerate(after) if SPLIT in part), default=0)
        middle = tuple(part if SPLIT in part else "*" for part in after[:last])  # rgb/train: it is part of the pattern
        pattern, below = (*before, folders[place], *middle), after[last:]
        stars = [part for part, mark in zip(folders, pattern, strict=False) if mark == "*"]
        yield pattern, (*stars, *below)
    if not any(SPLIT in part and part != SPLIT for part in folders):
        yield split, tuple(part for part in folders if part != SPLIT)  # only the names say
