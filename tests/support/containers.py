"""The files of a folder, put into containers by the programs that people use for that."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest


def write_zip(path: Path, folder: Path, top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Pack all files of a folder, in no order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*"), key=lambda file: zlib.crc32(file.name.encode())):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


def encoded(files: Sequence[Path]) -> list[bytes]:
    """Return the contents of files."""
    return [file.read_bytes() for file in files]


def write_records(path: Path, columns: Mapping[str, Sequence[bytes]], options: str = "group_size:1") -> Path:
    """Write images as records of tf.train.Example, one column an entry, beside numbers and texts that are no images."""
    tf = pytest.importorskip("tensorflow")

    def example(number, images):
        feature = {name: _bytes(tf, x) for name, x in images.items()}
        feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
        feature["scale"] = tf.train.Feature(float_list=tf.train.FloatList(value=[0.5]))
        feature["file_name"] = _bytes(tf, b"%d.png" % number)
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    rows = zip(*columns.values(), strict=True)
    return write_raw_records(
        path, [example(i, dict(zip(columns, row, strict=True))) for i, row in enumerate(rows)], options
    )


def _bytes(tf, value: bytes):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def write_raw_records(path: Path, records: Sequence[bytes], options: str = "group_size:1") -> Path:
    """Write an ArrayRecord file."""
    module = pytest.importorskip("array_record.python.array_record_module")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = module.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return path


def save_dataset(folder: Path, splits: Mapping[str, Mapping[str, Sequence[bytes | None]]], **columns: Sequence) -> Path:
    """Save splits of columns of images as Hugging Face datasets do."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    found = {}
    for split, images in splits.items():
        features = {name: datasets.Image() for name in images} | {name: datasets.Value("int64") for name in columns}
        rows = {name: [None if x is None else {"bytes": x, "path": None} for x in xs] for name, xs in images.items()}
        found[split] = datasets.Dataset.from_dict(rows | columns, datasets.Features(features))
    datasets.DatasetDict(found).save_to_disk(str(folder))
    return folder


CONTAINERS = ("zip", "array_record", "hugging_face")


def pack(container: str, folder: Path, target: Path, columns: Sequence[str] = ("A", "B")) -> Path:
    """Put the images of train/ and val/ of a folder into a container, in the order of their names.

    Args:
      container: one of ``CONTAINERS``.
      folder: holds SPLIT/A and SPLIT/B, or the images of SPLIT themselves.
      target: a new folder to write into.
      columns: what A and B are called in it, or the images themselves.

    Returns:
      What ``config.data.dir`` names.
    """
    if container == "zip":
        return write_zip(target / "images.zip", folder)
    splits = {}
    for split in ("train", "val"):
        inner = [folder / split / side for side in "AB"] if (folder / split / "A").is_dir() else [folder / split]
        files = [sorted(path.iterdir()) for path in inner]
        splits[split] = {name: encoded(one) for name, one in zip(columns, files, strict=False)}
    if container == "hugging_face":
        return save_dataset(target / "saved", splits)
    for split, images in splits.items():
        write_records(target / f"{split}.array_record", images)
    return target
