"""What a run is computed on: results are equal to the bit only where all of it is the same."""

import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

import jax

import p2p_jax
from p2p_jax.process import cache_folder

_SHOWN = {
    "devices": "devices",
    "device_kind": "kind of device",
    "processes": "processes",
    "cores": "usable cores",
    "processor": "processor",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "p2p_jax": "p2p_jax",
    "xla_flags": "XLA_FLAGS",
    "precision": "precision of products",
}


def found(precision: str) -> dict[str, Any]:
    """Return what this process computes on, as JSON holds it; `precision` is that of its products."""
    architecture, abilities, cores = cache_folder.processor().rsplit("-", 2)
    return {
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
        "processes": jax.process_count(),
        "cores": int(cores),
        "processor": f"{architecture}-{abilities}",
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "p2p_jax": p2p_jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "precision": precision,
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return one sentence on what a run is computed on now and was not before, "" if it is all the same."""
    changed = [name for name in _SHOWN if name in before and before[name] != now.get(name)]
    if not changed:
        return ""
    told = ", ".join(
        f"{_SHOWN[name]} {before[name] or 'none'} before, {now.get(name) or 'none'} now" for name in changed
    )
    return f"from here on, results are not bit-for-bit those of an uninterrupted run: {told}"
