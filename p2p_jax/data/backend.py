"""TensorFlow, imported on first use: it takes seconds, and many accelerator machines have none."""

import functools
import os
from types import ModuleType

from p2p_jax.errors import InputError


@functools.cache
def tensorflow() -> ModuleType:
    """Return the tensorflow module, with accelerators hidden from it so that JAX keeps their memory.

    Raises:
      InputError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # nothing here gains from it, and it announces itself
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            "reading images needs TensorFlow, which is not installed: pip install 'p2p_jax[data]'"
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
