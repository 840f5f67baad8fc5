"""Which files of a folder are the images of A and B, and which belong together. Nothing is read but names and CSVs."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from p2p_jax.data import archives
from p2p_jax.data.files import list_images
from p2p_jax.errors import InputError

SOURCES = ("side_by_side", "side_by_side/AB", "side_by_side/BA", "folders", "suffixes", "csv", "photos", "unpaired")


class Layout(NamedTuple):
    """The files of one split. A and B are those of the data set.

    ``direction`` is applied afterwards, by ``data.stream.sides.arrange``.

    Attributes:
      a: files with the images of A.
      b: files with the images of B; of pairs, ``b[i]`` belongs to ``a[i]``.
      paired: whether there are pairs.
      halves: "AB" or "BA" if every file holds both images of a pair, in this order from left to right, and `a` and `b`
        are the same files; "" if an image is a whole file.
      lonely: files that have no partner and stand neither in `a` nor in `b`.
    """

    a: Sequence[Path]
    b: Sequence[Path]
    paired: bool = True
    halves: str = ""
    lonely: Sequence[Path] = ()

    @property
    def sides(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """`a` and `b`."""
        return self.a, self.b


def is_file_source(source: str) -> bool:
    """Tell whether ``find`` knows a ``config.data.source``; cycle_gan/NAME is one of files where there is a folder."""
    kind, _, name = source.partition("/")
    return source in SOURCES or (kind in ("pix2pix", "cycle_gan") and bool(name))


def find(data: ConfigDict, split: str, *, lenient: bool = False) -> Layout:
    """Find the files of a split.

    Args:
      data: reads ``source`` and ``dir``.
      split: such as "train".
      lenient: list files without a partner in ``lonely`` in place of raising an error.

    Raises:
      InputError: there are no such folders or files, a CSV is not what it should be, or a file has no partner.
    """
    kind, root = data.source.partition("/")[0], _root(data)
    if kind in ("folders", "unpaired", "cycle_gan"):
        folder_a, folder_b = _two_folders(root, split)
        a, b = list_images(folder_a), list_images(folder_b)
        if kind != "folders":
            return Layout(a, b, paired=False)
        where = (
            "of the same stem in the other folder",
            ", or, if the images have no partners at all, train a CycleGAN: --config configs/horse2zebra.py "
            "--config.data.source=unpaired",
        )
        return _match(a, b, lambda path: path.stem, where, lenient=lenient)
    if kind == "csv":
        return _read_csv(root / f"{split}.csv")
    paths = list_images(_split_folder(root, split))
    if kind == "suffixes":
        return _by_suffix(paths, lenient=lenient)
    return Layout(paths, paths, halves="" if kind == "photos" else "BA" if data.source.endswith("/BA") else "AB")


def has_split(data: ConfigDict, split: str) -> bool:
    """Tell whether the folder of a data set has anything of a split.

    Raises:
      InputError: there is no such folder.
    """
    names = (split, f"{split}A", f"{split}B", f"A/{split}", f"B/{split}", f"{split}.csv")
    return any((_root(data) / name).exists() for name in names)


def _match(
    a: Sequence[Path], b: Sequence[Path], key: Callable[[Path], str], words: tuple[str, str], *, lenient: bool
) -> Layout:
    """Pair the files whose keys agree."""
    sides = []
    for files in (a, b):
        by_key: dict[str, Path] = {}
        for path in files:
            if key(path) in by_key:
                first = by_key[key(path)]
                raise InputError(f"{first} and {path} have the same stem; remove or rename one of them")
            by_key[key(path)] = path
        sides.append(by_key)
    lonely = [sides[0].get(name) or sides[1][name] for name in sorted(sides[0].keys() ^ sides[1].keys())]
    if lonely and not lenient:
        examples = ", ".join(map(str, lonely[:3])) + (" ..." if len(lonely) > 3 else "")
        raise InputError(
            f"{len(lonely)} of {len(a)} + {len(b)} images have no partner {words[0]}: {examples}; "
            f"add the missing ones or remove these{words[1]}"
        )
    both = sorted(sides[0].keys() & sides[1].keys())
    return Layout([sides[0][name] for name in both], [sides[1][name] for name in both], lonely=lonely)


def _by_suffix(paths: Sequence[Path], *, lenient: bool) -> Layout:
    """Pair ``x_A.png`` with ``x_B.png``."""
    a, b = ([path for path in paths if path.stem.endswith(end)] for end in ("_A", "_B"))
    others = [path for path in paths if not path.stem.endswith(("_A", "_B"))]
    if others and not lenient:
        raise InputError(
            f"{others[0]}: the name ends in neither _A nor _B{_more(len(others) - 1, 'file')}; rename or remove it"
        )
    words = "of the same name but for _A and _B", ""
    layout = _match(a, b, lambda path: path.stem[:-2], words, lenient=lenient)
    return layout._replace(lonely=[*layout.lonely, *others])


def _read_csv(path: Path) -> Layout:
    """Read pairs of paths, relative to the folder of the CSV, from its columns a and b."""
    if not path.is_file():
        raise InputError(f"there is no file {path}{_other_splits(path.parent, '.csv')}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV file in UTF-8 ({error})") from error
    if missing := [name for name in ("a", "b") if name not in header]:
        found = ", ".join(header) or "nothing"
        raise InputError(f"{path}, line 1: there is no column {missing[0]}; it must be named there, beside {found}")
    if not lines:
        raise InputError(f"{path} names no pair of images below its first line")
    sides: tuple[list[Path], list[Path]] = ([], [])
    faults = []
    for number, row in lines:
        for side, name in zip(sides, ("a", "b"), strict=True):
            cell = row[header.index(name)] if header.index(name) < len(row) else ""
            side.append(path.parent / cell)
            if not cell:
                faults.append(f"line {number}: column {name} is empty; name a file or remove the line")
            elif not side[-1].is_file():
                faults.append(f"line {number}: there is no file {side[-1]}; correct the path or remove the line")
    if faults:
        raise InputError(f"{path}, {faults[0]}{_more(len(faults) - 1, 'fault')}")
    return Layout(*sides)


def _more(count: int, noun: str) -> str:
    return f" (and {count:,} more {noun}{'s' * (count > 1)})" if count else ""


def _root(data: ConfigDict) -> Path:
    kind, _, name = data.source.partition("/")
    if kind == "pix2pix" and not data.dir:  # the user's own copy, where there is one, saves the download
        return archives.fetch(name)
    if not data.dir:
        raise InputError(
            f"config.data.source={data.source} reads a folder: name it with --config.data.dir=FOLDER, "
            "or where a run is used, with data_dir=FOLDER"
        )
    if not Path(data.dir).is_dir():
        raise InputError(f"config.data.dir: there is no folder {data.dir}")
    return Path(data.dir)


def _split_folder(root: Path, split: str) -> Path:
    folder = root / split
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}" + _other_splits(root))
    return folder


def _two_folders(root: Path, split: str) -> tuple[Path, Path]:
    layouts = [
        (root / split / "A", root / split / "B"),
        (root / "A" / split, root / "B" / split),
        (root / f"{split}A", root / f"{split}B"),
    ]
    for folders in layouts:
        if all(folder.is_dir() for folder in folders):
            return folders
    wanted = ", or ".join(f"{a.relative_to(root)} and {b.relative_to(root)}" for a, b in layouts)
    raise InputError(f"{root} has no pair of folders {wanted}" + _other_splits(root))


def _other_splits(root: Path, ending: str = "") -> str:
    """Name what might be the split: the folders of a data set, or its files of an ending."""
    entries = sorted(root.iterdir()) if root.is_dir() else []
    found = [p.name for p in entries if (p.suffix == ending if ending else p.is_dir())]
    kind = f"{ending} file" if ending else "folder"
    mend = f"; {root} holds {', '.join(found)}" if found else f"; {root} holds no {kind}"
    return (
        mend + f": rename a {kind}, or name the split with --config.data.train_split or --config.data.val_split "
        "(--config.data.val_split= trains without validation)"
    )
