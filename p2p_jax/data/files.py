"""Image files on disk: finding and comparing them before training starts. No TensorFlow."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.reporting import say

_TAIL = 4_096  # bytes at the end of a file; they differ in most images of the same size
_OF_SYSTEMS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir")  # folders that systems make
_OF_OTHER_IMAGES = (
    ".arw", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".hdr", ".j2k", ".jp2", ".jxl", ".nef", ".orf", ".pbm", ".pcx",
    ".pgm", ".pnm", ".ppm", ".psd", ".raf", ".rw2", ".svg", ".tga",
)  # fmt: skip


class Listing(NamedTuple):
    """What lies in a folder and below it.

    Attributes:
      images: files with the ending of an image, sorted; links that lead nowhere are among them.
      others: the other files, by their endings; by its name where a file has none.
      hidden: how many files have names that begin with a dot, as a Mac's ``._x.jpg``.
    """

    images: list[Path]
    others: Mapping[str, Sequence[Path]]
    hidden: int = 0

    @property
    def left_out(self) -> str:
        """What is left out, in words; "" if there is nothing."""
        told = [f"{len(paths)} {kind}" for kind, paths in sorted(self.others.items())]
        told += [f"{self.hidden} hidden (names that begin with a dot)"] if self.hidden else []
        return ", ".join(told)

    def tell(self, where: object) -> None:
        """Say how many images there are and what is left out, if anything is."""
        if self.left_out:
            count = f"{len(self.images)} image{'s' * (len(self.images) != 1)}"
            say(f"{where}: {count}; not images, left out: {self.left_out}")

    @property
    def lost_images(self) -> str:
        """What of it are images of formats that are not read, in words; "" if there is none."""
        lost = [(kind, paths) for kind, paths in sorted(self.others.items()) if kind in _OF_OTHER_IMAGES]
        return ", ".join(f"{len(paths)} {kind}" for kind, paths in lost)


def look_below(folder: Path) -> Listing:
    """List the files in a folder and below it. Links to folders are followed once, hidden files are left out."""
    seen: set[str] = set()

    def walk(here: Path) -> Iterator[Path]:
        real = os.path.realpath(here)
        if real in seen:
            return
        seen.add(real)
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            raise InputError(f"{here} cannot be opened ({error.strerror}); allow it or move it away") from error
        for entry in found:
            if not _is_folder(entry):
                yield here / entry.name
            elif not entry.name.startswith(".") and entry.name not in _OF_SYSTEMS:
                yield from walk(here / entry.name)

    return of_files(walk(folder))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round, or to where nobody may look
        return False


def of_files(paths: Iterable[Path]) -> Listing:
    """Sort files by what they are, by only their names."""
    images: list[Path] = []
    others: dict[str, list[Path]] = defaultdict(list)
    hidden = 0
    for path in paths:
        ending = path.suffix.lower()
        if path.name.startswith("."):
            hidden += 1
        elif ending in formats.EXTENSIONS:
            images.append(path)
        else:
            others[ending or path.name].append(path)
    return Listing(sorted(images), dict(others), hidden)


def list_images(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below it, sorted; says how many others it leaves out.

    Raises:
      InputError: the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    found = look_below(folder)
    if not found.images:
        holds = f"it holds {found.left_out}" if found.left_out else "it is empty"
        raise InputError(f"no image in {folder} ({', '.join(formats.EXTENSIONS)} are read): {holds}")
    found.tell(folder)
    return found.images


def find_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files whose bytes are the same, in the order given.

    Few files are read whole: only those that agree in size and in their last kilobytes.
    """
    groups = [list(paths)]
    with ThreadPoolExecutor() as pool:
        for key in (_size, _tail, _digest):
            members = [(number, path) for number, group in enumerate(groups) for path in group]
            found: dict[Hashable, list[Path]] = defaultdict(list)
            for (number, path), value in zip(members, pool.map(key, (path for _, path in members)), strict=True):
                found[number, value].append(path)
            groups = [group for group in found.values() if len(group) > 1]
    return groups


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere, which is named elsewhere
        return -1 - hash(path) % 2**31


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(_TAIL, _size(path)), os.SEEK_END)
        return file.read()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def describe_duplicates(folders: Mapping[str, Sequence[Path]], held_out: Collection[str]) -> Iterator[str]:
    """Report images that are there more than once, one line per kind.

    Args:
      folders: label to files; a label names files with the same purpose, such as "trainA".
      held_out: the labels of files that are for validation.
    """
    labels_of: dict[Path, list[str]] = defaultdict(list)
    for label, paths in folders.items():
        for path in dict.fromkeys(paths):
            labels_of[path].append(label)
    groups = find_duplicates(labels_of)
    grouped = {path for group in groups for path in group}
    groups += [[path] for path, labels in labels_of.items() if len(labels) > 1 and path not in grouped]
    within: dict[str, list[str]] = defaultdict(list)
    across: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in groups:
        by_label: dict[str, list[Path]] = defaultdict(list)
        for path in group:
            for label in labels_of[path]:
                by_label[label].append(path)
        for label, paths in by_label.items():
            if len(paths) > 1:
                within[label].append(" = ".join(path.name for path in paths))
        for (first, (original, *_)), (second, copies) in combinations(by_label.items(), 2):
            across[second, first] += [f"{path.name} = {original.name}" for path in copies]
    for label, examples in within.items():
        yield f"{_images(examples)} more than once in {label} ({_few(examples)})"
    for (second, first), examples in across.items():
        flatters = ": validation scores look too good" if (first in held_out) != (second in held_out) else ""
        yield f"{_images(examples, f' of {second} also')} in {first} ({_few(examples)}){flatters}"


def _images(examples: Sequence[str], which: str = "") -> str:
    return f"{len(examples):,} image{which} is" if len(examples) == 1 else f"{len(examples):,} images{which} are"


def shown(name: object) -> str:
    """Return a name for messages; one that would break a line, as Python writes it."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def _few(examples: Sequence[str]) -> str:
    return ", ".join(map(shown, examples[:3])) + (", ..." if len(examples) > 3 else "")
