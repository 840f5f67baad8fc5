"""Files with weights of the TensorFlow release: checkpoints, and the browser format ``.pict``."""

import glob
import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.data.stream.backend import tensorflow
from p2p_jax.errors import InputError
from p2p_jax.interop import tensorflow_index
from p2p_jax.interop.file_kinds import check_file, check_raw

_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_NUMBER = "[0-9]" * 5
_SHARDS = f"data-{_NUMBER}-of-{_NUMBER}"
_LATEST = re.compile(r'^\s*model_checkpoint_path:\s*"(.+)"', re.MULTILINE)
_MOST_BYTES = 2**30  # of a .pict file; the published ones have 55 million
_MOST_JSON = 4 * 2**20  # of its names; the published ones have 5 kB
_LEVELS = 256  # every weight of a .pict file is one of this many values


def is_checkpoint(path: Path) -> bool:
    """Return whether `path` is a TensorFlow checkpoint: its folder, prefix ("model-200000") or one of its files."""
    if (folder := _folder(path)) is not None:
        return (folder / "checkpoint").is_file() or bool(_prefixes(folder))
    return bool(_files(_prefix(path), "index") or _files(_prefix(path), _SHARDS))


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Read the variables of a TensorFlow checkpoint, without those of optimizers; its graph is ignored.

    Args:
      path: as ``is_checkpoint`` takes it; for a folder, the latest checkpoint according to its file "checkpoint".

    Returns:
      Arrays by the names of the variables, such as "generator/encoder_1/conv2d/kernel" and "global_step".

    Raises:
      InputError: a file is missing, cut off or damaged (names it), or TensorFlow is not installed.
    """
    folder = _folder(path)
    prefix = _prefix(path) if folder is None else _latest(folder)
    index, data = _complete(prefix)
    tf = tensorflow()
    tensorflow_index.check(index, _files(prefix, _SHARDS))
    faults = (tf.errors.OpError, LookupError, RuntimeError, TypeError, ValueError)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        dtypes = reader.get_variable_to_dtype_map()
    except faults as error:
        raise InputError(f"{index} cannot be read as a TensorFlow checkpoint ({error}); copy it again") from error
    tensors = {}
    for name, dtype in sorted(dtypes.items()):
        if _is_slot(name, dtypes) or not (dtype.is_floating or dtype.is_integer):
            continue
        try:
            tensors[name] = np.asarray(reader.get_tensor(name))
        except faults as error:
            raise InputError(f"{data} is cut off or damaged at {name} ({error}); copy it again") from error
    return tensors


def _is_slot(name: str, names: Collection[str]) -> bool:
    """Return whether a variable belongs to an optimizer: its name extends the name of another variable."""
    scope, _, last = name.rpartition("/")
    return scope in names or last.startswith("Adam") or re.fullmatch(r"beta[12]_power(_\d+)?", last) is not None


def _folder(path: Path) -> Path | None:
    """Return the folder of a path: the path itself, or the folder of the file "checkpoint"."""
    if path.is_dir():
        return path
    return path.parent if path.name == "checkpoint" and path.is_file() else None


def _prefix(path: Path) -> Path:
    return path.with_name(_PART.sub("", path.name))


def _files(prefix: Path, ending: str) -> list[Path]:
    return sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.{ending}"))


def _prefixes(folder: Path) -> list[Path]:
    """List the checkpoints in a folder."""
    return sorted({_prefix(path) for ending in ("index", _SHARDS) for path in folder.glob(f"*.{ending}")})


def _latest(folder: Path) -> Path:
    """Return the prefix of the latest checkpoint in a folder."""
    file = folder / "checkpoint"
    named = _LATEST.search(file.read_text(errors="replace")) if file.is_file() else None
    if named is not None:
        return folder / re.split(r"[/\\]", named[1])[-1]  # the path may be from another machine
    prefixes = _prefixes(folder)
    if len(prefixes) != 1:
        found = f"several checkpoints: {', '.join(p.name for p in prefixes)}" if prefixes else "no checkpoint"
        raise InputError(
            f"{folder} has no file named checkpoint to say which is the latest, and {found}; name one checkpoint"
        )
    return prefixes[0]


def _complete(prefix: Path) -> tuple[Path, Path]:
    """Return the index and the first data file of a checkpoint; checks that all files exist."""
    if set(str(prefix)) & set("*?["):
        raise InputError(f"TensorFlow reads {prefix} as a pattern; move it to a path without *, ? and [")
    index = prefix.with_name(f"{prefix.name}.index")
    count = max([1, *(int(shard.name[-5:]) for shard in _files(prefix, _SHARDS))])
    data = [prefix.with_name(f"{prefix.name}.data-{i:05}-of-{count:05}") for i in range(count)]
    for file in (index, *data):
        if not file.is_file():
            raise InputError(f"{file} is missing; the checkpoint needs {index.name} and {data[0].name}")
        check_raw(file)
    return index, data[0]


def read_pict(path: Path) -> dict[str, np.ndarray]:
    """Read a generator from a ``.pict`` file, with 8 bits per weight.

    It has three chunks, each one after its length as a big-endian uint32: names and shapes as JSON, the 256 possible
    values of weights as float32, and for every weight, in the order of the names, the index of its value.

    Returns:
      float32 arrays by the release's names, such as "generator/encoder_1/conv2d/kernel".

    Raises:
      InputError: the file is missing, cut off or not a ``.pict`` file; names it.
    """
    check_file(path)
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} has more than {_MOST_BYTES:,} bytes: it is not a .pict file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    names, levels, codes = _chunks(content, path)
    shapes = _shapes(names, path)
    if len(levels) != 4 * _LEVELS:
        raise InputError(
            f"{path} has {len(levels)} bytes of values, not {_LEVELS} float32 numbers: it is not a .pict file"
        )
    sizes = [math.prod(shape) for shape in shapes.values()]
    if sum(sizes) != len(codes):
        raise InputError(
            f"{path} has codes for {len(codes):,} weights, but shapes for {sum(sizes):,}: it is damaged; fetch it again"
        )
    values = np.frombuffer(levels, "<f4").astype(np.float32)[np.frombuffer(codes, np.uint8)]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _chunks(content: bytes, path: Path) -> list[bytes]:
    chunks, position = [], 0
    for title in ("names", "values", "codes"):
        start = position + 4
        position = start + int.from_bytes(content[position:start], "big")
        if max(start, position) > len(content):
            raise InputError(f"{path} ends within its {title}: it is cut off, or not a .pict file; fetch it again")
        chunks.append(content[start:position])
    if position != len(content):
        raise InputError(f"{path} has {len(content) - position} more bytes after its codes: it is not a .pict file")
    return chunks


def _shapes(names: bytes, path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays by name, from the JSON ``[{"name": ..., "shape": [...]}, ...]``."""
    if len(names) > _MOST_JSON:
        raise InputError(f"{path} begins with {len(names):,} bytes of names: it is not a .pict file")
    try:
        entries = json.loads(names)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not begin with a list of names in JSON: it is not a .pict file") from error
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise InputError(f"{path} does not begin with names and shapes of weights: it is not a .pict file")
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in entries}
    if len(shapes) != len(entries):
        raise InputError(f"{path} has several weights of the same name: it is damaged")
    return shapes


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    shape = entry.get("shape")
    return isinstance(shape, list) and len(shape) <= 8 and all(type(x) is int and 0 < x < 2**40 for x in shape)
