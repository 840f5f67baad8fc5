"""Image files on disk: finding and comparing them before training starts. No TensorFlow."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.reporting import say

# Up to this many files are decoded whole before training; above it only headers are read, and a damaged body stops the
# run by name when it is met.
DECODE_AT_MOST = 5_000
_TAIL = 4_096  # bytes at the end of a file, which tell most images of one size apart


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; says how many others it leaves out.

    Raises:
      InputError: the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    entries = sorted(folder.iterdir())
    images = [p for p in entries if p.suffix.lower() in formats.EXTENSIONS and p.is_file()]
    others = Counter("folder" if p.is_dir() else p.suffix.lower() or p.name for p in set(entries) - set(images))
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not images:
        found = f"it holds {left_out}" if left_out else "it is empty"
        raise InputError(f"no image in {folder} ({', '.join(formats.EXTENSIONS)} are read): {found}")
    if left_out:
        say(f"{folder}: {len(images)} images; not images, left out: {left_out}")
    return images


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
    return path.stat().st_size


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(_TAIL, _size(path)), os.SEEK_END)
        return file.read()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def describe_duplicates(folders: Mapping[str, Sequence[Path]], held_out: Collection[str]) -> Iterator[str]:
    """Say which images stand more than once, one line per kind.

    Args:
      folders: label to files; a label stands for the files that have one purpose, such as "trainA".
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
        flatters = ": validation on them flatters" if (first in held_out) != (second in held_out) else ""
        yield f"{_images(examples, f' of {second} also')} in {first} ({_few(examples)}){flatters}"


def _images(examples: Sequence[str], which: str = "") -> str:
    return f"{len(examples):,} image{which} stands" if len(examples) == 1 else f"{len(examples):,} images{which} stand"


def _few(examples: Sequence[str]) -> str:
    return ", ".join(examples[:3]) + (", ..." if len(examples) > 3 else "")
