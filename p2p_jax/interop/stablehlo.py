"""StableHLO: a translation for JAX without this library, on every accelerator, and for other programs that read it."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import export

from p2p_jax.errors import InputError
from p2p_jax.interop.exportable import Exportable

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def require() -> None:
    """Check that the required package is installed.

    Raises:
      InputError: it is missing.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise InputError("format=stablehlo needs flatbuffers: pip install flatbuffers") from error


def write(exportable: Exportable, path: Path) -> None:
    """Write a translation as ``jax.export`` serializes it, and its metadata to ``metadata_path(path)``.

    Raises:
      InputError: JAX cannot export it.
    """
    function = jax.jit(lambda images: exportable(images))
    try:
        blob = export.export(function, platforms=PLATFORMS)(exportable.images).serialize()
    except Exception as error:  # of any kind: it cannot be lowered for every platform, or is too large
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"format=stablehlo: JAX cannot export this network ({reason})") from error
    path.write_bytes(blob)
    metadata_path(path).write_text(json.dumps(exportable.metadata, indent=2) + "\n")


def metadata_path(path: Path) -> Path:
    """Return the file with the metadata of a translation."""
    return path.with_name(path.name + ".json")


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a written translation, compiled for the default device."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))
