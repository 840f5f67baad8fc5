"""Which members of a zip file are the images of A and B: what ``p2p_jax.data.layouts`` is for folders."""

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from operator import eq, ne
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.data import matching
from p2p_jax.data.containers.archive import Archive
from p2p_jax.data.containers.contents import PHOTOS, UNPAIRED, Contents, Names, Numbered, halves_of
from p2p_jax.data.containers.decoding import Encoded
from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.reporting import say

_LITTER = ("__MACOSX/", "._", ".DS_Store", "Thumbs.db", "desktop.ini")
_AT_ONCE = 2**16  # names in one checksum


class _Folder(NamedTuple):
    """The images that lie directly in a folder of a zip file: their numbers there, in the order of their names."""

    archive: Archive
    path: str
    numbers: np.ndarray

    @property
    def label(self) -> str:
        return f"{self.archive.path}!{self.path}" if self.path else str(self.archive.path)

    def stems(self) -> list[str]:
        """Return the names without folder and ending."""
        start = len(self.path) + bool(self.path)
        return [self.archive.names[i][start:].rpartition(".")[0] for i in self.numbers.tolist()]


def find(data: ConfigDict, split: str, layout: str) -> Contents:
    """Find the images of a split.

    Args:
      data: reads ``dir``: a zip file that holds the folders of splits, or a folder with a zip file for each split.
      split: such as "train".
      layout: of ``contents.LAYOUTS``; "": one folder of images is side by side, two are matched by name.

    Raises:
      InputError: there are no such files, they cannot be read, or one has no partner; names it.
    """
    found = _search(data, split, layout)
    for folder in found:
        folder.archive.refuse(folder.numbers)
    identity = "+".join(_checksum(folder) for folder in found)
    if len(found) == 2 and layout == UNPAIRED:
        return Contents(tuple(_numbered([folder]) for folder in found), "", identity)
    if len(found) == 2:
        return Contents((_numbered(_match(*found)),), "", identity)
    if layout == "suffixes":
        return Contents((_numbered(_by_suffix(found[0])),), "", identity)
    halves = "" if layout == PHOTOS else halves_of(layout or "side_by_side")
    return Contents((_numbered(found),), halves, identity)


def _numbered(folders: Sequence[_Folder]) -> Numbered:
    numbers = [(folder.archive, folder.numbers) for folder in folders]

    def read(index: int) -> tuple[Encoded, ...]:
        members = [(archive, int(chosen[index])) for archive, chosen in numbers]
        return tuple(Encoded(archive.label(number), archive.read(number)) for archive, number in members)

    archive, chosen = numbers[0]
    return Numbered(Names(len(chosen), lambda index: archive.label(int(chosen[index]))), read)


def _checksum(folder: _Folder) -> str:
    """Return eight digits that change with names, sizes and contents of images, not with where the zip file lies."""
    archive, numbers, start = folder.archive, folder.numbers, len(folder.path)
    checksum = zlib.crc32(np.stack([archive.sizes[numbers], archive.crcs[numbers].astype(np.int64)]).tobytes())
    for first in range(0, len(numbers), _AT_ONCE):
        names = "/".join(archive.names[i][start:] for i in numbers[first : first + _AT_ONCE].tolist())
        checksum = zlib.crc32(names.encode("utf-8", "replace"), checksum)
    return f"{checksum:08x}"


def _search(data: ConfigDict, split: str, layout: str) -> list[_Folder]:
    """Return the folder of a split, or the two of its A and B."""
    root = Path(data.dir)
    if not data.dir:
        raise InputError(
            "config.data.source=zip reads a zip file, or a folder with a zip file for each split: give it with "
            "--config.data.dir=FILE.zip, or data_dir=FILE.zip when a run is used"
        )
    if root.is_file():
        return _choose(_Tree(Archive(root)), split, layout, is_split=False)
    if not root.is_dir():
        raise InputError(f"config.data.dir: there is no zip file and no folder {root}")
    if (file := root / f"{split}.zip").is_file():
        return _choose(_Tree(Archive(file)), split, layout, is_split=True)
    files = [root / f"{split}{side}.zip" for side in "AB"]
    if all(file.is_file() for file in files):
        return [_only(_Tree(Archive(file))) for file in files]
    there = ", ".join(sorted(path.name for path in root.glob("*.zip"))) or "no zip file"
    raise InputError(
        f"there is no {root / split}.zip; {root} holds {there}: rename one, name a single file with --config.data.dir, "
        "or name the split with --config.data.train_split or --config.data.val_split (--config.data.val_split= trains "
        "without validation)"
    )


class _Tree:
    """The folders of a zip file that hold images."""

    def __init__(self, archive: Archive):
        self.archive = archive
        folders: dict[str, list[int]] = defaultdict(list)
        self._others: dict[str, Counter[str]] = defaultdict(Counter)
        endings = frozenset(formats.EXTENSIONS)
        for number, name in enumerate(archive.names):
            folder, _, file = name.rpartition("/")
            if name.startswith(_LITTER[0]) or file.startswith(_LITTER[1:]):
                continue
            ending = "." + file.rpartition(".")[2].lower() if "." in file else ""
            if ending in endings:
                folders[folder].append(number)
            else:
                self._others[folder][ending or file] += 1
        self._folders = dict(folders)

    def has(self, path: str) -> bool:
        """Return whether images lie directly in a folder."""
        return path in self._folders

    def folder(self, path: str) -> _Folder:
        """Return the images in a folder, and say what else lies there."""
        names = self.archive.names
        numbers = sorted(self._folders[path], key=names.__getitem__)  # stable: of one name the later is the last
        in_order = list(map(names.__getitem__, numbers))
        latest = [*map(ne, in_order, in_order[1:]), True]  # a file that was replaced is there twice
        found = _Folder(self.archive, path, np.fromiter(compress(numbers, latest), np.int64))
        others = self._others.get(path, Counter())
        if left_out := ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())):
            say(f"{found.label}: {len(found.numbers):,} images; not images, left out: {left_out}")
        return found

    def roots(self) -> Iterator[str]:
        """Yield where folders of splits may lie: at the top, and within a folder that holds all the rest."""
        root = ""
        while True:
            yield root
            inner = {path[len(root) :].partition("/")[0] for path in self._folders if path.startswith(root)}
            if len(inner) != 1 or "" in inner:
                return
            root += inner.pop() + "/"

    def told(self) -> str:
        """Name folders with images, for messages."""
        some = ", ".join(path or "its top" for path in sorted(self._folders)[:12])
        return f"images are in {some}" if some else f"it holds no image ({', '.join(formats.EXTENSIONS)} are read)"


def _choose(tree: _Tree, split: str, layout: str, *, is_split: bool) -> list[_Folder]:
    """Return the folder of a split, or the two of its A and B.

    Args:
      tree: of the zip file.
      split: its name.
      layout: of ``contents.LAYOUTS``.
      is_split: whether the zip file is only of that split.
    """
    two = [(f"{split}/A", f"{split}/B"), (f"A/{split}", f"B/{split}"), (f"{split}A", f"{split}B")]
    one = [split]
    if is_split:
        two, one = [*two, ("A", "B")], [*one, ""]
    for root in tree.roots():
        if layout in ("", "folders", UNPAIRED):
            for pair in two:
                paths = [root + path for path in pair]
                if all(map(tree.has, paths)):
                    return [tree.folder(path) for path in paths]
        if layout not in ("folders", UNPAIRED):
            for path in one:
                if tree.has(whole := (root + path).rstrip("/")):
                    return [tree.folder(whole)]
    wanted = []
    if layout not in ("folders", UNPAIRED):
        wanted += [path or "its top" for path in one]
    if layout in ("", "folders", UNPAIRED):
        wanted += [f"{a} and {b}" for a, b in two]
    raise InputError(
        f"{tree.archive.path} has no images in {', or '.join(wanted)}; {tree.told()}: pack it again, or name the split "
        "with --config.data.train_split or --config.data.val_split (--config.data.val_split= trains without validation)"
    )


def _only(tree: _Tree) -> _Folder:
    """Return the one folder with images in a zip file of one side."""
    for root in tree.roots():
        if tree.has(path := root.rstrip("/")):
            return tree.folder(path)
    raise InputError(f"{tree.archive.path} must hold its images in one folder; {tree.told()}")


def _match(a: _Folder, b: _Folder) -> list[_Folder]:
    """Pair the images of two folders by their stems."""
    return _pair(a, a.stems(), b, b.stems(), "of the same stem in the other folder")


def _by_suffix(folder: _Folder) -> list[_Folder]:
    """Pair ``x_A.png`` with ``x_B.png``."""
    stems = folder.stems()
    a, b = ([i for i, stem in enumerate(stems) if stem.endswith((end, end.lower()))] for end in ("_A", "_B"))
    if others := [i for i, stem in enumerate(stems) if not stem.endswith(("_A", "_B", "_a", "_b"))]:
        more = f" (and {len(others) - 1:,} more)" * (len(others) > 1)
        name = folder.archive.label(int(folder.numbers[others[0]]))
        raise InputError(f"{name}: the name ends in neither _A nor _B{more}; rename or remove it")
    side_a, side_b = (folder._replace(numbers=folder.numbers[chosen]) for chosen in (a, b))
    stems_a, stems_b = ([stems[i][:-2] for i in chosen] for chosen in (a, b))
    return _pair(side_a, stems_a, side_b, stems_b, "of the same name but for _A and _B")


def _pair(a: _Folder, stems_a: list[str], b: _Folder, stems_b: list[str], where: str) -> list[_Folder]:
    """Return both folders in the order of the stems, which must agree but for what ``matching.pair`` overlooks."""
    (first, of_a), (second, of_b) = _in_order(a, stems_a), _in_order(b, stems_b)
    if of_a != of_b:
        stems_a, stems_b = _as_partners(stems_a, stems_b)
        (first, of_a), (second, of_b) = _in_order(a, stems_a), _in_order(b, stems_b)
    if of_a != of_b:
        lonely = _lonely(a, stems_a, stems_b, a.archive.label) + _lonely(b, stems_b, stems_a, b.archive.label)
        fix = "add the missing ones or remove these, and pack it again"
        unpaired = "train a CycleGAN: --config.data.source=zip/unpaired"
        raise InputError(matching.describe_lonely(lonely, (len(stems_a), len(stems_b)), where, fix, unpaired))
    return [first, second]


def _in_order(folder: _Folder, stems: list[str]) -> tuple[_Folder, list[str]]:
    """Return a folder in the order of its stems, and the stems; no two are the same."""
    order = sorted(range(len(stems)), key=stems.__getitem__)
    in_order = list(map(stems.__getitem__, order))
    for first, second, same in zip(order, order[1:], map(eq, in_order, in_order[1:]), strict=False):
        if same:
            names = [folder.archive.label(int(folder.numbers[i])) for i in (first, second)]
            raise InputError(f"{names[0]} and {names[1]} have the same stem; remove or rename one of them")
    return folder._replace(numbers=folder.numbers[order]), in_order


def _as_partners(stems_a: list[str], stems_b: list[str]) -> tuple[list[str], list[str]]:
    """Return stems with the names of A for both partners; capitals and forms of letters do not count."""
    stems_a, stems_b = ([matching.composed(stem) for stem in stems] for stems in (stems_a, stems_b))
    both = frozenset(stems_a) & frozenset(stems_b)
    left = [Counter(matching.alike(stem) for stem in stems if stem not in both) for stems in (stems_a, stems_b)]
    alone = {name for name, count in left[0].items() if count == left[1][name] == 1}
    of_a = {name: stem for stem in stems_a if stem not in both and (name := matching.alike(stem)) in alone}
    return stems_a, [stem if stem in both else of_a.get(matching.alike(stem), stem) for stem in stems_b]


def _lonely(folder: _Folder, stems: list[str], others: list[str], label: Callable[[int], str]) -> list[str]:
    known = frozenset(others)
    return [label(int(folder.numbers[i])) for i, stem in enumerate(stems) if stem not in known]
