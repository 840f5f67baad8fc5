"""Which layout fits a folder that the config does not describe, found by the names of its files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from p2p_jax.config.paths import expanded
from p2p_jax.data import files
from p2p_jax.data.inspect import groups, pairing, words
from p2p_jax.data.inspect.groups import Group, Parts
from p2p_jax.data.inspect.options import (
    SHARE,
    Place,
    describe,
    direction_of,
    of_one,
    of_splits,
    options_of,
    write,
    written,
)
from p2p_jax.data.inspect.pairing import Match
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import formats

_OTHERS, _TOLD = 20, 8  # other pairs that are named, and folders
_FORMS = 6  # ways to have the same pairs
_MOST = 0.6  # share of all files in pairs; above it they are not single images
_SCENES = 4  # folders with names of one kind; above it they are scenes, not sides


def propose(data: ConfigDict, output: Path | None = None) -> list[str]:
    """Return a sentence with the options of the layout that fits the files of a folder, or nothing.

    Args:
      data: reads ``dir`` and ``source``.
      output: a folder for CSV files with the pairs, where no options describe them.
    """
    return look(data, output)[0]


def look(data: ConfigDict, output: Path | None = None) -> tuple[list[str], list[str]]:
    """Return the sentence of ``propose``, and those on what else the files may be."""
    root = expanded(data.dir)
    if not data.dir or not root.is_dir():
        return [], []
    try:
        paths = [path.relative_to(root).parts for path in files.look_below(root).images]
    except InputError:
        return [], []
    if not paths:
        return [], []
    if data.source == "photos":  # what is wanted is known; where they lie is not
        return [f"the folder holds {len(paths):,} images: {written(dict(of_one(paths, data)))}"], []
    if data.source == "unpaired":
        return list(_piles(paths, data)), []
    found = _matches(paths)
    doubtful = [match for match in found if match.is_doubtful]
    if len(doubtful) == len(found):
        return [_without_pairs(root, paths, data)], list(_on_doubtful(doubtful, Place(root, data, output)))
    place = Place(root, data, output)
    best, *others = pairing.forms([match for match in found if not match.is_doubtful])
    return [_told(best, place)], list(_others(best[0], others, place))


def _piles(paths: Sequence[Parts], data: ConfigDict) -> Iterator[str]:
    """Propose the two folders of images without pairs, where two hold most of the images."""
    counts, splits = Counter[str](), dict[str, set[str]]()
    for file in groups.look(paths):
        if len(file.marked) > 1:
            pile = _pile(file.marked[:-1])
            counts[pile] += 1
            splits.setdefault(pile, set()).add(file.split)
    largest = counts.most_common()
    few = ", ".join(f"{files.shown(name)} ({count:,})" for name, count in largest[2:][:_TOLD])
    if len(largest) < 2 or (few and 2 * largest[2][1] > largest[1][1]):
        return
    (a, count_a), (b, count_b) = sorted(largest[:2])
    options = {"dir_a": a, "dir_b": b} | dict(of_splits({x: x for x in splits[a] & splits[b] if x}, data))
    rest = f" (left out: {few})" if few else ""
    yield f"{files.shown(a)} ({count_a:,}) and {files.shown(b)} ({count_b:,}) are two piles{rest}: {written(options)}"


def _pile(folders: Parts) -> str:
    """Return the folder of one side: the first ones of a path, up to one that is more than the name of a split."""
    last = max((i for i, part in enumerate(folders) if words.SPLIT in part), default=0)
    if folders[: last + 1] == (words.SPLIT,):
        last += 1
    return "/".join(folders[: last + 1])


def names_pairs(paths: Sequence[Parts]) -> bool:
    """Return whether the names of files say that most of them are the sides of pairs."""
    found = _matches(paths)
    return bool(found) and found[0].is_likely and 2 * len(found[0].keys) > _MOST * len(paths)


def _matches(paths: Sequence[Parts]) -> list[Match]:
    """Return the groups that make pairs, the likeliest first: found in a part of very many files, and then in all."""
    common, few = groups.common_folders(paths), groups.some(paths)
    looked_at = groups.look(few)
    loosely, found = False, pairing.find(list(groups.divide(looked_at, common)), len(few))
    if not any(match.is_likely for match in found[:1]):
        others = pairing.find(list(groups.divide(looked_at, common, loosely=True)), len(few))
        if any(match.is_likely for match in others[:1]):
            loosely, found = True, others
    if len(few) == len(paths):
        return found
    found = [match for forms in pairing.forms(found)[:_OTHERS] for match in forms[:_FORMS]]
    kinds = {frozenset((match.a.kind, match.b.kind)) for match in found}
    wanted = {kind for both in kinds for kind in both}
    every = groups.divide(groups.look(paths), common, loosely=loosely, only=wanted)
    wanted_groups = [group for group in every if group.kind in wanted]
    return (
        [x for x in pairing.find(wanted_groups, len(paths)) if frozenset((x.a.kind, x.b.kind)) in kinds]
        if found
        else []
    )


def _told(forms: Sequence[Match], place: Place) -> str:
    """Propose pairs: by options that lead to just these, or else by a CSV with them."""
    match, options = describe(forms, place)
    count = f"{len(match.keys):,}"
    lonely = f" ({match.lonely:,} more have no partner, and are left out)" if match.lonely else ""
    sides = f"{_label(match.a)} (A) and {_label(match.b)} (B)"
    if options:
        return f"the names of the files make {count} pairs of {sides}: {written(options)}"
    told = f"the names of the files make {count} pairs{lonely} of {sides}"
    if place.output is None:
        return f"{told}; no options describe them: list them in a CSV file, with --config.data.source=csv"
    return f"{told}; they are written to a CSV file: {written(write(match, place, 'pairs'))}"


def _others(best: Match, others: Sequence[Sequence[Match]], place: Place) -> Iterator[str]:
    """Name the pairs that other files make, in one sentence with the options of each."""
    told: list[str] = []
    seen = _files_of(best)
    for forms in others:
        first = forms[0]
        one_of_b = first.a.text != best.a.text and (
            words.words_of_b(first.a.text) or not words.words_of_a(first.a.text)
        )
        files_ = _files_of(first)
        if not first.is_likely or one_of_b or all(x <= y for x, y in zip(files_, seen, strict=True)):
            continue  # two kinds of B, or what is a part of A with a part of B
        seen = [x | y for x, y in zip(files_, seen, strict=True)]
        if len(told) < _OTHERS:
            match, options = describe(forms, place)
            if not options and place.output is not None:
                options = write(match, place, f"pairs_{len(told) + 2}")
            by = f" ({written(options)})" if options else ""
            told.append(f"{len(match.keys):,} of {_label(match.a)} and {_label(match.b)}{by}")
    if told:
        yield f"other files make pairs as well, if you want these: {'; '.join(told)}"


def _files_of(match: Match) -> list[set[Parts]]:
    return [{pair[side].parts for pair in match.pairs} for side in (0, 1)]


def _on_doubtful(found: Sequence[Match], place: Place) -> Iterator[str]:
    """Name the folders that hold the same names, where it is not clear if they are the sides of pairs."""
    sides = list(dict.fromkeys(_label(group) for match in found for group in (match.a, match.b)))
    options = options_of(found[0], place.data) if found else None
    if options and len(sides) <= _SCENES:
        options |= direction_of(found[0], place)
        yield (
            f"{', '.join(sides)} hold images of the same names; if two of them are the sides of pairs, such as the "
            f"first two: {written(options)}"
        )


def _label(group: Group) -> str:
    return files.shown(group.label)


def _without_pairs(root: Path, paths: Sequence[Parts], data: ConfigDict) -> str:
    """Propose what has no pairs: files with two halves, two folders, or single photographs."""
    tops = Counter(parts[0] for parts in paths if len(parts) > 1 and not words.find_split(parts[0]))
    few = [formats.read_header(root.joinpath(*parts)) for parts in evenly(paths, 20) if _can_be_read(root, parts)]
    if few and all(1.9 < header.width / header.height < 2.1 for header in few):
        return (
            "the files are twice as wide as high, as pairs side by side: "
            f"{written({'source': 'side_by_side', **dict(of_one(paths, data))})}"
        )
    if len(tops) == 2 and not pairing.differ_by_number(*tops):
        a, b = sorted(tops)
        options = {"source": "unpaired", "dir_a": a, "dir_b": b} | SHARE
        return (
            f"the files of {a} ({tops[a]:,}) and {b} ({tops[b]:,}) have no partners by their names; to train without "
            f"pairs, from configs/horse2zebra.py: {written(options)}"
        )
    there = Counter("/".join(parts[:-1]) or "its top" for parts in paths)
    shown = ", ".join(f"{name} ({count:,})" for name, count in there.most_common(_TOLD))
    more = ", ..." if len(there) > _TOLD else ""
    return (
        f"the names of the files show no pairs (images are in {shown}{more}); for single photographs: "
        f"{written({'source': 'photos', **dict(of_one(paths, data))})}"
    )


def _can_be_read(root: Path, parts: Parts) -> bool:
    try:
        formats.read_header(root.joinpath(*parts))
    except InputError:
        return False
    return True
