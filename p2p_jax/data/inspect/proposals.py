"""Which layout fits a folder that the config does not describe, found by the names of its files."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from p2p_jax.config.paths import expanded
from p2p_jax.data import files, layouts
from p2p_jax.data.inspect import groups, pairing, words
from p2p_jax.data.inspect.groups import Group, Parts
from p2p_jax.data.inspect.pairing import Match
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.writing import write_text
from p2p_jax.reporting import quiet

_SHARE = {"val_fraction": "0.1"}
_OF_FOLDERS = ("dir_a", "dir_b", "suffix_a", "suffix_b")
_OTHERS, _TOLD = 20, 8  # other pairs that are named, and folders
_FORMS = 6  # ways to describe the same pairs that are tried
_MOST = 0.6  # share of all files in pairs, from which on they are no single images
_SCENES = 4  # folders of one kind of names, from which on they are scenes rather than sides


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
        return [f"the folder holds {len(paths):,} images: {_written(dict(_of_one(paths, data)))}"], []
    found = _matches(paths)
    doubtful = [match for match in found if match.is_doubtful]
    if len(doubtful) == len(found):
        return [_without_pairs(root, paths, data)], list(_on_doubtful(doubtful, data))
    place = _Place(root, data, output)
    best, *others = pairing.forms([match for match in found if not match.is_doubtful])
    return [_told(best, place)], list(_others(best[0], others, place))


def names_pairs(paths: Sequence[Parts]) -> bool:
    """Tell whether the names of files say that most of them are the sides of pairs."""
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
    kinds = {frozenset((match.a.kind, match.b.kind)) for match in found}
    folders = {group.folders for match in found for group in (match.a, match.b)}
    every = groups.divide(groups.look(paths), common, loosely=loosely, only=folders)
    wanted = [group for group in every if any(group.kind in kind for kind in kinds)]
    return [x for x in pairing.find(wanted, len(paths)) if frozenset((x.a.kind, x.b.kind)) in kinds] if found else []


class _Place(NamedTuple):
    """Where files lie, what the config says of them, and where CSV files may be written."""

    root: Path
    data: ConfigDict
    output: Path | None


def _told(forms: Sequence[Match], place: _Place) -> str:
    """Propose pairs: by options that lead to just these, or else by a CSV with them."""
    match, options = _described(forms, place)
    count = f"{len(match.keys):,}"
    lonely = f" ({match.lonely:,} more have no partner, and are left out)" if match.lonely else ""
    sides = f"{_label(match.a)} and {_label(match.b)}"
    if options:
        return f"the names of the files make {count} pairs of {sides}: {_written(options)}"
    told = f"the names of the files make {count} pairs{lonely} of {sides}"
    if place.output is None:
        return f"{told}; no options describe them: name them in a CSV, with --config.data.source=csv"
    return f"{told}; they are written to a CSV: {_written(_write(match, place, 'pairs'))}"


def _described(forms: Sequence[Match], place: _Place) -> tuple[Match, dict[str, str]]:
    """Return the first of some forms of the same pairs that options describe, and these; else the first alone."""
    for match in forms[:_FORMS]:
        options = _options(match, place.data)
        if options is not None and _leads_to(match, options, place):
            return match, options
    return forms[0], {}


def _options(match: Match, data: ConfigDict) -> dict[str, str] | None:
    """Return the options of ``config.data`` that describe pairs; None if there are none."""
    a, b = match.a, match.b
    splits = {file.split for pair in match.pairs for file in pair}
    if a.prefix or b.prefix or a.rest or b.rest or any(x.in_name for pair in match.pairs for x in pair):
        return None
    options = {"source": "folders"}
    if a.folders == b.folders and (a.folders == (words.SPLIT,) or not _tells_split(a.folders)):
        options["source"] = "suffixes"
    else:
        options |= {f"dir_{name}": "/".join(group.folders) or "." for name, group in (("a", a), ("b", b))}
    train = next((split for split in sorted(splits) if words.is_train(split)), "")
    for name, group in (("a", a), ("b", b)):
        if group.suffix:
            options[f"suffix_{name}"] = group.suffix.replace(words.SPLIT, train)
    options |= {name: "" for name in _OF_FOLDERS if data[name] and name not in options}
    return options | dict(_splits({split: split for split in _names_of_splits(match)}, data))


def _tells_split(folders: Parts) -> bool:
    return any(words.SPLIT in part or part == "*" for part in folders)


def _names_of_splits(match: Match) -> list[str]:
    """Return the splits of which there are pairs."""
    return sorted({a.split for a, _ in match.pairs if a.split})


def _splits(names: Mapping[str, str], data: ConfigDict) -> Iterator[tuple[str, str]]:
    """Name the splits of which there are images, or the share that is to be one.

    Args:
      names: of the splits, to what the config is to call them.
      data: what it calls them now.
    """
    train, val = _train_and_val(names)
    if train and names[train] != data.train_split:
        yield "train_split", names[train]
    if not train or not val:
        yield from _SHARE.items()
        return
    if names[val] != data.val_split:
        yield "val_split", names[val]
    if data.val_fraction:
        yield "val_fraction", "0"


def _train_and_val(names: Collection[str]) -> tuple[str, str]:
    """Return which of the names of splits are those for training and for validation, "" for none."""
    known = {name.lower(): name for name in names}
    train = next((known[name] for name in sorted(known) if words.is_train(name)), "")
    others = [name for name in sorted(known) if known[name] != train]
    val = next((known[name] for word in words.VAL for name in others if name.startswith(word)), "")
    if val and not train and len(others) == 2:  # our485 beside eval15
        train = next(known[name] for name in others if known[name] != val)
    return train, val


def _leads_to(match: Match, options: Mapping[str, str], place: _Place) -> bool:
    """Tell whether training would find just these pairs with some options."""
    tried = place.data.copy_and_resolve_references()
    with tried.unlocked():
        for name, value in options.items():
            tried[name] = float(value) if name == "val_fraction" else value
    train, val = _train_and_val(_names_of_splits(match))
    wanted = {(a.parts, b.parts) for a, b in match.pairs if a.split == train or (val and a.split == val)}
    found: set[tuple[Parts, Parts]] = set()
    try:
        with quiet():
            for split in filter(None, (tried.train_split, tried.val_split)):
                layout = layouts.find(tried, split)
                for pair in zip(layout.a, layout.b, strict=True):
                    a, b = (path.relative_to(place.root).parts for path in pair)
                    found.add((a, b))
    except InputError:
        return False
    return found == wanted


def _write(match: Match, place: _Place, name: str) -> dict[str, str]:
    """Write pairs in CSV files in a folder of that name; returns the options that read them."""
    data, (train, val) = place.data, _train_and_val(_names_of_splits(match))
    assert place.output is not None
    folder = place.output / name
    for split, file in ((train, data.train_split), (val, data.val_split or "val")):
        target = folder / f"{file}.csv"
        chosen = [pair for pair in match.pairs if pair[0].split == split]
        if not chosen or (not val and file != data.train_split):
            target.unlink(missing_ok=True)  # of an earlier time
            continue
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("a", "b"))
        rows.writerows([str(place.root.absolute().joinpath(*side.parts)) for side in pair] for pair in chosen)
        write_text(target, text.getvalue())
    share = {"val_fraction": "0"} if val and data.val_fraction else {} if val else _SHARE
    return {"source": "csv", "dir": str(folder)} | share


def _others(best: Match, others: Sequence[Sequence[Match]], place: _Place) -> Iterator[str]:
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
            match, options = _described(forms, place)
            if not options and place.output is not None:
                options = _write(match, place, f"pairs_{len(told) + 2}")
            by = f" ({_written(options)})" if options else ""
            told.append(f"{len(match.keys):,} of {_label(match.a)} and {_label(match.b)}{by}")
    if told:
        yield f"other files make pairs as well, if these are meant: {'; '.join(told)}"


def _files_of(match: Match) -> list[set[Parts]]:
    return [{pair[side].parts for pair in match.pairs} for side in (0, 1)]


def _on_doubtful(found: Sequence[Match], data: ConfigDict) -> Iterator[str]:
    """Say which folders hold the same names, where nothing tells whether they are the sides of pairs."""
    sides = list(dict.fromkeys(_label(group) for match in found for group in (match.a, match.b)))
    options = _options(found[0], data) if found else None
    if options and len(sides) <= _SCENES:
        yield (
            f"{', '.join(sides)} hold images of the same names; if two of them are the sides of pairs, such as the "
            f"first two: {_written(options)}"
        )


def _written(options: Mapping[str, str]) -> str:
    return " ".join(f"--config.data.{name}={shlex.quote(value) if value else ''}" for name, value in options.items())


def _label(group: Group) -> str:
    return group.label if group.label.isprintable() else repr(group.label)


def _of_one(paths: Sequence[Parts], data: ConfigDict) -> Iterator[tuple[str, str]]:
    """Name the folders of splits, of images that are no pairs."""
    tops = dict.fromkeys(parts[0] for parts in paths if len(parts) > 1)
    split_of = {top: found[1].lower() for top in tops if (found := words.find_split(top))}
    counts = Counter(split_of.values())
    plain = [top for top in tops if top not in split_of]
    names = {split: top for top, split in split_of.items() if counts[split] == 1}
    yield from _splits(names if not plain else {}, data)


def _without_pairs(root: Path, paths: Sequence[Parts], data: ConfigDict) -> str:
    """Propose what has no pairs: files with two halves, two folders, or single photographs."""
    tops = Counter(parts[0] for parts in paths if len(parts) > 1 and not words.find_split(parts[0]))
    few = [formats.read_header(root.joinpath(*parts)) for parts in evenly(paths, 20) if _can_be_read(root, parts)]
    if few and all(1.9 < header.width / header.height < 2.1 for header in few):
        return (
            "the files are twice as wide as high, as pairs side by side: "
            f"{_written({'source': 'side_by_side', **dict(_of_one(paths, data))})}"
        )
    if len(tops) == 2 and not pairing.differ_by_number(*tops):
        a, b = sorted(tops)
        options = {"source": "unpaired", "dir_a": a, "dir_b": b} | _SHARE
        return (
            f"the files of {a} ({tops[a]:,}) and {b} ({tops[b]:,}) have no partners by their names; without pairs, "
            f"from configs/horse2zebra.py: {_written(options)}"
        )
    there = Counter("/".join(parts[:-1]) or "its top" for parts in paths)
    shown = ", ".join(f"{name} ({count:,})" for name, count in there.most_common(_TOLD))
    more = ", ..." if len(there) > _TOLD else ""
    return (
        f"no pairs are to be seen in the names of the files (images lie in {shown}{more}); single photographs: "
        f"{_written({'source': 'photos', **dict(_of_one(paths, data))})}"
    )


def _can_be_read(root: Path, parts: Parts) -> bool:
    try:
        formats.read_header(root.joinpath(*parts))
    except InputError:
        return False
    return True
