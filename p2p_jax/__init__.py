"""p2p_jax: image-to-image translation with conditional GANs in JAX and Flax.

Importing it loads nothing: each name is loaded where it is first used. It needs JAX and Flax, never TensorFlow.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2p_jax import nets, published
    from p2p_jax.config import load as load_config
    from p2p_jax.errors import InputError, TrainingDivergedError
    from p2p_jax.inference import Translator
    from p2p_jax.objectives import Objective, losses
    from p2p_jax.objectives.cut import cut
    from p2p_jax.objectives.cyclegan import cyclegan
    from p2p_jax.objectives.pix2pix import pix2pix
    from p2p_jax.process.settings import prepare_process
    from p2p_jax.training.loop import train

__version__ = "0.1.0"
_PLACES = {
    "InputError": "p2p_jax.errors:InputError",
    "Objective": "p2p_jax.objectives:Objective",
    "TrainingDivergedError": "p2p_jax.errors:TrainingDivergedError",
    "Translator": "p2p_jax.inference:Translator",
    "cut": "p2p_jax.objectives:cut",
    "cyclegan": "p2p_jax.objectives:cyclegan",
    "load_config": "p2p_jax.config:load",
    "losses": "p2p_jax.objectives.losses",
    "nets": "p2p_jax.nets",
    "pix2pix": "p2p_jax.objectives:pix2pix",
    "prepare_process": "p2p_jax.process.settings:prepare_process",
    "published": "p2p_jax.published",
    "train": "p2p_jax.training.loop:train",
}
__all__ = [
    "InputError",
    "Objective",
    "TrainingDivergedError",
    "Translator",
    "cut",
    "cyclegan",
    "load_config",
    "losses",
    "nets",
    "pix2pix",
    "prepare_process",
    "published",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of ours, where it is first used."""
    place = _PLACES.get(name, f"p2p_jax.{name}")
    if name.startswith("_") or (name not in _PLACES and importlib.util.find_spec(place) is None):
        raise AttributeError(f"module 'p2p_jax' has no attribute {name!r}")
    module, _, attribute = place.partition(":")
    found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
