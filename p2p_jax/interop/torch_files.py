"""Files of PyTorch, written, and read without running code in them."""

import io
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.interop import pickle_bounds
from p2p_jax.interop.file_kinds import check_file
from p2p_jax.storage.writing import in_one_step


def read(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict, of the zip or the legacy container, as NumPy arrays.

    PyTorch reads it weights-only: a file that needs any other code is refused, and so is one that would take far more
    time or memory than its size. A checkpoint that holds one state dict, under any name, also works.

    Raises:
      InputError: PyTorch is not installed, or the file cannot be read, is damaged, holds objects or has no weights.
    """
    check_file(path)
    torch = import_torch()
    try:
        _check_container(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles in unusual protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle_bounds.TooMuchError as error:
        raise InputError(f"{path} is not a state dict: it holds {error}, and was not read") from error
    except Exception as error:  # of many types, depending on the damage
        raise _fault(path, str(error)) from error
    found = _state_dict(found, path, torch)
    left = 2 * path.stat().st_size  # bytes of numbers; a network and a part of it may share some
    for name, value in found.items():
        plain = value.layout == torch.strided and not (value.is_complex() or value.is_quantized or value.is_meta)
        plain = plain and value.device.type == "cpu" and type(value) in (torch.Tensor, torch.nn.Parameter)
        if not isinstance(name, str) or not plain or not value.numel():
            raise InputError(
                f"{path}: {str(name)[:80]} is not a named array of real numbers; not a network of the release"
            )
        left -= value.numel() * value.itemsize
        if left < 0:
            raise InputError(f"{path}: {name} is larger than the file; it is not a network of the release")
    return {name: _to_numpy(torch, value) for name, value in found.items()}


def _check_container(path: Path) -> None:
    """Check checksums and sizes before PyTorch reads the file; PyTorch does not check them."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(1) == b"\x80":  # a pickle with a protocol that PyTorch writes
                file.seek(0)
                pickle_bounds.check_legacy(file)
        return
    with zipfile.ZipFile(path) as container:
        parts = container.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise InputError(
                f"{path} was repacked with compression, and PyTorch cannot read that: unpack it, and pack it with "
                "zip -0 -r"
            )
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("parts overlap")
        if (broken := container.testzip()) is not None:
            raise zipfile.BadZipFile(broken)
        for part in parts:
            if part.filename.endswith(".pkl"):
                with container.open(part) as file:
                    pickle_bounds.check(io.BytesIO(file.read()))


def _state_dict(found: Any, path: Path, torch: Any) -> Mapping[Any, Any]:
    """Return the state dict in a file, at the top level or under one of its names."""

    def is_one(value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(isinstance(x, torch.Tensor) for x in value.values())

    if is_one(found):
        return found
    inside = {key: value for key, value in found.items() if is_one(value)} if isinstance(found, Mapping) else {}
    if "state_dict" in inside:
        return inside["state_dict"]
    if len(inside) > 1:
        names = ", ".join(str(name)[:80] for name in list(inside)[:8])
        raise InputError(
            f"{path} holds several state dicts: {names}. torch.save(torch.load(FILE, weights_only=True)[NAME], NEW) "
            "extracts one"
        )
    if not inside:
        raise InputError(f"{path} holds {_kind(found)}, not a state dict: names of weights and their values")
    return next(iter(inside.values()))


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict that ``torch.load`` reads, whole or not at all.

    Raises:
      InputError: PyTorch is not installed, or the file cannot be written.
    """
    torch = import_torch()
    state_dict = OrderedDict((name, torch.from_numpy(np.array(value))) for name, value in tensors.items())
    with in_one_step(path) as temporary:
        torch.save(state_dict, temporary)


def import_torch() -> Any:
    """Return PyTorch.

    Raises:
      InputError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError("files of PyTorch need PyTorch: pip install 'p2p_jax[torch]'") from error
    return torch


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()


def _fault(path: Path, reason: str) -> InputError:
    if "legacy .tar" in reason:
        return InputError(
            f"{path} is in the tar container of PyTorch's first releases, and reading it runs code in it. If you trust "
            "it, convert it: torch.save(torch.load(FILE, weights_only=False), NEW)"
        )
    if asked := re.search(r"GLOBAL ([\w.]+)", reason):
        return InputError(
            f"{path} holds more than weights (it asks for {asked[1]}) and could run code: it was not read. Its author "
            "can save only the weights: torch.save(net.state_dict(), FILE)"
        )
    return InputError(f"{path} is damaged, or not a file of weights written by PyTorch; fetch or copy it again")


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        names = ", ".join(str(name)[:80] for name in list(found)[:4])
        return f"a dict of {names}" if found else "an empty dict"
    return f"a {type(found).__name__}"
