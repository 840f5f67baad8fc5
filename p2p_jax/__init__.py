"""p2p_jax: image-to-image translation with conditional GANs in JAX and Flax.

Importing it needs JAX and Flax, never TensorFlow.
"""

from p2p_jax import nets
from p2p_jax.config import load as load_config
from p2p_jax.errors import InputError, TrainingDivergedError
from p2p_jax.inference import Translator
from p2p_jax.objectives import Objective, cyclegan, losses, pix2pix
from p2p_jax.train import train

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "Objective",
    "TrainingDivergedError",
    "Translator",
    "cyclegan",
    "load_config",
    "losses",
    "nets",
    "pix2pix",
    "train",
]
