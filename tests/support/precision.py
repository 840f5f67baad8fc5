"""Arrays of a precision that JAX makes only when it is asked to."""

import contextlib

import jax


def precision(dtype):
    """Return a context in which JAX can make arrays of `dtype`."""
    if dtype == "float32":
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64(True)
