"""Image files on disk: finding, pairing, checking and comparing them before training starts (Pillow; no TensorFlow)."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from p2p_jax.errors import InputError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png")
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
# Up to this many files are decoded whole before training; above it only headers are read, and a damaged body stops the
# run by name when it is met.
DECODE_AT_MOST = 5_000
_TAIL = 4_096  # bytes at the end of a file, which tell most images of one size apart


class Header(NamedTuple):
    """What an image file says of itself: width and height in pixels, and its channels (1 or 3)."""

    width: int
    height: int
    channels: int


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; says how many others it leaves out.

    Raises:
      InputError: the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    entries = sorted(folder.iterdir())
    images = [p for p in entries if p.suffix.lower() in EXTENSIONS and p.is_file()]
    others = Counter("folder" if p.is_dir() else p.suffix.lower() or p.name for p in set(entries) - set(images))
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not images:
        found = f"it holds {left_out}" if left_out else "it is empty"
        raise InputError(f"no image in {folder} ({', '.join(EXTENSIONS)} are read): {found}")
    if left_out:
        print(f"{folder}: {len(images)} images; not images, left out: {left_out}")
    return images


def match_stems(a: Sequence[Path], b: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair the files of two folders by stem (the name without its ending).

    Raises:
      InputError: a file has no partner, or two files in one folder share a stem; names them.
    """
    sides = []
    for files in (a, b):
        by_stem: dict[str, Path] = {}
        for path in files:
            if path.stem in by_stem:
                raise InputError(f"{by_stem[path.stem]} and {path} have the same stem; remove or rename one of them")
            by_stem[path.stem] = path
        sides.append(by_stem)
    lonely = sorted(sides[0].keys() ^ sides[1].keys())
    if lonely:
        examples = [str(sides[0].get(stem) or sides[1][stem]) for stem in lonely[:3]]
        raise InputError(
            f"{len(lonely)} of {len(a)} + {len(b)} images have no partner of the same stem in the other folder: "
            f"{', '.join(examples)}{' ...' if len(lonely) > 3 else ''}; add the missing ones or remove these, "
            "or, if the images have no partners at all, train a CycleGAN: --config configs/horse2zebra.py "
            "--config.data.source=unpaired"
        )
    return [(sides[0][stem], sides[1][stem]) for stem in sorted(sides[0])]


def read_headers(files: Iterable[Path]) -> list[Header]:
    """Return the header of every file; up to ``DECODE_AT_MOST`` files are decoded whole as well.

    Raises:
      InputError: a file cannot be read or has neither 1 nor 3 channels; names it.
    """
    files = list(files)

    def read(path: Path) -> Header:
        try:
            with Image.open(path) as image:
                if len(files) <= DECODE_AT_MOST:
                    image.load()
                fault = _fault(image)
                header = Header(*image.size, _CHANNELS.get(image.mode, 0))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path} cannot be read as an image ({error}); replace or remove it") from error
        if fault:
            raise InputError(f"{path} {fault}")
        return header

    with ThreadPoolExecutor() as pool:
        return list(pool.map(read, files))


def _fault(image: Image.Image) -> str | None:
    """Return what is wrong with an image, as the end of a sentence: everything that TensorFlow reads otherwise."""
    convert = "convert it to grayscale or RGB with 8 bits"
    if image.format not in ("BMP", "JPEG", "PNG"):
        return f"is a {image.format} file whatever its name says; convert it to JPEG or PNG"
    if image.mode not in _CHANNELS:
        return f"has {len(image.getbands())} channels (mode {image.mode}); {convert}"
    if (image.mode == "P" and "transparency" in image.info) or (image.format == "BMP" and image.mode in ("1", "P")):
        return f"has a palette that would not be read rightly (mode {image.mode}); {convert}"
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation > 1:
        return f"is stored turned (EXIF orientation {orientation}), which no decoder here undoes; save it upright"
    return None


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
    label_of = {path: label for label, paths in folders.items() for path in paths}
    within: dict[str, list[str]] = defaultdict(list)
    across: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in find_duplicates(label_of):
        by_label: dict[str, list[Path]] = defaultdict(list)
        for path in group:
            by_label[label_of[path]].append(path)
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
