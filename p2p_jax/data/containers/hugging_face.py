"""Images in sets of Hugging Face ``datasets``: folders that it saved, folders of its files, and names on its hub."""

import re
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from p2p_jax.data.containers import columns
from p2p_jax.data.containers.contents import (
    LOOKED_AT,
    PHOTOS,
    UNPAIRED,
    Contents,
    Names,
    Numbered,
    first_line,
    halves_of,
)
from p2p_jax.data.containers.decoding import Encoded
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.reporting import say

_STATE, _SPLITS = "state.json", "dataset_dict.json"  # that save_to_disk writes
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[^/:]+)?")


def find(data: ConfigDict, split: str, layout: str) -> Contents:
    """Open the rows of a split without reading them.

    Args:
      data: reads ``dir``, ``columns`` and ``train_split``; ``dir`` is a folder that ``save_to_disk`` wrote, one that
        ``load_dataset`` can read, or a name on the hub, OWNER/NAME or OWNER/NAME:CONFIG.
      split: such as "train"; unpaired also "trainA" and "trainB", each of one column.
      layout: of ``contents.LAYOUTS``.

    Raises:
      InputError: there is no such set, it cannot be read, or it is not clear which columns are images.
    """
    if not data.dir:
        raise InputError(
            "config.data.source=hugging_face reads a folder that save_to_disk wrote, or a name on the hub: give it "
            "with --config.data.dir=FOLDER, or data_dir=FOLDER when a run is used"
        )
    library = _library()
    if layout == UNPAIRED:
        tables = [_open(library, data, split + side, required=False) for side in "AB"]
        if all(table is not None for table in tables):
            rows = [_Rows(library, data, split + side, t) for side, t in zip("AB", tables, strict=True)]
            chosen = [one.choose(data.columns, PHOTOS) for one in rows]
            sides = tuple(one.numbered(names) for one, names in zip(rows, chosen, strict=True))
            return Contents(sides, "", "+".join(map(_Rows.identity, rows, sides)))
    one = _Rows(library, data, split, _open(library, data, split))
    names = one.choose(data.columns, layout)
    say(f"data: {columns.describe(names)} of {one.label}")
    groups = [(name,) for name in names] if layout == UNPAIRED else [names]
    sides = tuple(one.numbered(group, skip_empty=layout == UNPAIRED) for group in groups)
    return Contents(sides, halves_of(layout), "+".join(map(one.identity, sides)))


class _Rows:
    """The rows of one split.

    Attributes:
      label: of the split, for messages.
    """

    def __init__(self, library: Any, data: ConfigDict, split: str, table: Any):
        self.label = f"{data.dir}/{split}"
        self._library, self._table = library, table
        if not len(table):
            raise InputError(f"{self.label} has no rows")

    def choose(self, named: str, layout: str) -> tuple[str, ...]:
        """Return the columns of A and B; see ``columns.choose``."""
        features = self._table.features
        images = [name for name, kind in features.items() if isinstance(kind, self._library.Image)]
        others = [name for name, kind in features.items() if self._is_array(kind) or self._is_bytes(kind)]
        return columns.choose(images or others, list(features), named, layout, self.label)

    def numbered(self, names: Sequence[str], *, skip_empty: bool = False) -> Numbered:
        """Return the examples of some columns.

        Args:
          names: of the columns.
          skip_empty: leave out the rows with an empty column, as a shorter side has.
        """
        features = self._table.features
        arrays = [name for name in names if self._is_array(features[name])]
        for name in names:
            if name not in arrays and not self._is_bytes(features[name]) and not self._is_image(features[name]):
                raise InputError(
                    f"{self.label}: the column {name} holds {features[name]}; images are Image, bytes of image files, "
                    "or Array2D and Array3D: name others with config.data.columns"
                )
        table = self._table.select_columns(list(names))
        for name in names:
            if self._is_image(features[name]):
                table = table.cast_column(name, self._library.Image(decode=False))
        numbers = self._filled(table, names[0]) if skip_empty else range(len(table))

        def name_of(index: int) -> str:
            return f"{self.label}#{numbers[index]}"

        def read(index: int) -> tuple[Encoded, ...]:
            try:
                row = table[int(numbers[index])]
            except Exception as error:  # of what is damaged, its libraries raise what they like
                raise InputError(f"{name_of(index)} cannot be read ({first_line(error)})") from error
            found = []
            for name in names:
                label = f"{name_of(index)} ({name})"
                value = row[name]
                if name in arrays and value is not None:
                    found.append(Encoded(label, np.asarray(value, features[name].dtype)))
                else:
                    found.append(Encoded(label, _contents(value, label)))
            return tuple(found)

        return Numbered(Names(len(numbers), name_of), read)

    def identity(self, numbered: Numbered) -> str:
        """Return eight digits that change with the number of rows, the bytes of all and the images of some of them."""
        checksum = zlib.crc32(f"{len(self._table)} {self._table.data.nbytes}".encode())
        for index in evenly(range(len(numbered.names)), LOOKED_AT):
            for image in numbered.read(index):
                contents = image.contents if isinstance(image.contents, bytes) else image.contents.tobytes()
                checksum = zlib.crc32(contents, checksum)
        return f"{checksum:08x}"

    def _filled(self, table: Any, name: str) -> Sequence[int]:
        """Return the numbers of the rows where a column is not empty."""
        column = table.data.column(name)
        if not column.null_count:
            return range(len(table))
        return array("q", np.flatnonzero(column.is_valid().to_numpy()).astype(np.int64).tobytes())

    def _is_image(self, kind: Any) -> bool:
        return isinstance(kind, self._library.Image)

    def _is_array(self, kind: Any) -> bool:
        return isinstance(kind, self._library.Array2D | self._library.Array3D)

    def _is_bytes(self, kind: Any) -> bool:
        return isinstance(kind, self._library.Value) and kind.dtype in ("binary", "large_binary")


def _contents(value: Any, label: str) -> bytes:
    """Return the bytes of an image file: those in a row, or those of the file that it names."""
    if isinstance(value, dict):
        path = value.get("path")
        value = value.get("bytes")
        if value is None and path:
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise InputError(f"{label} names the file {path}, which cannot be read ({error.strerror})") from error
    if not isinstance(value, bytes):
        raise InputError(f"{label} is empty; leave the row out, or name other columns with config.data.columns")
    return value


def _open(library: Any, data: ConfigDict, split: str, *, required: bool = True) -> Any:
    """Return the set of a split; None where there is none and it is not required."""
    root = Path(data.dir)
    if not root.exists() and not _ON_HUB.fullmatch(data.dir):
        raise InputError(
            f"config.data.dir: there is no folder {data.dir}; names on the hub are OWNER/NAME or OWNER/NAME:CONFIG"
        )
    name, _, configuration = data.dir.partition(":") if not root.exists() else (data.dir, "", "")
    try:
        if (root / split / _STATE).is_file():  # a DatasetDict, or splits that were saved one by one
            return library.load_from_disk(str(root / split))
        if (root / _STATE).is_file() and split == data.train_split:
            return library.load_from_disk(str(root))
        if root.is_dir() and ((root / _STATE).is_file() or (root / _SPLITS).is_file() or not any(root.iterdir())):
            raise _NoSplitError([path.name for path in sorted(root.iterdir()) if (path / _STATE).is_file()])
        there = library.get_dataset_split_names(name, configuration or None)
        if split not in there:
            raise _NoSplitError(there)
        return library.load_dataset(name, configuration or None, split=split)
    except _NoSplitError as error:
        if not required:
            return None
        there = ", ".join(error.there) if error.there else "no splits"
        raise InputError(
            f"{data.dir} has no split {split}; it holds {there}: name the split with --config.data.train_split or "
            "--config.data.val_split (--config.data.val_split= trains without validation)"
        ) from None
    except Exception as error:  # the network, the hub and a dozen formats are behind it
        kind = "folder that datasets can read" if root.exists() else "folder, and not a data set on the hub"
        raise InputError(f"config.data.dir={data.dir} is not a {kind} ({first_line(error)})") from error


class _NoSplitError(Exception):
    def __init__(self, there: Sequence[str]):
        super().__init__()
        self.there = there


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"config.data.source=hugging_face needs the package datasets ({error}): pip install 'p2p_jax[huggingface]'"
        ) from error
    return datasets
