"""Model files that were tampered with, byte by byte or with a digest that fits."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from p2p_jax.training import model_file


def raw(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file of the format by hand: 8 bytes, a header, and what lies behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    told = len(text) if length is None else length
    path.write_bytes(told.to_bytes(8, "little") + text + data)
    return path


def taken_apart(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a file, and what lies behind it."""
    contents = path.read_bytes()
    end = 8 + int.from_bytes(contents[:8], "little")
    return json.loads(contents[8:end]), contents[end:]


def changed(path: Path, target: Path, about: dict[str, Any] | None = None, arrays: Any = None) -> Path:
    """Write another model file, with other subjects or arrays and a digest that fits them.

    Args:
      path: of a good one.
      target: to be written.
      about: options that replace those of a subject, one level deep; another kind replaces the subject.
      arrays: a function that changes the arrays in place.
    """
    found = model_file.read(path)
    subjects, values = dict(found.about), dict(found.arrays)
    for name, value in (about or {}).items():
        old = subjects[name]
        subjects[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    if arrays:
        arrays(values)
    model_file.write(target, {name: np.asarray(value) for name, value in values.items()}, subjects)
    return target


def merged(config: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """Return a config with options of sections changed; a section keeps its others."""
    return config | {k: config[k] | v if isinstance(v, dict) else v for k, v in sections.items()}
