"""Precision of products and convolutions of float32 numbers, by name."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from p2p_jax.objectives.base import Objective

_NAMES = {"float32": "highest", "tf32": "high", "bfloat16": "default"}  # JAX's
_OURS = {"highest": "float32", "high": "tf32", "tensorfloat32": "tf32", "bfloat16_3x": "tf32", "default": "bfloat16"}


def with_precision(objective: Objective, config: ConfigDict) -> Objective:
    """Return an objective whose products are as exact as ``config.precision`` says; the same one if that is "auto".

    A product that says itself how exact it is, such as those of spectral norm, stays so.
    """
    if config.precision == "auto":
        return objective

    def exact(function: Any) -> Callable:
        @functools.wraps(function)
        def computed(*args: Any) -> Any:
            with jax.default_matmul_precision(_NAMES[config.precision]):
                return function(*args)

        return computed

    return Objective(*(exact(function) for function in objective))


def in_force(config: ConfigDict) -> str:
    """Return how exact products are on the devices at hand: "float64", "float32", "tf32" or "bfloat16".

    CPUs and older GPUs always compute float32. GPUs from NVIDIA's Ampere on have TF32 (10 bits of mantissa)
    for both "tf32" and "bfloat16". TPUs make bfloat16 products once, three times for "tf32", and six for "float32".
    """
    if config.dtype != "float32":
        return config.dtype
    asked = config.precision
    if asked == "auto":  # JAX_DEFAULT_MATMUL_PRECISION, if that is set
        options: Any = jax.config
        given = options.jax_default_matmul_precision or "default"
        asked = _OURS.get(given, given)
    device = jax.devices()[0]
    if device.platform == "tpu":
        return asked
    return "tf32" if asked != "float32" and _has_tf32(device) else "float32"


def _has_tf32(device: jax.Device) -> bool:
    version = str(getattr(device, "compute_capability", ""))  # "9.0" of NVIDIA, "gfx942" of AMD
    return device.platform != "cpu" and version.replace(".", "").isdecimal() and float(version) >= 8
