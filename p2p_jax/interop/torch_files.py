"""Files of PyTorch, read without running what they may contain, and written."""

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

    PyTorch reads it weights-only: a file that asks for anything else to be run is refused, and so is one that would
    take far more time or memory than its size. A checkpoint that holds one state dict, under any name, is taken too.

    Raises:
      InputError: PyTorch is not installed, or the file cannot be read, is damaged, holds objects or no weights.
    """
    check_file(path)
    torch = import_torch()
    try:
        _check_container(path)
        with warnings.catch_warnings(action="ignore"):  # of pickles in unusual protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle_bounds.TooMuchError as error:
        raise InputError(f"{path} is not a state dict: it holds {error}, and was not read") from error
    except Exception as error:  # of many types, according to where the damage lies
        raise _fault(path, str(error)) from error
    found = _state_dict(found, path, torch)
    left = 2 * path.stat().st_size  # bytes of numbers; a network and a part of it may share some
    for name, value in found.items():
        plain = value.layout == torch.strided and not (value.is_complex() or value.is_quantized or value.is_meta)
        plain = plain and value.device.type == "cpu" and type(value) in (torch.Tensor, torch.nn.Parameter)
        if not isinstance(name, str) or not plain or not value.numel():
            raise InputError(
                f"{path}: {str(name)[:80]} is not an array of real numbers under a name; not a network of the release"
            )
        left -= value.numel() * value.itemsize
        if left < 0:
            raise InputError(f"{path}: {name} is larger than what the file holds; it is not a network of the release")
    return {name: _to_numpy(torch, value) for name, value in found.items()}


def _check_container(path: Path) -> None:
    """Look at checksums and sizes, which PyTorch does not, before it reads what is inside."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(1) == b"\x80":  # a pickle of a protocol that PyTorch has written
                file.seek(0)
                pickle_bounds.check_legacy(file)
        return
    with zipfile.ZipFile(path) as container:
        parts = container.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise InputError(
                f"{path} was packed again with compression, which PyTorch does not use: unpack it, and pack it with "
                "zip -0 -r"
            )
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("parts lie on each other")
        if (broken := container.testzip()) is not None:
            raise zipfile.BadZipFile(broken)
        for part in parts:
            if part.filename.endswith(".pkl"):
                with container.open(part) as file:
                    pickle_bounds.check(io.BytesIO(file.read()))


def _state_dict(found: Any, path: Path, torch: Any) -> Mapping[Any, Any]:
    """Return the state dict that a file holds, itself or under one of its names."""

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
            "takes one out"
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
      InputError: it is not installed.
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
            f"{path} is in the tar container of PyTorch's first releases, which cannot be read without running what is "
            "in it. If you trust it, torch.save(torch.load(FILE, weights_only=False), NEW) makes a file that can"
        )
    if asked := re.search(r"GLOBAL ([\w.]+)", reason):
        return InputError(
            f"{path} holds more than weights (it asks for {asked[1]}), which could run code: it was not read. Whoever "
            "made it can save only the weights: torch.save(net.state_dict(), FILE)"
        )
    return InputError(f"{path} is damaged, or no file of weights that PyTorch wrote; fetch or copy it again")


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        names = ", ".join(str(name)[:80] for name in list(found)[:4])
        return f"a dict of {names}" if found else "an empty dict"
    return f"a {type(found).__name__}"
