"""Where images come from. A source is a function ``(data section of the config, split) -> Source or Unpaired``.

Images are uint8 [H, W, 1 or 3]; A stands left in a side-by-side file, before ``direction`` is applied.
"""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.config import resolve
from p2p_jax.data import archives, cycle_gan_sets, files, toy_facades, toy_night
from p2p_jax.data.backend import tensorflow
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class Source(NamedTuple):
    """One split of a paired data set, or one side of an unpaired one.

    Attributes:
      names: one name per example (a path, where it has one), for messages and to recognise the data set on a resume.
      read: ``index -> images`` in TensorFlow operations: scalar int64 to the tuple of the images that belong together,
        ``(a, b)`` in a paired data set and ``(image,)`` in a side, each uint8 [H, W, 1 or 3], of one height and width.
      mark: tells apart data that have the same names; "" where the files' sizes do.
    """

    names: Sequence[str]
    read: "Callable[[tf.Tensor], tuple[tf.Tensor, ...]]"
    mark: str = ""

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with names and sizes of the files, not with the folder they lie in."""
        files = [Path(name) for name in self.names]
        marks = [f"{file.name} {file.stat().st_size if file.is_file() else ''}" for file in files]
        return f"{zlib.crc32(('|'.join(marks) + self.mark).encode()):08x}"


class Unpaired(NamedTuple):
    """One split of an unpaired data set: two sides of any sizes, whose ``read`` gives one image."""

    a: Source
    b: Source

    @property
    def fingerprint(self) -> str:
        """The fingerprints of both sides."""
        return f"{self.a.fingerprint}+{self.b.fingerprint}"


def make_source(data: ConfigDict, split: str) -> Source | Unpaired:
    """Build the source that ``data.source`` names.

    Raises:
      InputError: unknown source, or its files cannot be used.
    """
    kind, _, name = data.source.partition("/")
    if kind == "pix2pix" and name:
        # The user's own copy, where there is one, saves the download.
        return read_side_by_side(Path(data.dir) if data.dir else archives.fetch(name), split)
    if kind == "cycle_gan" and name:
        return unpaired(data, split) if data.dir else _cycle_gan(name, split)
    if ":" in data.source:
        return resolve(data.source)(data, split)
    if data.source not in _SOURCES:
        raise InputError(
            f"config.data.source is {data.source!r}; choose {', '.join(_SOURCES)}, "
            "pix2pix/NAME, cycle_gan/NAME or 'module:name'"
        )
    return _SOURCES[data.source](data, split)


def from_arrays(a: np.ndarray, b: np.ndarray, names: Sequence[str] | None = None) -> Source:
    """Make a source of images in memory.

    Args:
      a: [N, H, W, 1 or 3] uint8.
      b: the same, of the same N, H and W.
      names: one per example; numbers if omitted.
    """
    if a.shape[:3] != b.shape[:3]:
        raise InputError(f"arrays of pairs must be of one N, H, W; they are {a.shape} and {b.shape}")
    return _in_memory(names or [str(i) for i in range(len(a))], a, b)


def unpaired_from_arrays(a: np.ndarray, b: np.ndarray) -> Unpaired:
    """Make an unpaired source of images in memory.

    Args:
      a: [N, H, W, 1 or 3] uint8.
      b: the same; its N, H, W and number of channels may be others.
    """
    return Unpaired(*(_in_memory([f"{side}{i}" for i in range(len(x))], x) for side, x in (("A", a), ("B", b))))


def _in_memory(names: Sequence[str], *arrays: np.ndarray) -> Source:
    for x in arrays:
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3) or not len(x):
            raise InputError(
                f"arrays must be uint8 [N, H, W, 1 or 3] of at least one image; one is {x.dtype} {x.shape}"
            )
    tf = tensorflow()
    tensors = [tf.constant(x) for x in arrays]
    return Source(names, lambda index: tuple(tf.gather(tensor, index) for tensor in tensors))


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
    folder_a, folder_b = _two_folders(_required_dir(data), split)
    pairs = files.match_stems(files.list_images(folder_a), files.list_images(folder_b))
    headers = files.read_headers(path for pair in pairs for path in pair)
    for (path_a, path_b), a, b in zip(pairs, headers[::2], headers[1::2], strict=True):
        if (a.width, a.height) != (b.width, b.height):
            raise InputError(
                f"{path_a} is {a.width}x{a.height} pixels but its partner {path_b} is {b.width}x{b.height}; "
                "the two images of a pair must have one size"
            )

    return _from_files(*zip(*pairs, strict=True))


def unpaired(data: ConfigDict, split: str) -> Unpaired:
    """Read two folders, laid out as for ``folders``, whose files are no partners: any names, numbers and sizes.

    Raises:
      InputError: no such folders, one without an image, or an unreadable image.
    """
    sides = [files.list_images(folder) for folder in _two_folders(_required_dir(data), split)]
    files.read_headers(path for side in sides for path in side)
    return Unpaired(*map(_from_files, sides))


def _from_files(*columns: Sequence[Path]) -> Source:
    """Make a source whose examples are one file of each column."""
    tf = tensorflow()
    names = [[str(path) for path in column] for column in columns]
    tensors = [tf.constant(column) for column in names]
    return Source(names[0], lambda index: tuple(_decode(tf.io.read_file(tensor[index])) for tensor in tensors))


def _cycle_gan(name: str, split: str) -> Unpaired:
    """Hold one of TFDS's sets in memory as it is encoded: its files allow no access by index."""

    def source(side: str, encoded: "tf.Tensor") -> Source:
        checksum = 0
        for contents in encoded.numpy():
            checksum = zlib.crc32(contents, checksum)
        return Source(
            names=[f"cycle_gan/{name}/{split}{side}[{i}]" for i in range(len(encoded))],
            # Three channels whatever the file has, as TFDS reads it: some are grayscale.
            read=lambda index: (_decode(encoded[index], channels=3),),
            mark=f"{checksum:08x}",
        )

    return Unpaired(*map(source, "AB", cycle_gan_sets.fetch(name, split)))


def toy(data: ConfigDict, split: str) -> Source:
    """Draw the built-in toy facades, photograph left (A) and label map right (B), at the size they are used at."""
    images = _toy_facades(data, split)
    photos, labels = np.stack([image.photo for image in images]), np.stack([image.labels for image in images])
    return from_arrays(photos, labels, [f"{split}-{i}" for i in range(len(images))])


def toy_unpaired(data: ConfigDict, split: str) -> Unpaired:
    """Draw one half of the toy facades by day (A) and the other half, other houses, at night (B)."""
    images = _toy_facades(data, split)
    half = len(images) // 2
    return unpaired_from_arrays(
        np.stack([image.photo for image in images[:half]]), np.stack([toy_night.at_night(x) for x in images[half:]])
    )


def _toy_facades(data: ConfigDict, split: str) -> list[toy_facades.ToyFacade]:
    size = data.load_size if split == data.train_split else data.crop_size
    if split not in toy_facades.SPLIT_SIZES:
        raise InputError(f"toy_facades has the splits {', '.join(toy_facades.SPLIT_SIZES)}, not {split!r}")
    return [toy_facades.render(i, split, size) for i in range(toy_facades.SPLIT_SIZES[split])]


_SOURCES: "dict[str, Callable[[ConfigDict, str], Source | Unpaired]]" = {
    "toy_facades": toy,
    "toy_unpaired": toy_unpaired,
    "side_by_side": side_by_side,
    "folders": folders,
    "unpaired": unpaired,
}


def _decode(contents: "tf.Tensor", channels: int = 0) -> "tf.Tensor":
    """Decode an image file to uint8 [H, W, channels], 0: as many as it has; to the pixels that Pillow finds in it.

    TensorFlow's own choice for JPEGs is the fast transform, which is off by up to 30 levels.
    """
    tf = tensorflow()
    image = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(contents, channels=channels, dtype="uint8", expand_animations=False),
    )
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
    raise InputError(f"{root} has no pair of folders {wanted}" + _other_splits(root, split))


def _other_splits(root: Path, split: str) -> str:
    found = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    mend = f"; {root} holds {', '.join(found)}" if found else f"; {root} holds no folder"
    return (
        mend + ": rename a folder, or name the split with --config.data.train_split or --config.data.val_split "
        "(--config.data.val_split= trains without validation)"
    )
