"""Files of PyTorch, read without running what they may contain, and written."""

import contextlib
import os
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.errors import InputError
from p2p_jax.images.writing import make_folder


def read(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict, of the zip or the legacy container, as NumPy arrays.

    PyTorch reads it weights-only: a file that asks for anything else to be run is refused. A dict that holds one under
    "state_dict" is taken too.

    Raises:
      InputError: PyTorch is not installed, or the file cannot be read, is damaged, holds objects or no weights.
    """
    torch = import_torch()
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read: its permissions forbid it")
    try:
        if zipfile.is_zipfile(path):  # PyTorch does not look at the checksums
            with zipfile.ZipFile(path) as container:
                if (broken := container.testzip()) is not None:
                    raise zipfile.BadZipFile(broken)
        with warnings.catch_warnings(action="ignore"):  # of pickles in unusual protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, according to where the damage lies
        raise _fault(path, str(error)) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise InputError(f"{path} holds {_kind(found)}, not a state dict: names of weights and their values")
    for name, value in found.items():
        dense = value.layout == torch.strided and not (value.is_complex() or value.is_quantized or value.is_meta)
        if not isinstance(name, str) or not dense or not value.numel():
            raise InputError(
                f"{path}: {name} is no array of real numbers under a name; it is no network of the release"
            )
    return {name: _to_numpy(torch, value) for name, value in found.items()}


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict that ``torch.load`` reads, whole or not at all.

    Raises:
      InputError: PyTorch is not installed, or the file cannot be written.
    """
    torch = import_torch()
    state_dict = OrderedDict((name, torch.from_numpy(np.array(value))) for name, value in tensors.items())
    make_folder(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        torch.save(state_dict, unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} cannot be written ({error})") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


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
            "made it can save the weights alone: torch.save(net.state_dict(), FILE)"
        )
    return InputError(f"{path} is damaged, or no file of weights that PyTorch wrote; fetch or copy it again")


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        names = ", ".join(list(map(str, found))[:4])
        return f"a dict of {names}" if found else "an empty dict"
    return f"a {type(found).__name__}"
