"""Using a trained run: as a function on arrays, on image files and on videos. Needs no TensorFlow."""

from p2p_jax.inference.translator import Translator

__all__ = ["Translator"]
