"""Files of TensorFlow.js: ``model.json`` with its shards, of a graph model or a layers model.

Its weights manifest lists groups of arrays: names, shapes and dtypes, and the files ("shards") with the bytes of each
group, one array after the other. Arrays may be quantized: to uint8 or uint16 as ``value * scale + min``, or to float16.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.interop.file_kinds import JSON, check_file, check_raw
from p2p_jax.interop.network import name_some

MANIFESTS = ("model.json", "weights_manifest.json")
"""Name of the file, and the name for graph models before 2019."""
_SHARD = re.compile(r"group\d+-shard\d+of\d+(\.bin)?")
_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1"}
_QUANTIZED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}
_MOST_JSON = 16 * 2**20  # bytes; the graph of a large network takes 1 MB
_MOST_NUMBERS = 2**30  # in all arrays; the published U-Net has 54 million
_MOST_DIMENSIONS = 8
_OPERATIONS = {  # graph models of TensorFlow 2 name the operations that read the variables
    "/Conv2D/ReadVariableOp": "/kernel",
    "/conv2d_transpose/ReadVariableOp": "/kernel",
    "/BiasAdd/ReadVariableOp": "/bias",
    "batch_normalization/ReadVariableOp": "batch_normalization/gamma",
    "batch_normalization/ReadVariableOp_1": "batch_normalization/beta",
}


class _Array(NamedTuple):
    """An entry of the manifest: how an array is stored, with ``scale`` and ``low`` to decode its codes."""

    name: str
    shape: tuple[int, ...]
    stored: np.dtype
    is_real: bool
    scale: float | None = None
    low: float = 0.0

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def is_tfjs(path: Path) -> bool:
    """Return whether `path` is a model of TensorFlow.js: its folder, its JSON file or one of its shards."""
    return (path.is_dir() and any((path / name).is_file() for name in MANIFESTS)) or (
        path.suffix.lower() == ".json" or _SHARD.fullmatch(path.name) is not None
    )


def files_of(path: Path) -> list[Path]:
    """Return the file with the manifest, and its shards.

    Raises:
      InputError: there is no manifest, or it names something that is not a file next to it.
    """
    path = _manifest(path)
    content = _load(path)
    return [path, *(path.parent / shard for paths, _ in _groups(content, path) for shard in paths)]


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of real numbers of a model, without the constants of its graph.

    Args:
      path: as ``is_tfjs`` takes it.

    Returns:
      float32 arrays by the names of the variables, such as "generator/encoder_1/conv2d/kernel".

    Raises:
      InputError: a file is missing, cut off or not a model of TensorFlow.js; names it.
    """
    path = _manifest(path)
    content = _load(path)
    groups = _groups(content, path)
    arrays = [array for _, group in groups for array in group]
    if sum(array.numbers for array in arrays) > _MOST_NUMBERS:
        raise InputError(f"{path} has shapes for more than {_MOST_NUMBERS:,} numbers: not a network of the release")
    if len({array.name for array in arrays}) != len(arrays):
        raise InputError(f"{path} has several weights of the same name: it is damaged")
    tensors: dict[str, np.ndarray] = {}
    for paths, group in groups:
        tensors |= _decode(_read_shards([path.parent / shard for shard in paths], group, path), group)
    if "layers-model" in str(_get(content, "format")) or _keras_layers(content):
        _refuse_keras(tensors, content, path)
    named = {_plain(name): value for name, value in tensors.items()}
    if len(named) != len(tensors):
        raise InputError(f"{path} has several networks with layers of the same name")
    return named


def _manifest(path: Path) -> Path:
    """Return the JSON file for a path."""
    if path.is_dir():
        return next(path / name for name in MANIFESTS if (path / name).is_file())
    if path.suffix.lower() == ".json":
        return path
    beside = [path.with_name(name) for name in MANIFESTS if path.with_name(name).is_file()]
    if not beside:
        raise InputError(f"{path} is a shard of a model of TensorFlow.js; its model.json is missing")
    return beside[0]


def _load(path: Path) -> Any:
    check_file(path, takes=(JSON,))
    if path.stat().st_size > _MOST_JSON:
        raise InputError(f"{path} has more than {_MOST_JSON:,} bytes: it is not a model.json of TensorFlow.js")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is cut off or damaged: it is not valid JSON; fetch it again") from error


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def _groups(content: Any, path: Path) -> list[tuple[list[str], list[_Array]]]:
    """Return the names of the shards and the arrays of every group."""
    listed = content if isinstance(content, list) else _get(content, "weightsManifest")
    if listed is None or not isinstance(listed, list) or not listed:
        keys = f" of {name_some(map(str, content))}" if isinstance(content, Mapping) else ""
        raise InputError(f"{path} is a JSON text{keys}, not a model of TensorFlow.js: it has no weightsManifest")
    groups, seen = [], set[str]()
    for group in listed:
        paths, weights = _get(group, "paths"), _get(group, "weights")
        if not isinstance(paths, list) or not isinstance(weights, list):
            raise InputError(f"{path}: a group of its weightsManifest has no paths and weights; it is damaged")
        for shard in paths:
            if not isinstance(shard, str) or not _is_beside(shard):
                raise InputError(
                    f"{path} names the shard {str(shard)[:80]!r}, which is not a file next to it; not read"
                )
            if shard in seen:
                raise InputError(f"{path} names the shard {shard} twice: it is damaged")
            seen.add(shard)
        groups.append((paths, [_array(entry, path) for entry in weights]))
    return groups


def _is_beside(shard: str) -> bool:
    """Return whether a name is a path to a file in the folder or below it, on every system."""
    parts = PurePosixPath(shard).parts
    return bool(parts) and not re.search(r"[\\:\0]", shard) and parts[0] != "/" and ".." not in parts


def _array(entry: Any, path: Path) -> _Array:
    name, shape, dtype, coding = (_get(entry, key) for key in ("name", "shape", "dtype", "quantization"))
    fits = isinstance(name, str) and isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS
    if not fits or not all(type(side) is int and 0 <= side <= _MOST_NUMBERS for side in shape):
        raise InputError(f"{path}: {str(name)[:80]!r} of its weightsManifest has no name and shape; it is damaged")
    stored = _DTYPES.get(str(dtype)) if coding is None else _QUANTIZED.get(str(_get(coding, "dtype")))
    if stored is None:
        kind = dtype if coding is None else f"quantized {_get(coding, 'dtype')}"
        raise InputError(f"{path}: {name} is of {str(kind)[:40]}, but networks of the release have real numbers")
    array = _Array(name, tuple(shape), np.dtype(stored), dtype in ("float32", None))
    if coding is None or stored == "<f2":
        return array
    scale, low = _get(coding, "scale"), _get(coding, "min")
    if not all(type(x) in (int, float) and abs(x) < 3e38 for x in (scale, low)):
        raise InputError(f"{path}: {name} is quantized without a scale and a minimum; it is damaged")
    return array._replace(scale=float(scale), low=float(low))


def _read_shards(files: list[Path], group: list[_Array], path: Path) -> bytes:
    """Return the bytes of a group, after checking the sizes."""
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing; it holds weights of {path.name}. Fetch all shards")
        check_raw(file)
    found, needed = sum(file.stat().st_size for file in files), sum(a.numbers * a.stored.itemsize for a in group)
    if found != needed:
        raise InputError(
            f"{', '.join(file.name for file in files[:3])} next to {path} have {found:,} bytes, but its weights need "
            f"{needed:,}: a shard is cut off, or from another model; fetch them again"
        )
    try:
        return b"".join(file.read_bytes() for file in files)
    except OSError as error:
        raise InputError(f"the shards of {path} cannot be read ({error.strerror})") from error


def _decode(content: bytes, group: list[_Array]) -> dict[str, np.ndarray]:
    """Return the arrays of a group with more than one real number."""
    tensors, start = {}, 0
    for array in group:
        values = np.frombuffer(content, array.stored, array.numbers, start)
        start += array.numbers * array.stored.itemsize
        if array.is_real and array.shape and array.numbers:
            if array.scale is not None:
                codes = np.arange(np.iinfo(array.stored).max + 1)
                values = (codes * array.scale + array.low).astype(np.float32)[values]
            tensors[array.name] = values.astype(np.float32).reshape(array.shape)
    return tensors


def _plain(name: str) -> str:
    """Return the release's name of a variable."""
    found = re.search(r"(?:^|/)((?:(?:generator|discriminator)/)?(?:encoder|decoder|layer)_\d+/.*)", name)
    name = found[1] if found else name
    for ending, variable in _OPERATIONS.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + variable
    return name


def _keras_layers(content: Any) -> list[Mapping[str, Any]]:
    """Return the layers of a model written by Keras; none for others."""
    topology = _get(content, "modelTopology")
    config = _get(_get(topology, "model_config") or topology, "config")
    layers = config if isinstance(config, list) else _get(config, "layers")
    return list(_mappings(layers))


def _mappings(found: Any) -> Iterator[Mapping[str, Any]]:
    yield from (layer for layer in found if isinstance(layer, Mapping)) if isinstance(found, list) else ()


def _refuse_keras(tensors: Mapping[str, np.ndarray], content: Any, path: Path) -> None:
    """Refuse a model of Keras, unless its weights have the names of the release."""
    if any(re.search(r"(^|/)encoder_\d+/", name) for name in tensors):
        return
    layers = _keras_layers(content)
    kinds = sorted({str(layer.get("class_name"))[:40] for layer in layers})
    found = [_get(layer.get("config"), key) for layer in layers for key in ("alpha", "negative_slope")]
    slopes = sorted({str(value)[:10] for value in found if type(value) in (int, float)})
    slope = f", slopes of {', '.join(slopes)}" if slopes else ""
    raise InputError(
        f"{path} is a model of Keras{' with ' + name_some(kinds) + slope if kinds else ''}, not the U-Net of the "
        f"TensorFlow release (generator/encoder_1, ...): it has {name_some(tensors)}"
    )
