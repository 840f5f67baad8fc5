"""Where pairs come from. A source is a function ``(data section of the config, split) -> Source``.

Images are uint8 [H, W, 1 or 3]; A stands left in a side-by-side file, before ``direction`` is applied.
"""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import resolve
from p2p_jax.data import archives, files, toy_facades
from p2p_jax.data.backend import tensorflow
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class Source(NamedTuple):
    """One split of a paired data set.

    Attributes:
      names: one name per example (a path, where it has one), for messages and to recognise the data set on a resume.
      read: ``index -> (a, b)`` in TensorFlow operations: scalar int64 to two uint8 images [H, W, 1 or 3] of one height
        and width.
    """

    names: Sequence[str]
    read: "Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]"

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with names and sizes of the files, not with the folder they lie in."""
        files = [Path(name) for name in self.names]
        marks = [f"{file.name} {file.stat().st_size if file.is_file() else ''}" for file in files]
        return f"{zlib.crc32('|'.join(marks).encode()):08x}"


def make_source(data: ConfigDict, split: str) -> Source:
    """Build the source that ``data.source`` names.

    Raises:
      InputError: unknown source, or its files cannot be used.
    """
    kind, _, name = data.source.partition("/")
    if kind == "pix2pix" and name:
        # The user's own copy, where there is one, saves the download.
        return read_side_by_side(Path(data.dir) if data.dir else archives.fetch(name), split)
    if ":" in data.source:
        return resolve(data.source)(data, split)
    if data.source not in _SOURCES:
        raise InputError(
            f"config.data.source is {data.source!r}; choose {', '.join(_SOURCES)}, pix2pix/NAME or 'module:name'"
        )
    return _SOURCES[data.source](data, split)


def from_arrays(a: np.ndarray, b: np.ndarray, names: Sequence[str] | None = None) -> Source:
    """Make a source of images in memory.

    Args:
      a: [N, H, W, 1 or 3] uint8.
      b: the same, of the same N, H and W.
      names: one per example; numbers if omitted.
    """
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 4 or b.ndim != 4 or a.shape[:3] != b.shape[:3]:
        raise InputError(
            f"arrays must be uint8 [N, H, W, C] of one N, H, W; they are {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    tf = tensorflow()
    a_tensor, b_tensor = tf.constant(a), tf.constant(b)
    return Source(
        names=names or [str(i) for i in range(len(a))],
        read=lambda index: (tf.gather(a_tensor, index), tf.gather(b_tensor, index)),
    )


def side_by_side(data: ConfigDict, split: str) -> Source:
    """Read ``dir/split/*``, each file holding A in its left half and B in its right half."""
    return read_side_by_side(_required_dir(data), split)


def read_side_by_side(root: Path, split: str) -> Source:
    """Read side-by-side files from ``root/split``.

    Raises:
      InputError: no such folder, no image, an unreadable one, or one whose width is odd.
    """
    paths = files.list_images(_split_folder(root, split))
    for path, header in zip(paths, files.read_headers(paths), strict=True):
        if header.width % 2:
            raise InputError(
                f"{path} is {header.width} pixels wide: it cannot be halved into A and B of one size; "
                "for A and B in two folders use --config.data.source=folders"
            )

    tf = tensorflow()
    names = tf.constant([str(path) for path in paths])

    def read(index):
        image = _decode(tf.io.read_file(names[index]))
        half = tf.shape(image)[1] // 2
        return image[:, :half], image[:, half:]

    return Source([str(path) for path in paths], read)


def folders(data: ConfigDict, split: str) -> Source:
    """Read two parallel folders whose files match by stem.

    They are ``dir/split/A`` and ``dir/split/B``, or ``dir/A/split`` and ``dir/B/split``, or ``dir/splitA`` and
    ``dir/splitB``.

    Raises:
      InputError: no such folders, a file without a partner, unreadable, or of another size than its partner.
    """
    root = _required_dir(data)
    layouts = [
        (root / split / "A", root / split / "B"),
        (root / "A" / split, root / "B" / split),
        (root / f"{split}A", root / f"{split}B"),
    ]
    for folder_a, folder_b in layouts:
        if folder_a.is_dir() and folder_b.is_dir():
            break
    else:
        wanted = ", or ".join(f"{a.relative_to(root)} and {b.relative_to(root)}" for a, b in layouts)
        raise InputError(f"{root} has no pair of folders {wanted}" + _other_splits(root, split))
    pairs = files.match_stems(files.list_images(folder_a), files.list_images(folder_b))
    headers = files.read_headers(path for pair in pairs for path in pair)
    for (path_a, path_b), a, b in zip(pairs, headers[::2], headers[1::2], strict=True):
        if (a.width, a.height) != (b.width, b.height):
            raise InputError(
                f"{path_a} is {a.width}x{a.height} pixels but its partner {path_b} is {b.width}x{b.height}; "
                "the two images of a pair must have one size"
            )

    tf = tensorflow()
    names_a, names_b = (tf.constant([str(path) for path in side]) for side in zip(*pairs, strict=True))
    return Source(
        names=[str(path_a) for path_a, _ in pairs],
        read=lambda index: (_decode(tf.io.read_file(names_a[index])), _decode(tf.io.read_file(names_b[index]))),
    )


def toy(data: ConfigDict, split: str) -> Source:
    """Draw the built-in toy facades, photograph left (A) and label map right (B), at the size they are used at."""
    size = data.load_size if split == data.train_split else data.crop_size
    if split not in toy_facades.SPLIT_SIZES:
        raise InputError(f"toy_facades has the splits {', '.join(toy_facades.SPLIT_SIZES)}, not {split!r}")
    images = [toy_facades.render(i, split, size) for i in range(toy_facades.SPLIT_SIZES[split])]
    return from_arrays(
        np.stack([image.photo for image in images]),
        np.stack([image.labels for image in images]),
        [f"{split}-{i}" for i in range(len(images))],
    )


_SOURCES = {"toy_facades": toy, "side_by_side": side_by_side, "folders": folders}


def _decode(contents: "tf.Tensor") -> "tf.Tensor":
    image = tensorflow().io.decode_image(contents, channels=0, dtype="uint8", expand_animations=False)
    image.set_shape([None, None, None])
    return image


def _required_dir(data: ConfigDict) -> Path:
    if not data.dir:
        raise InputError(f"config.data.source={data.source} reads a folder: name it with --config.data.dir=FOLDER")
    if not Path(data.dir).is_dir():
        raise InputError(f"config.data.dir: there is no folder {data.dir}")
    return Path(data.dir)


def _split_folder(root: Path, split: str) -> Path:
    folder = root / split
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}" + _other_splits(root, split))
    return folder


def _other_splits(root: Path, split: str) -> str:
    found = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    mend = f"; {root} holds {', '.join(found)}" if found else f"; {root} holds no folder"
    return mend + ": name the right one with --config.data.train_split or --config.data.val_split"
