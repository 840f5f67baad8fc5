"""Which layout fits a folder that the config does not describe, found by the names of its files."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

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
_OTHERS, _TOLD = 24, 8  # other pairs that are named, and folders
_SCENES = 4  # folders of one kind of names, from which on they are scenes rather than sides


def propose(data: ConfigDict, output: Path | None = None) -> list[str]:
    """Return sentences with the options of the layout that fits the files of a folder, or nothing.

    The first names the likeliest layout; others, in brackets, what else the files may be.

    Args:
      data: reads ``dir`` and ``source``.
      output: a folder for CSV files with the pairs, where no options describe them.
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
        return [f"the folder holds {len(paths):,} images: {_written(dict(_of_one(paths, data)))}"]
    found, count = _matches(paths)
    if not found or (not found[0].is_likely and len(found) > 1):
        return [*_without_pairs(root, paths, data), *_doubtful(found)]
    return [_told(found[0], root, data, output, is_all=count == len(paths)), *_others(found, data)]


def names_pairs(paths: Sequence[Parts]) -> bool:
    """Tell whether the names of files say that most of them are the sides of pairs."""
    found, count = _matches(paths)
    return bool(found) and found[0].is_likely and 2 * len(found[0].keys) > 0.6 * count


def _matches(paths: Sequence[Parts]) -> tuple[list[Match], int]:
    """Return the groups that make pairs, the likeliest first, and how many files were looked at."""
    looked_at = groups.look(groups.some(paths))
    for loosely in (False, True):
        found = pairing.find(list(groups.divide(looked_at, loosely=loosely)), len(looked_at))
        if found and (found[0].is_likely or not loosely):
            return (found if not loosely or found[0].is_likely else []), len(looked_at)
    return [], len(looked_at)


def _told(match: Match, root: Path, data: ConfigDict, output: Path | None, *, is_all: bool) -> str:
    """Propose pairs: by options that lead to just these, or else by a CSV with them."""
    sides = f"{_label(match.a)} and {_label(match.b)}"
    about = "" if is_all else "about "
    scale = 1 if is_all else len(files.look_below(root).images) / groups._FILES
    lonely = f" ({match.lonely:,} more have no partner, and are left out)" if match.lonely else ""
    told = f"the names of the files make {about}{round(len(match.keys) * max(scale, 1)):,} pairs"
    options = _options(match, data)
    if options is not None and _leads_to(match, options, root, data, is_all=is_all):
        return f"{told} of {sides}: {_written(options)}"
    if output is None or not is_all:
        return f"{told}{lonely} of {sides}; no options describe them: name them in a CSV, with --config.data.source=csv"
    return f"{told}{lonely} of {sides}; they are written to {_write(match, root, data, output)}"


def _options(match: Match, data: ConfigDict) -> dict[str, str] | None:
    """Return the options of ``config.data`` that describe pairs; None if there are none."""
    a, b = match.a, match.b
    splits = {file.split for pair in match.pairs for file in pair}
    if a.prefix or b.prefix or a.rest or b.rest or any(x.in_name for pair in match.pairs for x in pair):
        return None
    options = {"source": "folders"}
    if a.folders == b.folders and a.folders in ((), (words.SPLIT,)):
        options["source"] = "suffixes"
    else:
        options |= {f"dir_{name}": "/".join(group.folders) or "." for name, group in (("a", a), ("b", b))}
    train = next((split for split in sorted(splits) if words.is_train(split)), "")
    for name, group in (("a", a), ("b", b)):
        if group.suffix:
            options[f"suffix_{name}"] = group.suffix.replace(words.SPLIT, train)
    options |= {name: "" for name in _OF_FOLDERS if data[name] and name not in options}
    return options | dict(_splits({split: split for split in _names_of_splits(match)}, data))


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


def _leads_to(match: Match, options: Mapping[str, str], root: Path, data: ConfigDict, *, is_all: bool) -> bool:
    """Tell whether training would find just these pairs with some options."""
    tried = data.copy_and_resolve_references()
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
                    a, b = (path.relative_to(root).parts for path in pair)
                    found.add((a, b))
    except InputError:
        return False
    return found == wanted or (wanted <= found and not is_all)


def _write(match: Match, root: Path, data: ConfigDict, output: Path) -> str:
    """Write pairs in CSV files; returns where they are, and the options that read them."""
    train, val = _train_and_val(_names_of_splits(match))
    folder = output / "pairs"
    names = {data.train_split: train, data.val_split or "val": val}
    for name, split in names.items():
        target = folder / f"{name}.csv"
        chosen = [pair for pair in match.pairs if pair[0].split == split]
        if not chosen or (not split and name != data.train_split):
            target.unlink(missing_ok=True)  # of an earlier time
            continue
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("a", "b"))
        rows.writerows([str(root.absolute().joinpath(*side.parts)) for side in pair] for pair in chosen)
        write_text(target, text.getvalue())
    options = {"source": "csv", "dir": str(folder)} | ({} if val else _SHARE)
    return f"{folder}: {_written(options)}"


def _others(found: Sequence[Match], data: ConfigDict) -> Iterator[str]:
    """Name the pairs that other files make, in one sentence; how their options differ is in brackets."""
    best, told = found[0], []
    options = _options(best, data)
    for match in found[1:]:
        if not match.is_likely or not {match.a.text, match.b.text} & {best.a.text, best.b.text}:
            continue
        own = _options(match, data)
        differing = {} if own is None or options is None else _differing(own, options)
        in_brackets = f" ({_written(differing)})" if differing else ""
        told.append(f"{_label(match.a)} and {_label(match.b)}, {len(match.keys):,}{in_brackets}")
    if told:
        more = f"; and {len(told) - _OTHERS} more" if len(told) > _OTHERS else ""
        yield f"other files make pairs as well, if these are meant: {'; '.join(told[:_OTHERS])}{more}"


def _differing(options: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    return {name: options.get(name, "") for name in {**others, **options} if options.get(name) != others.get(name)}


def _doubtful(found: Sequence[Match]) -> Iterator[str]:
    """Say which files have the same names, where nothing tells whether they are the sides of pairs."""
    sides = list(dict.fromkeys(_label(group) for match in found for group in (match.a, match.b)))
    if 2 < len(sides) <= _SCENES:
        dirs = "--config.data.source=folders, dir_a and dir_b (suffix_a and suffix_b)"
        yield f"{_listed(sides)} hold images of the same names; if two of these are the sides of pairs: {dirs}"


def _written(options: Mapping[str, str]) -> str:
    return " ".join(f"--config.data.{name}={shlex.quote(value) if value else ''}" for name, value in options.items())


def _label(group: Group) -> str:
    return group.label if group.label.isprintable() else repr(group.label)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _of_one(paths: Sequence[Parts], data: ConfigDict) -> Iterator[tuple[str, str]]:
    """Name the folders of splits, of images that are no pairs."""
    tops = dict.fromkeys(parts[0] for parts in paths if len(parts) > 1)
    split_of = {top: found[1].lower() for top in tops if (found := words.find_split(top))}
    counts = Counter(split_of.values())
    plain = [top for top in tops if top not in split_of]
    names = {split: top for top, split in split_of.items() if counts[split] == 1}
    yield from _splits(names if not plain else {}, data)


def _without_pairs(root: Path, paths: Sequence[Parts], data: ConfigDict) -> Iterator[str]:
    """Propose what has no pairs: files with two halves, two folders, or single photographs."""
    tops = Counter(parts[0] for parts in paths if len(parts) > 1 and not words.find_split(parts[0]))
    few = [formats.read_header(root.joinpath(*parts)) for parts in evenly(paths, 20) if _can_be_read(root, parts)]
    if few and all(1.9 < header.width / header.height < 2.1 for header in few):
        yield (
            "the files are twice as wide as high, as pairs side by side: "
            f"{_written({'source': 'side_by_side', **dict(_of_one(paths, data))})}"
        )
        return
    if len(tops) == 2 and not pairing.differ_by_number(*tops):
        a, b = sorted(tops)
        options = {"source": "unpaired", "dir_a": a, "dir_b": b} | _SHARE
        yield (
            f"the files of {a} ({tops[a]:,}) and {b} ({tops[b]:,}) have no partners by their names; without pairs, "
            f"from configs/horse2zebra.py: {_written(options)}"
        )
        return
    there = Counter("/".join(parts[:-1]) or "its top" for parts in paths)
    shown = ", ".join(f"{name} ({count:,})" for name, count in there.most_common(_TOLD))
    more = ", ..." if len(there) > _TOLD else ""
    yield (
        f"no pairs are to be seen in the names of the files (images lie in {shown}{more}); single photographs: "
        f"{_written({'source': 'photos', **dict(_of_one(paths, data))})}"
    )


def _can_be_read(root: Path, parts: Parts) -> bool:
    try:
        formats.read_header(root.joinpath(*parts))
    except InputError:
        return False
    return True
