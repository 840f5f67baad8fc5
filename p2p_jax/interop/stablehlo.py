"""StableHLO: a translation for JAX without this library, for any accelerator, and for what else reads it."""

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
    """Check that what is needed is installed.

    Raises:
      InputError: it is not.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise InputError("--format stablehlo needs flatbuffers: pip install 'p2p_jax[export]'") from error


def write(exportable: Exportable, path: Path) -> None:
    """Write a translation as ``jax.export`` serializes it, and its metadata to ``metadata_path(path)``."""
    function = jax.jit(lambda images: exportable(images))
    exported = export.export(function, platforms=PLATFORMS)(exportable.images)
    path.write_bytes(exported.serialize())
    metadata_path(path).write_text(json.dumps(exportable.metadata, indent=2) + "\n")


def metadata_path(path: Path) -> Path:
    """Return the file beside a translation that holds its metadata."""
    return path.with_name(path.name + ".json")


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a written translation, compiled for the default device."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))
