"""Options of the config that describe pairs, tried before they are proposed; and else CSV files with them."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from p2p_jax.data import layouts
from p2p_jax.data.inspect import words
from p2p_jax.data.inspect.doubts import read_headers
from p2p_jax.data.inspect.fitting import fitting_direction, stored_as
from p2p_jax.data.inspect.groups import Parts
from p2p_jax.data.inspect.pairing import Match
from p2p_jax.data.layouts import Layout
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.reporting import quiet
from p2p_jax.storage.writing import write_text

SHARE = {"val_fraction": "0.1"}
"""Where there is only one split."""
_OF_FOLDERS = ("dir_a", "dir_b", "suffix_a", "suffix_b")
_READ = 20  # pairs whose headers are read
_FORMS = 6  # ways to describe the same pairs that are tried


class Place(NamedTuple):
    """Where files lie, what the config says of them, and where CSV files may be written."""

    root: Path
    data: ConfigDict
    output: Path | None


def describe(forms: Sequence[Match], place: Place) -> tuple[Match, dict[str, str]]:
    """Return the first form of the same pairs that options describe, and the options; else only the first form."""
    for match in forms[:_FORMS]:
        options = options_of(match, place.data)
        if options is not None and _leads_to(match, options, place):
            return match, options | direction_of(match, place)
    return forms[0], {}


def direction_of(match: Match, place: Place) -> dict[str, str]:
    """Return the direction, if only with another than the config's the sides of pairs are of the declared kinds."""
    sides = zip(*evenly(match.pairs, _READ), strict=True)
    paths = [[place.root.joinpath(*one.parts) for one in side] for side in sides]
    stored = [stored_as(list(read_headers(side).values())) for side in paths]
    other = fitting_direction(place.data, stored)
    return {"direction": other} if other else {}


def options_of(match: Match, data: ConfigDict) -> dict[str, str] | None:
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
    return options | dict(of_splits({split: split for split in _names_of_splits(match)}, data))


def _tells_split(folders: Parts) -> bool:
    return any(words.SPLIT in part or part == "*" for part in folders)


def _names_of_splits(match: Match) -> list[str]:
    """Return the splits with pairs."""
    return sorted({a.split for a, _ in match.pairs if a.split})


def of_splits(names: Mapping[str, str], data: ConfigDict) -> Iterator[tuple[str, str]]:
    """Name the splits with images, or the share to split off.

    Args:
      names: of the splits, to what the config is to call them.
      data: what it calls them now.
    """
    train, val = _train_and_val(names)
    if train and names[train] != data.train_split:
        yield "train_split", names[train]
    if not train or not val:
        yield from SHARE.items()
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
    if val and not train and len(others) == 2:  # our485 next to eval15
        train = next(known[name] for name in others if known[name] != val)
    return train, val


def _leads_to(match: Match, options: Mapping[str, str], place: Place) -> bool:
    """Return whether training would find just these pairs with some options."""
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


def write(match: Match, place: Place, name: str) -> dict[str, str]:
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
        _write_table(target, ([place.root.joinpath(*side.parts) for side in pair] for pair in chosen))
    share = {"val_fraction": "0"} if val and data.val_fraction else {} if val else SHARE
    return {"source": "csv", "dir": str(folder)} | share | direction_of(match, place)


def write_found(found: Mapping[str, Layout], data: ConfigDict, folder: Path) -> dict[str, str]:
    """Write the pairs of splits, without the files that have no partner; returns the options that read them."""
    for split, layout in found.items():
        _write_table(folder / f"{split}.csv", zip(layout.a, layout.b, strict=True))
    return {"source": "csv", "dir": str(folder)} | ({"val_fraction": "0"} if data.val_fraction else {})


def _write_table(target: Path, pairs: Iterable[Iterable[Path]]) -> None:
    """Write a CSV file of pairs."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("a", "b"))
    rows.writerows([str(path.absolute()) for path in pair] for pair in pairs)
    write_text(target, text.getvalue())


def of_one(paths: Sequence[Parts], data: ConfigDict) -> Iterator[tuple[str, str]]:
    """Name the folders of splits for unpaired images."""
    tops = dict.fromkeys(parts[0] for parts in paths if len(parts) > 1)
    split_of = {top: found[1].lower() for top in tops if (found := words.find_split(top))}
    counts = Counter(split_of.values())
    plain = [top for top in tops if top not in split_of]
    names = {split: top for top, split in split_of.items() if counts[split] == 1}
    yield from of_splits(names if not plain else {}, data)


def written(options: Mapping[str, str]) -> str:
    """Return options of ``config.data`` as shells read them."""
    return " ".join(f"--config.data.{name}={shlex.quote(value) if value else ''}" for name, value in options.items())
