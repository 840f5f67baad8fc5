"""Imports weights of other programs; exports, packs and uploads trained networks."""

from p2p_jax.interop.conversion import Converted, convert
from p2p_jax.interop.converted_config import Options
from p2p_jax.interop.exporting import Exported, export
from p2p_jax.interop.packing import Packed, pack
from p2p_jax.interop.pushing import Pushed, push_to_hub
from p2p_jax.interop.torch_release import Written, write_torch
from p2p_jax.interop.web.exporting import Page, export_web

__all__ = [
    "Converted",
    "Exported",
    "Options",
    "Packed",
    "Page",
    "Pushed",
    "Written",
    "convert",
    "export",
    "export_web",
    "pack",
    "push_to_hub",
    "write_torch",
]
