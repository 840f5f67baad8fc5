"""Weights of other programs in, trained networks out."""

from p2p_jax.interop.conversion import Converted, convert
from p2p_jax.interop.converted_config import Options
from p2p_jax.interop.exporting import Exported, export
from p2p_jax.interop.torch_release import Written, write_torch
from p2p_jax.interop.web.exporting import Page, export_web

__all__ = ["Converted", "Exported", "Options", "Page", "Written", "convert", "export", "export_web", "write_torch"]
