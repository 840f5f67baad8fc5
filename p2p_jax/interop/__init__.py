"""Weights of other programs in, trained networks out, packed and put on a hub."""

from p2p_jax.interop.conversion import Converted, convert
from p2p_jax.interop.converted_config import Options
from p2p_jax.interop.exporting import Exported, export
from p2p_jax.interop.packing import Packed, pack
from p2p_jax.interop.pushing import Pushed, push_to_hub
from p2p_jax.interop.torch_release import Written, write_torch

__all__ = [
    "Converted",
    "Exported",
    "Options",
    "Packed",
    "Pushed",
    "Written",
    "convert",
    "export",
    "pack",
    "push_to_hub",
    "write_torch",
]
