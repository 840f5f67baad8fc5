"""Which files of a folder are images of A and B, and which belong together. Only names and CSV files are read."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from p2p_jax.config.paths import expanded
from p2p_jax.data import archives, held_out, matching, pair_tables
from p2p_jax.data.files import list_images, shown
from p2p_jax.data.matching import Named
from p2p_jax.errors import InputError
from p2p_jax.reporting import quiet

SOURCES = ("side_by_side", "side_by_side/AB", "side_by_side/BA", "folders", "suffixes", "csv", "photos", "unpaired")
_UNPAIRED = "train a CycleGAN: --config configs/horse2zebra.py --config.data.source=unpaired"


class Layout(NamedTuple):
    """The files of one split. A and B are those of the data set.

    ``direction`` is applied afterwards, by ``data.stream.sides.arrange``.

    Attributes:
      a: files with the images of A.
      b: files with the images of B; for pairs, ``b[i]`` belongs to ``a[i]``.
      paired: whether there are pairs.
      halves: "AB" or "BA" if every file holds both images of a pair, in this order from left to right, and `a` and `b`
        are the same files; "" if an image is a whole file.
      lonely: files without a partner, neither in `a` nor in `b`.
      folders: the folders that were searched.
    """

    a: Sequence[Path]
    b: Sequence[Path]
    paired: bool = True
    halves: str = ""
    lonely: Sequence[Path] = ()
    folders: Sequence[Path] = ()

    @property
    def sides(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """`a` and `b`."""
        return self.a, self.b


def is_file_source(source: str) -> bool:
    """Return whether ``find`` knows a ``config.data.source``; cycle_gan/NAME counts if there is a folder."""
    kind, _, name = source.partition("/")
    return source in SOURCES or (kind in ("pix2pix", "cycle_gan") and bool(name))


def find(data: ConfigDict, split: str, *, lenient: bool = False) -> Layout:
    """Find the files of a split.

    Args:
      data: reads ``source``, ``val_fraction``, the splits, and the options of folders and suffixes.
      split: such as "train".
      lenient: list files without a partner in ``lonely`` instead of raising an error.

    Raises:
      InputError: there are no such folders or files, a CSV file has another form, or a file has no partner.
    """
    if not (data.val_fraction and split and split in (data.train_split, data.val_split)):
        return _find(data, split, lenient=lenient)
    if data.val_split and has_split(data, data.val_split):
        raise InputError(
            f"config.data.val_fraction={data.val_fraction:g} takes images of {data.train_split} for validation, but "
            f"{data.dir} has images of {data.val_split} as well: set config.data.val_fraction=0, or another val_split"
        )
    with quiet() if split == data.val_split else contextlib.nullcontext():  # training has printed what is left out
        found = _find(data, data.train_split, lenient=lenient, whole_folder=True)
    if lenient and not (found.a and found.b):
        return found
    return _part(found, data, is_held_out=split == data.val_split) if data.val_split else found


def _find(data: ConfigDict, split: str, *, lenient: bool, whole_folder: bool = False) -> Layout:
    """Find the files of a split; with `whole_folder` the data set's folder itself is one that has no folder for it."""
    kind, root = data.source.partition("/")[0], _root(data)
    _refuse_one_for_all(data, split, root)
    if kind == "csv":
        table = root if root.is_file() else root / f"{split}.csv"
        if not table.is_file():
            raise InputError(f"there is no file {table}{_other_splits(table.parent, '.csv')}")
        return Layout(*pair_tables.read(table), folders=(table.parent,))
    if kind in ("folders", "unpaired", "cycle_gan"):
        places = _two_places(data, root, split, whole_folder=whole_folder)
        listed = functools.cache(list_images)  # both sides may lie in one folder
        suffixes = data.suffix_a, data.suffix_b
        sides = [_named(place, suffix, listed) for place, suffix in zip(places, suffixes, strict=True)]
        folders = [folder for place in places for _, folder in place]
        if kind != "folders":
            a, b = ([named.path for named in side] for side in sides)
            return Layout(a, b, paired=False, folders=folders)
        where = "of the same stem in the other folder"
        return _match(sides[0], sides[1], where, lenient=lenient)._replace(folders=folders)
    folder = root if whole_folder and not (root / split).is_dir() else _split_folder(root, split)
    if kind == "suffixes":
        return _by_suffix(folder, data, lenient=lenient)._replace(folders=(folder,))
    paths = list_images(folder)
    halves = "" if kind == "photos" else "BA" if data.source.endswith("/BA") else "AB"
    return Layout(paths, paths, halves=halves, folders=(folder,))


def _refuse_one_for_all(data: ConfigDict, split: str, root: Path) -> None:
    """Refuse folders where every split would have the same images."""
    if split == data.train_split:
        return
    table = str(root) if data.source == "csv" and root.is_file() else ""
    named = [name for name in ("dir_a", "dir_b") if data[name] and "{split}" not in data[name]]
    if table or (named and data.source in ("folders", "unpaired")):
        option = "config.data.dir" if table else f"config.data.{named[0]}"
        way = (
            f"its validation split is called {data.val_split}"
            if data.val_fraction and data.val_split
            else "write {split} in place of the split's name, keep a share for validation with "
            "--config.data.val_fraction=0.1, or train without (--config.data.val_split=)"
        )
        raise InputError(f"{option}={table or data[named[0]]} is the same for {data.train_split} and {split}: {way}")


def _part(layout: Layout, data: ConfigDict, *, is_held_out: bool) -> Layout:
    """Return the part of a layout for validation, or the rest; only names decide which."""
    kept = functools.partial(held_out.chosen, fraction=data.val_fraction, is_held_out=is_held_out)
    places = [kept(layout.a)] * 2 if layout.paired else [kept(layout.a), kept(layout.b)]
    a, b = ([files[i] for i in chosen] for files, chosen in zip(layout.sides, places, strict=True))
    return layout._replace(a=a, b=a if layout.a is layout.b else b)


def has_split(data: ConfigDict, split: str) -> bool:
    """Return whether the folder of a data set has files of a split.

    Raises:
      InputError: there is no such folder.
    """
    root = _root(data)
    if data.dir_a:
        return "{split}" in data.dir_a and any(_folders(root, data.dir_a, split))
    names = (split, f"{split}A", f"{split}B", f"A/{split}", f"B/{split}", f"{split}.csv")
    return root.is_dir() and any((root / name).exists() for name in names)


def _match(a: Sequence[Named], b: Sequence[Named], where: str, *, lenient: bool) -> Layout:
    """Pair the files that have one name."""
    found_a, found_b, lonely = matching.pair(a, b)
    if lonely and not lenient:
        of_a = {named.path: named for named in a}
        others = b if lonely[0] in of_a else a
        named = next(named for named in (*a, *b) if named.path == lonely[0])
        partner = matching.partner_of(named, others[0]) if others else None
        missing = f"{shown(partner)} (or with another ending)" if partner else "the missing ones"
        more = " and the others" if partner and len(lonely) > 1 else ""
        fix = (
            f"add {missing}{more}, remove {'this file' if len(lonely) == 1 else 'these files'}, or train on the CSV "
            "files with the other pairs that python -m p2p_jax inspect writes"
        )
        raise InputError(matching.describe_lonely(list(map(shown, lonely)), (len(a), len(b)), where, fix, _UNPAIRED))
    return Layout(found_a, found_b, lonely=lonely)


def _by_suffix(folder: Path, data: ConfigDict, *, lenient: bool) -> Layout:
    """Pair ``x_A.png`` with ``x_B.png``, or with other endings."""
    suffixes = data.suffix_a or "_A", data.suffix_b or "_B"
    paths = list_images(folder)
    a, b = (list(_ending(paths, folder, suffix)) for suffix in suffixes)
    if (data.suffix_a or data.suffix_b) and not (a and b):
        lacking, there = (suffixes[0], len(b)) if not a else (suffixes[1], len(a))
        other = suffixes[1] if not a else suffixes[0]
        raise InputError(
            f"no name in {folder} ends in {lacking} (config.data.suffix_{'a' if not a else 'b'}); "
            f"{there:,} of {len(paths):,} end in {other}"
        )
    known = {named.path for named in (*a, *b)}
    others = [path for path in paths if path not in known]
    if others and not lenient and not (data.suffix_a or data.suffix_b):
        more = f" (and {len(others) - 1:,} more file{'s' * (len(others) > 2)})" if len(others) > 1 else ""
        raise InputError(
            f"{others[0]}: the name ends in neither {suffixes[0]} nor {suffixes[1]}{more}; rename or remove it, or set "
            "the endings: --config.data.suffix_a and suffix_b"
        )
    layout = _match(a, b, f"of the same name but for {suffixes[0]} and {suffixes[1]}", lenient=lenient)
    if not layout.a and not lenient:
        raise InputError(f"no names in {folder} end in {suffixes[0]} and in {suffixes[1]}")
    return layout._replace(lonely=layout.lonely if data.suffix_a or data.suffix_b else [*layout.lonely, *others])


def _named(
    place: Sequence[tuple[tuple[str, ...], Path]], suffix: str, listed: Callable[[Path], list[Path]]
) -> list[Named]:
    """Return the images of folders whose names end with a suffix, each recognised by the rest."""
    found = []
    for matched, folder in place:
        for path, key in _ending(listed(folder), folder, suffix):
            found.append(Named(path, (*matched, *key)))
    if not found:
        raise InputError(f"no image in {place[0][1]} has a name that ends in {suffix}")
    return found


def _ending(paths: Sequence[Path], folder: Path, suffix: str) -> Iterator[Named]:
    for path in paths:
        if (key := matching.key_of(path.relative_to(folder).parts, suffix)) is not None:
            yield Named(path, key)


def _root(data: ConfigDict) -> Path:
    kind, _, name = data.source.partition("/")
    if kind == "pix2pix" and not data.dir:  # the user's own copy, where there is one, saves the download
        return archives.fetch(name)
    if not data.dir and data.dir_a and data.dir_b:
        return Path()
    if not data.dir:
        raise InputError(
            f"config.data.source={data.source} reads a folder: give it with --config.data.dir=FOLDER, "
            "or data_dir=FOLDER when a run is used"
        )
    root = expanded(data.dir)
    if not root.is_dir() and not (kind == "csv" and root.is_file()):
        raise InputError(f"config.data.dir: there is no folder {data.dir}")
    return root


def _split_folder(root: Path, split: str) -> Path:
    folder = root / split
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}" + _other_splits(root))
    return folder


def _two_places(
    data: ConfigDict, root: Path, split: str, *, whole_folder: bool
) -> list[list[tuple[tuple[str, ...], Path]]]:
    """Return the folders of A and of B, each with the names that matched the stars of its pattern."""
    if data.dir_a or data.dir_b:
        places = []
        for name, pattern in (("dir_a", data.dir_a), ("dir_b", data.dir_b)):
            if not pattern:
                raise InputError(f"config.data.{name} is missing: set both dir_a and dir_b")
            place = list(_folders(root, pattern, split))
            if not place:
                raise InputError(
                    f"config.data.{name}={pattern}: there is no folder {root / pattern}".replace("{split}", split)
                )
            places.append(place)
        return places
    layouts = [
        (root / split / "A", root / split / "B"),
        (root / "A" / split, root / "B" / split),
        (root / f"{split}A", root / f"{split}B"),
    ]
    layouts += [(root / "A", root / "B")] if whole_folder else []
    for folders in layouts:
        if all(folder.is_dir() for folder in folders):
            return [[((), folder)] for folder in folders]
    wanted = ", or ".join(f"{a.relative_to(root)} and {b.relative_to(root)}" for a, b in layouts)
    raise InputError(
        f"{root} has no pair of folders {wanted} (set other folders with --config.data.dir_a and dir_b)"
        + _other_splits(root)
    )


def _folders(root: Path, pattern: str, split: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield the folders that a pattern names, with the names that match its stars."""
    parts = expanded(pattern.replace("{split}", split)).parts
    if not parts:
        parts = (".",)
    found: list[tuple[tuple[str, ...], Path]] = [((), root)]
    for part in parts:
        if part == "*":
            found = [((*names, p.name), p) for names, here in found for p in sorted(here.iterdir()) if _is_seen(p)]
        else:
            found = [(names, here / part) for names, here in found if (here / part).is_dir()]
    yield from found


def _is_seen(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _other_splits(root: Path, ending: str = "") -> str:
    """Name what might be the split: the folders of a data set, or its files of an ending."""
    entries = sorted(root.iterdir()) if root.is_dir() else []
    found = [p.name for p in entries if (p.suffix == ending if ending else p.is_dir())]
    if ending and not found:
        return (
            f"; {root} holds no {ending} file: write one with the columns a and b, or choose another config.data.source"
        )
    share = "keep a share of the images for validation with --config.data.val_fraction=0.1"
    if not found:
        return f"; {root} holds no folder: make one, or use all of its images, and {share}"
    kind = f"{ending} file" if ending else "folder"
    few = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "")
    return (
        f"; {root} holds {few}: rename a {kind}, name the split with --config.data.train_split or "
        f"--config.data.val_split (--config.data.val_split= trains without validation), or {share}"
    )
