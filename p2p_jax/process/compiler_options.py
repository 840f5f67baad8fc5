"""XLA's options for programs on CPUs: they compile sooner, and run as fast."""

import functools
import os
from typing import Any

import jax

QUICK = {"xla_backend_optimization_level": 1}
"""LLVM optimises less: nearly all time of the networks is spent in ready-made products of matrices and convolutions."""


def on_cpu(**options: Any) -> dict[str, Any]:
    """Return those of XLA's options that it knows; none where the default device is not a CPU.

    Args:
      options: named as in XLA_FLAGS, without hyphens. What this variable sets stays.
    """
    if jax.default_backend() != "cpu":
        return {}
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given and _knows(name, value)}


@functools.cache
def _knows(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True
