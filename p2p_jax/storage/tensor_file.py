"""Arrays and texts in one file, in the format safetensors: reading it executes nothing.

A file may be a stranger's. What its header claims is compared with the length that the file has, before anything is
made of it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.storage.writing import in_one_step

SUFFIX = ".safetensors"
DIGEST = "sha256"
"""The text of a file that holds the digest of its arrays and of its other texts."""
_LONGEST_HEADER = 1 << 24  # bytes; a network of 10,000 arrays has 2 MB
_LONGEST = 1 << 33  # bytes of a file: 2,000 million weights, and a file of holes may say that it has more
_DTYPES = {"BOOL", *(f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)), "F16", "F32", "F64"}
"""Those that NumPy has, by their names in the format."""


def is_tensor_file(path: Path) -> bool:
    """Return whether a file begins as safetensors do, or is called so."""
    if not path.is_file():
        return False
    if path.suffix.lower() == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """Write a file in one step.

    Args:
      path: of the file; one that exists is replaced.
      arrays: by their names.
      texts: by their names; the digest is added.

    Returns:
      The digest: 64 hexadecimal digits.

    Raises:
      InputError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    found = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    told = digest(found, texts)
    with in_one_step(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(found, temporary, {**texts, DIGEST: told})
        temporary.chmod(mode)  # as any new file: safetensors keeps all others from reading it
    return told


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the shapes of the arrays of a file, and its texts; arrays are not read, and the digest is not compared.

    Raises:
      InputError: it is not a file of this format, its header is damaged, or a dtype is not read.
    """
    _check_length(path)
    with _opened(path) as file:
        return _shapes(file, path), file.metadata() or {}


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return arrays and texts of a file, as they were written.

    Raises:
      InputError: it is not a file of this format, is damaged, or holds something that ``write`` does not write.
    """
    from safetensors import SafetensorError

    _check_length(path)
    with _opened(path) as file:
        names, texts = sorted(_shapes(file, path)), file.metadata() or {}
        try:
            arrays = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, ValueError, TypeError, OSError) as error:
            raise _damaged(path, error) from error
    if texts.get(DIGEST) != digest(arrays, texts):
        raise InputError(f"{path} is damaged: its contents do not match its digest; fetch it again")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: the array {name} holds numbers that are not finite; use another file")
    return arrays, texts


def _shapes(file: Any, path: Path) -> dict[str, tuple[int, ...]]:
    names = file.keys()
    slices = {name: file.get_slice(name) for name in names}
    for name, array in slices.items():
        if (kind := array.get_dtype()) not in _DTYPES:
            raise InputError(f"{path}: the array {name} has the dtype {kind}, which is not supported")
    return {name: tuple(array.get_shape()) for name, array in slices.items()}


def digest(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of arrays, with their names, dtypes and shapes, and of texts but for the digest itself."""
    found = hashlib.sha256(json.dumps({k: texts[k] for k in sorted(texts) if k != DIGEST}).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _check_length(path: Path) -> None:
    """Refuse a file whose header does not fit into it, before anything believes what it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            fits = len(head) == 8 and 2 <= length <= min(size - 8, _LONGEST_HEADER)
            header = file.read(length) if fits else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if size > _LONGEST:
        raise InputError(f"{path} has {size:,} bytes; at most {_LONGEST:,} are read")
    if not header.startswith(b"{"):
        raise InputError(
            f"{path} is not a safetensors file, or was cut off: it has {size:,} bytes, and its first 8 are not the "
            "length of a header"
        )
    try:
        found = json.loads(header)
        ends = [end for name, told in found.items() if name != "__metadata__" for end in told["data_offsets"]]
        if not all(type(end) is int for end in ends):
            raise ValueError("offsets that are not whole numbers")
        end = max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error
    if end != size - 8 - length:
        raise InputError(
            f"{path} was cut off or is damaged: its arrays would take {end:,} bytes, and it has {size - 8 - length:,} "
            "for them; fetch it again"
        )


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    told = " ".join(str(error).split())[:200]
    return InputError(f"{path} is damaged, or not a safetensors file ({told}); fetch it again")
