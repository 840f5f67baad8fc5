"""Images in ArrayRecord files: records that are ``tf.train.Example`` messages, as TFDS writes them, or image files."""

import functools
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from p2p_jax.data.containers import columns
from p2p_jax.data.containers.contents import (
    LOOKED_AT,
    UNPAIRED,
    Contents,
    Joined,
    Names,
    Numbered,
    first_line,
    halves_of,
)
from p2p_jax.data.containers.decoding import Encoded, is_image
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.reporting import say

_IMAGE = "image"  # what a record is called that is an image file itself
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)")
_MANY = 16  # records of a group; all are unpacked for one


def find(data: ConfigDict, split: str, layout: str) -> Contents:
    """Open the records of a split; of no more than the first one it is read what is in it.

    Args:
      data: reads ``dir`` and ``columns``.
      split: such as "train": files ``train.array_record``, ``train-*.array_record*`` or, of TFDS,
        ``NAME-train.array_record-00000-of-00002``; unpaired also ``trainA*`` and ``trainB*``.
      layout: of ``contents.LAYOUTS``.

    Raises:
      InputError: there are no such files, they cannot be read, or it is not clear which entries are images.
    """
    root = Path(data.dir)
    if not data.dir or not root.is_dir():
        raise InputError(
            f"config.data.source=array_record reads a folder of files train*.array_record; there is no folder "
            f"{data.dir!r}: give it with --config.data.dir=FOLDER, or data_dir=FOLDER when a run is used"
        )
    halves = halves_of(layout)
    if layout == UNPAIRED:
        files = [_files(root, split + side) for side in "AB"]
        if all(files):
            sides = [_Records(found) for found in files]
            chosen = [records.choose(data.columns, "photos") for records in sides]
            numbered = [_numbered(records, names) for records, names in zip(sides, chosen, strict=True)]
            return Contents(tuple(numbered), "", "+".join(records.identity for records in sides))
    files_found = _files(root, split)
    if not files_found:
        there = ", ".join(path.name for path in _all(root)[:12]) or "no *.array_record* file"
        raise InputError(
            f"there is no file {split}*.array_record in {root}; it holds {there}: name the split with "
            "--config.data.train_split or --config.data.val_split (--config.data.val_split= trains without validation)"
        )
    records = _Records(files_found)
    names = records.choose(data.columns, layout)
    say(f"data: {columns.describe(names)} of {records.label}")
    if layout == UNPAIRED:
        return Contents(tuple(_numbered(records, (name,)) for name in names), halves, records.identity)
    return Contents((_numbered(records, names),), halves, records.identity)


def _all(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.array_record*") if path.is_file())


def _files(root: Path, split: str) -> list[Path]:
    """Return the files of a split; none is missing."""
    found = []
    for path in _all(root):
        stem, _, rest = path.name.partition(".array_record")
        is_named = stem == split or stem.endswith(f"-{split}") or re.match(re.escape(split) + r"[-_.]\d", stem)
        if is_named and (not rest or re.fullmatch(r"[-_.]\d.*", rest)):
            found.append(path)
    numbers: dict[tuple[str, int], set[int]] = defaultdict(set)
    for path in found:
        if mark := _SHARD.search(path.name):
            numbers[mark[1], int(mark[3])].add(int(mark[2]))
    for (name, count), there in numbers.items():
        if missing := sorted(set(range(count)) - there):
            raise InputError(
                f"{root / name} has {count} parts, but {len(missing)} of them are missing, such as number "
                f"{missing[0]}: copy or download it"
            )
    return found


class _Records:
    """The records of several files, by number.

    Attributes:
      label: of the files, for messages.
    """

    def __init__(self, files: Sequence[Path]):
        library = _library()
        self._files = list(files)

        def open_reader(path: Path) -> Any:  # one answers all threads; nothing is read ahead, as places are random
            return library.ArrayRecordReader(
                str(path), options="readahead_buffer_size:0", file_reader_buffer_size=2**15
            )

        self.label = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        counts = []
        for path in files:
            try:
                reader = open_reader(path)
                counts.append(reader.num_records())
                grouped = re.search(r"group_size:(\d+)", reader.writer_options_string())
                reader.close()
            except Exception as error:  # of what is damaged, it raises several
                why = first_line(error)
                raise InputError(f"{path} cannot be read as ArrayRecord ({why}); make or download it again") from error
            if grouped and int(grouped[1]) > _MANY:
                say(
                    f"note: {path} keeps its records in groups of {int(grouped[1]):,}; a whole group is unpacked for "
                    'one: write it with ArrayRecordWriter(path, "group_size:1")'
                )
        self._joined = Joined(counts)
        if not len(self._joined):
            raise InputError(f"{self.label} has no records")
        self._told = "|".join(f"{x.name} {x.stat().st_size} {n}" for x, n in zip(files, counts, strict=True))
        self._reader = functools.cache(lambda part: open_reader(self._files[part]))

    def __len__(self) -> int:
        return len(self._joined)

    @property
    def identity(self) -> str:
        """Eight digits that change with names and sizes of the files, how many records they hold, and some of these."""
        checksum = zlib.crc32(self._told.encode())
        for index in evenly(range(len(self)), LOOKED_AT):
            for name, contents in sorted(self.read(index).items()):
                checksum = zlib.crc32(contents, zlib.crc32(name.encode(), checksum))
        return f"{checksum:08x}"

    def name(self, index: int) -> str:
        """Return what a record is called in messages."""
        part, number = self._joined.find(index)
        return f"{self._files[part]}#{number}"

    def read(self, index: int) -> dict[str, bytes]:
        """Return what a record holds of bytes, by name."""
        part, number = self._joined.find(index)
        try:
            # A range of one: the time that a list of one takes grows with the file.
            record = self._reader(part).read(number, number + 1)[0]
        except Exception as error:
            raise InputError(f"{self.name(index)} cannot be read ({first_line(error)}); make the file again") from error
        if is_image(record):
            return {_IMAGE: record}
        try:
            features = _example().FromString(record).features.feature
        except Exception as error:
            raise InputError(
                f"{self.name(index)} is neither a tf.train.Example nor an image file ({first_line(error)})"
            ) from error
        return {name: one.bytes_list.value[0] for name, one in features.items() if len(one.bytes_list.value) == 1}

    def choose(self, named: str, layout: str) -> tuple[str, ...]:
        """Return the entries of A and B; see ``columns.choose``."""
        first = self.read(0)
        names = sorted(first)  # in the message they have no order
        images = [name for name in names if is_image(first[name])]
        return columns.choose(images, names, named, layout, self.name(0))


def _numbered(records: _Records, names: tuple[str, ...]) -> Numbered:
    def read(index: int) -> tuple[Encoded, ...]:
        found = records.read(index)
        if missing := [name for name in names if name not in found]:
            raise InputError(f"{records.name(index)} has no bytes feature {missing[0]}; it has {', '.join(found)}")
        where = records.name(index)
        return tuple(Encoded(f"{where} ({name})", found[name]) for name in names)

    return Numbered(Names(len(records), records.name), read)


def _library() -> Any:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise InputError(
            f"config.data.source=array_record needs the package array_record ({error}), available for Linux and "
            "macOS: pip install 'p2p_jax[array_record]'"
        ) from error
    return array_record_module


@functools.cache
def _example() -> Any:
    """Return the message tf.train.Example, without TensorFlow: only of its bytes, which are all that is read."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="p2p_jax_example.proto", package="p2p_jax", syntax="proto3")

    def message(name: str, within: Any = None) -> Any:
        return (within.nested_type if within else file.message_type).add(name=name)

    def field(owner: Any, name: str, number: int, of: str = "", *, repeated: bool = False) -> None:
        label = kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL
        if of in ("bytes", "string"):
            owner.field.add(name=name, number=number, label=label, type=getattr(kind, f"TYPE_{of.upper()}"))
        else:
            owner.field.add(name=name, number=number, label=label, type=kind.TYPE_MESSAGE, type_name=f".p2p_jax.{of}")

    field(message("BytesList"), "value", 1, "bytes", repeated=True)
    field(message("Feature"), "bytes_list", 1, "BytesList")
    features = message("Features")
    entry = message("FeatureEntry", features)
    entry.options.map_entry = True
    field(entry, "key", 1, "string")
    field(entry, "value", 2, "Feature")
    field(features, "feature", 1, "Features.FeatureEntry", repeated=True)
    field(message("Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p2p_jax.Example"))
